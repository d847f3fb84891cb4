"""
The node index equals the plain loop, whatever nodes come, change and go.

"The cost of a decision must not grow with the cluster: index the nodes so that a pod's constraints select a set without
visiting every node, and prove it equal to the plain loop." Everything goes through what the server uses: a Collector
that is fed the API server's JSON, and the snapshots that it gives.
"""

import json
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.property import documents as made, plain
from tests.property.documents import Document
from webhook.facts.collect import Collector, decode
from webhook.rules.nodes import (
    Node,
    NodeIndex,
    NodeIndexBuilder,
    NodeSelectorTerm,
    feasible_nodes,
    glob_matches,
    index_nodes,
)
from webhook.rules.objects import PodSpec
from webhook.rules.ordering import Ordering
from webhook.rules.policy import BUILT_IN
from webhook.rules.selectors import Requirement, Toleration


def asked(index: NodeIndex, document: Document) -> tuple[set[str], set[str]]:
    """Return the nodes that are feasible and those that are tolerated, by the index."""
    spec = msgspec.convert(document, PodSpec)
    tolerations = spec.tolerations or ()
    feasible = feasible_nodes(index, node_selector=spec.node_selector, terms=spec.terms(), tolerations=tolerations)
    return set(index.names(feasible)), set(index.names(index.tolerated(tolerations)))


def looped(
    nodes: Sequence[Mapping[str, Any]], document: Document, transient: Sequence[str]
) -> tuple[set[str], set[str]]:
    """Return the same by the plain loop."""
    return plain.feasible(document, nodes, transient), plain.tolerated(document, nodes, transient)


@settings(max_examples=300, deadline=None)
@given(nodes=st.lists(made.nodes, max_size=20), pods=st.lists(made.pod_specs, min_size=1, max_size=3))
def test_a_cluster_that_is_listed(nodes: list[Document], pods: list[Document]) -> None:
    index = index_nodes((msgspec.convert(each, Node) for each in nodes), BUILT_IN.node_rules)
    last = list({plain.name_of(each): each for each in nodes}.values())
    for pod in pods:
        assert asked(index, pod) == looped(last, pod, [*plain.TRANSIENT, *plain.BUILT_IN_TRANSIENT])


@settings(max_examples=100, deadline=None)
@given(nodes=made.clusters)
def test_every_operator_on_every_key_and_taint(nodes: list[Document]) -> None:
    index = index_nodes((msgspec.convert(each, Node) for each in nodes), BUILT_IN.node_rules)
    transient = [*plain.TRANSIENT, *plain.BUILT_IN_TRANSIENT]
    for pod in made.PROBES:
        assert asked(index, pod) == looped(nodes, pod, transient), pod


@settings(max_examples=200, deadline=None)
@given(
    nodes=st.lists(made.nodes, max_size=40),
    tolerations=st.lists(made.tolerations, min_size=17, max_size=60),
    terms=st.none() | st.lists(made.terms, min_size=17, max_size=60),
)
@pytest.mark.slow
def test_more_tolerations_and_terms_than_are_taken_one_by_one(
    nodes: list[Document], tolerations: list[Document], terms: list[Document] | None
) -> None:
    """Many are folded into few, and equal ones decided once."""
    index = index_nodes((msgspec.convert(each, Node) for each in nodes), BUILT_IN.node_rules)
    last = list({plain.name_of(each): each for each in nodes}.values())
    transient = [*plain.TRANSIENT, *plain.BUILT_IN_TRANSIENT]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    affinity = {} if terms is None else {"affinity": {"nodeAffinity": required}}
    for some in (tolerations, tolerations[:17], [*tolerations, {"operator": "Exists"}]):
        pod = {"tolerations": some, **affinity}
        assert asked(index, pod) == looped(last, pod, transient)


def numbered(count: int, every: int = 1) -> list[Document]:
    """Return nodes with an integer each, as a label and as a taint, some of which are not written as such."""
    found = []
    for number in range(count):
        value = str(number // every * 3) if number % 11 else f"{number}x"
        taint = {"key": "dedicated", "value": value, "effect": "NoSchedule"}
        found.append(made.node(f"n{number}", {"rank": value, "zone": "a"}, {"taints": [taint]}, {}))
    return found


@pytest.mark.parametrize(("count", "every"), [(1_200, 1), (1_200, 5), (1_200, 40), (12_000, 1)])
def test_bounds_over_many_integers(count: int, every: int) -> None:
    """Beyond a few integers there are sets at some of them alone, and from some size on they are put together apart."""
    nodes = numbered(count, every)
    index = index_nodes((msgspec.convert(each, Node) for each in nodes), BUILT_IN.node_rules)
    for bound in {0, 1, 2, count, 3 * count - 6, 3 * count - 4, 3 * count, *range(5, 2_000, 397)}:
        for operator in ("Gt", "Lt"):
            held = {f"n{number}": number // every * 3 for number in range(count) if number % 11}
            fits = {
                name for name, integer in held.items() if (integer > bound if operator == "Gt" else integer < bound)
            }
            term = NodeSelectorTerm(match_expressions=[Requirement(key="rank", operator=operator, values=[str(bound)])])
            assert set(index.names(index.selected(None, [term]))) == fits
            alone = [Toleration(key="dedicated", operator=operator, value=str(bound))]
            assert set(index.names(index.tolerated(alone))) == fits
            many = [*alone, *(Toleration(key=f"other-{each}") for each in range(20))]
            assert set(index.names(index.tolerated(many))) == fits


def test_an_integer_label_of_50_000_nodes_takes_at_most_4_mib() -> None:
    """A set for each integer would take 160."""
    held = [(number * 7, (number,)) for number in range(50_000)]
    tracemalloc.start()
    ordering = Ordering(held)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept <= 4 * 2**20
    assert ordering.above(7 * 49_998) == 1 << 49_999
    assert ordering.below(8) == 0b11
    assert ordering.above(7 * 25_000).bit_count() == 24_999


@settings(max_examples=300, deadline=None)
@given(glob=st.text("ab*?", max_size=8), text=st.text("ab\n", max_size=12))
def test_globs_mean_what_they_say_letter_by_letter(glob: str, text: str) -> None:
    assert glob_matches(glob, text) == plain.fits(glob, text)


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(14, 40),
    value=st.sampled_from(made.NUMBERS + made.NO_NUMBERS),
    gone=st.sets(st.integers(0, 39), max_size=40),
    pods=st.lists(made.pod_specs, min_size=1, max_size=3),
)
def test_values_that_many_nodes_hold(count: int, value: str, gone: set[int], pods: list[Document]) -> None:
    """Beyond a few nodes a value's holders are kept in another form."""
    taint = {"key": "dedicated", "value": value, "effect": "NoSchedule"}
    nodes = [made.node(f"n{number}", {"rank": value}, {"taints": [taint]}, {}) for number in range(count)]
    builder = NodeIndexBuilder(BUILT_IN.node_rules)
    for each in nodes:
        builder.put(msgspec.convert(each, Node))
    builder = NodeIndexBuilder(BUILT_IN.node_rules, builder.freeze())
    for number in gone:
        assert builder.remove(f"n{number}") is (number < count)
    left = [each for number, each in enumerate(nodes) if number not in gone]
    for pod in pods:
        assert asked(builder.freeze(), pod) == looped(left, pod, [])


class Churn(RuleBasedStateMachine):
    """A cluster that lives, and the snapshots that were handed out on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.collector = Collector()
        self.nodes: dict[str, Document] = {}
        self.table: Sequence[Mapping[str, Any]] = plain.BUILT_IN_RULES
        self.transient: Sequence[str] = plain.BUILT_IN_TRANSIENT
        self.handed_out: list[tuple[NodeIndex, list[Document], Sequence[str]]] = []

    @initialize(nodes=made.clusters)
    def listed(self, nodes: list[Document]) -> None:
        for each in nodes:
            self._put(each)

    @rule(node=made.nodes)
    def added_or_replaced(self, node: Document) -> None:
        self._put(node)

    @rule(
        first=st.integers(0, 30),
        count=st.integers(1, 30),
        labels=made.node_labels,
        spec=made.node_specs,
        info=made.node_infos,
    )
    def pool_added(self, first: int, count: int, labels: Document, spec: Document, info: Document) -> None:
        for name in made.NAMES[first : first + count]:
            self._put(made.node(name, labels, spec, info))

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), labels=made.node_labels)
    def relabelled(self, data: st.DataObject, labels: Document) -> None:
        node = self._one(data)
        self._put({**node, "metadata": {**node["metadata"], "labels": labels}})

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), taints=st.lists(made.taints, max_size=3))
    def tainted(self, data: st.DataObject, taints: list[Document]) -> None:
        node = self._one(data)
        self._put({**node, "spec": {**node["spec"], "taints": taints}})

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), cordoned=st.booleans())
    def cordoned_or_not(self, data: st.DataObject, *, cordoned: bool) -> None:
        node = self._one(data)
        self._put({**node, "spec": {**node["spec"], "unschedulable": cordoned}})

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), info=made.node_infos)
    def upgraded(self, data: st.DataObject, info: Document) -> None:
        self._put({**self._one(data), "status": {"nodeInfo": info}})

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        """What no decision rests on changes nothing, and makes no new index."""
        before = self.collector.snapshot().nodes
        node = self._one(data)
        self._put({**node, "metadata": {**node["metadata"], "resourceVersion": "7", "annotations": {"a": "b"}}})
        assert self.collector.snapshot().nodes is before

    @rule(data=st.data(), most=st.integers(1, 25))
    def deleted(self, data: st.DataObject, most: int) -> None:
        for name in data.draw(st.lists(st.sampled_from(made.NAMES), max_size=most, unique=True)):
            self.nodes.pop(name, None)
            self.collector.remove_node(name)

    @rule(transient=st.lists(st.sampled_from(made.TAINTED), max_size=2, unique=True), reverse=st.booleans())
    def policy_changed(self, transient: list[str], *, reverse: bool) -> None:
        """Other rules: every node is classified anew, beside the index that is in use."""
        self.transient = transient
        self.table = plain.BUILT_IN_RULES[::-1] if reverse else plain.BUILT_IN_RULES
        nodes = {"transientTaints": transient, "rules": [dict(each) for each in self.table]}
        self.collector.put_policy(
            {
                "apiVersion": "client-ip.dev/v1alpha1",
                "kind": "ClientIPPolicy",
                "metadata": {"name": "default"},
                "spec": {"mode": "Enforce", "nodes": nodes},
            },
        )
        assert not self.collector.policy_errors
        if self.collector.rules_changed:
            self._relist()

    @rule()
    def relisted(self) -> None:
        self._relist()

    @rule()
    def snapshot_taken(self) -> None:
        self.handed_out.append((self.collector.snapshot().nodes, list(self.nodes.values()), self._passing()))

    @rule()
    def searched(self) -> None:
        """Every key, value and taint, in the newest snapshot and in the oldest."""
        index, nodes, transient = self.collector.snapshot().nodes, list(self.nodes.values()), self._passing()
        for pod in made.PROBES:
            assert asked(index, pod) == looped(nodes, pod, transient), pod
        for index, nodes, transient in self.handed_out[:1]:
            for pod in made.PROBES[::5]:
                assert asked(index, pod) == looped(nodes, pod, transient), pod

    @rule(pod=made.pod_specs)
    def pod_decided(self, pod: Document) -> None:
        index = self.collector.snapshot().nodes
        assert asked(index, pod) == looped(list(self.nodes.values()), pod, self._passing())

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), pod=made.pod_specs)
    def pod_decided_on_an_older_snapshot(self, data: st.DataObject, pod: Document) -> None:
        """What was handed out never changes."""
        index, nodes, transient = data.draw(st.sampled_from(self.handed_out))
        assert asked(index, pod) == looped(nodes, pod, transient)
        assert set(index.names(index.everything)) == {plain.name_of(each) for each in nodes}

    @invariant()
    def every_node_is_known_and_classified(self) -> None:
        index = self.collector.snapshot().nodes
        assert len(index) == len(self.nodes) == len(self.collector.builder)
        assert self.collector.builder.names() == set(self.nodes)
        assert set(index.names(index.everything)) == set(self.nodes)
        supported = {name for name, node in self.nodes.items() if plain.supports_tproxy(node, self.table)}
        assert set(index.names(index.supported)) == supported
        if self.nodes:
            name, node = index.example(index.everything)
            assert index.node(name) is node

    def _put(self, node: Document) -> None:
        self.nodes[plain.name_of(node)] = node
        self.collector.put("v1", "Node", json.dumps(node).encode())

    def _one(self, data: st.DataObject) -> Document:
        return self.nodes[data.draw(st.sampled_from(sorted(self.nodes)))]

    def _passing(self) -> Sequence[str]:
        return [*plain.TRANSIENT, *self.transient]

    def _relist(self) -> None:
        builder = NodeIndexBuilder(self.collector.policies.default.node_rules)
        for each in self.nodes.values():
            builder.put(decode(json.dumps(each).encode(), Node))
        self.collector.replace_nodes(builder)


TestChurn = pytest.mark.slow(Churn.TestCase)
TestChurn.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
