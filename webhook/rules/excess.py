"""
What of an object is beyond a limit of `limits`, so that no decision is made of it.

Cheap for every review: a number is compared for each list, and texts are looked at only where the whole is large.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from webhook.rules import limits, loadbalancers, placement, wellknown
from webhook.rules.nodes import NodeSelectorTerm
from webhook.rules.objects import ObjectMeta, Pod, PodSpec, Service

READ_ANNOTATIONS: Final = frozenset(
    {
        wellknown.BACKEND_TYPE,
        wellknown.INCLUDE_INBOUND_PORTS,
        wellknown.INJECT,
        wellknown.INJECTED_STATUS,
        wellknown.INTERCEPTION_MODE,
        wellknown.MIRROR_POD,
        wellknown.OPT_OUT_OWNER,
        wellknown.OPT_OUT_UNTIL,
        wellknown.PROXY_CONFIG,
        wellknown.PROXY_OVERRIDES,
        wellknown.REASON,
        wellknown.TEMPLATES,
        *loadbalancers.READ,
        *placement.READ,
    },
)
"""The annotations of Pods and Services that a question reads; a test holds it to be all of them."""
WITHIN_LIMITS: Final = "every part that the webhook reads is within its limit"


def pod_excess(pod: Pod, size: int) -> str:
    """
    Return what of *pod* is beyond a limit, or nothing.

    Args:
        size: The bytes of JSON that it came in; 0 where that is not known. What they can't hold is not looked for.

    """
    if 0 < size <= limits.SMALL:
        return ""
    spec = pod.spec
    terms = spec.terms()
    counted = _counted(terms) if terms else _NO_TERMS
    return (
        _placement_excess(spec, *counted)
        or _metadata_excess(pod.metadata, size)
        or ("" if 0 < size <= limits.LABELS_LIMIT else _labels_excess("spec.nodeSelector", spec.node_selector))
        or ("" if 0 < size <= limits.PROXY_ENV_LIMIT else _environment_excess(spec))
        or shares_excess(_in_hundredths(pod, *counted))
    )


def pod_shares(pod: Pod) -> int:
    """
    Return what parts of the limits that cost most *pod* uses, in hundredths of one limit.

    Of a pod that is within each limit: what a decision costs grows with this sum.
    """
    terms = pod.spec.terms()
    return _in_hundredths(pod, *(_counted(terms) if terms else _NO_TERMS))


_NO_TERMS: Final = (0, 0)


def _in_hundredths(pod: Pod, terms: int, values: int) -> int:
    spec, annotations = pod.spec, pod.metadata.annotations
    containers = len(spec.containers or ()) + len(spec.init_containers or ())
    shares = containers / limits.CONTAINERS_LIMIT + terms / limits.TERMS_LIMIT + values / limits.VALUES_LIMIT
    if spec.tolerations:
        shares += len(spec.tolerations) / limits.TOLERATIONS_LIMIT
    if annotations:
        texts = len(annotations.get(wellknown.PROXY_CONFIG, "")) + len(annotations.get(wellknown.PROXY_OVERRIDES, ""))
        shares += texts / limits.TEXT_LIMIT
    return int(100 * (shares + _read_bytes_of_proxies(spec) / limits.PROXY_ENV_LIMIT))


def shares_excess(shares: int) -> str:
    """Return what is said of an object, or of the pod templates of one, whose *shares* are too many, or nothing."""
    if shares <= limits.SHARES:
        return ""
    return (
        "tolerations, node affinity, containers, environment variables and annotations together: "
        f"{shares:,} % of a limit; the limit is {limits.SHARES} %"
    )


def service_excess(service: Service, size: int) -> str:
    """Return what of *service* is beyond a limit, or nothing; *size* as for `pod_excess`."""
    if 0 < size <= limits.SMALL:
        return ""
    kind = service.spec.type
    if len(kind) > limits.TEXT_LIMIT:
        return _too_many("spec.type", len(kind), "characters", limits.TEXT_LIMIT)
    return _metadata_excess(service.metadata, size)


def annotations_are_full(annotations: Mapping[str, str], size: int) -> bool:
    """Return whether another annotation might be refused: the API server bounds their bytes, keys and values."""
    if 0 < size <= limits.ANNOTATIONS_TOTAL:
        return False
    length = sum(len(text.encode(errors="surrogatepass")) for each in annotations.items() for text in each)
    return length > limits.ANNOTATIONS_TOTAL


def _placement_excess(spec: PodSpec, terms: int, values: int) -> str:
    tolerations = spec.tolerations
    if tolerations is not None and len(tolerations) > limits.TOLERATIONS_LIMIT:
        return _too_many("spec.tolerations", len(tolerations), "tolerations", limits.TOLERATIONS_LIMIT)
    containers = len(spec.containers or ()) + len(spec.init_containers or ())
    if containers > limits.CONTAINERS_LIMIT:
        return _too_many("spec.containers", containers, "containers", limits.CONTAINERS_LIMIT)
    for field, name in (("spec.nodeName", spec.node_name), ("spec.runtimeClassName", spec.runtime_class_name)):
        if name and len(name) > limits.TEXT_LIMIT:
            return _too_many(field, len(name), "characters", limits.TEXT_LIMIT)
    field = "spec.affinity.nodeAffinity"
    if terms > limits.TERMS_LIMIT:
        return _too_many(field, terms, "terms or requirements", limits.TERMS_LIMIT)
    return _too_many(field, values, "values", limits.VALUES_LIMIT) if values > limits.VALUES_LIMIT else ""


def _counted(terms: list[NodeSelectorTerm]) -> tuple[int, int]:
    """Return how many *terms* there are, or requirements in all of them where those are more, and their values."""
    requirements = values = 0
    for term in terms:
        for listed in (term.match_expressions, term.match_fields):
            if listed:
                requirements += len(listed)
                for each in listed:
                    if each.values:
                        values += len(each.values)
    return max(len(terms), requirements), values


def _metadata_excess(metadata: ObjectMeta, size: int) -> str:
    for key, value in (metadata.annotations or {}).items():
        if len(value) > limits.TEXT_LIMIT and key in READ_ANNOTATIONS:
            return _too_many(f"metadata.annotations[{key}]", len(value), "characters", limits.TEXT_LIMIT)
    return "" if 0 < size <= limits.LABELS_LIMIT else _labels_excess("metadata.labels", metadata.labels)


def _labels_excess(field: str, labels: Mapping[str, str] | None) -> str:
    length = sum(len(key) + len(value) for key, value in labels.items()) if labels else 0
    return _too_many(field, length, "characters", limits.LABELS_LIMIT) if length > limits.LABELS_LIMIT else ""


def _environment_excess(spec: PodSpec) -> str:
    length = _read_bytes_of_proxies(spec)
    if length <= limits.PROXY_ENV_LIMIT:
        return ""
    return _too_many("env, args and securityContext of Istio's containers", length, "bytes", limits.PROXY_ENV_LIMIT)


def _read_bytes_of_proxies(spec: PodSpec) -> int:
    return sum(len(memoryview(each)) for each in _read_of_proxies(spec))


def _read_of_proxies(spec: PodSpec) -> Iterable[bytes]:
    """Yield what is decoded of Istio's own containers."""
    for containers in (spec.init_containers, spec.containers):
        for container in containers or ():
            if container.name in wellknown.ISTIO_CONTAINERS:
                yield container.env
                yield container.args
                yield container.security_context


def _too_many(field: str, number: int, unit: str, limit: int) -> str:
    return f"{field}: {number:,} {unit}; the limit is {limit:,}"
