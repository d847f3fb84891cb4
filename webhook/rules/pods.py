"""The questions that decide a Pod, or the pod template of a workload, in order."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from webhook.rules import wellknown
from webhook.rules.decision import Answer, Reason
from webhook.rules.excess import WITHIN_LIMITS, annotations_are_full, pod_excess
from webhook.rules.interception import (
    INGRESS_IN_NONE,
    NONE,
    TPROXY,
    USUAL,
    Interception,
    as_it_runs,
    as_it_stands,
    as_it_will_be,
    is_customised,
    root_forbidden,
)
from webhook.rules.limits import ANNOTATIONS_TOTAL, NAMED, TooLarge
from webhook.rules.nodes import feasible_nodes
from webhook.rules.objects import Pod
from webhook.rules.patch import Patch, add_metadata
from webhook.rules.placement import Elsewhere, runtime_rule, sent_elsewhere, with_runtime_class
from webhook.rules.podsecurity import enforced_because, enforced_level
from webhook.rules.policy import Fallback, Level, Policy
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
from webhook.rules.selectors import Toleration
from webhook.rules.sidecar import MODES, Injection, will_inject
from webhook.rules.snapshot import Snapshot

METHOD_TPROXY: Final = "tproxy"
METHOD_HEADER: Final = "x-forwarded-for"
_ALL_SUPPORT: Final = "all feasible nodes support TPROXY"
_NONE_YET: Final = "no node is feasible yet; all nodes that the pod tolerates support TPROXY"
_NO_TOLERATIONS: Final[Sequence[Toleration]] = ()
# As ENFORCE.
_PRIVILEGED: Final = Level.PRIVILEGED
_TPROXY: Final = Reason.TPROXY

_NOT_ASKED: Final = Injection(expected=False, cause="")
_UNASKED: Final[Answer | None] = Answer(Reason.NODES_UNKNOWN, "nobody asked yet")


class PodCase(Case):
    """A Pod that is being decided."""

    __slots__ = (
        "annotations",
        "customised",
        "injection",
        "interception",
        "nodes_answer",
        "nodes_fact",
        "own_kernel",
        "pod",
        "runtime_fact",
        "size",
        "spec",
        "standing",
        "warnings",
    )

    def __init__(self, pod: Pod, namespace: str, snapshot: Snapshot, *, now: datetime, size: int = 0) -> None:
        super().__init__(pod.metadata, namespace, snapshot, now=now)
        self.pod = pod
        self.size = size
        self.warnings: tuple[str, ...] = ()
        self.annotations = pod.metadata.annotations or NO_LABELS
        self.nodes_answer = _UNASKED
        """What the nodes say: asked once, whoever asks."""
        self.nodes_fact = _ALL_SUPPORT
        self.customised = False
        """Something of Istio's stands in it already."""
        self.standing: Interception | None = None
        """What the proxy does that stands in it, where something of Istio's does: known from that question on."""
        self.runtime_fact = ""
        self.own_kernel = False
        """Its RuntimeClass supports TPROXY, whatever its node's kernel is."""
        self.spec = pod.spec
        """With what the API server adds by RuntimeClass: workloads' templates and manifests have not got it yet."""
        if pod.spec.runtime_class_name:
            known = snapshot.runtime_classes.get(pod.spec.runtime_class_name)
            if known is not None:
                self.spec = with_runtime_class(pod.spec, known)
        self.injection = _NOT_ASKED
        """Whether Istio will inject it: known from the question for a sidecar on."""
        self.interception = USUAL
        """What its sidecar will do: known from the question for a mode on."""

    def warn(self, *texts: str) -> None:
        """Add to what is said whatever the answer."""
        self.warnings = (*self.warnings, *texts)

    def find_policy(self) -> Policy | None:
        """Return the policy whose namespaceSelector and pods.selector match."""
        return self.snapshot.policies.for_pod(self.around, self.labels)


def ask_small_enough(case: PodCase) -> Answer | None:
    """What follows is asked of objects alone that are within the limits: nobody's review waits for a huge one."""
    beyond = pod_excess(case.pod, case.size)
    return Answer(Reason.TOO_LARGE, beyond) if beyond else None


def fact_small_enough(_: PodCase) -> str:
    return WITHIN_LIMITS


def ask_not_injected(case: PodCase) -> Answer | None:
    """
    After injection the mode is fixed: with istio-cni a late annotation breaks the pod's inbound traffic.

    `already-injected` is a wrong order, and nothing else: an injector that the API server calls before us. What was
    injected in another way was injected by hand.
    """
    if not is_customised(case.pod):
        return None
    case.customised = True
    case.standing = standing = as_it_stands(case.pod, case.namespace, case.around, case.snapshot.mesh)
    if standing is None:
        return None
    if not standing.captured:
        if standing.mode == NONE:
            case.warn(INGRESS_IN_NONE)
        if not standing.alone:
            _warn_of_waypoint(case)
        return Answer(Reason.INBOUND_NOT_CAPTURED if standing.mode else Reason.NO_SIDECAR, standing.fact)
    _warn_of_waypoint(case)
    injector = case.snapshot.mesh.injector_of(case.around, case.labels)
    early = injector is not None and injector.comes_first
    warnings: tuple[str, ...] = ()
    if standing.preserved:
        failing = _against_tproxy(case)
        warnings = () if failing is None else (f"TPROXY is fixed by injection, but {failing.cause}",)
    how = (
        f"{injector.configuration} injects before this webhook"
        if early and injector is not None
        else "injected by hand"
    )
    reason = Reason.ALREADY_INJECTED if early else Reason.MODE_ALREADY_SET
    return Answer(reason, f"{how}: {standing.fact}", preserved=standing.preserved, warnings=warnings)


def answer_running(case: PodCase) -> Answer:
    """
    Return what a running pod has, whoever injected it and when: its mode was fixed then.

    `already-injected` says here what the words say, since no order can be told from a pod that runs.
    """
    found = as_it_runs(case.pod)
    if found is not None and found.captured:
        return Answer(Reason.ALREADY_INJECTED, found.fact, preserved=found.preserved)
    waypoint = None if found is not None and found.alone else _waypoint(case)
    if waypoint is not None:
        return Answer(Reason.WAYPOINT, waypoint)
    if found is None:
        return Answer(Reason.NO_SIDECAR, f"the pod runs without a sidecar{_services_unknown(case)}")
    return Answer(Reason.INBOUND_NOT_CAPTURED if found.mode else Reason.NO_SIDECAR, found.fact)


def fact_not_injected(_: PodCase) -> str:
    return f"no annotation {wellknown.INJECTED_STATUS}, no {wellknown.PROXY_CONTAINER} with {wellknown.MODE_ENV}"


def ask_sidecar(case: PodCase) -> Answer | None:
    """Only a pod with a sidecar loses its caller's IP to one; in ambient it may lose it to a waypoint."""
    injection = will_inject(case.pod, case.namespace, case.around, case.snapshot.mesh)
    case.injection = injection
    if injection.unknown:
        return Answer(Reason.INJECTORS_UNKNOWN, injection.cause)
    if injection.warnings:
        case.warn(*injection.warnings)
    if injection.expected:
        if wellknown.USE_WAYPOINT in case.around or wellknown.USE_WAYPOINT in case.labels:
            _warn_of_waypoint(case)
        return None
    waypoint = None if injection.alone else _waypoint(case)
    if waypoint is not None:
        return Answer(Reason.WAYPOINT, f"{waypoint}; {injection.cause}")
    return Answer(Reason.NO_SIDECAR, injection.cause + _services_unknown(case))


def fact_sidecar(case: PodCase) -> str:
    return case.injection.cause


def _waypoint(case: PodCase) -> str | None:
    """
    Return the label that puts a waypoint before the pod, or None.

    For traffic to Services the Service's label, else its namespace's, decides; the pod's own is for traffic to the pod,
    so that its `none` does not lift the namespace's (https://github.com/istio/istio/issues/52527). The waypoint opens
    the connection to the application itself, and adds no X-Forwarded-For (listener_waypoint.go:247).
    """
    name = case.around.get(wellknown.USE_WAYPOINT)
    if name and name != "none":
        return f"namespace label {wellknown.USE_WAYPOINT}={name}"
    name = case.labels.get(wellknown.USE_WAYPOINT)
    if name and name != "none":
        return f"label {wellknown.USE_WAYPOINT}={name}, for traffic to the pod itself"
    return None


def _warn_of_waypoint(case: PodCase) -> None:
    waypoint = _waypoint(case)
    if waypoint is not None:
        case.warn(f"{waypoint}: requests through the waypoint show the waypoint's IP, whatever the sidecar does")


def _services_unknown(case: PodCase) -> str:
    """Services are no fact that we have: a label on one of them may put a waypoint before an ambient pod."""
    mode = case.labels.get(wellknown.DATAPLANE_MODE, case.around.get(wellknown.DATAPLANE_MODE))
    if mode != "ambient":
        return ""
    return f"; whether a Service has the label {wellknown.USE_WAYPOINT} is not known"


def ask_no_own_mode(case: PodCase) -> Answer | None:
    """
    A user's own choice stands, and the mesh's.

    Our own annotation and label, with all that follows passing, are no such choice.
    """
    try:
        found = as_it_will_be(case.annotations, case.injection)
    except TooLarge as error:
        return Answer(Reason.TOO_LARGE, str(error))
    case.interception = found
    chosen = found.chosen
    if chosen is None or (found.by_mesh and not found.captured):
        return None
    failing = _against_tproxy(case) if found.captured and found.mode == TPROXY else None
    annotated = case.annotations.get(wellknown.INTERCEPTION_MODE) == TPROXY
    ours = annotated and case.labels.get(wellknown.METHOD) == METHOD_TPROXY
    if ours and failing is None and found.captured and found.agreed:
        return None
    warnings: list[str] = []
    if found.mode == NONE:
        warnings.append(INGRESS_IN_NONE)
    if found.mode not in MODES:
        warnings.append(f"Istio rejects the pod: interception mode {found.mode!r} is not REDIRECT, TPROXY or NONE")
    elif not found.agreed:
        warnings.append(
            f"proxyMetadata sets {wellknown.MODE_ENV}={chosen.environment} only for Envoy, and iptables use "
            f"{found.mode}: set interceptionMode instead",
        )
    elif failing is not None and found.by_mesh:
        warnings.append(
            f"{chosen.fact}, but {failing.cause}: set the annotation {wellknown.INTERCEPTION_MODE}: REDIRECT"
        )
    elif failing is not None:
        warnings.append(f"TPROXY is set by hand, but {failing.cause}")
    return Answer(Reason.MODE_ALREADY_SET, chosen.fact, preserved=found.preserved, warnings=tuple(warnings))


def fact_no_own_mode(case: PodCase) -> str:
    if case.interception.chosen is not None and not case.interception.by_mesh:
        return "the webhook set the annotation and the label"
    return f"no mode in {wellknown.INTERCEPTION_MODE}, {wellknown.PROXY_CONFIG} or the mesh configuration"


def _against_tproxy(case: PodCase) -> Answer | None:
    """Return what speaks against TPROXY, whoever asked for it."""
    return next((answer for ask in _STRICT if (answer := ask(case)) is not None), None)


def ask_captured(case: PodCase) -> Answer | None:
    """Mode NONE, or an empty list of inbound ports: the sidecar captures none (tools/common/tproxy/run_linux.go:32)."""
    found = case.interception
    if found.captured:
        return None
    if found.mode == NONE:
        case.warn(INGRESS_IN_NONE)
    return Answer(Reason.INBOUND_NOT_CAPTURED, found.fact)


def fact_captured(case: PodCase) -> str:
    ports = case.annotations.get(wellknown.INCLUDE_INBOUND_PORTS, "*")
    return f"{wellknown.INCLUDE_INBOUND_PORTS} is {ports!r}"


def ask_pod_security_strictly(case: PodCase) -> Answer | None:
    """A level below privileged refuses NET_ADMIN: our annotation would turn an admitted pod into a refused one."""
    default = case.snapshot.policies.default.default_level
    if enforced_level(case.around, default) is _PRIVILEGED:
        return None
    return Answer(Reason.POD_SECURITY, enforced_because(case.around, default))


def fact_pod_security(case: PodCase) -> str:
    return enforced_because(case.around, case.snapshot.policies.default.default_level)


def ask_proxy_strictly(case: PodCase) -> Answer | None:
    """TPROXY runs istio-proxy as root: the kubelet refuses that where the user's own container forbids it."""
    forbidden = root_forbidden(case.pod)
    return None if forbidden is None else Answer(Reason.PROXY_CUSTOMISED, forbidden)


def fact_proxy(_: PodCase) -> str:
    return f"nothing prevents {wellknown.PROXY_CONTAINER} from running as root"


def ask_runtime_strictly(case: PodCase) -> Answer | None:
    """A sandbox has a kernel of its own, of which its node's nodeInfo says nothing."""
    name = case.pod.spec.runtime_class_name
    if not name:
        return None
    known = case.snapshot.runtime_classes.get(name)
    handler = known.handler if known is not None else ""
    rule = runtime_rule(case.snapshot.policies.default.runtime_classes, name, handler)
    case.runtime_fact = f"runtimeClassName {name}" + (f" (handler {handler})" if handler else "")
    if rule is None:
        case.warn(f"{case.runtime_fact} is not a known runtime; it is assumed to use the node's kernel")
    elif rule.supported is False:
        return Answer(Reason.SANDBOXED, f"{case.runtime_fact}: rule {rule.name}")
    elif rule.supported:
        case.own_kernel = True
    return None


def fact_runtime(case: PodCase) -> str:
    return case.runtime_fact or "no runtimeClassName"


def ask_nodes_strictly(case: PodCase) -> Answer | None:
    """All feasible nodes must support TPROXY; a pod with nodeName has skipped the scheduler."""
    if case.nodes_answer is _UNASKED:
        case.nodes_answer = _ask_nodes(case)
    return case.nodes_answer


def _ask_nodes(case: PodCase) -> Answer | None:
    snapshot, spec = case.snapshot, case.spec
    index = snapshot.nodes
    if not snapshot.nodes_synced or not index.everything:
        return Answer(
            Reason.NODES_UNKNOWN, "no nodes are known" if snapshot.nodes_synced else "nodes are not synced yet"
        )
    if spec.node_name:
        node = index.node(spec.node_name)
        if node is None:
            return Answer(Reason.NO_FEASIBLE_NODE, f"spec.nodeName {spec.node_name} is not a known node")
        if not node.runs_linux:
            return Answer(Reason.NO_FEASIBLE_NODE, f"spec.nodeName {spec.node_name} cannot run a Linux sidecar")
        nodes = 1 << node.slot
    else:
        sent = sent_elsewhere(case.labels, case.annotations, case.around)
        feasible = _feasible(case) if sent is None or sent[2] else 0
        nodes = feasible & index.linux
        if sent is not None:
            return _sent(case, sent[0], sent[1], nodes)
        if not nodes:
            return _none_feasible(case, feasible)
    unsupported = nodes ^ (nodes & index.supported)
    if not unsupported or case.own_kernel:
        return None
    return _unsupported(case, nodes, unsupported)


def _feasible(case: PodCase) -> int:
    """Return the feasible nodes, those among them that run no Linux sidecar."""
    spec, index = case.spec, case.snapshot.nodes
    return feasible_nodes(
        index,
        node_selector=spec.node_selector,
        terms=spec.terms(),
        tolerations=spec.tolerations or _NO_TOLERATIONS,
    )


def _unsupported(case: PodCase, nodes: int, unsupported: int) -> Answer:
    name, example = case.snapshot.nodes.example(unsupported)
    which = f"{name} ({example.os_image or 'no osImage'}; {example.compatibility.rule})"
    number, total = unsupported.bit_count(), nodes.bit_count()
    one = ": " if number == 1 else ", for example "
    if unsupported == nodes:
        return Answer(Reason.INCOMPATIBLE_NODES, f"no feasible node supports TPROXY ({total} in total){one}{which}")
    verb = "does" if number == 1 else "do"
    return Answer(Reason.MIXED_NODES, f"{number} of {total} feasible nodes {verb} not support TPROXY{one}{which}")


def _sent(case: PodCase, where: Elsewhere, fact: str, may_stay: int) -> Answer | None:
    """A label sends the pod to other nodes than the scheduler's filters let through, taints or not."""
    index = case.snapshot.nodes
    there = index.selected(dict((where.nodes,)), None)
    unsupported = there ^ (there & index.supported)
    if not there:
        reason = Reason.MIXED_NODES if may_stay & index.supported else Reason.INCOMPATIBLE_NODES
        return Answer(reason, f"{fact}, and no known node with the label {'='.join(where.nodes)} supports TPROXY")
    nodes = there | may_stay
    unsupported = nodes ^ (nodes & index.supported)
    if not unsupported:
        return None
    answer = _unsupported(case, nodes, unsupported)
    return Answer(answer.reason, f"{fact}; {answer.cause}")


def _none_feasible(case: PodCase, others: int) -> Answer | None:
    """With no feasible node (an autoscaler will add one) the evidence is what the pod's tolerations allow."""
    spec, index = case.spec, case.snapshot.nodes
    tolerations = spec.tolerations or _NO_TOLERATIONS
    selector = spec.node_selector or NO_LABELS
    system = next((selector[key] for key in wellknown.OS_LABELS if selector.get(key, "linux") != "linux"), None)
    if system is not None:
        return Answer(Reason.NO_FEASIBLE_NODE, f"nodeSelector selects {system}, where a Linux sidecar cannot run")
    if others:
        name, _ = index.example(others)
        return Answer(Reason.NO_FEASIBLE_NODE, f"the only feasible nodes cannot run a Linux sidecar: {name}")
    evidence = index.tolerated(tolerations) & index.linux
    unsupported = evidence ^ (evidence & index.supported)
    if evidence and (not unsupported or case.own_kernel):
        case.nodes_fact = _NONE_YET
        return None
    if not evidence:
        return Answer(
            Reason.NO_FEASIBLE_NODE,
            "no node is feasible: every node is cordoned, or has a taint that the pod does not tolerate",
        )
    name, example = index.example(unsupported)
    cause = (
        "no node is feasible, and of those that its tolerations allow "
        f"{name} ({example.os_image or 'no osImage'}; {example.compatibility.rule}) does not support TPROXY"
    )
    return Answer(Reason.NO_FEASIBLE_NODE, cause)


def fact_nodes(case: PodCase) -> str:
    snapshot, spec = case.snapshot, case.spec
    if spec.node_name:
        return f"spec.nodeName {spec.node_name} supports TPROXY"
    sent = sent_elsewhere(case.labels, case.annotations, case.around)
    if sent is not None:
        return f"{sent[1]}, where all nodes support TPROXY"
    nodes = _feasible(case) & snapshot.nodes.linux
    if not nodes:
        return _NONE_YET
    names = ", ".join(snapshot.nodes.names(nodes, NAMED))
    more = f" and {nodes.bit_count() - NAMED} more" if nodes.bit_count() > NAMED else ""
    return f"all {nodes.bit_count()} feasible nodes support TPROXY: {names}{more}"


_STRICT: Final = (ask_proxy_strictly, ask_pod_security_strictly, ask_runtime_strictly, ask_nodes_strictly)


def ask_pod_security(case: PodCase) -> Answer | None:
    """The level of the namespace, or the policy's fallback."""
    answer = ask_pod_security_strictly(case)
    return None if answer is None else _or_fallback(case, answer)


def ask_proxy(case: PodCase) -> Answer | None:
    """The user's own proxy container, or the policy's fallback."""
    if not case.customised:
        return None
    return _or_fallback(case, ask_proxy_strictly(case))


def ask_runtime(case: PodCase) -> Answer | None:
    """The RuntimeClass, or the policy's fallback."""
    if not case.pod.spec.runtime_class_name:
        return None
    return _or_fallback(case, ask_runtime_strictly(case))


def ask_nodes(case: PodCase) -> Answer | None:
    """The nodes, or the policy's fallback."""
    answer = ask_nodes_strictly(case)
    return None if answer is None else _or_fallback(case, answer)


def _or_fallback(case: PodCase, answer: Answer | None) -> Answer | None:
    """Where the policy falls back, the pod gets the label that the shipped EnvoyFilter selects."""
    policy = case.policy
    if answer is None or policy is None or policy.fallback is not Fallback.X_FORWARDED_FOR:
        return answer
    patch = add_metadata("labels", case.metadata.labels, wellknown.METHOD, METHOD_HEADER)
    return Answer(Reason.X_FORWARDED_FOR, f"{answer.reason}: {answer.cause}", patch)


def ask_tproxy(case: PodCase) -> Answer | None:
    """Nothing speaks against it, unless an annotation more might have the API server refuse the pod."""
    mode = add_metadata("annotations", case.metadata.annotations, wellknown.INTERCEPTION_MODE, TPROXY)
    if mode and annotations_are_full(case.annotations, case.size):
        cause = (
            f"metadata.annotations: more than {ANNOTATIONS_TOTAL:,} bytes, so there is no room for another annotation"
        )
        return Answer(Reason.TOO_LARGE, cause)
    patch: Patch = (*mode, *add_metadata("labels", case.metadata.labels, wellknown.METHOD, METHOD_TPROXY))
    return Answer(_TPROXY, case.nodes_fact, patch)


POD_QUESTIONS: Final[tuple[Question[PodCase], ...]] = (
    Question("opted in?", ask_opted_in, fact_opted_in),
    Question("does a policy apply, without an active exception?", ask_policy, fact_policy),
    Question(SMALL_ENOUGH, ask_small_enough, fact_small_enough),
    Question("not injected yet?", ask_not_injected, fact_not_injected),
    Question("will it get a sidecar?", ask_sidecar, fact_sidecar),
    Question("no mode set by the pod or the mesh?", ask_no_own_mode, fact_no_own_mode),
    Question("inbound traffic captured?", ask_captured, fact_captured),
    Question("may the proxy run as root?", ask_proxy, fact_proxy),
    Question("does PodSecurity allow TPROXY?", ask_pod_security, fact_pod_security),
    Question("does its runtime share the node's kernel?", ask_runtime, fact_runtime),
    Question("do all feasible nodes support TPROXY?", ask_nodes, fact_nodes),
    Question("then TPROXY", ask_tproxy, lambda _: ""),
)
"""In order; the last always answers."""

SMALL_POD_QUESTIONS: Final = tuple(question for question in POD_QUESTIONS if question.ask is not ask_small_enough)
"""The questions for a pod that is too small to exceed a limit: the same without the question about limits."""
