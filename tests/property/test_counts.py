"""What reviews add to tells what prometheus-client's own metrics tell."""

import re
from typing import Final

from hypothesis import given, strategies as some
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from webhook.rules.decision import Mode, Reason
from webhook.server.counts import BUCKETS, ReviewCounts

KINDS: Final = ("Pod", "Service", "Deployment", "CronJob")
OPERATIONS: Final = ("CREATE", "UPDATE")
CREATED: Final = re.compile(r"^(client_ip_\w+_created(?:\{[^}]*\})?) \S+$", re.MULTILINE)

reviews = some.tuples(
    some.tuples(
        some.sampled_from([*KINDS, "Rollout", "pod", ""]),
        some.sampled_from([*OPERATIONS, "create", ""]),
        some.sampled_from([Reason.TPROXY, Reason.NO_SIDECAR]),
        some.sampled_from([Mode.ENFORCE, Mode.AUDIT]),
        some.booleans(),
        some.booleans(),
    ),
    some.one_of(some.sampled_from(BUCKETS), some.floats(0, 3)),
)


class Plain:
    """The same, by the library's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reviews = Counter(
            "client_ip_reviews",
            "Admission reviews answered, by object, decision and mode.",
            ("kind", "operation", "reason", "mode", "patched", "dry_run"),
            registry=registry,
        )
        self._duration = Histogram(
            "client_ip_review_duration_seconds",
            "Time from the last byte of a review to the first byte of the response.",
            buckets=BUCKETS,
            registry=registry,
        )

    def add(self, reviewed: tuple[str, str, Reason, Mode, bool, bool], seconds: float) -> None:
        kind, operation, reason, mode, patched, dry_run = reviewed
        self._reviews.labels(
            kind if kind in KINDS else "other",
            operation if operation in OPERATIONS else "other",
            reason.value,
            mode.value,
            str(patched).lower(),
            str(dry_run).lower(),
        ).inc()
        self._duration.observe(seconds)


@given(some.lists(reviews))
def test_what_is_told_is_the_librarys_text(
    counted: list[tuple[tuple[str, str, Reason, Mode, bool, bool], float]],
) -> None:
    """Every line, in its order; of the moments of creation that they are there."""
    ours, plain = CollectorRegistry(), CollectorRegistry()
    counts, library = ReviewCounts(), Plain(plain)
    ours.register(counts)
    for reviewed, seconds in counted:
        counts.add(reviewed, seconds)
        library.add(reviewed, seconds)
    assert CREATED.sub(r"\1", generate_latest(ours).decode()) == CREATED.sub(r"\1", generate_latest(plain).decode())
