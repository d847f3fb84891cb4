"""
Would PodSecurity admission refuse a TPROXY sidecar in this namespace?

TPROXY makes istio-proxy run as root with NET_ADMIN, which both `baseline` and `restricted` refuse, at every version:
https://kubernetes.io/docs/concepts/security/pod-security-standards/. Neither `enforce-version` nor `hostUsers: false`
changes that. Cluster-wide defaults can't be read, so the policy says what an unlabelled namespace has.
"""

from collections.abc import Mapping
from typing import Final

from webhook.rules import wellknown
from webhook.rules.policy import Level

_LEVELS: Final = {str(level): level for level in Level}


def enforced_level(labels: Mapping[str, str], default: Level) -> Level:
    """
    Return the level that is enforced.

    An invalid level is enforced as `restricted`:
    https://github.com/kubernetes/pod-security-admission/blob/v0.37.2/api/helpers.go (PolicyToEvaluate)
    """
    value = labels.get(wellknown.POD_SECURITY_ENFORCE)
    return default if value is None else _LEVELS.get(value, Level.RESTRICTED)


def enforced_because(labels: Mapping[str, str], default: Level) -> str:
    """Return the fact that the enforced level rests on."""
    value = labels.get(wellknown.POD_SECURITY_ENFORCE)
    if value is None:
        return f"no label {wellknown.POD_SECURITY_ENFORCE}; the policy's defaultLevel is {default}"
    if value in _LEVELS:
        return f"namespace label {wellknown.POD_SECURITY_ENFORCE}={value}"
    return f"namespace label {wellknown.POD_SECURITY_ENFORCE}={value!r} is invalid, so it counts as restricted"
