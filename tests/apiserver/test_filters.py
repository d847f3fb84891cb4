"""
The nodes that the rules call feasible are those that kube-scheduler would choose from, exactly.

Clusters and pods are generated, far beyond what the API server would store, and each is put to kube-scheduler's own
filter plugins as well. Transient taints are the rules' own addition, so they are left empty here.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from tests.parts.oracle import Oracle, Verdict
from webhook.rules.nodes import Node, NodeIndex, NodeIndexBuilder, NodeRules, feasible_nodes
from webhook.rules.objects import Pod

pytestmark = pytest.mark.slow

Document = dict[str, Any]
T = TypeVar("T")

SEEDS: Final = 20
CLUSTERS: Final = 100
PODS: Final = 10
"""Of each cluster; so 20,000 pods in all."""

RULES: Final = NodeRules(rules=(), transient_taints=frozenset())
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"

# Few keys and values, so that nodes and pods meet; the odd ones are what parsers disagree about.
KEYS: Final = ("zone", "rank", "example.com/pool", "kubernetes.io/hostname")
ODD_KEYS: Final = ("", "-zone", "a/b/c", "UPPER.com/x", "x" * 64, "metadata.name")
PLAIN: Final = ("a", "b", "")
NUMBERS: Final = ("0", "5", "7", "007", "10", "-5", "+5", "-0", "+0", "9223372036854775807", "-9223372036854775808")
NOT_NUMBERS: Final = (
    " 5",
    "5 ",
    "5\n",
    "1_0",
    "0x5",
    "5.0",
    "1e1",
    "\u0665",
    "--5",
    "-",
    "9223372036854775808",
    "-9223372036854775809",
    "1" * 63,
    "1" * 64,
    "a b",
    "-a",
    "ä",
)
NAMES: Final = ("n0", "n1", "n2", "n3", "n4")
COMMON: Final = ("a", "b", "5", "7", "007")
OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
EFFECTS: Final = ("NoSchedule", "NoExecute", "PreferNoSchedule")
TAINTED: Final = ("dedicated", "example.com/pool", UNSCHEDULABLE, "node.kubernetes.io/not-ready")

VALUES: Final = (*PLAIN, *NUMBERS, *NOT_NUMBERS)


class Maker:
    """
    Makes clusters and pods from a seed.

    Most choices are few and valid, so that pods do select some nodes and not others; the rest goes for whatever JSON
    can hold.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # a seed that says which cases failed, no secret

    def often(self, part: float) -> bool:
        return self.random.random() < part

    def key(self) -> str:
        return self.random.choice(KEYS if self.often(0.97) else ODD_KEYS)

    def value(self) -> str:
        return self.random.choice(COMMON if self.often(0.93) else VALUES)

    def labels(self) -> dict[str, str]:
        return {key: self.value() for key in KEYS if self.often(0.6)} | ({self.key(): self.value()})

    def taint(self) -> Document:
        taint = {"key": self.random.choice(TAINTED), "effect": self.random.choice(EFFECTS)}
        return taint if self.often(0.3) else {**taint, "value": self.value()}

    def node(self, name: str) -> Document:
        # The API server stores no two taints of one key and effect on a node.
        taints = {(taint["key"], taint["effect"]): taint for taint in self.many(self.taint, 3)}
        spec: Document = {} if self.often(0.5) else {"taints": list(taints.values())}
        if self.often(0.2):
            spec["unschedulable"] = self.often(0.8)
        node: Document = {"metadata": {"name": name, "labels": self.labels()}}
        return node if self.often(0.1) else {**node, "spec": spec}

    def cluster(self) -> list[Document]:
        return [self.node(name) for name in NAMES[: self.random.randint(1, len(NAMES))]]

    def requirement(self) -> Document:
        operator = self.random.choice(OPERATORS if self.often(0.97) else ("in", "", "Equals"))
        return {"key": self.key(), "operator": operator, "values": self.values(operator, self.value)}

    def field(self) -> Document:
        key = "metadata.name" if self.often(0.9) else self.random.choice(("metadata.namespace", "zone", ""))
        operator = self.random.choice(("In", "NotIn") if self.often(0.9) else OPERATORS)
        one = [self.random.choice((*NAMES, "absent"))]
        return {"key": key, "operator": operator, "values": one if self.often(0.85) else self.many(lambda: one[0], 2)}

    def values(self, operator: str, value: Callable[[], str]) -> list[str] | None:
        if self.often(0.04):
            return None if self.often(0.3) else self.many(value, 3)
        if operator in {"Exists", "DoesNotExist"}:
            return []
        return [value() for _ in range(1 if operator in {"Gt", "Lt"} else self.random.randint(1, 3))]

    def term(self) -> Document | None:
        term: Document = {}
        if self.often(0.85):
            term["matchExpressions"] = None if self.often(0.03) else self.many(self.requirement, 2)
        if self.often(0.2):
            term["matchFields"] = None if self.often(0.03) else self.many(self.field, 2)
        return term

    def affinity(self) -> Document | None:
        if self.often(0.03):
            return self.random.choice((None, {}, {"nodeAffinity": None}, {"nodeAffinity": {}}))
        terms = None if self.often(0.02) else self.many(self.term, 3)
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
        return {"nodeAffinity": {**required, **(preferred if self.often(0.2) else {})}}

    def toleration(self) -> Document:
        toleration = {
            "key": self.random.choice(("", *TAINTED)),
            "operator": self.random.choice(("", "Equal", "Exists", "Gt", "Lt") if self.often(0.98) else ("equal",)),
            "value": self.value(),
            "effect": self.random.choice(("", *EFFECTS) if self.often(0.98) else ("noschedule",)),
        }
        return {name: value for name, value in toleration.items() if value or self.often(0.5)}

    def pod(self) -> Document:
        spec: Document = {}
        if self.often(0.6):
            spec["affinity"] = self.affinity()
        if self.often(0.25):
            selector = {self.key(): self.value() for _ in range(1 if self.often(0.8) else 2)}
            spec["nodeSelector"] = None if self.often(0.1) else selector
        if self.often(0.6):
            spec["tolerations"] = None if self.often(0.05) else self.many(self.toleration, 4)
        return {"kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}

    def many(self, make: Callable[[], T], most: int) -> list[T]:
        return [make() for _ in range(self.random.randint(0 if self.often(0.1) else 1, most))]


def index_of(nodes: Sequence[Mapping[str, Any]]) -> NodeIndex:
    """The index as it is after a node left, and every other node was replaced by the one that follows it here."""
    builder = NodeIndexBuilder(RULES)
    builder.put(msgspec.convert({"metadata": {"name": "left", "labels": {"zone": "a"}}}, Node))
    for before, after in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        builder.put(
            msgspec.convert({**after, "metadata": {**after["metadata"], "name": before["metadata"]["name"]}}, Node)
        )
    builder = NodeIndexBuilder(RULES, builder.freeze())
    builder.remove("left")
    for each in nodes:
        builder.put(msgspec.convert(each, Node))
    return builder.freeze()


def decided(index: NodeIndex, document: Mapping[str, Any]) -> Verdict:
    spec = msgspec.convert(document, Pod).spec
    tolerating = spec.tolerations or ()
    feasible = feasible_nodes(
        index,
        node_selector=spec.node_selector,
        terms=spec.terms(),
        tolerations=tolerating,
    )
    return Verdict(
        feasible=frozenset(index.names(feasible)),
        tolerated=frozenset(index.names(index.tolerated(tolerating))),
        invalid=(),
    )


def assert_equal(oracle: Oracle, nodes: Sequence[Document], asked: Sequence[Document]) -> list[Verdict]:
    index = index_of(nodes)
    verdicts = oracle.ask(nodes, asked)
    for document, said in zip(asked, verdicts, strict=True):
        got = decided(index, document)
        assert (got.feasible, got.tolerated) == (said.feasible, said.tolerated), (nodes, document)
    return verdicts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_feasible_nodes_are_those_that_kube_scheduler_finds(oracle: Oracle, seed: int) -> None:
    """NodeUnschedulable, NodeAffinity and TaintToleration, whatever the pod says."""
    maker = Maker(seed)
    some = none = admitted = 0
    for _ in range(CLUSTERS):
        nodes = maker.cluster()
        asked = [maker.pod() for _ in range(PODS)]
        for verdict in assert_equal(oracle, nodes, asked):
            some += 0 < len(verdict.feasible) < len(nodes)
            none += not verdict.feasible
            admitted += not verdict.invalid
    # Were nearly all pods to fit everywhere or nowhere, equal answers would say little.
    pods = CLUSTERS * PODS
    assert some > pods / 5, "pods that fit some nodes and not others"
    assert none > pods / 10, "pods that fit no node"
    assert admitted > pods / 4, "pods that the API server would take"


@settings(max_examples=500, deadline=None)
@given(
    labels=st.lists(st.sampled_from(VALUES) | st.integers().map(str), min_size=1, max_size=5),
    operator=st.sampled_from(("Gt", "Lt")),
    bound=st.sampled_from(VALUES) | st.integers().map(str) | st.text(max_size=5),
)
def test_gt_and_lt_read_integers_as_kube_scheduler_reads_them(
    oracle: Oracle,
    labels: list[str],
    operator: str,
    bound: str,
) -> None:
    """Affinity takes what strconv.ParseInt takes, tolerations canonical integers only."""
    nodes: list[Document] = [
        {
            "metadata": {"name": f"n{number}", "labels": {"rank": label}},
            "spec": {"taints": [{"key": "rank", "value": label, "effect": "NoExecute"}]},
        }
        for number, label in enumerate(labels)
    ]
    term = {"matchExpressions": [{"key": "rank", "operator": operator, "values": [bound]}]}
    assert_equal(
        oracle,
        nodes,
        [
            requiring([term], tolerations=[{"operator": "Exists"}]),
            {"kind": "Pod", "spec": {"tolerations": [{"key": "rank", "operator": operator, "value": bound}]}},
        ],
    )


def requiring(node_selector_terms: list[Document], **spec: Any) -> Document:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": node_selector_terms}}
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"affinity": {"nodeAffinity": required}, **spec}}


def expressing(*expressions: tuple[str, str, list[str]]) -> Document:
    return {
        "matchExpressions": [{"key": key, "operator": operator, "values": held} for key, operator, held in expressions]
    }


CLUSTER: Final[list[Document]] = [
    {"metadata": {"name": "plain", "labels": {"zone": "a", "rank": "007"}}},
    {"metadata": {"name": "cordoned", "labels": {"zone": "a"}}, "spec": {"unschedulable": True}},
    {
        "metadata": {"name": "tainted", "labels": {"zone": "b", "rank": "8"}},
        "spec": {"taints": [{"key": "dedicated", "value": "8", "effect": "NoSchedule"}]},
    },
    {
        "metadata": {"name": "twice"},
        "spec": {
            "taints": [
                {"key": "dedicated", "value": "8", "effect": "NoSchedule"},
                {"key": "old", "effect": "NoExecute"},
            ]
        },
    },
    {
        "metadata": {"name": "discouraged", "labels": {"zone": "c"}},
        "spec": {"taints": [{"key": "old", "effect": "PreferNoSchedule"}]},
    },
]
EVERYWHERE: Final[Document] = {"tolerations": [{"operator": "Exists"}]}


@pytest.mark.parametrize(
    ("document", "feasible"),
    [
        pytest.param({"kind": "Pod"}, {"plain", "discouraged"}, id="nothing asked: no cordon, no hard taint"),
        pytest.param(
            {"kind": "Pod", "spec": {"tolerations": [{"key": "dedicated", "value": "8"}]}},
            {"plain", "discouraged", "tainted"},
            id="one taint tolerated of two is not enough",
        ),
        pytest.param(
            {"kind": "Pod", "spec": {"tolerations": [{"key": UNSCHEDULABLE, "operator": "Exists"}]}},
            {"plain", "discouraged", "cordoned"},
            id="a cordon is tolerated as its taint is",
        ),
        pytest.param(
            {"kind": "Pod", "spec": {"tolerations": [{"key": "dedicated", "operator": "Gt", "value": "7"}]}},
            {"plain", "discouraged", "tainted"},
            id="toleration Gt compares canonical integers",
        ),
        pytest.param(
            {"kind": "Pod", "spec": {"tolerations": [{"key": "dedicated", "operator": "Gt", "value": "007"}]}},
            {"plain", "discouraged"},
            id="toleration Gt takes no leading zeros",
        ),
        pytest.param(
            requiring([expressing(("rank", "Gt", ["006"]))], **EVERYWHERE),
            {"plain", "tainted"},
            id="affinity Gt takes leading zeros, in the bound and in the label",
        ),
        pytest.param(
            requiring([expressing(("rank", "Gt", ["-6"]))], **EVERYWHERE),
            set(),
            id="affinity Gt takes no sign, since its bound must be a label value",
        ),
        pytest.param(
            requiring([expressing(("rank", "Gt", ["six"]))], **EVERYWHERE),
            set(),
            id="affinity Gt of no integer matches nothing",
        ),
        pytest.param(
            requiring([expressing(("rank", "Gt", ["six"])), expressing(("zone", "In", ["c"]))], **EVERYWHERE),
            {"discouraged"},
            id="a term that does not parse voids itself alone",
        ),
        pytest.param(
            requiring([expressing(("zone", "NotIn", ["a", "b"]))], **EVERYWHERE),
            {"twice", "discouraged"},
            id="NotIn also takes nodes without the key",
        ),
        pytest.param(requiring([{}], **EVERYWHERE), set(), id="an empty term matches nothing"),
        pytest.param(requiring([], **EVERYWHERE), set(), id="no terms match nothing"),
        pytest.param(
            requiring(
                [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["twice"]}]}],
                **EVERYWHERE,
            ),
            {"twice"},
            id="matchFields names one node",
        ),
        pytest.param(
            requiring(
                [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["twice", "plain"]}]}],
                **EVERYWHERE,
            ),
            set(),
            id="matchFields of two names does not parse",
        ),
        pytest.param(
            requiring([expressing(("zone", "In", ["a", "b"]))], nodeSelector={"rank": "8"}, **EVERYWHERE),
            {"tainted"},
            id="nodeSelector and affinity must both hold",
        ),
    ],
)
def test_known_answers(oracle: Oracle, document: Document, feasible: set[str]) -> None:
    """Both are right, not only alike."""
    [said] = oracle.ask(CLUSTER, [document])
    assert said.feasible == feasible
    assert decided(index_of(CLUSTER), document).feasible == feasible


def test_the_api_server_admits_affinity_bounds_that_are_no_integers(oracle: Oracle) -> None:
    """So the rules meet them; a toleration's bound is checked before."""
    toleration = {"kind": "Pod", "spec": {"tolerations": [{"key": "a", "operator": "Gt", "value": "007"}]}}
    bound, refused = oracle.ask([], [requiring([expressing(("rank", "Gt", ["six"]))]), toleration])
    assert bound.invalid == ()
    assert [message.partition(":")[0] for message in refused.invalid] == ["spec.tolerations[0].value"]


def test_a_pod_with_node_name_is_only_for_that_node(oracle: Oracle) -> None:
    """Where it passes the other filters; the kubelet asks none of them, so the rules look at that node alone."""
    [named, tainted] = oracle.ask(CLUSTER, [{"spec": {"nodeName": "plain"}}, {"spec": {"nodeName": "tainted"}}])
    assert [named.feasible, tainted.feasible] == [frozenset({"plain"}), frozenset()]
