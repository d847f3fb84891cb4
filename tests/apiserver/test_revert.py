"""`client-ip revert` against a real API server: what is ours goes back, and nothing else."""

import json
import secrets
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.apiserver.deployed import namespace_of, pod
from tests.parts.api import Api
from tests.parts.kube import ControlPlane

VARIANTS_ARE_SLOW: Final = True

METHOD = "client-ip.dev/method"
PRESERVE = "client-ip.dev/preserve"


def revert(plane: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webhook.cli", "revert", "--kubeconfig", str(plane.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def local(name: str, **labels: str) -> dict[str, Any]:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "externalTrafficPolicy": "Local"}
    annotations = {"client-ip.dev/reason": "eni-backend"}
    metadata = {"name": name, "labels": {key.replace("_", "/"): value for key, value in labels.items()}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "annotations": annotations}, "spec": spec}


OURS = {"client-ip.dev_method": "local"}


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    return control_plane.client()


@pytest.fixture
def out(api: Api) -> str:
    """A namespace that opted out: our Service, one of its owner's, and pods that we decided."""
    name = namespace_of(api, f"out-{secrets.token_hex(3)}")
    api.create(local("ours", **OURS), namespace=name)
    api.create(local("theirs"), namespace=name)
    for number, method in enumerate(("tproxy", "tproxy", "x-forwarded-for")):
        made = pod(f"web-{number}")
        made["metadata"]["labels"] = {METHOD: method, "pod-template-hash": "5d8f"}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f", "uid": "1", "controller": True}
        made["metadata"]["ownerReferences"] = [owner]
        api.create(made, namespace=name)
    bare = pod("bare")
    bare["metadata"]["labels"] = {METHOD: "tproxy"}
    api.create(bare, namespace=name)
    api.create(pod("plain"), namespace=name)
    return name


def policy(api: Api, namespace: str, name: str = "ours") -> tuple[str, dict[str, str]]:
    found = api.get("v1", "Service", name, namespace=namespace)
    return found["spec"]["externalTrafficPolicy"], found["metadata"].get("labels", {})


def test_what_undoes_it_is_printed_and_nothing_is_changed(control_plane: ControlPlane, api: Api, out: str) -> None:
    done = revert(control_plane, "-n", out)
    assert (done.returncode, done.stderr) == (0, "")
    patch = {
        "metadata": {"labels": {METHOD: None}, "annotations": {"client-ip.dev/reason": None}},
        "spec": {"externalTrafficPolicy": "Cluster"},
    }
    written = json.dumps(patch, separators=(",", ":"))
    assert done.stdout.splitlines() == [
        "# Services that the webhook set to Local:",
        f"kubectl patch service ours -n {out} --type merge -p '{written}'",
        "# Pods keep their mode until they are recreated. After you have opted out, run:",
        f"kubectl rollout restart deployment/web -n {out}  # 3 pods",
        f"# Pod {out}/bare (1 pod): delete the pods, or create it again",
    ]
    assert policy(api, out) == ("Local", {METHOD: "local"})


def test_the_printed_command_undoes_it(control_plane: ControlPlane, api: Api, out: str) -> None:
    (command,) = [line for line in revert(control_plane, "-n", out).stdout.splitlines() if "patch service" in line]
    _, where, patch = command.partition(" --type merge -p ")
    assert where
    control_plane.kubectl("patch", "service", "ours", "-n", out, "--type", "merge", "-p", patch.strip("'"))
    assert policy(api, out) == ("Cluster", {})


def test_it_is_done_where_it_is_asked_for(control_plane: ControlPlane, api: Api, out: str) -> None:
    tried = revert(control_plane, "-n", out, "--apply", "--dry-run")
    assert (tried.returncode, tried.stdout.splitlines()[1]) == (0, f"service/ours -n {out}: would be Cluster")
    assert policy(api, out)[0] == "Local"
    done = revert(control_plane, "-n", out, "--apply")
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, f"service/ours -n {out}: is Cluster")
    assert policy(api, out) == ("Cluster", {})
    assert "annotations" not in api.get("v1", "Service", "ours", namespace=out)["metadata"]
    assert policy(api, out, "theirs") == ("Local", {})
    again = revert(control_plane, "-n", out, "--apply")
    assert "Services" not in again.stdout


@pytest.mark.parametrize("where", ["namespace", "object"])
def test_what_is_opted_in_is_left_until_it_opts_out(control_plane: ControlPlane, api: Api, where: str) -> None:
    labels = {"preserve": "enabled"} if where == "namespace" else {}
    name = namespace_of(api, f"in-{secrets.token_hex(3)}", **labels)
    own = {"client-ip.dev_preserve": "enabled"} if where == "object" else {}
    api.create(local("ours", **OURS, **own), namespace=name)
    done = revert(control_plane, "-n", name, "--apply")
    assert done.returncode == 1
    assert "is opted in, and would be Local again at its next update" in done.stdout
    assert policy(api, name)[0] == "Local"
    done = revert(control_plane, "-n", name, "--apply", "--opt-out")
    assert done.returncode == 0
    assert policy(api, name) == ("Cluster", {PRESERVE: "disabled"})


def test_a_cluster_without_our_work_is_said_to_be_one(control_plane: ControlPlane, api: Api) -> None:
    name = namespace_of(api, f"none-{secrets.token_hex(3)}")
    done = revert(control_plane, "-n", name)
    assert (done.returncode, done.stdout) == (
        0,
        "No object has the label client-ip.dev/method: there is nothing to revert.\n",
    )


def test_the_whole_cluster_is_looked_at_where_no_namespace_is_named(
    control_plane: ControlPlane, api: Api, out: str
) -> None:
    done = revert(control_plane)
    assert f"kubectl patch service ours -n {out} " in done.stdout


def test_a_namespace_that_is_none_is_one_clear_line(control_plane: ControlPlane) -> None:
    done = revert(control_plane, "-n", "nowhere")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
