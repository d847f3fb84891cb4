"""Policies, exceptions, and what runs in the API server itself."""

from datetime import timedelta
from typing import Final

from webhook.checks.check import Check, Finding, Group, error, ok, skipped, warning
from webhook.checks.evidence import Evidence, few, metadata
from webhook.rules import wellknown

ENDING: Final = timedelta(days=7)
REPORTS: Final = (("openreports.io/v1alpha1", "OpenReports"), ("wgpolicyk8s.io/v1alpha2", "PolicyReport"))


def _accepted(evidence: Evidence) -> Finding:
    if f"{wellknown.GROUP}/v1alpha1" not in evidence.groups:
        return warning(
            "the CRD clientippolicies.client-ip.dev is not installed",
            "The built-in policy applies. The chart installs the CRD (crds.install), or use: client-ip render crd",
        )
    policies = evidence.snapshot.policies
    refused = [
        f"{metadata(each).get('name')}: {str(condition.get('message'))[:200]}"
        for each in evidence.all("policies")
        for condition in (each.get("status") or {}).get("conditions") or ()
        if condition.get("type") == "Accepted" and condition.get("status") == "False"
    ]
    invalid = [f"{policy.name}: {policy.invalid}" for policy in policies.ordered if policy.invalid]
    if refused or invalid:
        return error(
            few(invalid or refused),
            "The objects that they select are not patched. See: kubectl describe clientippolicy NAME",
        )
    ended = [
        f"{policy.name}/{each.name} ({each.owner})"
        for policy in policies.ordered
        for each in policy.exceptions
        if each.expires <= evidence.at
    ]
    ending = [
        f"{policy.name}/{each.name} ({each.owner}, {each.expires.isoformat()})"
        for policy in policies.ordered
        for each in policy.exceptions
        if evidence.at < each.expires <= evidence.at + ENDING
    ]
    if ended or ending:
        said = [*(f"{each} has ended" for each in ended), *(f"{each} ends soon" for each in ending)]
        return warning(f"exceptions: {few(said)}", "Ask the owner: remove the exception, or change its field expires.")
    return ok(f"{len(evidence.all('policies'))} policies are accepted, in addition to the built-in one")


def _in_process(evidence: Evidence) -> Finding:
    ours = [
        each
        for each in evidence.all("admission-policies")
        if str(metadata(each).get("name", "")).endswith(wellknown.GROUP)
    ]
    mistyped = [
        str(metadata(each).get("name"))
        for each in ours
        if ((each.get("status") or {}).get("typeChecking") or {}).get("expressionWarnings")
    ]
    if mistyped:
        return warning(
            f"the API server reports errors in the expressions of {few(mistyped)}",
            "kubectl get validatingadmissionpolicy NAME -o jsonpath={.status.typeChecking}",
        )
    if not ours:
        return warning(
            "the chart's ValidatingAdmissionPolicies are not installed",
            "The webhook's ServiceAccount can change more than caBundle. Apply the chart, or deploy/install.yaml.",
        )
    return ok(few(sorted(str(metadata(each).get("name")) for each in ours)))


def _reports(evidence: Evidence) -> Finding:
    served = [name for group, name in REPORTS if group in evidence.groups]
    if not served:
        return skipped(
            "neither OpenReports nor PolicyReport is installed; client-ip scan --write-reports writes no reports"
        )
    return ok(f"client-ip scan --write-reports writes {served[0]}")


GROUP: Final = Group(
    "policy",
    (
        Check(
            id="policies-accepted",
            description="policies are accepted, and no exception is about to end",
            ask=_accepted,
            reads=("policies",),
        ),
        Check(
            id="in-process",
            description="the chart's ValidatingAdmissionPolicies are installed and compile",
            ask=_in_process,
            reads=("admission-policies",),
        ),
        Check(id="reports-api", description="the cluster has an API for reports", ask=_reports),
    ),
)
