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
            "The API server calls configurations in the order of their names. Rename that injector's configuration, "
            "for instance by reinstalling it under Istio's default names.",
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
            f"called after us for pods: {few(after, 5)}",
            "If one of them adds tolerations, node selectors or annotations, a decision may no longer fit the pod. "
            "Compare with what client-ip scan says of running pods.",
        )
    # MutatingAdmissionPolicies run before every webhook.
    policies = [f"policy {metadata(each).get('name')}" for each in evidence.all("mutating-policies")]
    return ok(f"no other webhook changes pods after us{_and_before([*policies, *others])}")


def _and_before(others: list[str]) -> str:
    return f" (before: {few(others)})" if others else ""


def _excluded(evidence: Evidence) -> Finding:
    excluded = set(wellknown.SYSTEM_NAMESPACES) | {evidence.own_namespace}
    for webhook in (evidence.configuration or {}).get("webhooks") or ():
        excluded |= set(_not_in(webhook.get("namespaceSelector") or {}))
    found = sorted(name for name, _ in evidence.opted_in() if name in excluded)
    if found:
        return warning(
            f"opted in, but never asked about: {few(found)}",
            "System namespaces, the webhook's own and webhook.excludedNamespaces are left alone. Take the label off, "
            "or the namespace out of that value.",
        )
    return ok("every namespace that is opted in is asked about")


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
            description="nobody changes pods after the webhook",
            ask=_others,
            reads=("configurations", "mutating-policies"),
        ),
        Check(
            id="opted-in-but-excluded",
            description="no namespace is opted in and excluded at once",
            ask=_excluded,
            reads=("configurations", "namespaces"),
        ),
    ),
)
