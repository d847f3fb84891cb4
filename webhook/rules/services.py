"""The questions that decide a Service, in order."""

from datetime import datetime
from typing import Final

from webhook.rules import wellknown
from webhook.rules.decision import Answer, Reason
from webhook.rules.excess import WITHIN_LIMITS, service_excess
from webhook.rules.loadbalancers import ALIBABA_OTHERS, Effect, Row, fact_of
from webhook.rules.objects import Service
from webhook.rules.patch import NOTHING, Patch, PatchOperation, add_metadata, pointer
from webhook.rules.policy import Backends, Policy
from webhook.rules.questions import (
    NO_LABELS,
    SMALL_ENOUGH,
    Case,
    Question,
    ask_opted_in,
    ask_policy,
    fact_opted_in,
    fact_policy,
)
from webhook.rules.snapshot import Snapshot

LOCAL: Final = "Local"
METHOD_LOCAL: Final = "local"


class ServiceCase(Case):
    """A Service that is being decided."""

    __slots__ = ("annotations", "old_policy", "service", "size", "warnings")

    def __init__(
        self,
        service: Service,
        namespace: str,
        snapshot: Snapshot,
        *,
        now: datetime,
        size: int = 0,
        old_policy: str = "",
    ) -> None:
        super().__init__(service.metadata, namespace, snapshot, now=now)
        self.service = service
        self.size = size
        self.warnings: tuple[str, ...] = ()
        self.old_policy = old_policy
        self.annotations = service.metadata.annotations or NO_LABELS

    def find_policy(self) -> Policy | None:
        """Return the policy whose namespaceSelector and one of whose services.selectors match."""
        return self.snapshot.policies.for_service(self.around, self.labels, self.snapshot.gateway_classes)

    def load_balancer(self) -> Row | None:
        """Return what is known of its load balancer, if it has one."""
        spec = self.service.spec
        if spec.type != "LoadBalancer":
            return None
        return fact_of(self.annotations, spec.load_balancer_class or "", self.snapshot.nodes.provider())


def ask_small_enough(case: ServiceCase) -> Answer | None:
    """What follows is asked of objects alone that are within the limits."""
    beyond = service_excess(case.service, case.size)
    return Answer(Reason.TOO_LARGE, beyond) if beyond else None


def fact_small_enough(_: ServiceCase) -> str:
    return WITHIN_LIMITS


def ask_not_deleted(case: ServiceCase) -> Answer | None:
    """An object that is going away is left alone."""
    if case.metadata.deletion_timestamp is None:
        return None
    return Answer(Reason.BEING_DELETED, f"deletionTimestamp {case.metadata.deletion_timestamp}")


def fact_not_deleted(_: ServiceCase) -> str:
    return "no deletionTimestamp"


def ask_gateway(case: ServiceCase) -> Answer | None:
    """Only ingress gateways: for east-west, egress and waypoint gateways `Local` is of no use."""
    policy = case.policy
    classes = case.snapshot.gateway_classes
    if policy is not None and policy.is_gateway(case.labels, classes):
        return None
    name = policy.name if policy is not None else "none"
    return Answer(Reason.NOT_A_GATEWAY, f"none of the services.selectors of policy {name} matches the Service's labels")


def fact_gateway(case: ServiceCase) -> str:
    selectors = case.policy.service_selectors if case.policy is not None else ()
    found = next((f"labels match {each}" for each in selectors if each.matches(case.labels)), None)
    return found or f"GatewayClass {case.labels.get(wellknown.GATEWAY_CLASS)} is Istio's"


def ask_external(case: ServiceCase) -> Answer | None:
    """
    The API server takes externalTrafficPolicy for externally reachable Services alone.

    https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/api/service/util.go (ExternallyAccessible)
    """
    if is_external(case):
        return None
    return Answer(Reason.NOT_EXTERNAL, f"type {case.service.spec.type} without externalIPs")


def is_external(case: ServiceCase) -> str:
    """Return by what it is reachable from outside; nothing where it is not."""
    spec = case.service.spec
    if spec.type in {"LoadBalancer", "NodePort"}:
        return f"type {spec.type}"
    return "externalIPs" if spec.type == "ClusterIP" and spec.external_ips else ""


def fact_external(case: ServiceCase) -> str:
    return is_external(case)


def ask_load_balancer(case: ServiceCase) -> Answer | None:
    """What is known of the load balancer comes before Local: it may bring the client by itself, or never."""
    row = case.load_balancer()
    if row is None:
        return None
    local = case.service.spec.external_traffic_policy == LOCAL
    match row.effect:
        case Effect.PROXY:
            warnings: tuple[str, ...] = ()
            if local and row.name in _PROXY_AND_LOCAL and not _has_ip_targets(case):
                warnings = (
                    "with PROXY protocol v2, instance targets and Local, the NLB's health checks fail on all targets",
                )
            return Answer(Reason.PROXY_PROTOCOL, f"{row.of}: {row.says} (rule {row.name})", warnings=warnings)
        case Effect.HIDES:
            return Answer(Reason.LB_HIDES_CLIENT, f"{row.of}: {row.says} (rule {row.name})")
        case Effect.UNSAFE:
            # Where its owner made it Local, the controller has taken it so.
            return None if local else Answer(Reason.LOCAL_UNSAFE, f"{row.of}: {row.says} (rule {row.name})")
        case Effect.KEEPS:
            return Answer(Reason.LB_KEEPS_CLIENT, f"{row.of}: {row.says} (rule {row.name})")
        case _:
            return None


_PROXY_AND_LOCAL: Final = frozenset({"aws-proxy-protocol", "aws-target-group-proxy-protocol"})
_TARGET_TYPE: Final = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"


def _has_ip_targets(case: ServiceCase) -> bool:
    return case.annotations.get(_TARGET_TYPE) == "ip"


def fact_load_balancer(case: ServiceCase) -> str:
    row = case.load_balancer()
    if row is not None:
        return f"{row.of}: {row.says} (rule {row.name})"
    return (
        "docs/load-balancers.md has no row for it" if case.service.spec.type == "LoadBalancer" else "no load balancer"
    )


def ask_node_backends(case: ServiceCase) -> Answer | None:
    """With ENI backends the load balancer talks to pods directly, and the policy does not matter."""
    eni, fact = _eni(case)
    return Answer(Reason.ENI_BACKEND, fact) if eni else None


CCM_CLASSES: Final = frozenset({"", "alibabacloud.com/nlb"})
"""What Alibaba Cloud's controller serves: CCM pkg/controller/helper/service_utils.go, NeedCLB and NeedNLB."""


def _eni(case: ServiceCase) -> tuple[bool, str]:
    """The annotation decides by itself (CCM pkg/controller/helper/service_utils.go:78-88), else the default policy."""
    spec = case.service.spec
    if spec.type != "LoadBalancer":
        return False, f"type {spec.type} has no load balancer"
    if (spec.load_balancer_class or "") not in CCM_CLASSES:
        return False, f"loadBalancerClass {spec.load_balancer_class} belongs to another controller"
    other = next((key for key in ALIBABA_OTHERS if case.annotations.get(key)), None)
    if other is not None and not spec.load_balancer_class:
        return False, f"annotation {other}: another controller serves it"
    annotated = case.annotations.get(wellknown.BACKEND_TYPE)
    if annotated:
        return annotated == "eni", f"annotation {wellknown.BACKEND_TYPE}={annotated}"
    backends = case.snapshot.policies.default.backends
    if backends is not Backends.AUTO:
        return backends is Backends.ENI, f"policy default sets backends: {backends}"
    terway = case.snapshot.network.terway
    if terway:
        return True, f"backends: Auto, and Terway was found ({terway})"
    return False, "backends: Auto, and Terway was not found"


def fact_node_backends(case: ServiceCase) -> str:
    return _eni(case)[1]


def ask_safe(case: ServiceCase) -> Answer | None:
    """
    With `Local` the API server allocates a healthCheckNodePort, whether the Service's own ports have node ports or not.

    Where the range has no port left it refuses the request (500): so a Service that was made without node ports, as
    one does where they run out, is not given the one that it never needed.
    https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/registry/core/service/storage/alloc.go
    (allocHealthCheckNodePort)
    """
    spec = case.service.spec
    if spec.type != "LoadBalancer" or spec.external_traffic_policy == LOCAL:
        return None
    if spec.allocates_node_ports is not False or spec.health_check_node_port:
        return None
    return Answer(
        Reason.LOCAL_UNSAFE,
        "spec.allocateLoadBalancerNodePorts is false: Local needs a node port for health checks",
    )


def fact_safe(case: ServiceCase) -> str:
    spec = case.service.spec
    if spec.external_traffic_policy == LOCAL:
        return "it is already Local"
    if spec.type != "LoadBalancer":
        return "no node port is needed for health checks"
    return f"healthCheckNodePort {spec.health_check_node_port}" if spec.health_check_node_port else "it has node ports"


def ask_local(case: ServiceCase) -> Answer | None:
    """
    Nothing speaks against it. Where it is Local by its owner's hand, nothing is changed: no label of ours either.

    healthCheckNodePort is never set: the API server allocates it after admission.
    """
    spec = case.service.spec
    is_local = spec.external_traffic_policy == LOCAL
    patch: Patch = NOTHING
    if not is_local:
        label = add_metadata("labels", case.metadata.labels, wellknown.METHOD, METHOD_LOCAL)
        patch = (PatchOperation(pointer("spec", "externalTrafficPolicy"), LOCAL), *label)
    warnings: tuple[str, ...] = ()
    if not is_local and case.old_policy == LOCAL:
        warnings = (
            f"externalTrafficPolicy stays Local: label the Service {wellknown.PRESERVE}=disabled to choose Cluster",
        )
    elif not is_local and spec.type != "LoadBalancer":
        what = "this NodePort" if spec.type == "NodePort" else "these externalIPs"
        warnings = (f"externalTrafficPolicy is now Local: nodes without a gateway pod drop traffic to {what}",)
    cause = "externalTrafficPolicy is already Local" if is_local else "an externally reachable ingress gateway"
    return Answer(Reason.LOCAL, cause, patch, warnings=warnings)


SERVICE_QUESTIONS: Final[tuple[Question[ServiceCase], ...]] = (
    Question("opted in?", ask_opted_in, fact_opted_in),
    Question("does a policy apply, without an active exception?", ask_policy, fact_policy),
    Question(SMALL_ENOUGH, ask_small_enough, fact_small_enough),
    Question("not being deleted?", ask_not_deleted, fact_not_deleted),
    Question("an ingress gateway?", ask_gateway, fact_gateway),
    Question("reachable from outside?", ask_external, fact_external),
    Question("is Local useful with its load balancer?", ask_load_balancer, fact_load_balancer),
    Question("does the load balancer send traffic through nodes?", ask_node_backends, fact_node_backends),
    Question("is Local safe?", ask_safe, fact_safe),
    Question("then Local", ask_local, lambda _: ""),
)
"""In order; the last always answers."""
