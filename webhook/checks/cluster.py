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
        return error(f"the API server's version {evidence.server_version[:40]!r} can't be read", "Is it Kubernetes?")
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST:
        return error(
            f"Kubernetes {major}.{minor} is older than {OLDEST[0]}.{OLDEST[1]}",
            "The chart's ValidatingAdmissionPolicies need 1.30. Upgrade the cluster.",
        )
    return ok(f"Kubernetes {major}.{minor}")


def _permissions(evidence: Evidence) -> Finding:
    if not evidence.unread:
        return ok(f"all of {len(READS)} lists may be read")
    missing = "\n".join(f"{why}" for why in dict.fromkeys(evidence.unread.values()))
    return warning(
        f"{len(evidence.unread)} of {len(READS)} can't be read; their checks are skipped",
        f"{missing}\nRun doctor with more permissions to see the rest.",
    )


def _clock(evidence: Evidence) -> Finding:
    if evidence.server_date is None:
        return skipped("the API server sends no Date")
    apart = abs((evidence.at - evidence.server_date).total_seconds())
    if apart > 60:
        return warning(
            f"this machine's clock and the API server's are {apart:.0f} s apart",
            "Certificates begin and end by the clock. Set up NTP on the machine that is wrong.",
        )
    return ok(f"this machine's clock and the API server's are {apart:.0f} s apart")


GROUP: Final = Group(
    "cluster",
    (
        Check(id="api-version", description="Kubernetes is recent enough", ask=_version, fatal=True),
        Check(id="permissions", description="what the checks look at may be read", ask=_permissions),
        Check(id="clock", description="the clocks agree", ask=_clock),
    ),
)
