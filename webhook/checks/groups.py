"""All checks, in the order in which a person would look."""

from typing import Final

from webhook.checks import cluster, gateways, installation, mesh, nodes, order, platform, policy, reach
from webhook.checks.check import Group

GROUPS: Final[tuple[Group, ...]] = (
    cluster.GROUP,
    installation.GROUP,
    reach.GROUP,
    order.GROUP,
    mesh.GROUP,
    nodes.GROUP,
    gateways.GROUP,
    policy.GROUP,
    platform.GROUP,
)
