"""
Would PodSecurity admission refuse a TPROXY sidecar in this namespace?

TPROXY makes istio-proxy run as root with NET_ADMIN, which both `baseline` and `restricted` refuse, at every version:
https://kubernetes.io/docs/concepts/security/pod-security-standards/. Neither `enforce-version` nor `hostUsers: false`
changes that. Cluster-wide defaults can't be read, so the policy says what an unlabelled namespace has.
"""

from collections.abc import Mapping

from webhook.rules import wellknown
from webhook.rules.policy import Level


def enforced_level(labels: Mapping[str, str], default: Level) -> tuple[Level, str]:
    """
    Return the level that is enforced, and the fact that says so.

    An invalid level is enforced as `restricted`:
    https://github.com/kubernetes/pod-security-admission/blob/v0.37.2/api/helpers.go (PolicyToEvaluate)
    """
    value = labels.get(wellknown.POD_SECURITY_ENFORCE)
    if value is None:
        return default, f"no label {wellknown.POD_SECURITY_ENFORCE}; the policy's defaultLevel is {default}"
    if value in {str(level) for level in Level}:
        return Level(value), f"namespace label {wellknown.POD_SECURITY_ENFORCE}={value}"
    fact = f"namespace label {wellknown.POD_SECURITY_ENFORCE}={value!r} is invalid, so it counts as restricted"
    return Level.RESTRICTED, fact
