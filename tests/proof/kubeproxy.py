"""Real kube-proxy on a node: the rules that send a Service's traffic on, and that hide or keep the client's address."""

import json
from pathlib import Path

from tests.parts.build import binaries
from tests.parts.kube import ControlPlane
from tests.parts.process import Process
from tests.proof.ask import Unanswered, http_get
from tests.proof.network import OUTSIDE, Node

HEALTH_PORT = 10256


class KubeProxy:
    """The process of one node, in nftables mode."""

    def __init__(self, plane: ControlPlane, folder: Path, node: Node) -> None:
        """Describe it; the Node object must exist when it starts."""
        outside = [f"{OUTSIDE[node.name][0]}/32"] if node.name in OUTSIDE else []
        configuration = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node.name,
            "clientConnection": {"kubeconfig": str(plane.kubeconfig)},
            "clusterCIDR": "10.88.0.0/16,fd00:88::/32",
            # In this mode NodePorts answer on the node's primary address alone, unless more are named.
            "nodePortAddresses": [f"{node.address}/32", *outside],
            "healthzBindAddress": f"0.0.0.0:{HEALTH_PORT}",
            "metricsBindAddress": "127.0.0.1:10249",
            # The machine's own limits are none of our business.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        path = folder / f"kube-proxy-{node.name}.json"
        path.write_text(json.dumps(configuration))
        self._node = node
        self.process = Process(
            f"kube-proxy of {node.name}",
            [binaries("kube-node-1.37")["kube-proxy"], f"--config={path}"],
            log=folder / "log" / f"kube-proxy-{node.name}.log",
            netns=node.namespace.name,
        )

    def start(self) -> None:
        """Start it and return when its rules are in place."""
        self.process.start()
        self.process.wait_until(self._healthy, what="kube-proxy's /healthz", passing=(Unanswered,))

    def _healthy(self) -> bool:
        return http_get(self._node.namespace.name, "127.0.0.1", HEALTH_PORT, "/healthz").status == 200
