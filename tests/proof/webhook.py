"""
Our webhook as a cluster runs it: `client-ip render` applied as it prints it, and `client-ip serve` with the rights of
the ServiceAccount that it renders, a certificate that the API server verifies, and nothing else.
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from certs.authority import issue_ca, issue_leaf
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.parts.process import Process, wait_until
from tests.proof.ask import Unanswered, http_get
from tests.proof.istiod import endpoints
from tests.proof.namespaces import Namespace

NAMESPACE: Final = "client-ip-system"
SERVICE: Final = "client-ip-webhook"
PORT: Final = 8443
PROBE_PORT: Final = 8080
CONFIGURATIONS: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")


def client_ip(*arguments: str | Path) -> str:
    """Run the command line and return what it printed."""
    command = [sys.executable, "-m", "webhook.cli", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rendered(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the objects that `client-ip render` prints."""
    return [each for each in yaml.safe_load_all(client_ip("render", *arguments)) if each]


class Webhook:
    """One replica, in a network namespace of its own."""

    def __init__(self, plane: ControlPlane, folder: Path, namespace: Namespace, address: str) -> None:
        """Describe it; *address* is its own in *namespace*."""
        self._plane = plane
        self._folder = folder / "webhook"
        self._namespace = namespace
        self._address = address
        self._log = folder / "log" / "client-ip.log"
        self.process: Process

    def install(self, api: Api) -> None:
        """Apply what `render` prints, start the server, and return when it is ready."""
        self._folder.mkdir()
        ca = self._issue_certificate()
        for name in (NAMESPACE, "istio-system"):
            if api.find("v1", "Namespace", name) is None:
                api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        documents = rendered("crd", "rbac")
        self._plane.kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all(documents))
        ports = [{"name": "https", "port": 443, "targetPort": PORT}]
        metadata = {"name": SERVICE, "namespace": NAMESPACE}
        api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})
        api.apply(endpoints(NAMESPACE, SERVICE, self._address, {"https": PORT}))
        kubeconfig = self._plane.service_account_kubeconfig(NAMESPACE, SERVICE)
        tls: list[str | Path] = ["--tls-cert", self._folder / "tls.crt", "--tls-key", self._folder / "tls.key"]
        # Nobody waits here for endpoints to go.
        options = ["--mark-reasons", "--log-format", "json", "--drain-seconds", "0.2"]
        self.process = Process(
            "client-ip serve",
            [sys.executable, "-m", "webhook.cli", "serve", "--kubeconfig", kubeconfig, *tls, *options],
            log=self._log,
            netns=self._namespace.name,
        )
        self.start()
        (self.configuration,) = rendered("configuration", "--ca-file", ca)
        api.apply(self.configuration)

    def start(self) -> None:
        """Start the server, for the first time or again."""
        self.process.start()
        self.process.wait_until(self._ready, what="client-ip serve to be ready", passing=(Unanswered,))

    def stop(self) -> None:
        """End the server."""
        self.process.stop()

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a sample of its metrics, None where there is none."""
        text = http_get(self._namespace.name, "127.0.0.1", PROBE_PORT, "/metrics").body
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in text.splitlines():
            if line.split("{")[0].split(" ")[0] == name and all(each in line for each in wanted):
                return float(line.rsplit(" ", 1)[1])
        return None

    def sees(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has a value: what it watches reaches it a moment later."""
        wait_until(lambda: self.metric(name, **labels) == value, what=f"the metric {name} {labels} to be {value}")

    def _ready(self) -> bool:
        return http_get(self._namespace.name, "127.0.0.1", PROBE_PORT, "/readyz").status == 200

    def _issue_certificate(self) -> Path:
        now, life = datetime.now(tz=UTC), timedelta(days=1)
        authority = issue_ca(organization="client-ip", now=now, life=life)
        leaf = issue_leaf(authority, names=[f"{SERVICE}.{NAMESPACE}.svc"], now=now, life=life)
        (self._folder / "tls.crt").write_bytes(leaf.certificate_pem)
        key = self._folder / "tls.key"
        key.touch(mode=0o600)
        key.write_bytes(leaf.key_pem)
        ca = self._folder / "ca.crt"
        ca.write_bytes(authority.certificate_pem)
        return ca
