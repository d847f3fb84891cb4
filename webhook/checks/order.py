"""The order in which the API server calls what changes pods, and who is never called."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from webhook.checks.check import Check, Finding, Group, error, ok, warning
from webhook.checks.evidence import Document, Evidence, few, metadata
from webhook.rules import wellknown


def _before_injectors(evidence: Evidence) -> Finding:
    names = sorted({each.configuration for each in evidence.snapshot.mesh.injectors})
    before = [name for name in names if name <= wellknown.CONFIGURATION]
    if before:
        return error(
            f"{few(before)} is called before {wellknown.CONFIGURATION}",
            "The API server calls configurations in the order of their names. Rename the injector's configuration, "
            "for example by reinstalling it under Istio's default names.",
        )
    return ok(f"{wellknown.CONFIGURATION} is called before {few(names) or 'any injector'}")


def _mutates_pods(configuration: Document) -> bool:
    return any(_matches_pods(each) for each in configuration.get("webhooks") or ())


def _matches_pods(webhook: Mapping[str, Any]) -> bool:
    for rule in webhook.get("rules") or ():
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        operations = rule.get("operations") or ()
        if (
            {"", "*"} & set(groups)
            and {"pods", "*", "pods/*", "*/*"} & set(resources)
            and {"CREATE", "*"} & set(operations)
        ):
            return True
    return False


def _others(evidence: Evidence) -> Finding:
    injectors = {each.configuration for each in evidence.snapshot.mesh.injectors}
    others = sorted(
        str(metadata(each).get("name"))
        for each in evidence.all("configurations")
        if _mutates_pods(each) and metadata(each).get("name") not in injectors | {wellknown.CONFIGURATION}
    )
    after = [name for name in others if name > wellknown.CONFIGURATION]
    if after:
        return warning(
            f"called for pods after this webhook: {few(after, 5)}",
            "If one of them adds tolerations, node selectors or annotations, a decision may no longer fit the pod. "
            "Compare with the running pods: client-ip scan",
        )
    # MutatingAdmissionPolicies run before every webhook.
    policies = [f"policy {metadata(each).get('name')}" for each in evidence.all("mutating-policies")]
    return ok(f"no other webhook changes pods after this one{_and_before([*policies, *others])}")


def _and_before(others: list[str]) -> str:
    return f" (before: {few(others)})" if others else ""


def _excluded(evidence: Evidence) -> Finding:
    excluded = set(wellknown.SYSTEM_NAMESPACES) | {evidence.own_namespace}
    for webhook in (evidence.configuration or {}).get("webhooks") or ():
        excluded |= set(_not_in(webhook.get("namespaceSelector") or {}))
    found = sorted(name for name, _ in evidence.opted_in() if name in excluded)
    if found:
        return warning(
            f"opted in, but excluded: {few(found)}",
            "The webhook is not called for system namespaces, its own namespace and webhook.excludedNamespaces. "
            "Remove the label, or remove the namespace from that value.",
        )
    return ok("no opted-in namespace is excluded")


def _not_in(selector: Mapping[str, Any]) -> Iterator[str]:
    for each in selector.get("matchExpressions") or ():
        if each.get("key") == wellknown.NAMESPACE_NAME and each.get("operator") == "NotIn":
            yield from each.get("values") or ()


GROUP: Final = Group(
    "order",
    (
        Check(
            id="before-injectors",
            description="the webhook is called before every sidecar injector",
            ask=_before_injectors,
            reads=("configurations",),
        ),
        Check(
            id="other-mutators",
            description="no other webhook changes pods afterwards",
            ask=_others,
            reads=("configurations", "mutating-policies"),
        ),
        Check(
            id="opted-in-but-excluded",
            description="no opted-in namespace is excluded",
            ask=_excluded,
            reads=("configurations", "namespaces"),
        ),
    ),
)
