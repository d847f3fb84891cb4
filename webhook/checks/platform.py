"""The platform's own peculiarities, where it has some."""

from typing import Final

from webhook.checks.check import Check, Finding, Group, ok, skipped, warning
from webhook.checks.evidence import Evidence, metadata
from webhook.rules.policy import Level as PodSecurityLevel


def _providers(evidence: Evidence) -> set[str]:
    return {str((each.get("spec") or {}).get("providerID", "")).split(":", 1)[0] for each in evidence.all("nodes")}


def _labels(evidence: Evidence) -> set[str]:
    return {key for each in evidence.all("nodes") for key in metadata(each).get("labels") or {}}


def _aks(evidence: Evidence) -> Finding:
    if "azure" not in _providers(evidence):
        return skipped("the cluster is not on AKS")
    return ok("AKS adds its own selectors to webhook configurations; the webhook writes only caBundle")


def _autopilot(evidence: Evidence) -> Finding:
    if "gce" not in _providers(evidence) or "cloud.google.com/gke-provisioning" not in _labels(evidence):
        return skipped("the cluster is not recognized as GKE Autopilot")
    return _says_level(evidence, "GKE Autopilot rejects NET_ADMIN unless the cluster allows it")


def _openshift(evidence: Evidence) -> Finding:
    if not any(group.startswith("security.openshift.io/") for group in evidence.groups):
        return skipped("the cluster is not OpenShift")
    return _says_level(evidence, "OpenShift's SecurityContextConstraints apply, and the webhook cannot read them")


def _says_level(evidence: Evidence, what: str) -> Finding:
    if evidence.snapshot.policies.default.default_level is PodSecurityLevel.PRIVILEGED:
        return warning(
            f"{what}, and the policy default assumes privileged",
            "Set podSecurity.defaultLevel in the policy default to the level that applies (docs/operations.md).",
        )
    return ok(f"{what}; the policy default sets {evidence.snapshot.policies.default.default_level.value}")


def _terway(evidence: Evidence) -> Finding:
    found = evidence.snapshot.network.terway
    if not found:
        return skipped("Terway was not found")
    return ok(f"{found}: LoadBalancer Services with ENI backends do not need Local")


GROUP: Final = Group(
    "platform",
    (
        Check(id="aks", description="Azure Kubernetes Service", ask=_aks, reads=("nodes",)),
        Check(id="gke-autopilot", description="GKE Autopilot", ask=_autopilot, reads=("nodes", "policies")),
        Check(id="openshift", description="OpenShift", ask=_openshift, reads=("policies",)),
        Check(id="terway", description="Alibaba Cloud's Terway", ask=_terway, reads=("daemon-sets",)),
    ),
)
