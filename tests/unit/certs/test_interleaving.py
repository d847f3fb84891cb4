"""
The law at every moment: what a replica serves verifies against every caBundle, whoever stopped between two requests.

Passes are driven by hand, one request of one replica at a time in any order; no event loop has a say in it.
"""

import base64
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.x509 import Certificate, DNSName
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings as budget, strategies as st

from certs.bundle import parse_bundle
from certs.kube import KubeError
from certs.lifecycle import Request
from certs.rotator import request
from certs.secret import read_secret
from tests.unit.certs.replicas import LOCATION, PACE, SETTINGS, Replica, World

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
# How late an API server may be with a webhook configuration that it watches; less than Settings.propagation.
LAG = 20 * SECOND
REPLICAS = 3


@cache
def verifies(leaf: Certificate, bundle: bytes, now: datetime) -> bool:
    """Return whether an API server that trusts *bundle* accepts *leaf*: chain, lives, name and purpose."""
    policy = PolicyBuilder().store(Store(list(parse_bundle(bundle).certificates))).time(now)
    try:
        policy.build_server_verifier(DNSName(SETTINGS.names[0])).verify(leaf, [])
    except VerificationError:
        return False
    return True


@dataclass
class Moments:
    """
    Three replicas whose passes stand still between requests.

    Attributes:
        lag: API servers may still use a bundle that was replaced this long ago.

    """

    lag: timedelta
    world: World = field(default_factory=lambda: World(REPLICAS))
    passes: dict[int, Coroutine[Any, Any, object]] = field(default_factory=dict)
    bundles: list[tuple[timedelta, bytes]] = field(default_factory=list)
    installed: bool = False

    def __post_init__(self) -> None:
        self.world.lawful = False
        for _ in range(12):
            self.tick(10 * SECOND)
        self.installed = True
        self.check()

    def replica(self, index: int) -> Replica:
        return self.world.replicas[index]

    def step(self, index: int) -> bool:
        """Let one replica make one request of its pass, if it is in one; return whether it still is."""
        running = self.passes.get(index)
        if running is None:
            return False
        try:
            running.send(None)
        except (StopIteration, KubeError):
            del self.passes[index]
        self.check()
        return index in self.passes

    def start(self, index: int) -> None:
        if index not in self.passes:
            self.passes[index] = self.replica(index).rotator.reconcile()
            self.step(index)

    def finish(self, first: int = 0) -> None:
        """Let all passes end; requests time out long before a tick is over."""
        for index in (*range(first, REPLICAS), *range(first)):
            self.finish_alone(index)

    def finish_alone(self, index: int) -> None:
        while self.step(index):
            pass

    def tick(self, time: timedelta, first: int = 0) -> None:
        """Let *time* pass, of which no replica lets more than its interval go by without a pass."""
        assert time <= PACE.interval
        self.finish(first)
        self.world.time.passes(time)
        for index in range(REPLICAS):
            self.start(index)

    def sleep(self, time: timedelta) -> None:
        """Let the whole cluster be suspended: clocks go on, nobody runs."""
        self.world.time.now += time
        self.world.time.stopwatch += time

    def jump(self, time: timedelta) -> None:
        """Let the API server's clock jump."""
        self.world.time.now += time

    def restart(self, index: int) -> None:
        if running := self.passes.pop(index, None):
            running.close()
        self.replica(index).restart()

    def ask(self, what: Request) -> None:
        asking = request(self.world.cluster.client(), LOCATION, frozenset({what}))
        while True:
            try:
                asking.send(None)
            except StopIteration:
                return

    def trusted_lately(self) -> set[bytes]:
        awake = self.world.time.awake
        webhooks = self.world.cluster.configurations["ours"]["webhooks"]
        current = {base64.b64decode(webhook["clientConfig"].get("caBundle", "")) for webhook in webhooks}
        for bundle in current:
            if not self.bundles or self.bundles[-1][1] != bundle:
                self.bundles.append((awake, bundle))
        # A bundle was in use until the one after it came.
        followers = [moment for moment, _ in self.bundles[1:]]
        replaced = {
            bundle for (_, bundle), until in zip(self.bundles, followers, strict=False) if awake - until < self.lag
        }
        return current | replaced

    def check(self) -> None:
        if not self.installed:  # before, API servers trust nothing and nobody is ready
            return
        bundles = self.trusted_lately()
        for replica in self.world.replicas:
            served = replica.serving.pair
            ready = served is not None and replica.rotator.healthy()
            if served and ready and served.not_before <= self.world.time.now < served.not_after:
                for bundle in bundles:
                    assert verifies(served.certificate, bundle, self.world.time.now)

    def ends_well(self) -> None:
        for _ in range(20):
            self.tick(10 * SECOND)
        self.finish()
        self.world.assert_all_well()
        assert read_secret(self.world.secret).state.requests == frozenset()


INDEX = st.integers(0, REPLICAS - 1)
ORDINARY = st.one_of(
    st.tuples(st.just("step"), INDEX),
    st.tuples(st.just("step"), INDEX),
    st.tuples(st.just("start"), INDEX),
    st.tuples(st.just("tick"), st.integers(1, 10)),
    st.tuples(st.just("tick"), st.just(10)),
    st.tuples(st.just("restart"), INDEX),
    st.tuples(st.just("ask"), st.sampled_from(Request)),
)
SLEEP = st.tuples(st.just("sleep"), st.integers(1, 25))
JUMP = st.tuples(st.just("jump"), st.sampled_from([400, -400, 300, -300, 100, -100, 61, -61]))


def happen(moments: Moments, kind: str, value: Any) -> None:
    match kind:
        case "step":
            moments.step(value)
        case "start":
            moments.start(value)
        case "tick":
            moments.tick(value * SECOND, first=value % REPLICAS)
        case "restart":
            moments.restart(value)
        case "ask":
            moments.ask(value)
        case "sleep":
            moments.sleep(value * DAY)
        case "jump":
            moments.jump(value * DAY)
    moments.check()


@pytest.mark.slow
class TestLaws:
    """Whatever is interleaved with whatever."""

    @given(events=st.lists(ORDINARY | SLEEP, max_size=40))
    @budget(deadline=None, max_examples=25)
    def test_even_an_api_server_that_is_late_trusts_what_is_served(self, events: list[tuple[str, Any]]) -> None:
        moments = Moments(lag=LAG)
        for kind, value in events:
            happen(moments, kind, value)
            if kind == "sleep":
                # Awake for a minute or two, or three suspensions outlast a leaf.
                for _ in range(12):
                    moments.tick(10 * SECOND)
        moments.ends_well()

    @given(events=st.lists(ORDINARY | SLEEP | JUMP, max_size=40))
    @budget(deadline=None, max_examples=25)
    def test_no_jump_of_the_clock_makes_a_good_leaf_untrusted(self, events: list[tuple[str, Any]]) -> None:
        moments = Moments(lag=timedelta())
        for kind, value in events:
            happen(moments, kind, value)
        moments.ends_well()


def test_a_clock_that_jumps_and_comes_back_at_once_takes_no_trust_away() -> None:
    """One replica acts on the jump, the others have not noticed; then their old leaf is good again."""
    moments = Moments(lag=timedelta())
    moments.finish()
    old = moments.replica(1).served
    moments.jump(400 * DAY)
    moments.start(0)
    moments.finish_alone(0)
    assert moments.replica(0).served != old
    moments.jump(-400 * DAY)
    assert moments.replica(1).served == old
    moments.check()
    moments.ends_well()


def test_a_suspended_cluster_gives_nobody_time_to_notice() -> None:
    """A day in suspension is not a day in which the others could have adopted the new leaf."""
    moments = Moments(lag=LAG)
    moments.ask(Request.CA)
    moments.ask(Request.DROP_OLD)
    old = moments.replica(1).served
    while moments.replica(0).served == old:
        moments.tick(10 * SECOND)
        moments.finish_alone(0)
    # It alone has renewed the leaf; now all sleep, and it is the first one awake.
    assert moments.replica(1).served == old
    moments.sleep(DAY)
    moments.start(0)
    moments.finish_alone(0)
    moments.ends_well()
    assert moments.replica(1).served != old
