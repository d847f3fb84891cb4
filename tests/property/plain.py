"""
Which nodes a pod may land on, asked of one node after the other: the plain loop that the node index must equal.

A direct reading of kube-scheduler's filters over decoded JSON. It shares no type and no function with `webhook.rules`,
so that a mistake there can't hide here; where it is slow or says things twice, that is the point.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Document = Mapping[str, Any]

UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
TRANSIENT: Final = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
)
"""Conditions that pass, whatever the policy says."""
BUILT_IN_TRANSIENT: Final = ("node.cilium.io/agent-not-ready", "karpenter.sh/unregistered", "cni.istio.io/not-ready")
BUILT_IN_RULES: Final[Sequence[Document]] = (
    {"name": "virtual-kubelet", "selector": {"matchLabels": {"type": "virtual-kubelet"}}, "tproxy": "Unsupported"},
    {"name": "centos", "osImage": "CentOS*", "tproxy": "Unsupported"},
    {"name": "elrepo", "kernelVersion": "*elrepo*", "tproxy": "Supported"},
    {"name": "el7", "kernelVersion": "*.el7.*", "tproxy": "Unsupported"},
    {"name": "kernel-3-10", "kernelVersion": "3.10.*", "tproxy": "Unsupported"},
    {
        "name": "fargate",
        "selector": {"matchLabels": {"eks.amazonaws.com/compute-type": "fargate"}},
        "tproxy": "Unsupported",
    },
    {
        "name": "eklet",
        "selector": {"matchLabels": {"node.kubernetes.io/instance-type": "eklet"}},
        "tproxy": "Unsupported",
    },
)


def name_of(node: Document) -> str:
    name: str = node["metadata"]["name"]
    return name


def feasible(spec: Document, nodes: Iterable[Document], transient: Iterable[str]) -> set[str]:
    """The nodes that NodeUnschedulable, TaintToleration and NodeAffinity let through for a pod without nodeName."""
    return {
        name_of(node)
        for node in nodes
        if node_unschedulable(spec, node) and taint_toleration(spec, node, transient) and node_affinity(spec, node)
    }


def tolerated(spec: Document, nodes: Iterable[Document], transient: Iterable[str]) -> set[str]:
    """The nodes that NodeUnschedulable and TaintToleration let through."""
    return {
        name_of(node) for node in nodes if node_unschedulable(spec, node) and taint_toleration(spec, node, transient)
    }


def answer(
    spec: Document,
    nodes: Sequence[Document],
    rules: Sequence[Document] = BUILT_IN_RULES,
    transient: Sequence[str] = BUILT_IN_TRANSIENT,
) -> str:
    """The Reason that nodes alone give a pod."""
    if not nodes:
        return "nodes-unknown"
    passing = [*TRANSIENT, *transient]
    compatible = {name_of(node) for node in nodes if supports_tproxy(node, rules)}
    if spec.get("nodeName"):
        if spec["nodeName"] not in {name_of(node) for node in nodes}:
            return "no-feasible-node"
        if not any(name_of(node) == spec["nodeName"] and runs_linux(node) for node in nodes):
            return "no-feasible-node"
        return "tproxy" if spec["nodeName"] in compatible else "incompatible-nodes"
    linux = [node for node in nodes if runs_linux(node)]
    candidates = feasible(spec, linux, passing)
    if not candidates:
        if feasible(spec, nodes, passing):
            return "no-feasible-node"
        evidence = tolerated(spec, linux, passing)
        return "tproxy" if evidence and evidence <= compatible else "no-feasible-node"
    if candidates <= compatible:
        return "tproxy"
    return "mixed-nodes" if candidates & compatible else "incompatible-nodes"


def runs_linux(node: Document) -> bool:
    """A Linux sidecar runs nowhere else; a node that says nothing is taken for one."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    labels = node["metadata"].get("labels") or {}
    told = [info.get("operatingSystem"), labels.get("kubernetes.io/os"), labels.get("beta.kubernetes.io/os"), "linux"]
    return next(each for each in told if each) == "linux"


# --- The filters


def node_unschedulable(spec: Document, node: Document) -> bool:
    """A cordoned node is for pods that tolerate its taint, whether the taint is on the node or not."""
    if not (node.get("spec") or {}).get("unschedulable"):
        return True
    cordon = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
    return any(tolerates(toleration, cordon) for toleration in spec.get("tolerations") or [])


def taint_toleration(spec: Document, node: Document, transient: Iterable[str]) -> bool:
    """Every taint that repels must be tolerated by some toleration."""
    for taint in (node.get("spec") or {}).get("taints") or []:
        if taint.get("effect") not in {"NoSchedule", "NoExecute"} or taint.get("key", "") in transient:
            continue
        if not any(tolerates(toleration, taint) for toleration in spec.get("tolerations") or []):
            return False
    return True


def tolerates(toleration: Document, taint: Document) -> bool:
    """ToleratesTaint: an empty effect stands for all effects, an empty key for all keys."""
    if toleration.get("effect", "") not in {"", taint.get("effect", "")}:
        return False
    if toleration.get("key", "") not in {"", taint.get("key", "")}:
        return False
    operator = toleration.get("operator", "")
    mine, its = toleration.get("value", ""), taint.get("value", "")
    if operator == "Exists":
        return True
    if operator in {"", "Equal"}:
        return bool(mine == its)
    if operator in {"Gt", "Lt"}:
        if not (canonical(mine) and canonical(its)):
            return False
        return int(its) > int(mine) if operator == "Gt" else int(its) < int(mine)
    return False


def node_affinity(spec: Document, node: Document) -> bool:
    """All of the nodeSelector, and one of the required terms where there is such a requirement."""
    labels = node["metadata"].get("labels") or {}
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(matches_term(term, node) for term in required.get("nodeSelectorTerms") or [])


def matches_term(term: Document, node: Document) -> bool:
    """All requirements of the term; an empty one matches nothing, one that does not parse neither."""
    labels = node["metadata"].get("labels") or {}
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(matches_expression(each, labels) for each in expressions) and all(
        matches_field(each, node) for each in fields
    )


def matches_expression(requirement: Document, labels: Mapping[str, str]) -> bool:
    """Whether one expression parses (labels.NewRequirement) and matches (Requirement.Matches)."""
    key, operator = requirement.get("key", ""), requirement.get("operator", "")
    values = requirement.get("values") or []
    if not is_label_key(key) or not all(is_label_value(value) for value in values):
        return False
    if operator == "In":
        return bool(values) and key in labels and labels[key] in values
    if operator == "NotIn":
        return bool(values) and (key not in labels or labels[key] not in values)
    if operator == "Exists":
        return not values and key in labels
    if operator == "DoesNotExist":
        return not values and key not in labels
    if operator in {"Gt", "Lt"}:
        if len(values) != 1 or not parses(values[0]) or key not in labels or not parses(labels[key]):
            return False
        return int(labels[key]) > int(values[0]) if operator == "Gt" else int(labels[key]) < int(values[0])
    return False


def matches_field(requirement: Document, node: Document) -> bool:
    """Fields know In and NotIn of one value; a node has the field metadata.name and no other."""
    values = requirement.get("values") or []
    if len(values) != 1:
        return False
    held = name_of(node) if requirement.get("key", "") == "metadata.name" else ""
    if requirement.get("operator", "") == "In":
        return bool(held == values[0])
    return requirement.get("operator", "") == "NotIn" and bool(held != values[0])


# --- Compatibility with TPROXY


def supports_tproxy(node: Document, rules: Sequence[Document]) -> bool:
    """The operator's label, then what is known of the node, then the first rule that fits, else yes."""
    labels = node["metadata"].get("labels") or {}
    word = labels.get("client-ip.dev/tproxy")
    if word == "supported":
        return True
    if word is not None:
        return False
    info = (node.get("status") or {}).get("nodeInfo") or {}
    parts = ("osImage", "kernelVersion", "operatingSystem")
    if not any(info.get(part) for part in parts) or info.get("operatingSystem", "") not in {"", "linux"}:
        return False
    if not (info.get("osImage") or info.get("kernelVersion")):
        return False
    for rule in rules:
        selector = (rule.get("selector") or {}).get("matchLabels") or {}
        fits_selector = all(labels.get(key) == value for key, value in selector.items())
        if fits_selector and all(fits(rule[part], info.get(part, "")) for part in parts if part in rule):
            return bool(rule["tproxy"] == "Supported")
    return True


def fits(glob: str, text: str) -> bool:
    """Whether *text* fits *glob*, letter by letter."""
    if not glob:
        return not text
    if glob[0] == "*":
        return any(fits(glob[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and glob[0] in {"?", text[0]} and fits(glob[1:], text[1:])


# --- Strings, as Go's API machinery checks and reads them

LETTERS: Final = string.ascii_letters + string.digits


def is_name(text: str) -> bool:
    """At most 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit."""
    if not 0 < len(text) <= 63 or text[0] not in LETTERS or text[-1] not in LETTERS:
        return False
    return all(character in LETTERS + "-_." for character in text)


def is_label_value(text: str) -> bool:
    return text == "" or is_name(text)


def is_label_key(text: str) -> bool:
    parts = text.split("/")
    if len(parts) == 1:
        return is_name(text)
    return len(parts) == 2 and is_subdomain(parts[0]) and is_name(parts[1])


def is_subdomain(text: str) -> bool:
    lower = string.ascii_lowercase + string.digits
    if not 0 < len(text) <= 253:
        return False
    for label in text.split("."):
        if not label or label[0] not in lower or label[-1] not in lower:
            return False
        if not all(character in lower + "-" for character in label):
            return False
    return True


def parses(text: str) -> bool:
    """Whether strconv.ParseInt(text, 10, 64) takes it."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if not digits or not all(digit in string.digits for digit in digits):
        return False
    return -(2**63) <= int(text) <= 2**63 - 1


def canonical(text: str) -> bool:
    """Whether it is an integer as it would be written: no plus sign, no leading zeros, no minus zero."""
    return parses(text) and str(int(text)) == text
