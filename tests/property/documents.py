"""
Kubernetes objects as JSON that hypothesis makes: nodes, pods, Services, namespaces, policies.

Few keys and values, so that they meet; the odd ones are what parsers disagree about.
"""

from typing import Any, Final

from hypothesis import strategies as st

Document = dict[str, Any]

NUMBERS: Final = ("5", "7", "007", "10", "0", "9223372036854775807")
NO_NUMBERS: Final = (
    *("-5", "+5", "-0", "00", "9223372036854775808", "-9223372036854775808"),
    *(" 5", "5\n", "1_0", "0x5", "5.0", "\u0665", "-", "1" * 63, "1" * 64, "a b", "ä", ""),
)
"""For Gt and Lt, as bounds or as values, or for both."""
VALUES: Final = {
    "zone": ("a", "b", "c"),
    "rank": NUMBERS + NO_NUMBERS,
    "example.com/pool": ("a", ""),
    "type": ("virtual-kubelet", "b"),
}
KEYS: Final = tuple(VALUES)
ODD_KEYS: Final = ("", "-zone", "a/b/c", "UPPER.com/x", "x" * 64, "metadata.name")
NAMES: Final = tuple(f"n{number}" for number in range(60))
"""More than the index keeps as a tuple, so that bitsets are met too."""
OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
EFFECTS: Final = ("NoSchedule", "NoExecute", "PreferNoSchedule")
TAINTED: Final = (
    *("dedicated", "example.com/pool", "node.kubernetes.io/unschedulable"),
    *("node.kubernetes.io/not-ready", "karpenter.sh/unregistered", "example.com/warming-up"),
)
MACHINES: Final = (
    ("Ubuntu 22.04.4 LTS", "5.15.0-91-generic", "linux"),
    ("Alibaba Cloud Linux 3", "5.10.134-15.al8.x86_64", "linux"),
    ("Ubuntu 22.04.4 LTS", "5.15.0-91-generic", ""),
    ("CentOS Linux 7 (Core)", "3.10.0-1160.el7.x86_64", "linux"),
    ("Oracle Linux Server 7.9", "4.14.35-1902.el7.uek", "linux"),
    ("Red Hat Enterprise Linux", "5.4.0-1.el7.elrepo.x86_64", "linux"),
    ("Windows Server 2022 Datacenter", "10.0.20348", "windows"),
    ("", "", ""),
)


numbers = st.sampled_from(NUMBERS * 4 + NO_NUMBERS)


def values(key: str) -> st.SearchStrategy[str]:
    """Return values that the label or taint *key* may have."""
    return numbers if key in {"rank", "dedicated"} else st.sampled_from(VALUES.get(key, ("a", "b", "")))


labels = st.fixed_dictionaries({}, optional={key: values(key) for key in KEYS})


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    """Return mappings in which each of *fields* may be absent."""
    return st.fixed_dictionaries({}, optional=fields)


taints = st.sampled_from(TAINTED).flatmap(
    lambda key: st.fixed_dictionaries(
        {"key": st.just(key), "effect": st.sampled_from(EFFECTS)},
        optional={"value": values(key)},
    ),
)
node_labels = st.builds(
    lambda some, word: some | ({"client-ip.dev/tproxy": word} if word else {}),
    labels,
    st.sampled_from(("", "", "", "", "supported", "unsupported", "maybe")),
)
node_specs = optional(unschedulable=st.sampled_from((False, True)), taints=st.lists(taints, max_size=3))
node_infos = st.sampled_from(
    [
        {
            part: text
            for part, text in zip(("osImage", "kernelVersion", "operatingSystem"), machine, strict=True)
            if text
        }
        for machine in MACHINES * 2
    ],
)


def node(name: str, has: Document, spec: Document, info: Document) -> Document:
    """Return a Node."""
    metadata = {"name": name, "labels": has}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": {"nodeInfo": info} if info else {},
    }


nodes = st.builds(node, st.sampled_from(NAMES), node_labels, node_specs, node_infos)
clusters = st.lists(nodes, max_size=6, unique_by=lambda each: each["metadata"]["name"])


def _requirement(key: str, operator: str) -> st.SearchStrategy[Document]:
    some = values(key)
    right: st.SearchStrategy[list[str] | None] = st.lists(some, min_size=1, max_size=2)
    if operator in {"Exists", "DoesNotExist"}:
        right = st.sampled_from(([], None))
    elif operator in {"Gt", "Lt"}:
        right = st.lists(some, min_size=1, max_size=1)
    several = st.one_of(right, right, right, right, st.none() | st.lists(some, max_size=3))
    return st.fixed_dictionaries({"key": st.just(key), "operator": st.just(operator), "values": several})


requirements = st.tuples(
    st.sampled_from(KEYS * 5 + ODD_KEYS),
    st.sampled_from((*OPERATORS * 5, "in", "")),
).flatmap(lambda asked: _requirement(*asked))
fields = st.fixed_dictionaries(
    {
        "key": st.sampled_from(("metadata.name", "metadata.name", "metadata.name", "metadata.namespace", "")),
        "operator": st.sampled_from(("In", "NotIn", "In", "NotIn", "Exists")),
        "values": st.lists(st.sampled_from((*NAMES[:4], "absent", "")), min_size=1, max_size=1)
        | st.lists(st.sampled_from(NAMES), max_size=2),
    },
)
terms = optional(
    matchExpressions=st.none() | st.lists(requirements, min_size=1, max_size=2) | st.lists(requirements, max_size=2),
    matchFields=st.none() | st.lists(fields, max_size=2),
)
affinities = st.one_of(
    st.builds(
        lambda alternatives: {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": alternatives},
            },
        },
        st.one_of(st.lists(terms, min_size=1, max_size=3), st.lists(terms, max_size=2), st.none()),
    ),
    st.sampled_from((None, {}, {"nodeAffinity": None}, {"nodeAffinity": {}})),
)
tolerations = st.sampled_from(("", *TAINTED)).flatmap(
    lambda key: st.fixed_dictionaries(
        {"key": st.just(key)} if key else {},
        optional={
            "operator": st.sampled_from(("", "Equal", "Exists", "Exists", "Gt", "Lt", "equal")),
            "value": values(key or "dedicated"),
            "effect": st.sampled_from(("", "", *EFFECTS)),
        },
    ),
)
all_tolerated = st.just([{"operator": "Exists"}])
pod_specs = st.fixed_dictionaries(
    {"tolerations": st.one_of(all_tolerated, all_tolerated, st.lists(tolerations, max_size=4), st.none())},
    optional={
        "nodeSelector": st.none()
        | st.sampled_from(KEYS).flatmap(lambda key: st.fixed_dictionaries({key: values(key)}))
        | labels,
        "affinity": affinities,
    },
)
"""What a pod says of nodes."""


def _required(requirement: Document, part: str = "matchExpressions") -> Document:
    terms = {"nodeSelectorTerms": [{part: [requirement]}]}
    required = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"affinity": required, "tolerations": [{"operator": "Exists"}]}


def _probes() -> list[Document]:
    asked: list[Document] = [{}]
    for key, some in VALUES.items():
        for value in some:
            asked.append({"nodeSelector": {key: value}, "tolerations": [{"operator": "Exists"}]})
            asked += (
                _required({"key": key, "operator": operator, "values": [value]})
                for operator in ("In", "NotIn", "Gt", "Lt")
            )
        asked += (_required({"key": key, "operator": operator}) for operator in ("Exists", "DoesNotExist"))
    for key in ("metadata.name", "metadata.namespace", ""):
        for operator in ("In", "NotIn", "Exists"):
            asked += (
                _required({"key": key, "operator": operator, "values": some}, "matchFields")
                for some in ([NAMES[0]], [NAMES[1]], NAMES[:2], ["absent"], [""], [], None)
            )
    for key in TAINTED:
        alone = [{"key": other, "operator": "Exists"} for other in TAINTED if other != key]
        asked.append({"tolerations": alone})
        asked += ({"tolerations": [*alone, {"key": key, "operator": "Exists", "effect": effect}]} for effect in EFFECTS)
        asked += (
            {"tolerations": [*alone, {"key": key, "operator": operator, "value": value}]}
            for operator in ("Equal", "Gt", "Lt")
            for value in (NUMBERS[0], NUMBERS[2], NO_NUMBERS[0], "a", "")
        )
    return asked


PROBES: Final = _probes()
"""Pods that together ask for every key, value and taint, by every operator: what the next cluster is searched with."""
