"""`client-ip scan` of a live cluster: what runs in it, who may read what, and who else writes a gateway."""

import json
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import facts_of, namespace_of
from tests.cli.command import run
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.parts.relay import Relay
from tests.unit.cli.test_printing import at_terminal

SCAN: Final = """
import sys
from webhook.cli.main import main
sys.argv = ["client-ip", "scan", *{arguments!r}]
main()
"""
READING: Final = re.compile(r"reading \w+: \d+")
PAUSE: Final = {"name": "app", "image": "registry.example.com/app:1"}


@pytest.fixture(scope="module")
def facts(control_plane: ControlPlane) -> Iterator[Api]:
    with facts_of(control_plane, "scan", ("scan", "scan-old")) as api:
        yield api


@pytest.fixture
def shop(facts: Api) -> str:
    return namespace_of(facts, f"scan-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")


def deployment(name: str, pool: str = "scan", **metadata: Any) -> dict[str, Any]:
    labels = {"app": name}
    spec = {"containers": [PAUSE], "nodeSelector": {"pool": pool}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **metadata},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def replica_set(owner: dict[str, Any], hash_: str) -> dict[str, Any]:
    name = f"{owner['metadata']['name']}-{hash_}"
    labels = {"app": owner["metadata"]["name"], "pod-template-hash": hash_}
    template = {**owner["spec"]["template"], "metadata": {"labels": labels}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "ownerReferences": [reference(owner)]},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def reference(owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def made_by(api: Api, owner: dict[str, Any], number: int, mode: str, *, namespace: str, **labels: str) -> None:
    """Create a pod that runs with its sidecar in *mode*, as *owner* would have made it."""
    env = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode}]
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{number}",
            "labels": labels,
            "annotations": {"sidecar.istio.io/status": "{}"},
            "ownerReferences": [reference(owner)],
        },
        "spec": {
            "nodeSelector": {"pool": "scan"},  # else chance decides whether TPROXY runs on a node that can't
            "initContainers": [{"name": "istio-init", "image": "p", "args": ["istio-iptables", "-m", mode]}],
            "containers": [PAUSE, {"name": "istio-proxy", "image": "p", "env": env}],
        },
    }
    made = api.create(document, namespace=namespace)
    api.patch_status("v1", "Pod", made["metadata"]["name"], {"phase": "Running"}, namespace=namespace)


def scanned(control_plane: ControlPlane, *arguments: str, kubeconfig: Path | None = None, code: int = 0) -> Any:
    options = ("--kubeconfig", str(kubeconfig or control_plane.kubeconfig), "-o", "json")
    return json.loads(run("scan", *options, *arguments, code=code).stdout)


def by_name(found: Any) -> dict[str, Any]:
    return {f"{row['kind']}/{row['name']}": row for row in found["rows"]}


def test_workloads_are_judged_now_and_after_a_restart(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """The ReplicaSet is never listed: the pod's labels tell its Deployment."""
    for name, pool, mode in (("web", "scan", "REDIRECT"), ("old", "scan-old", "REDIRECT"), ("new", "scan", "TPROXY")):
        labels = {"team": "a"} if name == "web" else {}
        made = facts.create(deployment(name, pool, labels=labels), namespace=shop)
        between = facts.create(replica_set(made, "7d4b9c"), namespace=shop)
        for number in range(3):
            made_by(facts, between, number, mode, namespace=shop, **{"app": name, "pod-template-hash": "7d4b9c"})
    found = scanned(control_plane, "-n", shop, "--fail-on", "lost", code=1)
    assert found["counts"]["preserved"] == 1
    rows = by_name(found)
    assert rows.keys() == {"Deployment/web", "Deployment/old"}
    web = rows["Deployment/web"]
    assert (web["advice"], web["owner"], web["pods"]) == (
        "restart",
        "a",
        {"all": 3, "lost": 3, "header": 0, "preserved": 0},
    )
    assert web["uid"] == facts.get("apps/v1", "Deployment", "web", namespace=shop)["metadata"]["uid"]
    assert rows["Deployment/old"]["reason"] == "incompatible-nodes"
    assert found["scope"]["cluster"] == facts.get("v1", "Namespace", "kube-system")["metadata"]["uid"]


def test_a_replica_set_of_another_controller_is_asked_for_its_maker(
    control_plane: ControlPlane, facts: Api, shop: str
) -> None:
    maker = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "canary", "uid": "0d4e6d2a-0000-4000-8000-000000000000"},
    }
    document = {**deployment("canary"), "kind": "ReplicaSet"}
    document["metadata"] = {"name": "canary-abc", "ownerReferences": [reference(maker)]}
    document["spec"]["template"]["metadata"]["labels"] |= {"rollouts-pod-template-hash": "abc"}
    made = facts.create(document, namespace=shop)
    made_by(facts, made, 1, "REDIRECT", namespace=shop, app="canary")
    row = by_name(scanned(control_plane, "-n", shop))["Rollout/canary"]
    assert (row["advice"], row["pods"]["lost"]) == ("restart", 1)


@pytest.mark.slow
def test_everything_is_read_in_pages(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """More pods than a page holds."""
    made = facts.create({**deployment("many"), "kind": "ReplicaSet"}, namespace=shop)
    for number in range(520):
        made_by(facts, made, number, "REDIRECT", namespace=shop, app="many")
    found = scanned(control_plane)
    row = by_name({"rows": [row for row in found["rows"] if row["namespace"] == shop]})["ReplicaSet/many"]
    assert row["pods"]["all"] == 520
    assert found["scope"].get("namespaces") is None


def grant(api: Api, name: str, *, namespace: str, pods_in: str) -> None:
    """Let a ServiceAccount read the facts, and pods in one namespace."""
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=namespace)
    rbac = "rbac.authorization.k8s.io"
    for kind, where, rules in (
        ("ClusterRole", None, [("", ["nodes", "namespaces"]), ("admissionregistration.k8s.io", ["*"])]),
        ("Role", pods_in, [("", ["pods"]), ("apps", ["deployments"])]),
    ):
        granted = [{"apiGroups": [group], "resources": names, "verbs": ["list", "watch"]} for group, names in rules]
        api.create(
            {"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": {"name": name}, "rules": granted}, namespace=where
        )
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": kind, "name": name},
            "subjects": [account],
        }
        api.create(binding, namespace=where)


@pytest.mark.slow
def test_what_may_not_be_read_is_named(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    made = facts.create(deployment("web"), namespace=shop)
    made_by(facts, made, 1, "REDIRECT", namespace=shop, app="web")
    other = namespace_of(facts, f"{shop}-b", preserve="enabled", injection="enabled")
    grant(facts, f"reader-{shop}", namespace=shop, pods_in=shop)
    kubeconfig = control_plane.service_account_kubeconfig(shop, f"reader-{shop}")
    found = scanned(control_plane, kubeconfig=kubeconfig)
    unreadable = found["scope"]["unreadable"]
    assert "pods is forbidden" in unreadable[other]
    assert "cronjobs.batch is forbidden" in unreadable[f"{shop}: cronjobs"]
    assert shop not in unreadable
    assert [row["name"] for row in found["rows"]] == ["web"]
    done = run("scan", "--kubeconfig", str(kubeconfig), "-n", other, code=2)
    assert "no pods can be read" in done.stderr
    done = run("scan", "--kubeconfig", str(kubeconfig), "-n", shop, "-n", other)
    assert f"not read: {other}: 403" in done.stderr


def test_who_else_writes_a_gateway_is_named(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """managedFields as the API server keeps them: who applies the field states it, who updates wrote it once."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": shop, "labels": {"istio": "ingressgateway"}},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Cluster",
            "selector": {"app": "gateway"},
            "ports": [{"port": 80}],
        },
    }
    facts.apply(service, field_manager="argocd-controller")
    facts.patch("v1", "Service", "gateway", {"spec": {"externalTrafficPolicy": "Local"}}, namespace=shop)
    facts.patch("v1", "Service", "gateway", {"spec": {"externalTrafficPolicy": "Cluster"}}, namespace=shop)
    facts.apply(service, field_manager="argocd-controller")
    row = by_name(scanned(control_plane, "-n", shop))["Service/gateway"]
    assert (row["advice"], row["reason"], row["now"]["outcome"]) == ("restart", "local", "lost")
    names = {(each["name"], each["operation"]) for each in row["gateway"]["managers"]}
    assert ("argocd-controller", "Apply") in names
    assert any("by server-side apply, and will set it again" in warning for warning in row["gateway"]["warnings"])


def test_it_says_who_looked(control_plane: ControlPlane, facts: Api, shop: str) -> None:
    """As the API server calls them: whatever the kubeconfig's user is called."""
    scope = scanned(control_plane, "-n", shop)["scope"]
    assert (scope["user"], scope["context"]) == ("admin", "test")
    page = run("scan", "--kubeconfig", str(control_plane.kubeconfig), "-n", shop, "-o", "html").stdout
    assert "<dt>By</dt><dd>admin, context test</dd>" in page
    assert f"<dt>Cluster</dt><dd>{scope['cluster']}</dd>" in page


def test_a_terminal_sees_how_far_it_is(control_plane: ControlPlane, facts: Api, shop: str, tmp_path: Path) -> None:
    """The list of pods is held until the terminal shows that pods are read, after a first page that was refused."""
    seen, refused = threading.Event(), threading.Event()

    def hold(_: str, path: str) -> None:
        if path.startswith("/api/v1/pods?") and refused.is_set():
            seen.wait(50)

    def busy(_: str, path: str) -> int | None:
        if not path.startswith("/api/v1/pods?") or refused.is_set():
            return None
        refused.set()
        return 1

    with Relay(control_plane, tmp_path, refuse=busy, held=hold) as relay:
        program = SCAN.format(arguments=["--kubeconfig", str(relay.kubeconfig), "--output-file", str(tmp_path / "out")])
        shown = at_terminal(program, 100, seen=lambda text: seen.set() if READING.search(text) else None)
    assert seen.is_set()
    assert refused.is_set()
    assert "━" in shown, "a bar"
    assert READING.search(shown)
    assert "workload" in (tmp_path / "out").read_text()


def test_a_cluster_that_does_not_answer_is_no_verdict(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    assert "the cluster cannot be read" in run("scan", "--kubeconfig", str(path), code=2).stderr
