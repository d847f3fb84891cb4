"""The frozen facts that a decision rests on, and the request that is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from webhook.rules import wellknown
from webhook.rules.decided import Decided
from webhook.rules.nodes import NodeIndex, index_nodes
from webhook.rules.objects import Reviewed, Shaped
from webhook.rules.optin import OptOut
from webhook.rules.placement import RuntimeClass
from webhook.rules.policy import BUILT_IN, Policies
from webhook.rules.sidecar import Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the cluster's load balancers may talk to."""

    terway: str = ""
    """The evidence that Terway is there; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is known of the cluster at one moment."""

    policies: Policies = field(default_factory=Policies)
    nodes: NodeIndex = field(default_factory=lambda: index_nodes((), BUILT_IN.node_rules))
    nodes_synced: bool = True
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels by namespace."""
    opt_outs: Mapping[str, OptOut] = field(default_factory=dict)
    """Namespaces that opted in to less than they might until an end; it changes no decision by itself."""
    mesh: Mesh = field(default_factory=Mesh)
    runtime_classes: Mapping[str, RuntimeClass] = field(default_factory=dict)
    """By name; those that may be read."""
    gateway_classes: frozenset[str] = frozenset()
    """The GatewayClasses of Istio's controllers, but for waypoints, meshes and east-west gateways."""
    network: Network = field(default_factory=Network)
    own_namespace: str = wellknown.OWN_NAMESPACE
    decided: Decided = field(default_factory=Decided, init=False, compare=False, repr=False)
    """What `decide_again` decided already: of this snapshot alone, whatever it was made from."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be decided: one object at one operation."""

    object: Reviewed | Shaped | None
    operation: str = "CREATE"
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    kind: str = ""
    dry_run: bool = False
    old_external_traffic_policy: str = ""
    """What a Service had before an UPDATE."""
    size: int = 0
    """The bytes that the object came in, or more; 0 where that is not known."""
    excess: str = ""
    """What of the object was too much to be decoded at all; it stands in *object* as absent."""
