"""The cluster itself: its version, and what we may read of it."""

import re
from typing import Final

from webhook.checks.check import Check, Finding, Group, error, ok, skipped, warning
from webhook.checks.evidence import READS, Evidence

OLDEST: Final = (1, 30)
"""The oldest supported minor: ValidatingAdmissionPolicy is GA since."""
_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)")


def _version(evidence: Evidence) -> Finding:
    found = _VERSION.match(evidence.server_version)
    if found is None:
        return error(
            f"the API server's version {evidence.server_version[:40]!r} cannot be parsed",
            "Check that the server is a Kubernetes API server.",
        )
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST:
        return error(
            f"Kubernetes {major}.{minor} is older than {OLDEST[0]}.{OLDEST[1]}",
            "The chart's ValidatingAdmissionPolicies require Kubernetes 1.30. Upgrade the cluster.",
        )
    return ok(f"Kubernetes {major}.{minor}")


def _permissions(evidence: Evidence) -> Finding:
    if not evidence.unread:
        return ok(f"all {len(READS)} lists can be read")
    missing = "\n".join(f"{why}" for why in dict.fromkeys(evidence.unread.values()))
    return warning(
        f"{len(evidence.unread)} of {len(READS)} lists cannot be read; the checks that need them are skipped",
        f"{missing}\nTo run these checks, use an account with these permissions.",
    )


def _clock(evidence: Evidence) -> Finding:
    if evidence.server_date is None:
        return skipped("the API server's response has no Date header")
    apart = abs((evidence.at - evidence.server_date).total_seconds())
    if apart > 60:
        return warning(
            f"the clocks of this machine and of the API server differ by {apart:.0f} s",
            "Certificates depend on correct clocks. Set up NTP on the machine whose clock is wrong.",
        )
    return ok(f"the clocks of this machine and of the API server differ by {apart:.0f} s")


GROUP: Final = Group(
    "cluster",
    (
        Check(id="api-version", description="Kubernetes is recent enough", ask=_version, fatal=True),
        Check(id="permissions", description="the objects that the checks need can be read", ask=_permissions),
        Check(id="clock", description="the clocks are synchronized", ask=_clock),
    ),
)
