"""The control plane that the other tests stand on is real, and does what they trust it to do."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certs.authority import issue_ca
from tests.parts.api import Api, ApiError
from tests.parts.kube import ControlPlane


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "app", "image": "example.test/app:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def test_it_is_the_version_it_claims(control_plane: ControlPlane) -> None:
    version = control_plane.client().request("GET", "/version")
    assert f"{version['major']}.{version['minor']}" == control_plane.version
    assert version["gitVersion"].startswith(f"v{control_plane.version}.")


@pytest.mark.slow
def test_the_scheduler_binds_a_pod_to_the_node_that_its_selector_names(scheduler: ControlPlane, namespace: str) -> None:
    control_plane = scheduler
    control_plane.add_node(f"{namespace}-a", labels={"pool": f"{namespace}-a"})
    client = control_plane.add_node(f"{namespace}-b", labels={"pool": f"{namespace}-b"})
    client.create(pod("cart", nodeSelector={"pool": f"{namespace}-b"}), namespace=namespace)
    control_plane.wait_until(
        lambda: client.get("v1", "Pod", "cart", namespace=namespace)["spec"].get("nodeName") == f"{namespace}-b",
        what="the pod to be bound",
    )


@pytest.mark.slow
def test_the_scheduler_leaves_a_pod_pending_that_tolerates_no_node(scheduler: ControlPlane, namespace: str) -> None:
    control_plane = scheduler
    taint = {"key": "pool", "value": "virtual", "effect": "NoSchedule"}
    client = control_plane.add_node(f"{namespace}-v", labels={"pool": namespace}, taints=[taint])
    client.create(pod("cart", nodeSelector={"pool": namespace}), namespace=namespace)

    def refused() -> bool:
        conditions = client.get("v1", "Pod", "cart", namespace=namespace).get("status", {}).get("conditions", [])
        return any(each["reason"] == "Unschedulable" and "untolerated taint" in each["message"] for each in conditions)

    control_plane.wait_until(refused, what="the pod to be unschedulable")


def test_the_audit_log_has_each_write_with_its_body(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.client().create(pod("cart"), namespace=namespace)
    want = {"verb": "create", "objectRef__namespace": namespace, "objectRef__name": "cart"}
    control_plane.wait_until(lambda: control_plane.audit_events(**want), what="the audit event")
    created = [event for event in control_plane.audit_events(**want) if "subresource" not in event["objectRef"]]
    assert [event["requestObject"]["metadata"]["name"] for event in created] == ["cart"]


def test_refusals_and_warnings_reach_the_client(control_plane: ControlPlane, namespace: str) -> None:
    client = control_plane.client()
    with pytest.raises(ApiError) as refusal:
        client.create({**pod("cart"), "spec": {}}, namespace=namespace)
    assert (refusal.value.status, refusal.value.reason) == (422, "Invalid")
    created = client.create(pod("cart", nodeSelector={"beta.kubernetes.io/os": "linux"}), namespace=namespace)
    assert created.warnings == (
        'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
    )


def test_a_service_account_is_itself_and_may_do_nothing_more(control_plane: ControlPlane, namespace: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "webhook"}}
    control_plane.client().create(account, namespace=namespace)
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "webhook")
    said = control_plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
    assert said == f"system:serviceaccount:{namespace}:webhook"
    with (
        control_plane.client(token=control_plane.service_account_token(namespace, "webhook")) as client,
        pytest.raises(ApiError) as refusal,
    ):
        client.list("v1", "Pod", namespace=namespace)
    assert refusal.value.status == 403


def test_apply_is_server_side_and_finds_kinds_by_discovery(control_plane: ControlPlane, namespace: str) -> None:
    client = control_plane.client()
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
    client.apply(settings, namespace=namespace)
    client.patch("v1", "ConfigMap", "settings", {"data": {"b": "2"}}, namespace=namespace)
    applied = client.apply({**settings, "data": {"a": "3"}}, namespace=namespace)
    assert applied["data"] == {"a": "3", "b": "2"}
    client.delete("v1", "ConfigMap", "settings", namespace=namespace)
    assert client.find("v1", "ConfigMap", "settings", namespace=namespace) is None


@pytest.mark.slow
def test_objects_survive_a_crash_of_api_server_and_etcd(control_plane: ControlPlane, namespace: str) -> None:
    client = control_plane.client()
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
    client.create(settings, namespace=namespace)
    control_plane.restart_api_server(crash=True)
    assert client.get("v1", "ConfigMap", "settings", namespace=namespace)["data"] == {"a": "1"}
    control_plane.restart_etcd()
    assert client.get("v1", "ConfigMap", "settings", namespace=namespace)["data"] == {"a": "1"}


def test_a_client_that_trusts_another_authority_is_not_served(control_plane: ControlPlane, tmp_path: Path) -> None:
    other = issue_ca(organization="somebody else", now=datetime.now(tz=UTC), life=timedelta(days=1))
    (tmp_path / "ca.crt").write_bytes(other.certificate_pem)
    with Api(control_plane.url, ca=tmp_path / "ca.crt") as stranger, pytest.raises(ssl.SSLCertVerificationError):
        stranger.text("/readyz")


def test_metrics_are_counted_by_label(control_plane: ControlPlane, namespace: str) -> None:
    before = control_plane.metric("apiserver_request_total", resource="pods", verb="POST", code="201")
    control_plane.client().create(pod("cart"), namespace=namespace)
    control_plane.wait_until(
        lambda: control_plane.metric("apiserver_request_total", resource="pods", verb="POST", code="201") >= before + 1,
        what="the request to be counted",
    )
