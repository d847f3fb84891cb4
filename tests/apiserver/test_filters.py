"""
The nodes that the rules call feasible are those that kube-scheduler would choose from, exactly.

Clusters and pods are generated, far beyond what the API server would store, and each is put to kube-scheduler's own
filter plugins as well. Transient taints are the rules' own addition, so they are left empty here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.parts.oracle import Oracle, Verdict
from webhook.rules.nodes import Node, NodeIndex, NodeIndexBuilder, NodeRules, feasible_nodes
from webhook.rules.objects import Pod

Document = dict[str, Any]

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
EFFECTS: Final = ("NoSchedule", "NoExecute", "PreferNoSchedule")
TAINTED: Final = ("dedicated", "example.com/pool", UNSCHEDULABLE, "node.kubernetes.io/not-ready")

keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from(ODD_KEYS))
values = st.one_of(st.sampled_from(PLAIN), st.sampled_from(NUMBERS), st.sampled_from(NOT_NUMBERS))
label_values = st.one_of(st.sampled_from(PLAIN), st.sampled_from(NUMBERS), values)


def objects(required: Mapping[str, Any], optional: Mapping[str, Any]) -> st.SearchStrategy[Document]:
    return st.fixed_dictionaries(dict(required), optional=dict(optional))


def some(strategy: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any] | None]:
    """A list as YAML may have it: absent is the caller's, null and empty are here."""
    return st.none() | st.lists(strategy, max_size=most)


def requirement(keyed: st.SearchStrategy[str], valued: st.SearchStrategy[str]) -> st.SearchStrategy[Document]:
    def fitting(operator: str) -> st.SearchStrategy[Document]:
        fits: st.SearchStrategy[list[str] | None]
        if operator in {"Exists", "DoesNotExist"}:
            fits = st.just([]) | st.none()
        elif operator in {"Gt", "Lt"}:
            fits = st.lists(valued, min_size=1, max_size=1)
        else:
            fits = st.lists(valued, min_size=1, max_size=3)
        rare = some(valued, 3)
        return objects({"key": keyed, "operator": st.just(operator), "values": st.one_of(fits, fits, fits, rare)}, {})

    operators = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
    return st.one_of(*map(fitting, operators), *map(fitting, operators), fitting("in"), fitting(""))


expressions = requirement(keys, values)
fields = requirement(
    st.one_of(st.just("metadata.name"), st.just("metadata.name"), st.sampled_from(("metadata.namespace", "zone", ""))),
    st.sampled_from((*NAMES, "absent", "")),
)
terms = objects({}, {"matchExpressions": some(expressions, 3), "matchFields": some(fields, 2)})
affinities = objects(
    {},
    {
        "nodeAffinity": st.none()
        | objects(
            {},
            {
                "requiredDuringSchedulingIgnoredDuringExecution": st.none()
                | objects({"nodeSelectorTerms": some(terms, 3)}, {}),
                "preferredDuringSchedulingIgnoredDuringExecution": st.lists(
                    objects({"weight": st.just(1), "preference": terms}, {}), max_size=1
                ),
            },
        ),
    },
)
tolerations = objects(
    {},
    {
        "key": st.sampled_from(("", *TAINTED)),
        "operator": st.sampled_from(("", "Equal", "Exists", "Exists", "Gt", "Lt", "equal")),
        "value": values,
        "effect": st.sampled_from(("", *EFFECTS, "noschedule")),
    },
)
pods = objects(
    {"kind": st.just("Pod"), "apiVersion": st.just("v1"), "metadata": st.just({"name": "p", "namespace": "default"})},
    {
        "spec": objects(
            {},
            {
                "nodeSelector": st.none() | st.dictionaries(keys, label_values, max_size=2),
                "affinity": st.none() | affinities,
                "tolerations": some(tolerations, 3),
            },
        )
    },
)
taints = objects(
    {"key": st.sampled_from(TAINTED), "effect": st.sampled_from((*EFFECTS, "NoSchedule"))},
    {"value": values},
)


# The API server stores no two taints of one key and effect on a node, so the index needn't count them.
node_taints = st.none() | st.lists(taints, max_size=3, unique_by=lambda taint: (taint["key"], taint["effect"]))


def node(name: str) -> st.SearchStrategy[Document]:
    return objects(
        {"kind": st.just("Node"), "apiVersion": st.just("v1")},
        {
            "spec": objects({}, {"unschedulable": st.booleans(), "taints": node_taints}),
        },
    ).flatmap(
        lambda document: st.dictionaries(keys, label_values, max_size=4).map(
            lambda labels: {**document, "metadata": {"name": name, "labels": labels}}
        )
    )


clusters = st.integers(min_value=1, max_value=len(NAMES)).flatmap(lambda size: st.tuples(*map(node, NAMES[:size])))


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


def assert_equal(oracle: Oracle, nodes: Sequence[Document], asked: Sequence[Document]) -> None:
    index = index_of(nodes)
    for document, said in zip(asked, oracle.ask(nodes, asked), strict=True):
        got = decided(index, document)
        assert (got.feasible, got.tolerated) == (said.feasible, said.tolerated), document


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nodes=clusters, asked=st.lists(pods, min_size=1, max_size=5))
def test_feasible_nodes_are_those_that_kube_scheduler_finds(
    oracle: Oracle,
    nodes: tuple[Document, ...],
    asked: list[Document],
) -> None:
    """NodeUnschedulable, NodeAffinity and TaintToleration, whatever the pod says."""
    assert_equal(oracle, nodes, asked)


@settings(max_examples=500, deadline=None)
@given(
    labels=st.lists(label_values, min_size=1, max_size=5),
    operator=st.sampled_from(("Gt", "Lt")),
    bound=values,
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
