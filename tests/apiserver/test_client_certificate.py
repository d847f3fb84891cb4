"""A real API server that shows its webhooks a certificate, and a webhook that reads nobody else."""

import base64
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import issue_ca
from certs.pair import Pair
from tests.apiserver.deployed import OWN_NAMESPACE, eventually, namespace_of, pod, render
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.serve.server import POD, Server, review

pytestmark = pytest.mark.slow  # an API server of its own
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
NAME = "kube-apiserver-webhook-client"
MODE = "sidecar.istio.io/interceptionMode"


def client_of(ca: Pair, name: str) -> Pair:
    """Return a client's certificate, as an administrator's tool makes one."""
    signer = serialization.load_pem_private_key(ca.key_pem, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            issuer_name=ca.certificate.subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=NOW - DAY,
            not_valid_after=NOW + DAY,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate=certificate, certificate_pem=certificate.public_bytes(pem), key_pem=key_pem)


def admission_configuration(folder: Path, client: Pair) -> Path:
    """
    Write what makes an API server show *client* to webhooks, wherever they are.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#authenticate-apiservers
    """
    user = {
        "client-certificate-data": base64.b64encode(client.certificate_pem).decode(),
        "client-key-data": base64.b64encode(client.key_pem).decode(),
    }
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]}
    (folder / "webhooks.kubeconfig").write_text(json.dumps(kubeconfig))
    plugin = {
        "name": "MutatingAdmissionWebhook",
        "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": str(folder / "webhooks.kubeconfig"),
        },
    }
    configuration = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]}
    path = folder / "admission.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return path


@dataclass
class Guarded:
    """An API server with a certificate, and a webhook that asks for it."""

    plane: ControlPlane
    api: Api
    server: Server
    ca: Pair
    client_ca: Path
    folder: Path

    def ask(self, client: Pair | None) -> int:
        """Return the status that a review gets from a caller who shows *client*."""
        context = self.server.context()
        if client is not None:
            (self.folder / "c.crt").write_bytes(client.certificate_pem)
            (self.folder / "c.key").write_bytes(client.key_pem)
            context.load_cert_chain(self.folder / "c.crt", self.folder / "c.key")
        connection = self.server.connect()
        connection._context = context  # type: ignore[attr-defined]
        try:
            return self.server.ask(review(POD), connection=connection).status
        finally:
            connection.close()

    def patched(self, name: str, namespace: str) -> bool:
        made = self.api.create(pod(name), namespace=namespace)
        return MODE in made["metadata"].get("annotations", {})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("admission")
    ca = issue_ca(organization="front-proxy", now=NOW, life=10 * DAY)
    configuration = admission_configuration(folder, client_of(ca, NAME))
    client_ca = folder / "ca.crt"
    client_ca.write_bytes(ca.certificate_pem)
    flags = [f"--admission-control-config-file={configuration}"]
    with ControlPlane("1.37", tmp_path_factory.mktemp("kube"), flags=flags) as plane:
        api = plane.client()
        for namespace in (OWN_NAMESPACE, "istio-system"):
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for document in render("crd", "rbac"):
            api.apply(document)
        kubeconfig = plane.service_account_kubeconfig(OWN_NAMESPACE, "client-ip-webhook")
        options = ("--kubeconfig", str(kubeconfig), "--client-ca", str(client_ca), "--client-name", NAME)
        with Server(tmp_path_factory.mktemp("server"), *options, "--drain-seconds", "0") as server:
            eventually(lambda: server.probe("/readyz").status == 200, server.log.read_text)
            host, port = server.address
            url = f"https://{host}:{port}/mutate"
            api.apply(render("configuration", "--url", url, "--ca-file", str(server.ca))[0])
            yield Guarded(plane, api, server, ca, client_ca, folder)
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()


def test_an_api_server_that_shows_its_certificate_is_answered(guarded: Guarded) -> None:
    namespace = namespace_of(guarded.api, "shop", preserve="enabled", injection="enabled")
    calls = "client_ip_review_duration_seconds_count"
    before = guarded.server.metric(calls)

    def called(number: list[int] = [0]) -> bool:  # noqa: B006  # pods need names
        number[0] += 1
        guarded.patched(f"pod-{number[0]}", namespace)
        return guarded.server.metric(calls) > before

    eventually(called, guarded.server.log.read_text)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ("none", "handshake-failed"),
        ("another CA's", "handshake-failed"),
        ("another name", "client-name"),
    ],
)
def test_nobody_else_is_read(guarded: Guarded, client: str, reason: str) -> None:
    other = issue_ca(organization="front-proxy", now=NOW, life=10 * DAY)
    shown: Any = {
        "none": None,
        "another CA's": client_of(other, NAME),
        "another name": client_of(guarded.ca, "mallory"),
    }
    counter = f'client_ip_ended_connections_total{{listener="reviews",reason="{reason}"}}'
    before = guarded.server.metric(counter)
    with pytest.raises((ssl.SSLError, ConnectionError, OSError)):
        guarded.ask(shown[client])
    eventually(lambda: guarded.server.metric(counter) == before + 1)


@pytest.mark.slow
def test_the_file_is_followed(guarded: Guarded) -> None:
    client = client_of(guarded.ca, NAME)
    assert guarded.ask(client) == 200
    following = issue_ca(organization="front-proxy", now=NOW, life=10 * DAY)
    guarded.client_ca.write_text("no certificate")
    guarded.server.wait_for_log("the previous client CAs stay in use", seconds=30)
    assert guarded.ask(client) == 200
    guarded.client_ca.write_bytes(following.certificate_pem + guarded.ca.certificate_pem)

    def answered() -> bool:
        try:
            return guarded.ask(client_of(following, NAME)) == 200
        except OSError:
            return False

    eventually(answered, guarded.server.log.read_text)
    assert guarded.ask(client) == 200
