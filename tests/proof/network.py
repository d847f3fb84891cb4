"""
The lab's addresses and cables: a control plane, three nodes and a client outside, in IPv4 and IPv6.

    cip-client 203.0.113.50 ── 203.0.113.1  cip-node-1 ─┐
               198.18.0.50  ── 198.18.0.1   cip-node-2 ─┤ 10.99.0.0/24: cip-control, cip-istiod…, cip-webhook
                                            cip-centos ─┘

Each node routes to its own pods (10.88.N.0/24, one veth and one host route a pod, as a routing CNI plugin does) and to
the other nodes' over the network between them. The load balancer's address is routed to node-1.
"""

from dataclasses import dataclass
from typing import Final

from tests.proof.namespaces import PREFIX, Namespace, connect

LAN: Final = "10.99.0"
LAN6: Final = "fd00:99"
LOAD_BALANCER: Final = "192.0.2.100"
CONTROL_PLANE: Final = f"{LAN}.1"
ISTIOD: Final = f"{LAN}.2"
ISTIOD_CANARY: Final = f"{LAN}.3"
WEBHOOK: Final = f"{LAN}.4"
HOSTS: Final = {"istiod.istio-system.svc": ISTIOD, "istiod-canary.istio-system.svc": ISTIOD_CANARY}
"""What DNS would tell the proxies."""
OUTSIDE: Final = {"node-1": ("203.0.113.1", "203.0.113.50"), "node-2": ("198.18.0.1", "198.18.0.50")}
"""A node's address on the outside link, and the client's."""


@dataclass(slots=True, kw_only=True)
class Node:
    """A node's place in the network."""

    name: str
    number: int
    namespace: Namespace

    @property
    def address(self) -> str:
        """Its InternalIP."""
        return f"{LAN}.{10 + self.number}"

    @property
    def address6(self) -> str:
        """Its InternalIP of IPv6."""
        return f"{LAN6}::{10 + self.number}"

    @property
    def gateway(self) -> str:
        """The address that its pods send to."""
        return f"10.88.{self.number}.1"

    @property
    def gateway6(self) -> str:
        """Likewise of IPv6."""
        return f"fd00:88:{self.number}::1"

    @property
    def pod_cidr(self) -> str:
        """Its pods' addresses."""
        return f"10.88.{self.number}.0/24"

    @property
    def pod_cidr6(self) -> str:
        """Likewise of IPv6."""
        return f"fd00:88:{self.number}::/64"

    def add_pod(self, name: str, host: int) -> tuple[Namespace, tuple[str, str]]:
        """Make a pod's namespace with a way to everywhere; return it with its addresses, which end with *host*."""
        address, address6 = f"10.88.{self.number}.{host}", f"fd00:88:{self.number}::{host}"
        pod, link = Namespace(f"{PREFIX}{name}"), f"pod{host}"
        pod.create(HOSTS)
        connect(self.namespace, link, pod, "eth0")
        for family, mine, its in (("-4", self.gateway, address), ("-6", self.gateway6, address6)):
            bits = "32" if family == "-4" else "128"
            at_once = ("nodad",) if family == "-6" else ()
            self.namespace.ip(family, "addr", "add", f"{mine}/{bits}", "dev", link, *at_once)
            self.namespace.ip(family, "route", "add", f"{its}/{bits}", "dev", link)
            pod.ip(family, "addr", "add", f"{its}/{bits}", "dev", "eth0", *at_once)
            pod.ip(family, "route", "add", f"{mine}/{bits}", "dev", "eth0")
            pod.ip(family, "route", "add", "default", "via", mine, "dev", "eth0")
        return pod, (address, address6)


class Network:
    """Every namespace of the lab but the pods'."""

    def __init__(self) -> None:
        self.control = Namespace(f"{PREFIX}control")
        self.client = Namespace(f"{PREFIX}client")
        self.nodes = {
            name: Node(name=name, number=number, namespace=Namespace(f"{PREFIX}{name}"))
            for number, name in enumerate(("node-1", "node-2", "centos"), 1)
        }

    def create(self) -> None:
        """Make it all."""
        self.control.create(HOSTS)
        self.control.ip("link", "add", "lan", "type", "bridge")
        self.control.ip("link", "set", "lan", "up")
        self._address(self.control, "lan", 1)
        for node in self.nodes.values():
            node.namespace.create()
            node.namespace.forward()
            self._attach(node.namespace, 10 + node.number)
        for node in self.nodes.values():
            self._route_to_pods(self.control, node)
            for other in self.nodes.values():
                if other is not node:
                    self._route_to_pods(other.namespace, node)
        self.client.create()
        for name, (node_side, client_side) in OUTSIDE.items():
            place, link = self.nodes[name].namespace, f"to-{name}"
            connect(place, "outside", self.client, link)
            place.ip("addr", "add", f"{node_side}/24", "dev", "outside")
            self.client.ip("addr", "add", f"{client_side}/24", "dev", link)
            place.ip("route", "replace", f"{client_side}/32", "dev", "outside")
            for other in self.nodes.values():
                if other.name != name:
                    other.namespace.ip("route", "add", f"{client_side}/32", "via", self.nodes[name].address)
        self.client.ip("route", "add", "default", "via", OUTSIDE["node-1"][0])

    def host(self, name: str, last: int) -> Namespace:
        """Make a namespace for a server on the network between the nodes, at the address that ends with *last*."""
        made = Namespace(f"{PREFIX}{name}")
        made.create(HOSTS)
        self._attach(made, last)
        for node in self.nodes.values():
            self._route_to_pods(made, node)
        return made

    def _attach(self, namespace: Namespace, last: int) -> None:
        link = f"lan{last}"
        connect(self.control, link, namespace, "eth0")
        self.control.ip("link", "set", link, "master", "lan")
        self._address(namespace, "eth0", last)

    @staticmethod
    def _address(namespace: Namespace, link: str, last: int) -> None:
        namespace.ip("addr", "add", f"{LAN}.{last}/24", "dev", link)
        namespace.ip("-6", "addr", "add", f"{LAN6}::{last}/64", "dev", link, "nodad")

    @staticmethod
    def _route_to_pods(namespace: Namespace, node: Node) -> None:
        namespace.ip("route", "add", node.pod_cidr, "via", node.address)
        namespace.ip("-6", "route", "add", node.pod_cidr6, "via", node.address6)
