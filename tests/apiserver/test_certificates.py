"""The certificates in a shared Secret, on a real API server: made, trusted, renewed, healed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.deployed import OWN_NAMESPACE, eventually, namespace_of, render
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.serve.server import Server

# Slow, since their control plane is their own; that an API server trusts the webhook is also in test_least_power.py.
SECRET = "client-ip-webhook-tls"
CONFIGURATION = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "client-ip-webhook")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own: its configuration must be nobody else's."""
    with ControlPlane("1.37", tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture(scope="module")
def server(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    api = plane.client()
    for namespace in (OWN_NAMESPACE, "istio-system"):
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for document in render("crd", "rbac", "--tls-secret", SECRET):
        api.apply(document)
    kubeconfig = plane.service_account_kubeconfig(OWN_NAMESPACE, "client-ip-webhook")
    options = ("--kubeconfig", str(kubeconfig), "--tls-secret", SECRET, "--tls-host", "127.0.0.1")
    folder = tmp_path_factory.mktemp("server")
    with Server(folder, *options, "--drain-seconds", "0", self_signed=False) as running:
        host, port = running.address
        (configuration,) = render("configuration", "--url", f"https://{host}:{port}/mutate")
        api.apply(configuration)
        eventually(lambda: running.probe("/readyz").status == 200, running.log.read_text)
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()


def certs(plane: ControlPlane, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webhook.cli", "certs", *arguments, "--kubeconfig", str(plane.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def bundles(api: Api) -> set[str]:
    return {each["clientConfig"].get("caBundle", "") for each in api.get(*CONFIGURATION)["webhooks"]}


def gateway(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"istio": "ingressgateway"}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }


@pytest.mark.slow
def test_the_api_server_trusts_what_it_was_never_told_by_hand(plane: ControlPlane, server: Server) -> None:
    api = plane.client()
    edge = namespace_of(api, "edge", preserve="enabled")

    def policy() -> str:
        made: str = api.create(gateway("gw"), namespace=edge, dry_run=True)["spec"]["externalTrafficPolicy"]
        return made

    eventually(lambda: policy() == "Local", server.log.read_text)
    assert server.metric("client_ip_certificate_trusted") == 1


@pytest.mark.slow
def test_status_says_what_the_secret_holds(plane: ControlPlane, server: Server) -> None:
    eventually(lambda: plane.client().find("v1", "Secret", SECRET, namespace=OWN_NAMESPACE))
    # The names are those of the Service: this server is called by URL.
    told = certs(plane, "status", "-o", "json")
    found = json.loads(told.stdout)
    assert found["secret"] == f"{OWN_NAMESPACE}/{SECRET}"
    assert len(found["authorities"]) == 1
    assert found["problems"] == []


@pytest.mark.slow
def test_an_emptied_ca_bundle_is_healed(plane: ControlPlane, server: Server) -> None:
    api = plane.client()
    before = bundles(api)
    emptied = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
    api.patch(*CONFIGURATION, emptied)
    eventually(lambda: bundles(api) == before, server.log.read_text)


@pytest.mark.slow
def test_a_deleted_secret_comes_back_as_it_was(plane: ControlPlane, server: Server) -> None:
    api = plane.client()
    before = api.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)["data"]
    api.delete("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)
    eventually(lambda: api.find("v1", "Secret", SECRET, namespace=OWN_NAMESPACE), server.log.read_text)
    after = api.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)["data"]
    assert after["tls.crt"] == before["tls.crt"]


@pytest.mark.slow
def test_a_rotation_by_hand_brings_a_new_ca_and_then_its_leaf(plane: ControlPlane, server: Server) -> None:
    api = plane.client()
    before = api.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)["data"]
    asked = certs(plane, "rotate")
    assert asked.returncode == 0, asked.stderr

    def now() -> dict[str, str]:
        data: dict[str, str] = api.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)["data"]
        return data

    eventually(lambda: now()["ca.crt"] != before["ca.crt"], server.log.read_text)
    eventually(lambda: bundles(api) != {before["ca.crt"]}, server.log.read_text)
    eventually(lambda: now()["tls.crt"] != before["tls.crt"], server.log.read_text, seconds=90)
    eventually(lambda: server.metric('client_ip_certificate_actions_total{action="serve"}') == 2, seconds=60)
    edge = namespace_of(api, "edge-rotated", preserve="enabled")
    eventually(
        lambda: api.create(gateway("gw"), namespace=edge, dry_run=True)["spec"]["externalTrafficPolicy"] == "Local",
    )


def test_certs_without_a_cluster_is_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "webhook.cli", "certs", "status", "--kubeconfig", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("client-ip certs status: no cluster")
