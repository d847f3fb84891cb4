"""
Istio's own sidecar injector: its control plane as a process on loopback, asked as the API server asks it.

istiod needs no root: its ports are its own choice, and of Istio's charts only ConfigMaps, definitions and roles are
applied. What it injects by (istio-cni or not, the mesh's mode, native sidecars) is changed while it runs.
"""

import base64
import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonpatch

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
        self._folder = folder
        self._round = 0
        self._api = plane.client()
        self._now: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
        self._config_maps: list[Document] = []
        self._connection: http.client.HTTPSConnection | None = None
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
        if self._api.find("v1", "Namespace", NAMESPACE) is None:
            self._api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._apply({}, {})
        self.process.start()
        self.process.wait_until(self._injects, what="istiod's /inject", passing=(OSError, ProcessError))

    def stop(self) -> None:
        """Stop it."""
        if self._connection is not None:
            self._connection.close()
        self.process.stop()
        self._ports.close()

    def become(self, values: Mapping[str, Any], mesh: Mapping[str, Any]) -> list[Document]:
        """Inject by the charts with *values* and a mesh with the `defaultConfig` *mesh*; return their ConfigMaps."""
        if self._now != (values, mesh):
            self._apply(values, mesh)
            self.process.wait_until(self._injects, what="istiod's new configuration", passing=(OSError, ProcessError))
        return self._config_maps

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
        response = self._ask(json.dumps(review).encode())["response"]
        if not response["allowed"]:
            raise ProcessError(response.get("status", {}).get("message", "not allowed"))
        patch = json.loads(base64.b64decode(response.get("patch") or "W10="))
        injected: Document = jsonpatch.apply_patch(json.loads(json.dumps(pod)), patch)
        return injected

    def _ask(self, review: bytes) -> Document:
        """Ask on a connection that stays open: hundreds of pods are asked about."""
        connection = self._connection or http.client.HTTPSConnection(
            "127.0.0.1", self._https, timeout=30, context=self._context
        )
        self._connection = None
        try:
            connection.request("POST", "/inject", review, {"Content-Type": "application/json"})
            answered = connection.getresponse()
            text = answered.read()
            if answered.status != 200:
                raise ProcessError(f"istiod answered {answered.status}: {text[:200]!r}")
            answer: Document = json.loads(text)
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(str(error)) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return answer

    def _injects(self) -> bool:
        pod = {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
        made = self.inject(pod)["spec"]
        proxies = [
            each for each in (*made.get("initContainers", ()), *made["containers"]) if each["name"] == "istio-proxy"
        ]
        seen = {each["name"]: each.get("value") for proxy in proxies for each in proxy["env"]}
        by_values = seen.get("ISTIO_META_MESH_ID") == f"round-{self._round}"
        return by_values and seen.get(ROUND) == str(self._round)

    def _apply(self, values: Mapping[str, Any], mesh: Mapping[str, Any]) -> None:
        """Apply the charts; after the first time their ConfigMaps alone, which is where they differ."""
        self._round += 1
        metadata = {**mesh.get("proxyMetadata", {}), ROUND: str(self._round)}
        glob = {**values.get("global", {}), "meshID": f"round-{self._round}"}
        operator = {
            "profile": "minimal",
            "values": {"telemetry": {"enabled": False}, **values, "global": glob},
            "meshConfig": {"defaultConfig": {**mesh, "proxyMetadata": metadata}},
        }
        rendered: list[Document] = json.loads(json.dumps(charts(operator, self._folder), default=str))
        kinds = APPLIED if self._round == 1 else {"ConfigMap"}
        for each in rendered:
            if each["kind"] in kinds:
                self._api.apply(each, namespace=NAMESPACE)
        self._config_maps = [each for each in rendered if each["kind"] == "ConfigMap"]
        self._now = values, mesh
