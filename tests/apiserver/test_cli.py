"""The command line against a cluster: `check` by its facts, `explain` of what runs in it."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.apiserver.deployed import facts_of, namespace_of, pod
from tests.cli.command import run
from tests.parts.api import Api
from tests.parts.kube import ControlPlane


@pytest.fixture(scope="module")
def facts(control_plane: ControlPlane) -> Iterator[Api]:
    with facts_of(control_plane, "cli", ("general", "legacy")) as api:
        yield api


@pytest.fixture
def shop(facts: Api) -> str:
    return namespace_of(facts, f"cli-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("web", **spec)["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


def test_check_asks_the_cluster(control_plane: ControlPlane, shop: str) -> None:
    given = yaml.safe_dump_all([pod("a", nodeSelector={"pool": "general"}), pod("b", nodeSelector={"pool": "legacy"})])
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", shop, "-o", "json", "--strict", "-")
    found = json.loads(run("check", *options, given=given, code=1).stdout)
    assert [each["reason"] for each in found] == ["tproxy", "incompatible-nodes"]
    assert "cli-centos" in found[1]["cause"]


@pytest.mark.slow
def test_explain_sets_the_template_beside_what_runs(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """Why does my pod still see 127.0.0.6? It was made before the namespace was labelled."""
    made = facts.create(deployment(nodeSelector={"pool": "general"}), namespace=shop)
    uid = made["metadata"]["uid"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "controller": True}
    old = pod("web-1", nodeSelector={"pool": "general"})
    old["metadata"] |= {
        "labels": {"app": "web"},
        "annotations": {"sidecar.istio.io/status": "{}"},
        "ownerReferences": [owner],
    }
    old["spec"]["containers"].append(
        {"name": "istio-proxy", "image": "p", "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT"}]}
    )
    rules = {"name": "istio-init", "image": "p", "args": ["istio-iptables", "-m", "REDIRECT", "-b", "*"]}
    old["spec"]["initContainers"] = [rules]
    facts.create(old, namespace=shop)
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", shop)
    for name in ("deployment/web", "deploy/web", "pod/web-1", "po/web-1"):
        printed = run("explain", *options, name).stdout
        assert "→ 12. then TPROXY" in printed
        assert "its pods are stored as:" in printed
        assert "+    sidecar.istio.io/interceptionMode: TPROXY" in printed
        assert "web-1" in printed
        assert "its proxy runs in REDIRECT mode: the application sees 127.0.0.6" in printed
        assert "rollout restart" in printed
    (element,) = json.loads(run("explain", *options, "-o", "json", "deploy/web").stdout)
    assert element["reason"] == "tproxy"
    (running,) = element["pods"]
    assert (running["name"], running["mode"], running["method"]) == ("web-1", "REDIRECT", "")


def test_explain_says_what_is_not_there(control_plane: ControlPlane, shop: str) -> None:
    done = run("explain", "--kubeconfig", str(control_plane.kubeconfig), "-n", shop, "deploy/missing", code=2)
    assert f"no Deployment missing in namespace {shop}" in done.stderr


def test_rendered_manifests_are_taken_in(control_plane: ControlPlane, facts: Api) -> None:
    """What `client-ip render` prints is what kubectl applies."""
    for name in ("client-ip-system", "istio-system"):
        if facts.find("v1", "Namespace", name) is None:
            facts.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    printed = run("render", "crd", "rbac").stdout
    # Other tests may have made the same objects in this cluster, as somebody else.
    options = ("--server-side", "--force-conflicts", "--dry-run=server")
    said = control_plane.kubectl("apply", *options, "-f", "-", text=printed)
    assert "customresourcedefinition.apiextensions.k8s.io/clientippolicies.client-ip.dev" in said
    assert "serviceaccount/client-ip-webhook" in said


def test_a_command_that_reads_writes_nothing(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """A policy's status is the server's to write, whatever version of the command looks at it, and as whom."""
    metadata = {"name": "cli-read"}
    spec = {"mode": "Audit", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop}}}
    policy = {"apiVersion": "client-ip.dev/v1alpha1", "kind": "ClientIPPolicy", "metadata": metadata, "spec": spec}
    facts.create(policy)
    given = yaml.safe_dump(pod("a", nodeSelector={"pool": "general"}))
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", shop, "-o", "json", "-")
    (found,) = json.loads(run("check", *options, given=given).stdout)
    stored = facts.get("client-ip.dev/v1alpha1", "ClientIPPolicy", "cli-read")
    facts.delete("client-ip.dev/v1alpha1", "ClientIPPolicy", "cli-read")
    assert found["mode"] == "audit"
    assert "status" not in stored
