"""
Which time it is: the API server's, where it was heard, else this host's.

The API server verifies our certificate by its own clock. A replica whose clock is wrong would otherwise renew what is
good, issue what is not valid yet, and fight with the other replicas about it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Return this host's wall clock, UTC."""
    return datetime.now(UTC)


def elapsed() -> timedelta:
    """Return a stopwatch's reading: it never jumps, and goes on while the host sleeps."""
    return timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


def awake() -> timedelta:
    """Return a stopwatch's reading that stands still while the host sleeps: the others may sleep just as long."""
    return timedelta(seconds=time.clock_gettime(time.CLOCK_MONOTONIC))


class AgreedClock:
    """
    The API server's time as last heard, carried on by a stopwatch.

    Attributes:
        skew: How far this host's clock was ahead when the API server's was heard last.

    """

    def __init__(self, wall: Callable[[], datetime] = utc_now, stopwatch: Callable[[], timedelta] = elapsed) -> None:
        self._wall = wall
        self._stopwatch = stopwatch
        self._heard: tuple[datetime, timedelta] | None = None
        self.skew = timedelta()

    def hear(self, server_time: datetime | None) -> None:
        """Take over the time of an answer that has just come in; None changes nothing."""
        if server_time is not None:
            self._heard = server_time, self._stopwatch()
            self.skew = self._wall() - server_time

    def now(self) -> datetime:
        """Return the time that counts, UTC."""
        if self._heard is None:
            return self._wall()
        server_time, heard_at = self._heard
        return server_time + (self._stopwatch() - heard_at)
