"""The nodes, by the policy's own rules, and the namespaces whose PodSecurity forbids TPROXY."""

from typing import Final

from webhook.checks.check import Check, Finding, Group, error, ok, warning
from webhook.checks.evidence import Evidence, few
from webhook.rules.podsecurity import enforced_level
from webhook.rules.policy import Level as PodSecurityLevel


def _nodes(evidence: Evidence) -> Finding:
    index = evidence.snapshot.nodes
    if not len(index):
        return error("no node is known", "Every decision is nodes-unknown. Check that the cluster has nodes.")
    unsupported = index.everything ^ index.supported
    if not index.supported:
        name, node = index.example(unsupported)
        return warning(
            f"none of {len(index)} nodes supports TPROXY: {name} ({node.compatibility.rule})",
            "No pods are patched. For node rules and the header fallback, see docs/policy.md.",
        )
    if unsupported:
        names = [
            f"{name} ({rule.compatibility.rule})" for name in index.names(unsupported)[:4] if (rule := index.node(name))
        ]
        more = max(unsupported.bit_count() - len(names), 0)
        return ok(
            f"{index.supported.bit_count()} nodes support TPROXY, {unsupported.bit_count()} do not: "
            + few(names)
            + (f" and {more} more" if more and len(names) <= 3 else "")
        )
    return ok(f"all {len(index)} nodes support TPROXY")


def _pod_security(evidence: Evidence) -> Finding:
    default = evidence.snapshot.policies.default.default_level
    refusing = sorted(
        f"{name} ({level.value})"
        for name, labels in evidence.opted_in()
        if (level := enforced_level(labels, default)) is not PodSecurityLevel.PRIVILEGED
    )
    if refusing:
        return warning(
            f"opted in, but PodSecurity rejects NET_ADMIN: {few(refusing)}",
            "Their pods are not patched (pod-security). Allow privileged there, or set fallback XForwardedFor.",
        )
    return ok("PodSecurity allows TPROXY in all opted-in namespaces")


GROUP: Final = Group(
    "nodes",
    (
        Check(id="nodes", description="some nodes support TPROXY", ask=_nodes, reads=("nodes", "policies")),
        Check(
            id="pod-security",
            description="PodSecurity allows NET_ADMIN in opted-in namespaces",
            ask=_pod_security,
            reads=("namespaces", "policies"),
        ),
    ),
)
