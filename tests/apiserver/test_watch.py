"""Facts of a real cluster: listed, watched, and right again after whatever an API server does to its clients."""

import json
import random
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.deployed import OWN_NAMESPACE, render
from tests.apiserver.watching import wait_for, watching
from tests.parts.kube import ControlPlane, write_kubeconfig
from webhook.facts.kube import connect
from webhook.facts.watch import ClusterSource
from webhook.rules import wellknown
from webhook.rules.policy import BUILT_IN

CENTOS = "CentOS Linux 7 (Core)"
UBUNTU = "Ubuntu 24.04.3 LTS"
CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "clientippolicies.client-ip.dev")
POLICY = (wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND)


@pytest.fixture
def crd(control_plane: ControlPlane) -> Iterator[None]:
    """The CRD, established, without a policy."""
    _establish(control_plane)
    yield
    _forget(control_plane)


@pytest.fixture
def no_crd(control_plane: ControlPlane) -> Iterator[None]:
    """A cluster that has never heard of our policies."""
    _forget(control_plane)
    yield
    _forget(control_plane)


def _establish(plane: ControlPlane) -> None:
    (document,) = render("crd")
    client = plane.client()
    client.apply(document)

    def served() -> bool:
        conditions = client.get(*CRD)["status"].get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    plane.wait_until(served, what="the CRD to be served")


def _forget(plane: ControlPlane) -> None:
    client = plane.client()
    if client.find(*CRD) is not None:
        client.delete(*CRD)
        plane.wait_until(lambda: client.find(*CRD) is None, what="the CRD to be gone")


def _policy(name: str, **spec: Any) -> dict[str, Any]:
    api_version, kind = POLICY
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {"mode": "Enforce", **spec}}


def _accepted(plane: ControlPlane, name: str) -> dict[str, Any]:
    return _condition(plane, name, "Accepted")


def _condition(plane: ControlPlane, name: str, kind: str) -> dict[str, Any]:
    found = plane.client().get(*POLICY, name).get("status", {}).get("conditions", [])
    condition: dict[str, Any] = next((each for each in found if each["type"] == kind), {})
    return condition


def _write_node(plane: ControlPlane, name: str, os_image: str, **labels: str) -> None:
    """Two writes of a node, and no client of its own: this is done a thousand times."""
    client = plane.client()
    client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    client.patch_status("v1", "Node", name, {"nodeInfo": _info(os_image)})


def _info(os_image: str) -> dict[str, str]:
    fields = ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion")
    more = ("kubeletVersion", "machineID", "operatingSystem", "systemUUID")
    return {**dict.fromkeys((*fields, *more), ""), "osImage": os_image, "operatingSystem": "linux"}


def _as_stored(plane: ControlPlane) -> dict[str, bool]:
    """Return by name whether a node supports TPROXY, from what the API server lists now."""
    images = {each["metadata"]["name"]: each for each in plane.client().list("v1", "Node")}
    return {name: "CentOS" not in each["status"]["nodeInfo"]["osImage"] for name, each in images.items()}


def _as_known(source: ClusterSource) -> dict[str, bool]:
    nodes = source.snapshot.nodes
    supported = set(nodes.names(nodes.supported))
    return {name: name in supported for name in nodes.names(nodes.everything)}


def _delete_nodes(plane: ControlPlane, prefix: str) -> None:
    client = plane.client()
    for node in client.list("v1", "Node"):
        if node["metadata"]["name"].startswith(prefix):
            client.delete("v1", "Node", node["metadata"]["name"])


@pytest.mark.slow
def test_more_nodes_than_a_page_holds_are_all_there(control_plane: ControlPlane) -> None:
    def write(number: int) -> None:
        _write_node(control_plane, f"paged-{number}", CENTOS if number % 3 == 0 else UBUNTU, pool=f"p{number % 7}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(600)))
    with watching(control_plane.kubeconfig) as source:
        assert _as_known(source) == _as_stored(control_plane)
        assert sum(name.startswith("paged-") for name in _as_known(source)) == 600
    _delete_nodes(control_plane, "paged-")


@pytest.mark.slow
def test_nodes_that_churn_end_as_they_are_stored(control_plane: ControlPlane) -> None:
    dice = random.Random(7)  # noqa: S311  # reproducible, no secret
    client = control_plane.client()
    with watching(control_plane.kubeconfig) as source:
        for number in range(300):
            name = f"churn-{dice.randrange(12)}"
            if client.find("v1", "Node", name) is None:
                _write_node(control_plane, name, dice.choice((CENTOS, UBUNTU)), round=str(number))
            elif dice.random() < 0.3:
                client.delete("v1", "Node", name)
            else:
                client.patch_status("v1", "Node", name, {"nodeInfo": _info(dice.choice((CENTOS, UBUNTU)))})
                client.patch("v1", "Node", name, {"metadata": {"labels": {"round": str(number)}}})
        wait_for(lambda: _as_known(source) == _as_stored(control_plane), lambda: _as_known(source))
    _delete_nodes(control_plane, "churn-")


@pytest.mark.slow
def test_without_the_crd_the_built_in_policy_applies_and_a_late_crd_is_found(
    control_plane: ControlPlane,
    no_crd: None,
) -> None:
    client = control_plane.client()
    with watching(control_plane.kubeconfig) as source:
        assert source.snapshot.policies.default == BUILT_IN
        _establish(control_plane)
        client.create(_policy("default", pods={"fallback": "XForwardedFor"}))
        wait_for(lambda: source.snapshot.policies.default != BUILT_IN, source.ages)
        wait_for(lambda: _accepted(control_plane, "default").get("status") == "True")
        _forget(control_plane)
        wait_for(lambda: source.snapshot.policies.default == BUILT_IN, source.ages)
        assert source.missing() == []


def test_a_policy_that_only_we_can_refuse_is_marked_with_the_path(control_plane: ControlPlane, crd: None) -> None:
    client = control_plane.client()
    with watching(control_plane.kubeconfig) as source:
        wrong = {
            "name": "old",
            "osImage": "CentOS*",
            "tproxy": "Unsupported",
            "selector": {"matchLabels": {"a b": "c"}},
        }
        client.create(_policy("default", nodes={"rules": [wrong]}))
        wait_for(lambda: _accepted(control_plane, "default").get("status") == "False", lambda: source.policy_errors)
        told = _accepted(control_plane, "default")
        assert told["reason"] == "Invalid"
        assert "spec.nodes.rules[0].selector.matchLabels" in told["message"]
        wrong["selector"] = {"matchLabels": {"a": "c"}}
        client.apply(_policy("default", nodes={"rules": [wrong]}))
        wait_for(lambda: _accepted(control_plane, "default").get("status") == "True", lambda: source.policy_errors)
        assert _accepted(control_plane, "default")["observedGeneration"] == 2
        assert source.policy_errors == {}


@pytest.mark.slow
def test_an_exception_that_ends_is_told_as_it_ends(control_plane: ControlPlane, crd: None) -> None:
    """Nobody writes to the policy: the time alone changes its condition."""
    client = control_plane.client()
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=6)
    exception = {
        "name": "legacy",
        "owner": "team-shop",
        "reason": "reads the PROXY header",
        "expires": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "selector": {"matchLabels": {"app": "web"}},
    }
    client.create(_policy("shop", exceptions=[exception]))

    def told() -> tuple[str, str]:
        found = _condition(control_plane, "shop", "ExceptionsEnding")
        return found.get("reason", ""), found.get("message", "")

    with watching(control_plane.kubeconfig):
        wait_for(lambda: told() == ("Ending", f"legacy ends {exception['expires']} (team-shop)"), told)
        wait_for(lambda: told() == ("Ended", f"legacy ended {exception['expires']} (team-shop)"), told)
        assert datetime.now(UTC) >= end
        assert _accepted(control_plane, "shop")["status"] == "True"
        assert client.get(*POLICY, "shop")["metadata"]["generation"] == 1
        client.patch(*POLICY, "shop", {"spec": {"exceptions": None}})
        wait_for(lambda: told() == ("NoneEnding", "no exception ends within 7 days"), told)
        assert _condition(control_plane, "shop", "ExceptionsEnding")["status"] == "False"


@pytest.mark.slow
def test_a_status_that_is_right_is_written_once_however_many_replicas(control_plane: ControlPlane, crd: None) -> None:
    control_plane.client().create(_policy("once"))

    def writes() -> int:
        events = control_plane.audit_events(verb="patch", objectRef__subresource="status", objectRef__name="once")
        return len(events)

    with watching(control_plane.kubeconfig):
        wait_for(lambda: _accepted(control_plane, "once").get("status") == "True")
        wait_for(lambda: writes() == 1, writes)
    with watching(control_plane.kubeconfig) as second:
        wait_for(lambda: "once" in second.collector.stored_policies)
        control_plane.client().patch(*POLICY, "once", {"metadata": {"labels": {"seen": "by-both"}}})
        control_plane.client().patch(*POLICY, "once", {"spec": {"priority": 5}})
        wait_for(lambda: _accepted(control_plane, "once").get("observedGeneration") == 2)
        wait_for(lambda: writes() == 2, writes)


@pytest.mark.slow
def test_other_node_rules_classify_all_nodes_anew(control_plane: ControlPlane, crd: None) -> None:
    client = control_plane.client()
    _write_node(control_plane, "ruled-1", "Rocky Linux 8.10")
    with watching(control_plane.kubeconfig) as source:
        assert _as_known(source)["ruled-1"]
        rule = {"name": "rocky", "osImage": "Rocky Linux 8*", "tproxy": "Unsupported"}
        client.create(_policy("default", nodes={"rules": [rule]}))
        wait_for(lambda: not _as_known(source)["ruled-1"], lambda: _as_known(source))
        client.delete(*POLICY, "default")
        wait_for(lambda: _as_known(source)["ruled-1"], lambda: _as_known(source))
    client.create(_policy("default", nodes={"rules": [rule]}))
    # Policies and nodes are listed side by side: whichever is first, the rules count from the first answer on.
    for _ in range(5):
        with watching(control_plane.kubeconfig) as source:
            assert source.snapshot.nodes.rules == source.snapshot.policies.default.node_rules
            assert not _as_known(source)["ruled-1"]
    client.delete("v1", "Node", "ruled-1")


@pytest.mark.slow
def test_a_lost_api_server_changes_nothing_but_the_age(control_plane: ControlPlane) -> None:
    _write_node(control_plane, "kept-1", UBUNTU)
    with watching(control_plane.kubeconfig) as source:
        control_plane.stop_api_server(crash=True)
        wait_for(lambda: min(source.ages().values()) > 2, source.ages)
        assert _as_known(source)["kept-1"]
        assert source.missing() == []
        control_plane.start_api_server()
        wait_for(lambda: max(source.ages().values()) == 0, source.ages)
        control_plane.client().delete("v1", "Node", "kept-1")
        wait_for(lambda: "kept-1" not in _as_known(source), source.ages)


@pytest.mark.slow
def test_a_compacted_version_forces_a_list_that_sees_what_was_missed(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    _write_node(control_plane, "missed-1", UBUNTU)
    _write_node(control_plane, "missed-2", UBUNTU)
    cut_off = connect(str(control_plane.kubeconfig), None)
    with watching(cut_off) as source:
        reached = cut_off.access
        cut_off.access = replace(reached, server="https://127.0.0.1:1")
        control_plane.restart_api_server(crash=True)
        wait_for(lambda: min(source.ages().values()) > 0, source.ages)
        client.delete("v1", "Node", "missed-1")
        client.patch_status("v1", "Node", "missed-2", {"nodeInfo": _info(CENTOS)})
        control_plane.compact()
        control_plane.restart_api_server(crash=True)  # its watch cache forgets what etcd no longer knows
        assert "missed-1" in _as_known(source)
        lists = _requests(control_plane, "LIST")
        cut_off.access = reached
        wait_for(lambda: _as_known(source) == _as_stored(control_plane), source.ages)
        wait_for(lambda: max(source.ages().values()) == 0, source.ages)
        assert _requests(control_plane, "LIST") > lists
    client.delete("v1", "Node", "missed-2")


def _requests(plane: ControlPlane, verb: str) -> float:
    return plane.metric("apiserver_request_total", resource="nodes", verb=verb)


@pytest.mark.parametrize("source_of_tokens", ["tokenFile", "exec"])
@pytest.mark.slow
def test_a_token_that_was_replaced_is_read_again(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    source_of_tokens: str,
) -> None:
    reader = _reader(control_plane, namespace)
    token = tmp_path / "token"
    token.write_text(reader())
    kubeconfig = tmp_path / "kubeconfig"
    _write_kubeconfig(control_plane, kubeconfig, token, source_of_tokens)
    with watching(kubeconfig) as source:
        fresh = reader()  # from now on the first token is nobody's
        control_plane.restart_api_server(crash=True)
        wait_for(lambda: min(source.ages().values()) > 0, source.ages)
        token.write_text(fresh)
        wait_for(lambda: max(source.ages().values()) == 0, source.ages)
        _write_node(control_plane, "renewed-1", UBUNTU)
        wait_for(lambda: "renewed-1" in _as_known(source), source.ages)
    control_plane.client().delete("v1", "Node", "renewed-1")


def _reader(plane: ControlPlane, namespace: str) -> Any:
    """Return what makes a ServiceAccount anew, which may read what we do, and returns its token."""
    client = plane.client()
    name = f"reader-{secrets.token_hex(3)}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    client.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": role,
            "subjects": [subject],
        }
    )

    def renew() -> str:
        if client.find("v1", "ServiceAccount", name, namespace=namespace) is not None:
            client.delete("v1", "ServiceAccount", name, namespace=namespace)
        client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=namespace)
        return plane.service_account_token(namespace, name)

    return renew


def _write_kubeconfig(plane: ControlPlane, path: Path, token: Path, source_of_tokens: str) -> None:
    write_kubeconfig(path, url=plane.url, ca=plane.ca, token="")
    document = json.loads(path.read_text())
    if source_of_tokens == "tokenFile":
        document["users"][0]["user"] = {"tokenFile": str(token)}
    else:
        program = (
            "import json,pathlib,sys;"
            "print(json.dumps({'apiVersion':'client.authentication.k8s.io/v1','kind':'ExecCredential',"
            "'status':{'token':pathlib.Path(sys.argv[1]).read_text()}}))"
        )
        document["users"][0]["user"] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-c", program, str(token)],
                "interactiveMode": "Never",
            }
        }
    path.write_text(json.dumps(document))


def test_what_rbac_hides_is_said_and_the_rest_is_known(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = control_plane.client()
    name = f"narrow-{secrets.token_hex(3)}"
    client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=namespace)
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]
    rbac = "rbac.authorization.k8s.io"
    client.create(
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
    )
    client.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
    )
    _write_node(control_plane, "seen-1", UBUNTU)
    kubeconfig = tmp_path / "narrow.kubeconfig"
    token = control_plane.service_account_token(namespace, name)
    write_kubeconfig(kubeconfig, url=control_plane.url, ca=control_plane.ca, token=token)
    with watching(kubeconfig, synced=False) as source:
        wait_for(lambda: not source.untried(), source.untried)
        assert "seen-1" in _as_known(source)
        assert sorted(source.missing()) == ["injectors", "namespaces"]
        said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
        assert len([line for line in said if line.startswith("namespaces cannot be read: 403: ")]) == 1
    client.delete("v1", "Node", "seen-1")


def _mode_of_mesh(source: ClusterSource, configuration: str) -> str:
    """Return the mode that the mesh of an injector asks for."""
    (injector,) = [each for each in source.snapshot.mesh.injectors if each.configuration == configuration]
    return injector.default.mode if injector.default is not None else "REDIRECT"


def test_injectors_that_come_and_go_take_their_config_maps_with_them(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    namespace = f"mesh-{secrets.token_hex(3)}"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    settings = {"mesh": "defaultConfig:\n  interceptionMode: TPROXY\n"}
    name = f"istio-sidecar-injector-{namespace}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "labels": {"app": "sidecar-injector", "istio.io/rev": "canary"}},
        "webhooks": [
            {
                "name": "namespace.sidecar-injector.istio.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Ignore",
                "timeoutSeconds": 1,
                "rules": [rule],
                "namespaceSelector": {"matchLabels": {"istio.io/rev": "nobody"}},
                "clientConfig": {"service": {"name": "istiod-canary", "namespace": namespace, "path": "/inject"}},
            }
        ],
    }
    with watching(control_plane.kubeconfig) as source:
        client.create(configuration)
        wait_for(lambda: source.snapshot.mesh.injectors, source.ages)
        # A ConfigMap may come after its injector.
        client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-canary"}, "data": settings},
            namespace=namespace,
        )
        wait_for(lambda: _mode_of_mesh(source, name) == "TPROXY", source.ages)
        client.patch("v1", "ConfigMap", "istio-canary", {"data": {"mesh": "{}"}}, namespace=namespace)
        wait_for(lambda: _mode_of_mesh(source, name) == "REDIRECT", source.ages)
        assert f"configmap {namespace}/istio-canary" in source.ages()
        client.delete("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", name)
        wait_for(lambda: not source.snapshot.mesh.injectors, source.ages)
        assert f"configmap {namespace}/istio-canary" not in source.ages()


def test_terway_is_told_by_its_daemon_set(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    labels = {"app": "terway"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "t", "image": "example.com/terway:1"}]},
    }
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "terway-eniip", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    with watching(control_plane.kubeconfig) as source:
        assert source.snapshot.network.terway == ""
    client.create(daemon_set)
    with watching(control_plane.kubeconfig) as source:
        wait_for(lambda: source.snapshot.network.terway == "DaemonSet kube-system/terway-eniip", source.ages)
    client.delete("apps/v1", "DaemonSet", "terway-eniip", namespace="kube-system")


def test_the_clock_of_the_api_server_is_heard(control_plane: ControlPlane) -> None:
    client = connect(str(control_plane.kubeconfig), None)
    with watching(client) as source:
        heard = client.server_time  # what certificates compare their own clock with
        assert heard is not None
        assert abs((datetime.now(UTC) - heard).total_seconds()) < 60
        assert source.snapshot.own_namespace == OWN_NAMESPACE
