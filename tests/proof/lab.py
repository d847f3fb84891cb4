"""
The whole lab: what is started in which order, and the few things that tests do with it.

>>> with Lab(folder) as lab:
...     lab.namespace("shop", preserve="enabled")
...     lab.start_pod("shop", "cart")
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.parts.api import Reply
from tests.parts.kube import CONTROLLERS, ControlPlane
from tests.parts.process import Process, wait_until
from tests.proof.ask import Unanswered, http_get
from tests.proof.istiod import Istiod
from tests.proof.kubeproxy import KubeProxy
from tests.proof.namespaces import clean
from tests.proof.network import CONTROL_PLANE, ISTIOD, ISTIOD_CANARY, OUTSIDE, WEBHOOK, Network
from tests.proof.node_agent import KUBELET_PORT, NodeAgent, RunningPod
from tests.proof.preflight import python_for_everyone
from tests.proof.webhook import Webhook

PRESERVE: Final = "client-ip.dev/preserve"
INJECTED: Final = {"istio-injection": "enabled"}
IMAGE: Final = "client-ip.example/app:1"
HTTP_PORT: Final = 8080
TCP_PORT: Final = 9000
NO_GATEWAY_TAINT: Final = {"key": "client-ip.example/no-gateway", "effect": "NoSchedule"}
SERVICE_CIDRS: Final = "10.96.0.0/16,fd00:96::/112"


class Lab:
    """A cluster with Istio and our webhook; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Describe it; *folder* is the lab's own, which any user may enter."""
        self.folder = folder
        self.network = Network()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything and leave nothing but the folder."""
        try:
            self._stack.close()
        finally:
            clean()

    def _start(self) -> None:
        clean()
        (self.folder / "log").mkdir(mode=0o755)
        self.network.create()
        self.plane = self._stack.enter_context(
            ControlPlane(
                "1.37",
                self.folder / "kube",
                netns=self.network.control.name,
                bind_address=CONTROL_PLANE,
                scheduler=True,
                controllers=CONTROLLERS,
                aggregator_routing=True,
                flags=[
                    f"--service-cluster-ip-range={SERVICE_CIDRS}",
                    # Nobody here resolves the nodes' names.
                    "--kubelet-preferred-address-types=InternalIP",
                ],
            ),
        )
        self.api = self.plane.client()
        self.add_node("node-1")
        self.add_node("node-2", taints=[NO_GATEWAY_TAINT])
        self.istiod = Istiod(self.plane, self.folder, self.network.host("istiod", 2), ISTIOD)
        self._until_closed(self.istiod.process)
        self.istiod.start(self.api)
        self.webhook = Webhook(self.plane, self.folder, self.network.host("webhook", 4), WEBHOOK)
        self.webhook.install(self.api)
        self._until_closed(self.webhook.process)
        for name in OUTSIDE:
            self._start_proxy(name)
        self.agent = NodeAgent(self.api, self.folder, self.network.nodes, python_for_everyone())
        self._stack.callback(self.agent.close)

    def _start_proxy(self, name: str) -> None:
        proxy = KubeProxy(self.plane, self.folder, self.network.nodes[name])
        self._until_closed(proxy.process)
        proxy.start()

    def _until_closed(self, process: Process) -> None:
        self._stack.callback(process.kill)

    def canary(self) -> Istiod:
        """Start a second revision, `canary` with the tag `prod`, whose rules istio-cni writes."""
        values = {"revisionTags": ["prod"], "sidecarInjectorWebhook": {"reinvocationPolicy": "IfNeeded"}}
        canary = Istiod(
            self.plane,
            self.folder,
            self.network.host("istiod-canary", 3),
            ISTIOD_CANARY,
            revision="canary",
            values=values,
            components={"cni": {"enabled": True}},
        )
        self._until_closed(canary.process)
        canary.start(self.api)
        return canary

    def add_node(
        self,
        name: str,
        *,
        os_image: str = "Debian GNU/Linux 13 (trixie)",
        kernel_version: str = "6.12.48+deb13-amd64",
        taints: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Add a Node object for one of the network's nodes."""
        node = self.network.nodes[name]
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        self.plane.add_node(name, labels=labels, taints=taints, os_image=os_image, kernel_version=kernel_version)
        addresses = [{"type": "InternalIP", "address": each} for each in (node.address, node.address6)]
        addresses.append({"type": "Hostname", "address": name})
        endpoint = {"kubeletEndpoint": {"Port": KUBELET_PORT}}
        self.api.patch_status("v1", "Node", name, {"addresses": addresses, "daemonEndpoints": endpoint})

    def remove_node(self, name: str) -> None:
        """End the pods of a node and delete its object."""
        for pod in self.api.list("v1", "Pod", field_selector=f"spec.nodeName={name}"):
            self.agent.stop(pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.api.delete("v1", "Node", name)

    def namespace(
        self,
        name: str,
        *,
        preserve: str | None = None,
        labels: Mapping[str, str] = INJECTED,
    ) -> None:
        """Make a namespace whose pods Istio injects, with what a pod of it needs to start."""
        wanted = {**labels, **({PRESERVE: preserve} if preserve else {})}
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": wanted}})
        for kind, each in (("ServiceAccount", "default"), ("ConfigMap", "istio-ca-root-cert")):
            self._wait_for(kind, name, each)
        # Watches bring it to the webhook and to istiod a moment later than to us.
        time.sleep(0.3)

    def _wait_for(self, kind: str, namespace: str, name: str) -> None:
        self.plane.wait_until(
            lambda: self.api.find("v1", kind, name, namespace=namespace), what=f"{kind} {namespace}/{name}"
        )

    def create_pod(
        self,
        namespace: str,
        name: str,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        spec: Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Create the application's Pod, as a Deployment of it would; return it as stored, with the warnings."""
        ports = [{"name": "http", "containerPort": HTTP_PORT}, {"name": "tcp", "containerPort": TCP_PORT}]
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, **(labels or {})}},
            "spec": {"containers": [{"name": "app", "image": IMAGE, "ports": ports, **(container or {})}]},
        }
        if annotations:
            pod["metadata"]["annotations"] = dict(annotations)
        pod["spec"].update(spec or {})
        return self.api.create(pod)

    def start_pod(self, namespace: str, name: str, **how: Any) -> RunningPod:
        """Create the application's Pod and run it."""
        self.create_pod(namespace, name, **how)
        return self.agent.run(namespace, name)

    def service(self, namespace: str, name: str, *, headless: bool = False) -> list[str]:
        """Make a Service in both families in front of the pods labelled app=NAME; return its ClusterIPs."""
        spec: dict[str, Any] = {
            "selector": {"app": name},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {"name": "http", "port": 80 if not headless else HTTP_PORT, "targetPort": HTTP_PORT},
                {"name": "tcp", "port": TCP_PORT, "targetPort": TCP_PORT},
            ],
        }
        if headless:
            spec["clusterIP"] = "None"
        metadata = {"name": f"{name}-headless" if headless else name, "namespace": namespace}
        made = self.api.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        addresses: list[str] = made["spec"]["clusterIPs"]
        return addresses

    def decision(self, namespace: str, name: str, *, resource: str = "pods", verb: str = "create") -> dict[str, str]:
        """Return what our webhook said of the last such write, in the API server's audit log."""

        def found() -> dict[str, str]:
            wanted = {"objectRef__resource": resource, "objectRef__name": name, "objectRef__namespace": namespace}
            for event in reversed(self.plane.audit_events(verb=verb, **wanted)):
                annotations = event.get("annotations", {})
                ours = {key.split("/")[1]: value for key, value in annotations.items() if ".client-ip.dev/" in key}
                if ours:
                    return ours
            return {}

        return wait_until(found, what=f"the audit log to tell our decision on {namespace}/{name}", seconds=5)

    @staticmethod
    def reachable(netns: str, address: str, port: int, path: str = "/ready") -> None:
        """Wait until a Service's address answers: kube-proxy and istiod hear of it a moment later than we."""

        def answered() -> bool:
            return http_get(netns, address, port, path).status == 200

        wait_until(answered, what=f"{address}:{port}{path} to answer in {netns}", passing=(Unanswered,), seconds=20)
