"""A world of replicas around one cluster: time that passes, clocks that jump, and the law that must always hold."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from certs.authority import is_signed_by, service_names
from certs.injector import trust_of
from certs.lifecycle import Settings
from certs.pair import Pair
from certs.rotator import Location, Pace, Rotator
from certs.secret import Reading, read_secret
from certs.serving import ServingCertificate
from tests.unit.certs.apiserver import MemoryClient, MemoryCluster

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
SETTINGS = Settings(names=service_names("webhook", "system"))
LOCATION = Location(namespace="system", secret="certs", configurations=("ours", "ours-canary"))
PACE = Pace()


@dataclass
class Time:
    """The API server's clock and everybody's stopwatches: one goes on while hosts sleep, one does not."""

    now: datetime = START
    stopwatch: timedelta = field(default_factory=timedelta)
    awake: timedelta = field(default_factory=timedelta)

    def passes(self, time: timedelta) -> None:
        self.now += time
        self.stopwatch += time
        self.awake += time


async def _at_once(read: Callable[[], Reading]) -> Reading:
    """Threads would take the order of things out of the tests' hands."""
    return read()


class Replica:
    """One process: what it serves, and its rotator, which forgets everything when it restarts."""

    def __init__(self, cluster: MemoryCluster, time: Time, settings: Settings, pace: Pace) -> None:
        self._cluster = cluster
        self._time = time
        self.settings = settings
        self._pace = pace
        self.skew = timedelta()
        self.restart()

    def restart(self) -> None:
        self.serving = ServingCertificate()
        self.api: MemoryClient = self._cluster.client()
        self.rotator = Rotator(
            self.api,
            self.serving,
            location=LOCATION,
            settings=self.settings,
            pace=self._pace,
            clock=lambda: self._time.now + self.skew,
            stopwatch=lambda: self._time.stopwatch,
            patience=lambda: self._time.awake,
            jitter=lambda: 0.5,
            apart=_at_once,
        )

    @property
    def served(self) -> Pair:
        assert self.serving.pair is not None
        return self.serving.pair


class World:
    """
    A cluster with one of our two configurations, and replicas.

    Attributes:
        lawful: Whether the law is checked at each write; switched off while somebody breaks it by hand.

    """

    def __init__(self, replicas: int = 2, *, settings: Settings = SETTINGS, pace: Pace = PACE) -> None:
        self.time = Time()
        self.cluster = MemoryCluster(lambda: self.time.now)
        self.cluster.configure("ours", "webhook", "webhook")
        self.lawful = True
        self.cluster.on_change = self.check
        self.settings = settings
        self.replicas = [Replica(self.cluster, self.time, settings, pace) for _ in range(replicas)]

    def check(self) -> None:
        """
        Check the law: what a replica serves, within its life, is vouched for by every caBundle.

        A replica that is not ready yet gets no calls, so it may still wait for its first bundle.
        """
        if not self.lawful:
            return
        trust = trust_of(self.cluster.configurations.values(), self.settings.names)
        for replica in self.replicas:
            served = replica.serving.pair
            if served and replica.rotator.healthy() and served.not_before <= self.time.now < served.not_after:
                assert trust.vouches_for(served.certificate)

    async def together(self, replicas: Sequence[Replica] | None = None) -> None:
        """Let *replicas*, or all, make a pass at the same time."""
        async with asyncio.TaskGroup() as group:
            for replica in self.replicas if replicas is None else replicas:
                group.create_task(replica.rotator.reconcile())
        self.check()

    async def rounds(self, count: int, *, apart: timedelta = timedelta(seconds=31)) -> None:
        """Let everybody make *count* passes, further *apart* than a new CA must have been seen."""
        for _ in range(count):
            self.time.passes(apart)
            await self.together()

    def bundle(self, name: str = "ours") -> bytes:
        (bundle,) = {
            webhook["clientConfig"].get("caBundle", "") for webhook in self.cluster.configurations[name]["webhooks"]
        }
        return base64.b64decode(bundle)

    @property
    def secret(self) -> dict[str, object]:
        return self.cluster.secrets["system", "certs"]

    def delete_secret(self) -> None:
        del self.cluster.secrets["system", "certs"]

    def corrupt_secret(self, **changes: str | None) -> None:
        data = self.cluster.secrets["system", "certs"]["data"]
        data.update({key.replace("_", "."): value for key, value in changes.items()})
        self.cluster.store(self.cluster.secrets["system", "certs"])

    def empty_bundle(self, value: str = "") -> None:
        current = self.cluster.configurations["ours"]
        for webhook in current["webhooks"]:
            webhook["clientConfig"]["caBundle"] = value
        self.cluster.store(current)

    def assert_all_well(self) -> None:
        """Assert that everybody serves the one stored leaf, valid now, and that the bundle is the stored one."""
        reading = read_secret(self.secret)
        assert reading.is_intact
        assert reading.state.leaf is not None
        assert reading.state.leaf.not_before <= self.time.now < reading.state.leaf.not_after
        assert self.bundle() == reading.state.bundle
        assert any(
            is_signed_by(reading.state.leaf.certificate, known.certificate) for known in reading.state.authorities
        )
        for replica in self.replicas:
            assert replica.served == reading.state.leaf
            assert replica.rotator.healthy()
            assert replica.rotator.status.trusted
