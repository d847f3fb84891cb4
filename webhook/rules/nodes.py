"""
Which nodes a pod may land on, and which of them support TPROXY.

Knows the four filters of kube-scheduler that only look at the node object and the pod: NodeName, NodeUnschedulable,
NodeAffinity and TaintToleration; and the compatibility rules of the default policy. It knows no resources, ports,
volumes or topology: those filters can only take nodes away from the set, never add one.

The index keeps, for each label value, key and taint, the set of nodes that carry it as a Python int whose bit *i* is
the node in slot *i*, so that a pod's constraints select a set without visiting every node. The plain loop that it
replaces is in tests/property/plain.py, and they are compared there.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from sys import intern
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from webhook.rules import wellknown
from webhook.rules.limits import NODE_LABELS, NODE_TAINTS, NODE_TEXT
from webhook.rules.ordering import Ordering
from webhook.rules.selectors import (
    EVERYTHING,
    LabelSelector,
    Requirement,
    Taint,
    Toleration,
    parse_canonical,
    parse_int64,
    requirement_is_valid,
    tolerates,
)
from webhook.rules.tolerating import Tolerated, by_key_and_effect

MANY_VALUES: Final = 256
"""Values of a label from which on they are taken to be one of each node."""
FEW: Final = 16
"""Values held by at most this many nodes keep a tuple of slots: a bitset for each hostname cost 176 MB at 50,000."""

ASKED: Final = 32
"""Nodes that are asked whose machines the cluster has: virtual nodes and fresh ones don't say."""
PROVIDER_LIMIT: Final = 40
"""Characters of a providerID that are looked at."""

Few: TypeAlias = tuple[int, ...]
TaintKey: TypeAlias = tuple[str, str, int]
"""A taint's key and effect, and which of those it is."""


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What the kubelet says of its machine (status.nodeInfo)."""

    os_image: str = ""
    kernel_version: str = ""
    operating_system: str = ""


class NodeMetadata(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of a node's metadata that a decision reads."""

    name: str = ""
    labels: dict[str, str] | None = None
    resource_version: str = ""


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a node's spec that a decision reads."""

    unschedulable: bool | None = None
    taints: list[Taint] | None = None
    provider_id: str = msgspec.field(default="", name="providerID")


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of a node's status that a decision reads."""

    node_info: NodeInfo | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A Node, less all that no decision rests on."""

    metadata: NodeMetadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class NodeSelectorTerm(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One of the alternatives of a required node affinity: all its requirements must hold."""

    match_expressions: list[Requirement] | None = None
    match_fields: list[Requirement] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRule:
    """One row of the compatibility table: every pattern that is given must match."""

    name: str
    supported: bool
    selector: LabelSelector = EVERYTHING
    os_image: str | None = None
    kernel_version: str | None = None
    operating_system: str | None = None

    def matches(self, labels: Mapping[str, str], info: NodeInfo) -> bool:
        """Return whether the node's labels and its nodeInfo fit; patterns are case-sensitive globs."""
        return (
            glob_matches(self.os_image, info.os_image)
            and glob_matches(self.kernel_version, info.kernel_version)
            and glob_matches(self.operating_system, info.operating_system)
            and self.selector.matches(labels)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRules:
    """The default policy's word on nodes: its rule table in order, and the taints that pass."""

    rules: tuple[NodeRule, ...] = ()
    transient_taints: frozenset[str] = wellknown.TRANSIENT_TAINTS


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    first, *others = ("".join("." if c == "?" else re.escape(c) for c in piece) for piece in glob.split("*"))
    if not others:
        return re.compile(first, re.DOTALL)
    # What lies between two stars is best found as early as it can be, and a group `(?>…)` gives nothing back.
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)


def glob_matches(glob: str | None, text: str) -> bool:
    """Return whether *text* fits *glob* (`*` any run, `?` any one character, case-sensitive); None fits all."""
    return glob is None or _pattern(glob).fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Whether a node supports TPROXY, and the rule that says so."""

    supported: bool
    rule: str


@lru_cache(maxsize=256)
def _said(rule: str, *, supported: bool) -> Compatibility:
    """Return the one object that says so: of most nodes the same is said."""
    return Compatibility(supported, rule)


@lru_cache(maxsize=256)
def _shape(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the one tuple that equals *keys*: nodes of one kind have the same labels."""
    return keys


def compatibility(node: Node, rules: NodeRules) -> Compatibility:
    """
    Return whether *node* supports TPROXY: the operator's label first, then what is known of it, then the table.

    Every node that no rule speaks of is supported.
    """
    labels = node.metadata.labels or {}
    word = labels.get(wellknown.NODE_TPROXY)
    if word is not None:
        said = "" if word in {"supported", "unsupported"} else ", which must be supported or unsupported"
        return _said(f"label {wellknown.NODE_TPROXY}={word}{said}", supported=word == "supported")
    info = _info(node)
    if info is None or not (info.os_image or info.kernel_version or info.operating_system):
        return _said("no nodeInfo yet", supported=False)
    system = _system(labels, info)
    if system not in _LINUX:
        return _said(f"operatingSystem {system}", supported=False)
    if not (info.os_image or info.kernel_version):
        return _said("neither osImage nor kernelVersion is known", supported=False)
    for rule in rules.rules:
        if rule.matches(labels, info):
            return _said(f"rule {rule.name}", supported=rule.supported)
    return _said("no rule matches", supported=True)


def _info(node: Node) -> NodeInfo | None:
    """Return what its kubelet says of a node, as much of it as is read."""
    info = node.status.node_info if node.status is not None else None
    if info is None or len(info.os_image) + len(info.kernel_version) + len(info.operating_system) <= NODE_TEXT:
        return info
    return NodeInfo(
        os_image=info.os_image[:NODE_TEXT],
        kernel_version=info.kernel_version[:NODE_TEXT],
        operating_system=info.operating_system[:NODE_TEXT],
    )


_LINUX: Final = frozenset({"", "linux"})
"""A node that says nothing is taken for one."""


def _system(labels: Mapping[str, str], info: NodeInfo | None) -> str:
    """Return the operating system: the kubelet says it in nodeInfo, and before that in labels."""
    if info is not None and info.operating_system:
        return info.operating_system
    return next((labels[key] for key in wellknown.OS_LABELS if key in labels), "")


def _provider(provider_id: str) -> str:
    """Return whose machine it is; Oracle's nodes have their bare OCID (oci-cloud-controller-manager, util.go)."""
    scheme, found, _ = provider_id[:PROVIDER_LIMIT].partition("://")
    return intern(scheme) if found else "oci" if provider_id.startswith("ocid1.") else ""


@dataclass(frozen=True, slots=True)
class IndexedNode:
    """What the index keeps of a node: enough to take it out again and to name it."""

    slot: int
    keys: tuple[str, ...]
    """Of its labels; nodes of one kind share them, which is a quarter of what an index holds."""
    values: tuple[str, ...]
    taints: tuple[tuple[TaintKey, str], ...]
    unschedulable: bool
    os_image: str
    compatibility: Compatibility
    runs_linux: bool = True
    """Whether a Linux sidecar can run there at all: what the operator's label says does not change it."""
    provider: str = ""
    """Whose machine it is: of spec.providerID what stands before `://`."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels, as many as are read."""
        return dict(zip(self.keys, self.values, strict=True))


@dataclass(slots=True)
class _Key:
    """The nodes that carry one label key, or one taint key and effect, by value."""

    holders: int = 0
    values: dict[str, int | Few] = field(default_factory=dict)
    ordered: Ordering | None = None
    """Its integers in order, made when Gt or Lt first asks for this key."""

    def copy(self) -> "_Key":
        return _Key(self.holders, dict(self.values))

    def add(self, value: str, slot: int) -> None:
        self.holders |= 1 << slot
        self.ordered = None
        held = self.values.get(value, ())
        if isinstance(held, int):
            self.values[value] = held | 1 << slot
        elif len(held) < FEW:
            self.values[value] = (*held, slot)
        else:
            self.values[value] = _bits(held) | 1 << slot

    def discard(self, value: str, slot: int) -> None:
        self.holders &= ~(1 << slot)
        self.ordered = None
        held = self.values[value]
        left = held & ~(1 << slot) if isinstance(held, int) else tuple(s for s in held if s != slot)
        if left:
            self.values[value] = left
        else:
            del self.values[value]

    def holding(self, value: str) -> int:
        held = self.values.get(value, 0)
        return held if isinstance(held, int) else _bits(held)

    def ordering(self, read: Callable[[str], int | None]) -> Ordering:
        """Return the nodes by integer; *read* is the same at each call: labels and taints read integers differently."""
        if self.ordered is None:
            numbers = ((read(value), held) for value, held in self.values.items())
            self.ordered = Ordering((number, held) for number, held in numbers if number is not None)
        return self.ordered


def _bits(slots: Iterable[int]) -> int:
    bits = 0
    for slot in slots:
        bits |= 1 << slot
    return bits


_NO_KEY: Final = _Key()
_encode: Final = msgspec.json.Encoder().encode


class NodeIndex:
    """
    The nodes of a cluster, frozen: `NodeIndexBuilder` makes the next one, sharing what did not change.

    Sets of nodes are ints; `names` and `example` turn them back into nodes.
    """

    __slots__ = (
        "_by_slot",
        "_cloud",
        "_keys",
        "_nodes",
        "_taints",
        "cordoned",
        "everything",
        "linux",
        "rules",
        "supported",
    )

    def __init__(
        self,
        *,
        rules: NodeRules,
        nodes: dict[str, IndexedNode],
        by_slot: list[str | None],
        keys: dict[str, _Key],
        taints: dict[TaintKey, _Key],
        everything: int,
        cordoned: int,
        supported: int,
        linux: int,
    ) -> None:
        self._cloud: str | None = None
        """What `provider` says, once it was asked: an index never changes."""
        self.linux = linux
        self.rules = rules
        self._nodes = nodes
        self._by_slot = by_slot
        self._keys = keys
        self._taints = taints
        self.everything = everything
        self.cordoned = cordoned
        self.supported = supported

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, name: str) -> IndexedNode | None:
        """Return what the index knows of the node called *name*."""
        return self._nodes.get(name)

    def names(self, nodes: int, most: int | None = None) -> list[str]:
        """Return the names of the set *nodes*, in slot order; only the first *most* where that is given."""
        found: list[str] = []
        while nodes and len(found) != most:
            lowest = nodes & -nodes
            name = self._by_slot[lowest.bit_length() - 1]
            if name is not None:
                found.append(name)
            nodes ^= lowest
        return found

    def example(self, nodes: int) -> tuple[str, IndexedNode]:
        """Return one node of the set *nodes*, which must not be empty."""
        name = self._by_slot[(nodes & -nodes).bit_length() - 1]
        assert name is not None  # noqa: S101  # a set only holds slots that are taken
        return name, self._nodes[name]

    def provider(self) -> str:
        """Return whose machines the cluster has, as one of its nodes says; empty where it does not."""
        if self._cloud is None:
            some = (self._nodes[name].provider for name in self.names(self.everything, ASKED))
            self._cloud = next((provider for provider in some if provider), "")
        return self._cloud

    def tolerated(self, tolerations: Sequence[Toleration]) -> int:
        """
        Return the nodes that NodeUnschedulable and TaintToleration let through.

        Only NoSchedule and NoExecute taints repel:
        https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go
        A cordoned node passes a pod that tolerates its taint, with or without the taint on the node:
        https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go
        """
        if len(tolerations) > FEW:
            return self._tolerated_by_many(tolerations)
        allowed = self.everything
        if self.cordoned and not any(
            tolerates(each, key=wellknown.UNSCHEDULABLE_TAINT, value="", effect="NoSchedule") for each in tolerations
        ):
            allowed ^= allowed & self.cordoned
        for (key, effect, _), holders in self._taints.items():
            # a ^ (a & b) is a & ~b, at half the cost: the inverse of a large int is negative, and copied for each step.
            allowed ^= allowed & self._repelled(key, effect, holders, tolerations)
        return allowed

    def _tolerated_by_many(self, tolerations: Sequence[Toleration]) -> int:
        """As `tolerated`: equal tolerations, and those that say less than others, cost nothing."""
        by_key = by_key_and_effect(tolerations)
        allowed = self.everything
        if self.cordoned:
            cordon = _Key(self.cordoned, {"": self.cordoned})
            allowed ^= allowed & self._repelled_by_many(wellknown.UNSCHEDULABLE_TAINT, "NoSchedule", cordon, by_key)
        for (key, effect, _), holders in self._taints.items():
            allowed ^= allowed & self._repelled_by_many(key, effect, holders, by_key)
        return allowed

    @staticmethod
    def _repelled(key: str, effect: str, holders: _Key, tolerations: Sequence[Toleration]) -> int:
        repelled = holders.holders
        for each in tolerations:
            if each.key and each.key != key:
                continue
            if each.operator == "Exists":
                if not each.effect or each.effect == effect:
                    return 0
            elif each.operator in {"", "Equal"}:
                if not each.effect or each.effect == effect:
                    repelled ^= repelled & holders.holding(each.value)
            elif each.operator in {"Gt", "Lt"} and (not each.effect or each.effect == effect):
                bound = parse_canonical(each.value)
                if bound is not None:
                    ordering = holders.ordering(parse_canonical)
                    repelled ^= repelled & (ordering.above(bound) if each.operator == "Gt" else ordering.below(bound))
        return repelled

    @staticmethod
    def _repelled_by_many(key: str, effect: str, holders: _Key, allowed: Mapping[tuple[str, str], Tolerated]) -> int:
        """As `_repelled`: in steps that grow with the taint's values, not with the tolerations."""
        repelled = holders.holders
        for which in {(key, effect), (key, ""), ("", effect), ("", "")}:
            tolerated = allowed.get(which)
            if tolerated is None:
                continue
            if tolerated.all:
                return 0
            values, held = tolerated.values, holders.values
            for value in values if len(values) < len(held) else held:
                if value in values:
                    repelled ^= repelled & holders.holding(value)
            if tolerated.above is not None:
                repelled ^= repelled & holders.ordering(parse_canonical).above(tolerated.above)
            if tolerated.below is not None:
                repelled ^= repelled & holders.ordering(parse_canonical).below(tolerated.below)
        return repelled

    def selected(
        self,
        node_selector: Mapping[str, str] | None,
        terms: Sequence[NodeSelectorTerm] | None,
    ) -> int:
        """
        Return the nodes that NodeAffinity lets through: the nodeSelector and any of the required *terms*.

        None means that the pod has no required affinity; an empty list of terms matches no node.
        https://github.com/kubernetes/component-helpers/blob/v0.37.2/scheduling/corev1/nodeaffinity/nodeaffinity.go
        """
        nodes = self.everything
        for key, value in (node_selector or {}).items():
            nodes &= self._keys.get(key, _NO_KEY).holding(value)
        if terms is not None and nodes:
            chosen = 0
            if len(terms) > FEW:
                terms = list({_encode(term): term for term in terms}.values())  # equal ones are decided once
            for term in terms:
                chosen |= self._term(term)
            nodes &= chosen
        return nodes

    def _term(self, term: NodeSelectorTerm) -> int:
        """A nil or empty term matches nothing; a requirement that does not parse voids its own term."""
        if not term.match_expressions and not term.match_fields:
            return 0
        nodes = self.everything
        for requirement in term.match_expressions or ():
            if not requirement_is_valid(requirement):
                return 0
            nodes &= self._requirement(requirement)
        for requirement in term.match_fields or ():
            nodes &= self._field(requirement)
        return nodes

    def _requirement(self, requirement: Requirement) -> int:
        key = self._keys.get(requirement.key, _NO_KEY)
        match requirement.operator:
            case "Exists":
                return key.holders
            case "DoesNotExist":
                return self.everything ^ key.holders
            case "Gt" | "Lt" as operator:
                bound = parse_int64((requirement.values or ("",))[0]) or 0
                ordering = key.ordering(parse_int64)
                return ordering.above(bound) if operator == "Gt" else ordering.below(bound)
            case operator:
                nodes = 0
                for value in requirement.values or ():
                    nodes |= key.holding(value)
                # "NotIn" matches nodes without the key as well.
                return nodes if operator == "In" else self.everything ^ nodes

    def _field(self, requirement: Requirement) -> int:
        """In and NotIn of exactly one value parse; a node has the field `metadata.name` alone, all others are empty."""
        values = requirement.values or ()
        if len(values) != 1:
            return 0
        if requirement.key == "metadata.name":
            node = self._nodes.get(values[0])
            named = 1 << node.slot if node is not None else 0
        else:
            named = 0 if values[0] else self.everything
        if requirement.operator == "In":
            return named
        return self.everything ^ named if requirement.operator == "NotIn" else 0


K = TypeVar("K")


class _Table(Generic[K]):
    """Nodes by key, copied on write: keys that a frozen index shares are never changed."""

    __slots__ = ("_own", "_shared")

    def __init__(self, shared: Mapping[K, _Key]) -> None:
        self._shared = dict(shared)
        self._own: set[K] = set()

    def add(self, key: K, value: str, slot: int) -> None:
        self._writable(key).add(value, slot)

    def discard(self, key: K, value: str, slot: int) -> None:
        held = self._writable(key)
        held.discard(value, slot)
        if not held.holders:
            del self._shared[key]

    def distinct(self, key: K) -> int:
        held = self._shared.get(key)
        return 0 if held is None else len(held.values)

    def freeze(self) -> dict[K, _Key]:
        self._own.clear()
        return dict(self._shared)

    def _writable(self, key: K) -> _Key:
        held = self._shared.get(key)
        if held is None or key not in self._own:
            held = self._shared[key] = _Key() if held is None else held.copy()
            self._own.add(key)
        return held


def _repelling(taints: Iterable[Taint], transient: frozenset[str]) -> tuple[tuple[TaintKey, str], ...]:
    """
    Return the taints that repel, by key.

    The API server takes one taint of a key and effect; a file may hold two, and each then repels by itself: so they
    are numbered.
    """
    found: list[tuple[TaintKey, str]] = []
    for taint in taints:
        if taint.effect in {"NoSchedule", "NoExecute"} and taint.key not in transient:
            number = sum(1 for (key, effect, _), _ in found if (key, effect) == (taint.key, taint.effect))
            found.append(((taint.key, taint.effect, number), taint.value))
    return tuple(found)


_BEYOND: Final = Compatibility(supported=False, rule=f"more than {NODE_LABELS:,} labels or {NODE_TAINTS} taints")


class NodeIndexBuilder:
    """
    Makes the next `NodeIndex` from the last one (or from nothing) by putting and removing nodes.

    Works copy-on-write: an index that was handed out never changes. Bulk loads call `put` in slices, so that an
    event loop can breathe in between.
    """

    def __init__(self, rules: NodeRules, base: NodeIndex | None = None) -> None:
        if base is not None and base.rules != rules:
            raise ValueError("an index of other rules is no base: every node must be classified anew")
        self.rules = rules
        self._nodes = dict(base._nodes) if base is not None else {}  # noqa: SLF001  # the builder is the index's other half
        self._by_slot = list(base._by_slot) if base is not None else []  # noqa: SLF001
        self._free = [slot for slot, name in enumerate(self._by_slot) if name is None]
        self._keys: _Table[str] = _Table(base._keys if base is not None else {})  # noqa: SLF001
        self._taints: _Table[TaintKey] = _Table(base._taints if base is not None else {})  # noqa: SLF001
        self._everything = base.everything if base is not None else 0
        self._cordoned = base.cordoned if base is not None else 0
        self._supported = base.supported if base is not None else 0
        self._linux = base.linux if base is not None else 0

    def __len__(self) -> int:
        return len(self._nodes)

    def put(self, node: Node) -> bool:
        """Add *node*, or replace the one of its name; return whether anything that a decision rests on changed."""
        name = node.metadata.name
        known = self._nodes.get(name)
        wanted = self._entry(node, known.slot if known is not None else -1)
        if known is not None:
            if wanted == known:
                return False
            self._unlink(known)
            entry = wanted
        else:
            entry = self._entry(node, self._take_slot(name))
        self._nodes[name] = entry
        self._link(entry)
        return True

    def remove(self, name: str) -> bool:
        """Take the node called *name* out; return whether it was there."""
        known = self._nodes.pop(name, None)
        if known is None:
            return False
        self._unlink(known)
        self._by_slot[known.slot] = None
        self._free.append(known.slot)
        return True

    def names(self) -> set[str]:
        """Return the names of the nodes as they stand."""
        return set(self._nodes)

    def keep(self, names: set[str]) -> None:
        """Take out all nodes but those called *names*, each of which is there."""
        if len(names) == len(self._nodes):
            return  # mostly: and to compare 50,000 names takes milliseconds
        for name in self.names() - names:
            self.remove(name)

    def freeze(self) -> NodeIndex:
        """Return the index as it stands; later changes to the builder don't reach it."""
        return NodeIndex(
            rules=self.rules,
            nodes=dict(self._nodes),
            by_slot=list(self._by_slot),
            keys=self._keys.freeze(),
            taints=self._taints.freeze(),
            everything=self._everything,
            cordoned=self._cordoned,
            supported=self._supported,
            linux=self._linux,
        )

    def _entry(self, node: Node, slot: int) -> IndexedNode:
        spec = node.spec or NodeSpec()
        info = _info(node)
        labels, tainted = node.metadata.labels or {}, spec.taints or []
        beyond = len(labels) > NODE_LABELS or len(tainted) > NODE_TAINTS
        if beyond:  # as much of it as costs nobody much
            labels, tainted = dict(islice(labels.items(), NODE_LABELS)), tainted[:NODE_TAINTS]
        taints = _repelling(tainted, self.rules.transient_taints)
        return IndexedNode(
            slot,
            _shape(tuple(labels)),
            self._shared_values(node.metadata.name, labels),
            taints,
            bool(spec.unschedulable),
            intern(info.os_image) if info is not None else "",
            _BEYOND if beyond else compatibility(node, self.rules),
            _system(node.metadata.labels or {}, info) in _LINUX,
            _provider(spec.provider_id),
        )

    def _shared_values(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Keep a value that many nodes have once: a cluster's zones and pools are few, its hostnames are names."""
        return tuple(
            name if value == name else intern(value) if self._keys.distinct(key) < MANY_VALUES else value
            for key, value in labels.items()
        )

    def _take_slot(self, name: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._by_slot[slot] = name
        else:
            slot = len(self._by_slot)
            self._by_slot.append(name)
        return slot

    def _link(self, entry: IndexedNode) -> None:
        bit = 1 << entry.slot
        self._everything |= bit
        if entry.unschedulable:
            self._cordoned |= bit
        if entry.compatibility.supported:
            self._supported |= bit
        if entry.runs_linux:
            self._linux |= bit
        for key, value in zip(entry.keys, entry.values, strict=True):
            self._keys.add(key, value, entry.slot)
        for taint, value in entry.taints:
            self._taints.add(taint, value, entry.slot)

    def _unlink(self, entry: IndexedNode) -> None:
        rest = ~(1 << entry.slot)
        self._everything &= rest
        self._cordoned &= rest
        self._supported &= rest
        self._linux &= rest
        for key, value in zip(entry.keys, entry.values, strict=True):
            self._keys.discard(key, value, entry.slot)
        for taint, value in entry.taints:
            self._taints.discard(taint, value, entry.slot)


def index_nodes(nodes: Iterable[Node], rules: NodeRules) -> NodeIndex:
    """Return the index of *nodes*; of two with one name the later counts."""
    builder = NodeIndexBuilder(rules)
    for node in nodes:
        builder.put(node)
    return builder.freeze()


def feasible_nodes(
    index: NodeIndex,
    *,
    node_selector: Mapping[str, str] | None,
    terms: Sequence[NodeSelectorTerm] | None,
    tolerations: Sequence[Toleration],
) -> int:
    """Return the set of nodes that all four filters let through for a pod without nodeName."""
    nodes = index.tolerated(tolerations)
    if node_selector or terms is not None:
        nodes &= index.selected(node_selector, terms)
    return nodes
