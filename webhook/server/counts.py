"""
What each review adds to: plain numbers, of the event loop's one thread.

A fast path. What it replaces is a `Counter` and a `Histogram` of prometheus-client, which take a lock for every number;
it tells the same text (tests/property/test_counts.py), for a quarter of the instructions.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from webhook.rules.objects import GROUPS

BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds. A decision takes a fraction of a millisecond; the API server waits two seconds."""
_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")
OPERATIONS: Final = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})
Reviewed: TypeAlias = tuple[str, str, str, str, bool, bool]
"""Kind, operation, reason, mode, whether it was patched, and whether it was a dry run."""


class ReviewCounts(Collector):
    """How many reviews there were of which kind, and how long they took."""

    def __init__(self) -> None:
        self._counts: dict[Reviewed, list[int]] = {}
        """A number in a list of its own, so that it is looked up once."""
        self._created: dict[Reviewed, float] = {}
        self._buckets = [0] * len(_BOUNDS)
        self._seconds = 0.0
        self._since = time.time()

    def add(self, reviewed: Reviewed, seconds: float) -> None:
        """Count one review that took *seconds*."""
        count = self._counts.get(reviewed)
        if count is None:
            count = self._new(reviewed)
        count[0] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def _new(self, reviewed: Reviewed) -> list[int]:
        """Labels come from closed lists: what the caller makes up counts as `other`."""
        kind, operation = reviewed[:2]
        closed: Reviewed = (
            kind if kind in GROUPS else "other",
            operation if operation in OPERATIONS else "other",
            *reviewed[2:],
        )
        self._created.setdefault(closed, time.time())
        return self._counts.setdefault(closed, [0])

    def collect(self) -> Sequence[CounterMetricFamily | HistogramMetricFamily]:
        """Return both as they stand."""
        reviews = CounterMetricFamily(
            "client_ip_reviews",
            "Admission reviews answered, by object, decision and mode.",
            labels=("kind", "operation", "reason", "mode", "patched", "dry_run"),
        )
        for key, (count,) in self._counts.items():
            labels = (*map(str, key[:4]), *(str(flag).lower() for flag in key[4:]))
            reviews.add_metric(labels, count, created=self._created[key])
        duration = HistogramMetricFamily(
            "client_ip_review_duration_seconds",
            "Time from the last byte of a review to the first byte of the response.",
        )
        duration.add_metric((), list(zip(_BOUNDS, accumulate(self._buckets), strict=True)), self._seconds)
        duration.add_sample(f"{duration.name}_created", {}, self._since)
        return reviews, duration
