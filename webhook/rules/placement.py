"""
Where a pod runs that its nodes don't tell: labels that send it to another machine, and RuntimeClasses.

What is listed here was looked up: each row names its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from webhook.rules.nodes import glob_matches
from webhook.rules.objects import ObjectMeta, PodSpec
from webhook.rules.selectors import Toleration

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A label, or an annotation, that sends a pod to machines which its nodeSelector and tolerations don't name."""

    key: str
    values: frozenset[str] = frozenset()
    """The values that send it; empty: any."""
    may_stay: frozenset[str] = frozenset()
    """The values that let it run elsewhere as well as on its feasible nodes."""
    of_pod: bool = True
    """The pod's own label counts."""
    of_namespace: bool = False
    """The namespace's label counts where the pod has none."""
    annotation: bool = False
    """An annotation of the pod's does the same."""
    nodes: tuple[str, str]
    """The label that such nodes carry."""
    what: str


VIRTUAL_KUBELET: Final = ("type", "virtual-kubelet")
_BURST: Final = frozenset({"auto", "localPrefer", "true"})
ELSEWHERE: Final = (
    # alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/schedule-pods-to-an-x86-based-virtual-node
    Elsewhere(
        key="alibabacloud.com/eci",
        values=frozenset({"true"}),
        of_namespace=True,
        nodes=VIRTUAL_KUBELET,
        what="an elastic container instance, through the virtual node",
    ),
    # What ack-virtual-node's admission webhook has read since before: the same guide, as it was in 2021.
    Elsewhere(
        key="eci",
        values=frozenset({"true"}),
        of_namespace=True,
        nodes=VIRTUAL_KUBELET,
        what="an elastic container instance, through the virtual node",
    ),
    Elsewhere(
        key="virtual-node-affinity-injection",
        values=frozenset({"enabled"}),
        of_pod=False,
        of_namespace=True,
        nodes=VIRTUAL_KUBELET,
        what="an elastic container instance, through the virtual node",
    ),
    # alibabacloud.com/help/en/cs/user-guide/use-acs-computing-power-in-ack-clusters
    Elsewhere(
        key="alibabacloud.com/acs",
        values=frozenset({"true"}),
        nodes=VIRTUAL_KUBELET,
        what="Alibaba Cloud's Container Compute Service, through the virtual node",
    ),
    # docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html: the profile that EKS or a user chose, by name.
    Elsewhere(
        key="eks.amazonaws.com/fargate-profile",
        nodes=("eks.amazonaws.com/compute-type", "fargate"),
        what="AWS Fargate",
    ),
    # support.huaweicloud.com/intl/en-us/usermanual-cce/cce_10_0135.html, and of its second version usermanual-cci2.
    *(
        Elsewhere(
            key=key,
            values=frozenset({"enforce"}),
            may_stay=_BURST,
            nodes=VIRTUAL_KUBELET,
            what="Huawei Cloud's Container Instance, through the bursting virtual-kubelet",
        )
        for key in ("virtual-kubelet.io/burst-to-cci", "bursting.cci.io/burst-to-cci")
    ),
    # An annotation on VKE, a label in clusters of one's own: github.com/volcengine/volcengine-vci-admission.
    Elsewhere(
        key="vke.volcengine.com/burst-to-vci",
        values=frozenset({"enforce"}),
        may_stay=frozenset({"auto"}),
        annotation=True,
        nodes=VIRTUAL_KUBELET,
        what="Volcano Engine's Container Instance, through the virtual node",
    ),
)
"""
The clouds' labels of this kind.

Tencent's super nodes need none: pods name them by `node.kubernetes.io/instance-type: eklet`, which is a node's label
(tencentcloud.com/document/product/457/45561), and a rule of the default policy speaks of them.
"""
_KEYS: Final = frozenset(each.key for each in ELSEWHERE)
READ: Final = frozenset(each.key for each in ELSEWHERE if each.annotation)
"""The annotations that are read."""


def sent_elsewhere(labels: Labels, annotations: Labels, namespace: Labels) -> tuple[Elsewhere, str, bool] | None:
    """Return where a label sends a pod, the fact, and whether its feasible nodes count too; None for nearly all."""
    if _KEYS.isdisjoint(labels) and _KEYS.isdisjoint(namespace) and READ.isdisjoint(annotations):
        return None
    for each in ELSEWHERE:
        value, whose = labels.get(each.key) if each.of_pod else None, "label"
        if value is None and each.annotation:
            value, whose = annotations.get(each.key), "annotation"
        if value is None and each.of_namespace:
            value, whose = namespace.get(each.key), "namespace label"
        if value is None:
            continue
        if value in each.may_stay or value in each.values or not each.values:
            fact = f"{whose} {each.key}={value} runs the pod on {each.what}"
            return each, fact, value in each.may_stay
    return None


# --- RuntimeClasses


class _Scheduling(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None


class RuntimeClass(msgspec.Struct, frozen=True, kw_only=True):
    """
    The part of a RuntimeClass that a decision reads.

    https://kubernetes.io/docs/concepts/containers/runtime-class/
    """

    metadata: ObjectMeta = ObjectMeta()
    handler: str = ""
    scheduling: _Scheduling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeClassRule:
    """One row of the table of RuntimeClasses."""

    name: str
    runtime_class: str
    """A glob, of the RuntimeClass' name or, where it may be read, of its handler."""
    supported: bool | None
    """None: the node's word counts, since the runtime shares its kernel."""

    def matches(self, name: str, handler: str) -> bool:
        """Return whether the row speaks of a RuntimeClass; an unknown handler is empty."""
        return glob_matches(self.runtime_class, name) or bool(handler and glob_matches(self.runtime_class, handler))


def runtime_rule(rules: Sequence[RuntimeClassRule], name: str, handler: str) -> RuntimeClassRule | None:
    """Return the first row that speaks of a RuntimeClass, or None."""
    return next((rule for rule in rules if rule.matches(name, handler)), None)


DEFAULT_RUNTIME_CLASSES: Final = (
    # Its network stack has no TPROXY target and no conntrack match: github.com/google/gvisor/issues/170, 10546.
    RuntimeClassRule(name="gvisor", runtime_class="*gvisor*", supported=False),
    RuntimeClassRule(name="runsc", runtime_class="*runsc*", supported=False),
    # A guest kernel of its own, of which nodeInfo says nothing: katacontainers.io, and AKS's kata-* names.
    RuntimeClassRule(name="kata", runtime_class="*kata*", supported=False),
    # ACK's sandboxed containers: alibabacloud.com/help/doc-detail/140541.htm (runv, and rund after it).
    RuntimeClassRule(name="runv", runtime_class="*runv*", supported=False),
    RuntimeClassRule(name="rund", runtime_class="*rund*", supported=False),
    RuntimeClassRule(name="firecracker", runtime_class="*firecracker*", supported=False),
    # Runtimes that start processes on the node's own kernel.
    RuntimeClassRule(name="runc", runtime_class="runc*", supported=None),
    RuntimeClassRule(name="crun", runtime_class="crun*", supported=None),
    RuntimeClassRule(name="nvidia", runtime_class="nvidia*", supported=None),
)


def with_runtime_class(spec: PodSpec, runtime_class: RuntimeClass) -> PodSpec:
    """
    Return *spec* with the RuntimeClass' nodeSelector and tolerations.

    The API server merges them into pods before it asks us, so that for those nothing changes; it refuses a pod whose
    nodeSelector contradicts (plugin/pkg/admission/runtimeclass/admission.go, setScheduling).
    """
    scheduling = runtime_class.scheduling
    if scheduling is None:
        return spec
    changes: dict[str, Any] = {}
    if scheduling.node_selector:
        changes["node_selector"] = {**(spec.node_selector or {}), **scheduling.node_selector}
    if scheduling.tolerations:
        known = dict.fromkeys(spec.tolerations or ())  # a pod may have written as many as a review holds
        changes["tolerations"] = [
            *(spec.tolerations or ()),
            *(each for each in scheduling.tolerations if each not in known),
        ]
    return msgspec.structs.replace(spec, **changes) if changes else spec
