"""The ingress gateways' Services: whether `Local` reaches every node that is asked, and who else writes the field."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from webhook.checks.check import Check, Finding, Group, ok, warning
from webhook.checks.evidence import Document, Evidence, few, metadata, name_of
from webhook.rules import wellknown

FIELD: Final = "f:externalTrafficPolicy"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def gateways(evidence: Evidence) -> Iterator[Document]:
    """Yield the Services that a policy calls gateways, in namespaces that are opted in, reachable from outside."""
    policies, namespaces = evidence.snapshot.policies, evidence.snapshot.namespaces
    for each in evidence.all("services"):
        labels = metadata(each).get("labels") or {}
        around = namespaces.get(metadata(each).get("namespace", ""), {})
        policy = policies.for_service(around, labels)
        if policy is None or policy.invalid or not policy.is_gateway(labels):
            continue
        if evidence.namespace not in {"", metadata(each).get("namespace")}:
            continue
        if (each.get("spec") or {}).get("type") in {"LoadBalancer", "NodePort"}:
            yield each


def _is_local(service: Document) -> bool:
    return (service.get("spec") or {}).get("externalTrafficPolicy") == "Local"


def _local(evidence: Evidence) -> Finding:
    nodes = {name_of(each) for each in evidence.all("nodes") if not (each.get("spec") or {}).get("unschedulable")}
    wrong = []
    seen = 0
    for each in gateways(evidence):
        if not _is_local(each):
            continue
        seen += 1
        spec = each.get("spec") or {}
        on = _nodes_of(evidence, each)
        if not on:
            wrong.append(f"{name_of(each)}: no running pod")
        elif spec.get("type") == "LoadBalancer" and not spec.get("healthCheckNodePort"):
            wrong.append(f"{name_of(each)}: no healthCheckNodePort")
        elif spec.get("type") == "NodePort" and nodes - on:
            wrong.append(f"{name_of(each)}: {len(nodes - on)} nodes without a pod drop its traffic")
        elif len(on) == 1 and len(nodes) > 1:
            wrong.append(f"{name_of(each)}: all pods on one node")
    if wrong:
        return warning(
            few(wrong),
            "With Local, a node without a gateway pod drops the traffic that it receives. Spread the gateway's pods, "
            "or run it as a DaemonSet: docs/operations.md",
        )
    return ok(
        f"{seen} Services of gateways are Local, and their pods are on several nodes"
        if seen
        else "no Service of a gateway is Local"
    )


def _nodes_of(evidence: Evidence, service: Document) -> set[str]:
    selector: Mapping[str, Any] = (service.get("spec") or {}).get("selector") or {}
    return {
        str((pod.get("spec") or {}).get("nodeName"))
        for pod in evidence.all("gateway-pods")
        if selector
        and metadata(pod).get("namespace") == metadata(service).get("namespace")
        and selector.items() <= (metadata(pod).get("labels") or {}).items()
        and (pod.get("spec") or {}).get("nodeName")
    }


def _drift(evidence: Evidence) -> Finding:
    fighting = []
    for each in gateways(evidence):
        managers = sorted(_writers(metadata(each)))
        # A Local of the owner's own hand has no label of ours.
        if managers and _is_local(each) and wellknown.METHOD in (metadata(each).get("labels") or {}):
            fighting.append(f"{name_of(each)} ({few(managers)})")
    if fighting:
        return warning(
            f"another client writes externalTrafficPolicy: {few(fighting)}",
            "If the other client sets Cluster, the field changes with each of its writes. Set Local at the source: "
            "see GitOps in docs/operations.md, or client-ip render gateway-defaults for the Gateway API.",
        )
    return ok("no other client writes externalTrafficPolicy of a gateway's Service")


def _writers(found: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield who says externalTrafficPolicy: by server-side apply, or in what kubectl applied last.

    Whoever creates or updates an object owns its defaults as well, so those managers prove nothing.
    """
    for entry in found.get("managedFields") or ():
        if entry.get("operation") == "Apply" and FIELD in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            yield str(entry.get("manager", "?"))
    applied = (found.get("annotations") or {}).get(LAST_APPLIED, "")
    if '"externalTrafficPolicy":' in applied:
        yield "kubectl apply"


GROUP: Final = Group(
    "gateways",
    (
        Check(
            id="local-covers-nodes",
            description="Local Services of gateways drop no traffic",
            ask=_local,
            reads=("services", "nodes", "gateway-pods", "policies"),
        ),
        Check(
            id="drift",
            description="no other client writes externalTrafficPolicy",
            ask=_drift,
            reads=("services", "policies"),
        ),
    ),
)
