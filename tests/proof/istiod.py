"""
Istio's control plane as a process, with what its charts install applied as they render it.

Of the charts only what would run pods is left out: istiod runs here, at an address that its Service is given. Envoy is
upstream's, so the settings turn off what needs Istio's own extensions (metadata exchange, ALPN override, statistics).
A second istiod can be another revision, with other settings.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.parts.api import Api
from tests.parts.istio import charts, gateway_api_crds, programs
from tests.parts.kube import ControlPlane
from tests.parts.process import Process, ProcessError
from tests.proof.ask import Unanswered, http_get
from tests.proof.namespaces import Namespace

NAMESPACE: Final = "istio-system"
PORTS: Final = {"grpc-xds": 15010, "https-dns": 15012, "https-webhook": 15017, "http-monitoring": 15014}
NO_PODS: Final = {"Deployment", "DaemonSet", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
VALUES: Final = {"telemetry": {"enabled": False}}
TEXT_LOG: Final = "text"
"""A log provider for a Telemetry to name: Istio's default text format in place of the mesh's JSON."""
MESH: Final = {
    "accessLogFile": "/dev/stdout",
    "accessLogEncoding": "JSON",
    "extensionProviders": [{"name": TEXT_LOG, "envoyFileAccessLog": {"path": "/dev/stdout"}}],
    # Both families, as Istio documents for dual-stack clusters.
    "defaultConfig": {"proxyMetadata": {"ISTIO_DUAL_STACK": "true"}},
}
ENVIRONMENT: Final = {
    "PILOT_CERT_PROVIDER": "istiod",
    "POD_NAMESPACE": NAMESPACE,
    "CLUSTER_ID": "Kubernetes",
    "ISTIO_DUAL_STACK": "true",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
}


class Istiod:
    """One revision of istiod."""

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        namespace: Namespace,
        address: str,
        *,
        revision: str = "",
        values: Mapping[str, Any] | None = None,
        components: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Describe it.

        Args:
            plane: The cluster.
            folder: For its files and log.
            namespace: The network namespace to run in: its ports are Istio's own.
            address: Its address there.
            revision: Its name; empty for the default one.
            values: More of the charts' values.
            components: More of the IstioOperator's components.

        """
        self.suffix = f"-{revision}" if revision else ""
        self._revision = revision
        self._plane = plane
        self._folder = folder
        self._namespace = namespace
        self._address = address
        self._operator = {
            "profile": "minimal",
            "values": {**VALUES, **(values or {})},
            "meshConfig": MESH,
            **({"revision": revision} if revision else {}),
            **({"components": components} if components else {}),
        }
        self.process = Process(
            f"istiod{self.suffix}",
            ["env", "-i", *(f"{key}={value}" for key, value in self._environment().items()), *self._command()],
            log=folder / "log" / f"istiod{self.suffix}.log",
            netns=namespace.name,
            # Empty: it looks for ./etc/cacerts and others, whose absence means that the cluster's ConfigMaps decide.
            folder=folder / f"istiod{self.suffix}",
        )

    def start(self, api: Api) -> None:
        """Apply the charts, start it, and return when it injects."""
        work = self._folder / f"istiod{self.suffix}"
        work.mkdir()
        objects = [each for each in charts(self._operator, self._folder) if each["kind"] not in NO_PODS]
        if api.find("v1", "Namespace", NAMESPACE) is None:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            self._apply(gateway_api_crds())
        self._apply([each for each in objects if each["kind"] == "CustomResourceDefinition"])
        self._apply([each for each in objects if each["kind"] != "CustomResourceDefinition"])
        api.apply(endpoints(NAMESPACE, f"istiod{self.suffix}", self._address, PORTS))
        self.process.start()
        self.process.wait_until(self._ready, what="istiod's /ready", passing=(Unanswered,))
        name = f"istio-sidecar-injector{self.suffix}"
        self.process.wait_until(lambda: _has_ca(api, name), what=f"the caBundle of {name}")

    def _ready(self) -> bool:
        return http_get(self._namespace.name, "127.0.0.1", 8080, "/ready").status == 200

    def _apply(self, objects: list[dict[str, Any]]) -> None:
        if not objects:
            return
        self._plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(json_like(objects))
        )
        crds = [f"crd/{each['metadata']['name']}" for each in objects if each["kind"] == "CustomResourceDefinition"]
        if crds:
            self._plane.kubectl("wait", "--for=condition=established", "--timeout=60s", *crds)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self._folder),
            **ENVIRONMENT,
            "REVISION": self._revision or "default",
            "POD_NAME": f"istiod{self.suffix}",
            "SERVICE_ACCOUNT": f"istiod{self.suffix}",
            "INJECTION_WEBHOOK_CONFIG_NAME": f"istio-sidecar-injector{self.suffix}",
            "VALIDATION_WEBHOOK_CONFIG_NAME": f"istio-validator{self.suffix}-{NAMESPACE}",
        }

    def _command(self) -> list[str | Path]:
        return [
            programs()["pilot-discovery"],
            "discovery",
            f"--kubeconfig={self._plane.kubeconfig}",
            "--monitoringAddr=:15014",
            "--domain=cluster.local",
            "--log_output_level=default:info",
            "--keepaliveMaxServerConnectionAge=30m",
        ]


def endpoints(namespace: str, service: str, address: str, ports: Mapping[str, int]) -> dict[str, Any]:
    """Return the EndpointSlice that gives a Service without pods its one address."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-lab",
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "client-ip-proof",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports.items()],
    }


def json_like(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *objects* without what YAML alone has, such as dates."""
    copied: list[dict[str, Any]] = json.loads(json.dumps(objects, default=str))
    return copied


def _has_ca(api: Api, name: str) -> bool:
    found = api.find("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", name)
    if found is None:
        raise ProcessError(f"the charts install no MutatingWebhookConfiguration {name}")
    return all(webhook["clientConfig"].get("caBundle") for webhook in found["webhooks"])
