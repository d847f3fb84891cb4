"""Is `Local` safe for a gateway's Service: its pods against nodes and zones, and who else writes the field."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from webhook.rules.nodes import NodeIndex
from webhook.running.findings import NAMES, Gateway, Manager, Named
from webhook.running.objects import ManagedFields, RunningService

ZONE: Final = "topology.kubernetes.io/zone"
EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""
A node that load balancers leave out.

https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-exclude-from-external-load-balancers
"""
MANAGERS: Final = 5
CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
LOCAL: Final = "Local"


def gateway_of(service: RunningService, pod_nodes: Sequence[str], nodes: NodeIndex) -> Gateway:
    """
    Return what `Local` means for *service*.

    Args:
        service: The gateway's Service.
        pod_nodes: The node of each ready pod that it selects.
        nodes: All nodes; those that load balancers leave out, and control planes', don't count.

    """
    with_pod = sorted(set(pod_nodes))
    eligible = [name for name in nodes.names(nodes.everything) if _takes_traffic(nodes, name)]
    dropping = sorted(set(eligible).difference(with_pod))
    zones = _zones(nodes, eligible)
    without = sorted(zones - _zones(nodes, with_pod))
    managers = other_managers(service.metadata.managed_fields)
    spec = service.spec
    return Gateway(
        type=spec.type,
        external_traffic_policy=spec.external_traffic_policy,
        ready_pods=len(pod_nodes),
        nodes=named(with_pod),
        dropping=named(dropping),
        zones_without=without[:NAMES] if with_pod else [],
        managers=managers[:MANAGERS],
        warnings=list(_warnings(service, pod_nodes, len(dropping), without, managers)),
    )


def named(names: Sequence[str]) -> Named:
    """Return how many *names* there are, and a few of them."""
    return Named(count=len(names), names=list(names[:NAMES]))


def _takes_traffic(nodes: NodeIndex, name: str) -> bool:
    node = nodes.node(name)
    return node is not None and EXCLUDED not in node.labels and CONTROL_PLANE not in node.labels


def _zones(nodes: NodeIndex, names: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        node = nodes.node(name)
        zone = node.labels.get(ZONE) if node is not None else None
        if zone:
            found.add(zone)
    return found


def other_managers(managed: Iterable[ManagedFields] | None) -> list[Manager]:
    """Return who owns `spec.externalTrafficPolicy`; what a webhook patches is put down to whoever made the request."""
    found = {}
    for each in managed or ():
        spec = each.fields.spec if each.fields is not None else None
        if spec is not None and spec.external_traffic_policy is not None:
            found[each.manager, each.operation] = Manager(name=each.manager[:60], operation=each.operation)
    return sorted(found.values(), key=lambda manager: (manager.operation, manager.name))


def _warnings(
    service: RunningService,
    pod_nodes: Sequence[str],
    dropping: int,
    zones_without: Sequence[str],
    managers: Sequence[Manager],
) -> Iterable[str]:
    spec = service.spec
    if not spec.selector:
        yield "it has no selector, so its nodes are not known"
    elif not pod_nodes:
        yield "no ready pod: with Local, every node drops its traffic"
    else:
        if len(pod_nodes) == 1:
            yield "one ready pod: while it is replaced, every node drops its traffic"
        elif len(set(pod_nodes)) == 1:
            yield f"all {len(pod_nodes)} pods are on one node: with Local, only this node accepts traffic"
        elif _uneven(pod_nodes):
            yield "nodes have different numbers of its pods, but a load balancer sends each node the same share"
        if zones_without:
            named_zones = ", ".join(zones_without[:NAMES])
            yield f"no pod in {named_zones}: a load balancer's address in such a zone has no target"
        if dropping and spec.type != "LoadBalancer":
            yield f"{dropping} nodes without a pod drop the traffic of clients: no health check removes them"
    for manager in managers:
        if manager.operation == "Apply":
            yield (
                f"{manager.name} sets externalTrafficPolicy by server-side apply, and will set it again: "
                "let it set Local, or omit the field"
            )


def _uneven(pod_nodes: Sequence[str]) -> bool:
    return len(set(Counter(pod_nodes).values())) > 1
