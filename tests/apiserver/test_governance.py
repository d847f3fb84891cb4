"""
The page on governance, walked as it stands: a clean cluster, the commands that it prints, in a reader's own order.

The walk from audit to enforce comes first, since it installs; then what the page says of guard, final state and roles.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.reportcrds import crd
from tests.cli.command import BIN
from tests.docs.commands import joined
from tests.docs.pages import Line, lines, spans
from tests.parts.api import Api
from tests.parts.cache import ROOT
from tests.parts.helm import helm_program
from tests.parts.kube import ControlPlane
from webhook.running.as_report import OPEN_REPORTS

PAGE: Final = ROOT / "docs" / "governance.md"
WALK: Final = "## From audit to enforce"
PROGRAMS: Final = ("client-ip ", "kubectl ", "helm ")


def commands() -> list[str]:
    """Return the page's commands: those of the walk first. What stands in a sentence is mostly a part of one."""
    shown = [line for line in lines(PAGE) if line.text.startswith("    ") or "`client-ip explain" in line.text]
    texts = (Line(each.path, each.number, (spans(each.text) or [each.text])[0].strip()) for each in shown)
    found = [line for line in joined(texts) if line.text.startswith(PROGRAMS)]
    start = PAGE.read_text().splitlines().index(WALK)
    return [line.text for line in sorted(found, key=lambda line: line.number <= start)]


class Reader:
    """Somebody with a cluster, a checkout, and a shell."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.api: Api = plane.client()
        self.folder = folder / "reader"
        tools = folder / "bin"
        for path in (self.folder, tools):
            path.mkdir()
        for name in ("deploy", "examples"):
            (self.folder / name).symlink_to(ROOT / name)
        (tools / "kubectl").symlink_to(plane.program("kubectl"))
        (tools / "helm").symlink_to(helm_program())
        clean = {key: each for key, each in os.environ.items() if not key.startswith(("CLIENT_IP_", "HELM_", "KUBE"))}
        found = os.pathsep.join(map(str, (tools, BIN, os.environ["PATH"])))
        self.environment = {**clean, "PATH": found, "HOME": str(self.folder), "KUBECONFIG": str(plane.kubeconfig)}

    def run(self, command: str) -> str:
        """Run a line of shell, which must succeed, and return what it printed."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-ec", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A cluster with a shop in it, a mesh's namespace, and OpenReports; nothing of ours."""
    with ControlPlane("1.37", tmp_path / "kube") as plane:
        made = Reader(plane, tmp_path)
        for name in ("shop", "istio-system"):
            made.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        made.api.create(crd(OPEN_REPORTS))
        plane.add_node("node-1", os_image="Ubuntu 22.04.4 LTS")
        labels = {"app": "checkout"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "i"}]}}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "checkout"}}
        made.api.create(
            {**deployment, "spec": {"selector": {"matchLabels": labels}, "template": template}}, namespace="shop"
        )
        plane.wait_until(lambda: made.api.request("GET", OPEN_REPORTS.path()), what="OpenReports", seconds=60)
        yield made


@pytest.mark.slow
def test_every_command_of_the_page_works_as_printed(reader: Reader) -> None:
    said = {command: _after(reader, command) for command in commands()}
    assert len(said) > 12, "the page's commands were found"

    def of(*words: str) -> str:
        (found,) = (each for command, each in said.items() if all(word in command for word in words))
        return found

    assert "1 workload" in of("client-ip scan -n shop")
    assert "since " in of("--baseline")
    assert "client-ip" in of("kubectl get reports"), "the CronJob's report is there"
    assert (reader.folder / "report.html").read_text().startswith("<!doctype html>")
    bindings = reader.api.list("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding")
    names = {each["metadata"]["name"] for each in bindings}
    assert "namespace.final-state.client-ip.dev" in names
    assert "opt-out.client-ip.dev" not in names, "the way out of the guard"
    labels = reader.api.get("v1", "Namespace", "shop")["metadata"]["labels"]
    assert labels["client-ip.dev/preserve"] == "enabled"


def _after(reader: Reader, command: str) -> str:
    """Run *command*; before the reports are looked at, the CronJob's own command runs, as nobody does here."""
    if command.startswith("kubectl get reports"):
        job: Any = reader.api.get("batch/v1", "CronJob", "client-ip-scan", namespace="client-ip-system")
        container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        arguments = " ".join(container["args"])
        reader.run(f"client-ip {arguments} --jitter-seconds 0")
    return reader.run(command)
