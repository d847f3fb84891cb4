"""The clock that counts: the API server's once it was heard."""

from datetime import UTC, datetime, timedelta

from certs.clock import AgreedClock, awake, elapsed, utc_now

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Host:
    def __init__(self) -> None:
        self.wall = NOW
        self.stopwatch = timedelta(hours=7)

    def passes(self, time: timedelta) -> None:
        self.wall += time
        self.stopwatch += time

    def clock(self) -> AgreedClock:
        return AgreedClock(lambda: self.wall, lambda: self.stopwatch)


def test_a_host_alone_has_its_own_clock() -> None:
    host = Host()
    clock = host.clock()
    assert (clock.now(), clock.skew) == (NOW, timedelta())
    clock.hear(None)
    host.passes(timedelta(minutes=1))
    assert clock.now() == NOW + timedelta(minutes=1)


def test_the_api_servers_clock_counts_and_goes_on() -> None:
    host = Host()
    clock = host.clock()
    clock.hear(NOW - timedelta(days=400))
    assert clock.skew == timedelta(days=400)
    host.passes(timedelta(minutes=1))
    assert clock.now() == NOW - timedelta(days=400) + timedelta(minutes=1)


def test_a_jump_of_the_hosts_clock_changes_nothing() -> None:
    host = Host()
    clock = host.clock()
    clock.hear(NOW)
    host.wall += timedelta(days=400)
    assert clock.now() == NOW
    clock.hear(NOW)
    assert (clock.now(), clock.skew) == (NOW, timedelta(days=400))


def test_the_hosts_own_clocks_are_what_they_say() -> None:
    assert utc_now().tzinfo is UTC
    assert timedelta() < elapsed() <= elapsed()
    assert timedelta() < awake() <= elapsed()
