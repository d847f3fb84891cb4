"""
ClientIPPolicy as it is in force: its values, and which policy and exception hold for an object.

Reading the document is `policy_document`'s work; here everything is already valid, or known to be unusable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from webhook.rules import wellknown
from webhook.rules.ends import state_changes
from webhook.rules.nodes import NodeRule, NodeRules
from webhook.rules.placement import DEFAULT_RUNTIME_CLASSES, RuntimeClassRule
from webhook.rules.selectors import EVERYTHING, LabelSelector

Labels = Mapping[str, str]


class PolicyMode(StrEnum):
    """What a policy does where it matches."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"
    DISABLED = "Disabled"


class Fallback(StrEnum):
    """What a pod gets that can't be TPROXY."""

    NONE = "None"
    X_FORWARDED_FOR = "XForwardedFor"


class Backends(StrEnum):
    """What the cloud's load balancers talk to."""

    AUTO = "Auto"
    NODE = "Node"
    ENI = "ENI"


class Level(StrEnum):
    """
    A PodSecurity level.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """

    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyException:
    """A waiver with an owner and an end."""

    name: str
    owner: str
    reason: str
    expires: datetime
    namespace_selector: LabelSelector = EVERYTHING
    selector: LabelSelector = EVERYTHING
    ticket: str = ""

    def holds(self, namespace: Labels, labels: Labels, *, now: datetime) -> bool:
        """Return whether the waiver covers the object and has not expired at *now*."""
        return now < self.expires and self.covers(namespace, labels)

    def covers(self, namespace: Labels, labels: Labels) -> bool:
        """Return whether the waiver is for the object, ended or not."""
        return self.namespace_selector.matches(namespace) and self.selector.matches(labels)


AKS_GATEWAYS: Final = ("aks-istio-ingressgateway-external", "aks-istio-ingressgateway-internal")
"""What AKS's Istio add-on labels its gateways: learn.microsoft.com/azure/aks/istio-deploy-ingress."""
GATEWAY_SELECTORS: Final = (
    LabelSelector(expressions=(("istio", "In", frozenset({"ingressgateway", "ingress", *AKS_GATEWAYS})),)),
    LabelSelector(expressions=((wellknown.GATEWAY_CLASS, "In", frozenset({"istio"})),)),
)
"""
The labels that istioctl, the Helm chart's usual release name, AKS's add-on and Istio's Gateway API controller give a
Service.
"""

DEFAULT_NODE_RULES: Final = (
    NodeRule(
        name="virtual-kubelet",
        supported=False,
        selector=LabelSelector((("type", "virtual-kubelet"),)),
    ),
    NodeRule(name="centos", supported=False, os_image="CentOS*"),
    NodeRule(name="elrepo", supported=True, kernel_version="*elrepo*"),
    NodeRule(name="el7", supported=False, kernel_version="*.el7.*"),
    # What speaks against EL7 is its kernel, whoever builds it: EulerOS 2.5 of Huawei's CCE has it too.
    NodeRule(name="kernel-3-10", supported=False, kernel_version="3.10.*"),
    # Machines of their own behind a node object, which the clouds taint: AWS Fargate and Tencent's super nodes.
    NodeRule(
        name="fargate",
        supported=False,
        selector=LabelSelector((("eks.amazonaws.com/compute-type", "fargate"),)),
    ),
    NodeRule(
        name="eklet",
        supported=False,
        selector=LabelSelector((("node.kubernetes.io/instance-type", "eklet"),)),
    ),
)
DEFAULT_TRANSIENT_TAINTS: Final = frozenset(
    {
        # Istio's untaint controller takes it off in seconds: istio/istio 86c9f01fd735, pilot/pkg/controllers/untaint.
        "cni.istio.io/not-ready",
        "karpenter.sh/unregistered",
        "node.cilium.io/agent-not-ready",
    },
)
DEFAULT_NAME: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. *invalid* says why a stored one is unusable; it still counts for what it matches."""

    name: str
    mode: PolicyMode = PolicyMode.ENFORCE
    priority: int = 0
    namespace_selector: LabelSelector = EVERYTHING
    pod_selector: LabelSelector = EVERYTHING
    fallback: Fallback = Fallback.NONE
    service_selectors: tuple[LabelSelector, ...] = GATEWAY_SELECTORS
    exceptions: tuple[PolicyException, ...] = ()
    invalid: str = ""
    # Only in the policy `default`:
    backends: Backends = Backends.AUTO
    default_level: Level = Level.PRIVILEGED
    node_rules: NodeRules = field(
        default=NodeRules(
            rules=DEFAULT_NODE_RULES,
            transient_taints=wellknown.TRANSIENT_TAINTS | DEFAULT_TRANSIENT_TAINTS,
        ),
    )
    runtime_classes: tuple[RuntimeClassRule, ...] = DEFAULT_RUNTIME_CLASSES

    def is_gateway(self, labels: Labels, classes: frozenset[str] = frozenset()) -> bool:
        """
        Return whether a Service with *labels* is an ingress gateway to this policy.

        Args:
            labels: The Service's.
            classes: The GatewayClasses of Istio's controllers; they say nothing against selectors of the policy's own.

        """
        if any(selector.matches(labels) for selector in self.service_selectors):
            return True
        own = self.service_selectors is not GATEWAY_SELECTORS
        return bool(classes) and not own and labels.get(wellknown.GATEWAY_CLASS) in classes

    def exception_for(self, namespace: Labels, labels: Labels, *, now: datetime) -> PolicyException | None:
        """Return the first live exception that covers the object."""
        for exception in self.exceptions:
            if exception.holds(namespace, labels, now=now):
                return exception
        return None


BUILT_IN: Final = Policy(name=DEFAULT_NAME, priority=-1)
"""In force unless an object of the same name replaces it."""


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies in force, the one that wins first: by priority, then by name."""

    ordered: tuple[Policy, ...] = (BUILT_IN,)
    default: Policy = BUILT_IN
    """The policy `default`, which alone speaks for the whole cluster; it is one of *ordered*."""
    changes: tuple[datetime, ...] = field(init=False)
    """When what its exceptions say changes by itself, in order: they begin to end, and end."""

    def __post_init__(self) -> None:
        """Know the times once, since each decision is made between two of them."""
        ends = {each.expires for policy in self.ordered for each in policy.exceptions}
        object.__setattr__(self, "changes", tuple(sorted({time for end in ends for time in state_changes(end)})))

    def for_pod(self, namespace: Labels, labels: Labels) -> Policy | None:
        """Return the winning policy whose namespaceSelector and pods.selector both match."""
        for policy in self.ordered:
            if policy.namespace_selector.matches(namespace) and policy.pod_selector.matches(labels):
                return policy
        return None

    def for_service(self, namespace: Labels, labels: Labels, classes: frozenset[str] = frozenset()) -> Policy | None:
        """
        Return the winning policy for a Service.

        The first whose namespaceSelector and one of whose services.selectors match; where none of the selectors
        does, the first whose namespaceSelector matches, which then finds that it is no gateway.
        """
        first = None
        for policy in self.ordered:
            if policy.namespace_selector.matches(namespace):
                if policy.invalid or policy.is_gateway(labels, classes):
                    return policy
                first = first or policy
        return first


def policies(stored: Mapping[str, Policy]) -> Policies:
    """Return the policies in force when *stored* (by name) is what files or the cluster hold."""
    everyone = {DEFAULT_NAME: BUILT_IN, **stored}
    ordered = sorted(everyone.values(), key=lambda policy: (-policy.priority, policy.name))
    return Policies(tuple(ordered), everyone[DEFAULT_NAME])
