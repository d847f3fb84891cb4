"""
Istio's own sidecar injector: its control plane as a process on loopback, asked as the API server asks it.

istiod needs no root: its ports are its own choice, and of Istio's charts only ConfigMaps, definitions and roles are
applied. What it injects by (istio-cni or not, the mesh's mode, native sidecars) is changed while it runs.
"""

import base64
import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonpatch
import yaml

from tests.parts.istio import charts, programs
from tests.parts.kube import ControlPlane
from tests.parts.process import Ports, Process, ProcessError

NAMESPACE: Final = "istio-system"
APPLIED: Final = frozenset(
    {"ConfigMap", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
)
ROUND: Final = "CLIENT_IP_ROUND"
"""A variable by which it is seen which configuration a pod was injected with."""
Document = dict[str, Any]


class RealInjector:
    """istiod, for its `/inject` alone."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane, self._folder = plane, folder
        self._round = 0
        self._context = ssl.create_default_context()
        self._context.check_hostname = False  # it serves the name of its Service
        self._context.verify_mode = ssl.CERT_NONE
        self._ports = Ports()
        ports = [self._ports.take() for _ in range(6)]
        self._https = ports[0]
        flags = dict(
            zip(
                ("httpsAddr", "httpAddr", "grpcAddr", "secureGRPCAddr", "monitoringAddr"),
                (f"127.0.0.1:{port}" for port in ports),
                strict=False,
            )
        )
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "PILOT_CERT_PROVIDER": "istiod",
            "POD_NAMESPACE": NAMESPACE,
            "POD_NAME": "istiod",
            "SERVICE_ACCOUNT": "istiod",
            "CLUSTER_ID": "Kubernetes",
            "REVISION": "default",
            "INJECTION_WEBHOOK_CONFIG_NAME": "",
            "VALIDATION_WEBHOOK_CONFIG_NAME": "",
        }
        work = folder / "istiod"
        work.mkdir()
        self.process = Process(
            "istiod",
            [
                "env",
                "-i",
                *(f"{key}={value}" for key, value in environment.items()),
                programs()["pilot-discovery"],
                "discovery",
                f"--kubeconfig={plane.kubeconfig}",
                "--domain=cluster.local",
                f"--ctrlz_port={ports[5]}",
                *(f"--{key}={value}" for key, value in flags.items()),
            ],
            log=folder / "istiod.log",
            folder=work,
        )

    def start(self) -> None:
        """Apply the charts, start it, and return when it injects."""
        client = self._plane.client()
        if client.find("v1", "Namespace", NAMESPACE) is None:
            client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._apply({}, {})
        self.process.start()
        self.process.wait_until(self._injects, what="istiod's /inject", passing=(OSError, ProcessError))

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()
        self._ports.close()

    def become(self, values: Mapping[str, Any], mesh: Mapping[str, Any]) -> list[Document]:
        """Inject by the charts with *values* and a mesh with the `defaultConfig` *mesh*; return their ConfigMaps."""
        applied = self._apply(values, mesh)
        self.process.wait_until(self._injects, what="istiod's new configuration", passing=(OSError, ProcessError))
        return [each for each in applied if each["kind"] == "ConfigMap"]

    def inject(self, pod: Mapping[str, Any], namespace: str = "default") -> Document:
        """
        Return *pod* as the injector makes it; as it is where it refuses to inject.

        Raises:
            ProcessError: It refuses the pod.

        """
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "1",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": namespace,
                "operation": "CREATE",
                "object": pod,
            },
        }
        request = urllib.request.Request(  # our own process
            f"https://127.0.0.1:{self._https}/inject",
            data=json.dumps(review).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30, context=self._context) as answer:  # noqa: S310
            response = json.load(answer)["response"]
        if not response["allowed"]:
            raise ProcessError(response.get("status", {}).get("message", "not allowed"))
        patch = json.loads(base64.b64decode(response.get("patch") or "W10="))
        injected: Document = jsonpatch.apply_patch(json.loads(json.dumps(pod)), patch)
        return injected

    def _injects(self) -> bool:
        pod = {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
        made = self.inject(pod)["spec"]
        proxies = [
            each for each in (*made.get("initContainers", ()), *made["containers"]) if each["name"] == "istio-proxy"
        ]
        seen = {each["name"]: each.get("value") for proxy in proxies for each in proxy["env"]}
        by_values = seen.get("ISTIO_META_MESH_ID") == f"round-{self._round}"
        return by_values and seen.get(ROUND) == str(self._round)

    def _apply(self, values: Mapping[str, Any], mesh: Mapping[str, Any]) -> list[Document]:
        self._round += 1
        metadata = {**mesh.get("proxyMetadata", {}), ROUND: str(self._round)}
        glob = {**values.get("global", {}), "meshID": f"round-{self._round}"}
        operator = {
            "profile": "minimal",
            "values": {"telemetry": {"enabled": False}, **values, "global": glob},
            "meshConfig": {"defaultConfig": {**mesh, "proxyMetadata": metadata}},
        }
        rendered: list[Document] = json.loads(json.dumps(charts(operator, self._folder), default=str))
        applied = [each for each in rendered if each["kind"] in APPLIED]
        for definitions in (True, False):
            chosen = [each for each in applied if (each["kind"] == "CustomResourceDefinition") is definitions]
            if definitions and self._round > 1:
                continue
            text = yaml.safe_dump_all(chosen)
            self._plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        return applied
