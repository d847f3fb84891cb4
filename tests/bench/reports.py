"""
What reports cost at 1,000 namespaces: `python -m tests.bench.reports` (a real etcd and kube-apiserver; five minutes).

Each namespace has five Deployments, two of which can't be preserved. The command runs as the chart's CronJob runs it:
once where no report is there, again where nothing has changed, and once more after a change in ten namespaces.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

from tests.apiserver.deployed import render
from tests.apiserver.reportcrds import crd
from tests.parts.api import Api, ApiError
from tests.parts.kube import VERSIONS, ControlPlane
from tests.serve.conftest import CLUSTER
from webhook.running.as_report import OPEN_REPORTS

NAMESPACES: Final = 1_000
WORKLOADS: Final = 5
LOST: Final = 2
CHANGED: Final = 10
READY_SECONDS: Final = 60.0


def deployment(name: str, pool: str) -> dict[str, Any]:
    """Return a Deployment on nodes of *pool*."""
    labels = {"app": name}
    spec = {"containers": [{"name": "app", "image": "registry.example.com/app:1"}], "nodeSelector": {"pool": pool}}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def namespace(number: int) -> str:
    """Return the name of a namespace."""
    return f"team-{number:04}"


def fill(api: Api, number: int) -> None:
    """Make a namespace and what runs in it."""
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
    name = namespace(number)
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for each in range(WORKLOADS):
        api.create(deployment(f"app-{each}", "legacy" if each < LOST else "general"), namespace=name)


def injector() -> dict[str, Any]:
    """Return Istio's injector, which nobody serves."""
    document: dict[str, Any] = yaml.safe_load((CLUSTER / "istio.yaml").read_text())
    for webhook in document["webhooks"]:
        webhook["clientConfig"] = {"url": "https://127.0.0.1:1/inject"}
        webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore"}
    return document


def written(plane: ControlPlane) -> int:
    """Return how many writes of reports the API server has had."""
    verbs = ("POST", "PUT", "PATCH", "DELETE")
    return sum(round(plane.metric("apiserver_request_total", resource="reports", verb=verb)) for verb in verbs)


def run(plane: ControlPlane, what: str) -> None:
    """Run the command, and print what it cost."""
    before, begun = written(plane), time.monotonic()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "webhook.cli", "scan", "--kubeconfig", str(plane.kubeconfig), "--write-reports"]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, check=True)
    seconds = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(
        f"{what:<24} {written(plane) - before:>6} writes {seconds:>7.1f} s {cpu:>6.1f} s of CPU   {done.stderr.strip()}"
    )


def main() -> None:
    """Fill a cluster, and run the command three times."""
    with tempfile.TemporaryDirectory(prefix="client-ip-reports-") as folder:
        plane = ControlPlane(VERSIONS[0], Path(folder), audit_policy=None)
        with plane:
            api = plane.client()
            for document in (*render("crd"), injector(), crd(OPEN_REPORTS)):
                api.apply(document)
            plane.add_node("ubuntu-1", labels={"pool": "general"}, os_image="Ubuntu 22.04.4 LTS")
            plane.add_node("centos-1", labels={"pool": "legacy"}, os_image="CentOS Linux 7 (Core)")
            plane.wait_until(lambda: _served(api), what="OpenReports", seconds=READY_SECONDS)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda number: fill(api, number), range(NAMESPACES)))
            run(plane, "no report is there")
            stored = api.request("GET", OPEN_REPORTS.path())["items"]
            sizes = [len(json.dumps(each, separators=(",", ":"))) for each in stored]
            print(f"{len(stored)} reports, {sum(sizes):,} bytes as the API server has them, {max(sizes):,} the largest")
            run(plane, "nothing changed")
            for number in range(CHANGED):
                api.create(deployment("new", "legacy"), namespace=namespace(number))
            run(plane, f"{CHANGED} namespaces changed")


def _served(api: Api) -> bool:
    try:
        return bool(api.request("GET", OPEN_REPORTS.path()))
    except ApiError:
        return False


if __name__ == "__main__":
    main()
