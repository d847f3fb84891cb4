"""Replicas without a leader: bootstrap, rotation, healing, refusals, and a law over months of simulated time."""

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings as budget, strategies as st

from certs.authority import issue_ca, issue_leaf
from certs.bundle import parse_bundle, render_bundle
from certs.kube import ConflictError, KubeError, NotFoundError, RefusedError, UnavailableError
from certs.lifecycle import MAX_AUTHORITIES, Request
from certs.pair import fingerprint
from certs.rotator import MAX_CHANGES_IN_A_ROW, Pace, request
from certs.secret import read_secret
from tests.unit.certs.apiserver import MemoryCluster
from tests.unit.certs.replicas import LOCATION, SETTINGS, START, Replica, World

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def authorities(world: World) -> int:
    return len(parse_bundle(world.bundle()).certificates)


async def ask(world: World, *requests: Request) -> None:
    await request(world.cluster.client(), LOCATION, frozenset(requests))


class TestBootstrap:
    """From nothing, by everybody at once."""

    @pytest.mark.parametrize("attempt", range(5))
    def test_five_replicas_agree_on_one_ca(self, attempt: int) -> None:
        async def scenario() -> None:
            world = World(5)
            await world.together()
            await world.rounds(1)
            world.assert_all_well()
            assert authorities(world) == 1
            assert world.cluster.requests["create secret"] > 1
            assert sum(replica.rotator.status.counts.get("rotate-ca", 0) for replica in world.replicas) == 1

        run(scenario)

    def test_nobody_is_ready_before_it_is_trusted(self) -> None:
        async def scenario() -> None:
            world = World(1)
            (replica,) = world.replicas
            assert not replica.rotator.healthy()
            assert replica.rotator.status.reason == "the first check has not finished yet"
            world.cluster.refusals["patch configuration"] = RefusedError("no")
            with pytest.raises(RefusedError):
                await replica.rotator.reconcile()
            assert replica.serving.healthy(world.time.now)
            assert not replica.rotator.healthy()
            assert replica.rotator.status.error == "RefusedError: no"
            assert not replica.rotator.status.trusted
            world.cluster.refusals.clear()
            await replica.rotator.reconcile()
            assert replica.rotator.healthy()
            assert replica.rotator.status.error == ""

        run(scenario)

    def test_without_a_configuration_nobody_distrusts(self) -> None:
        async def scenario() -> None:
            world = World(1)
            world.cluster.configurations.clear()
            (replica,) = world.replicas
            status = await replica.rotator.reconcile()
            assert (status.trusted, status.callers) == (True, 0)
            assert replica.rotator.healthy()
            world.lawful = False
            world.cluster.configure("ours-canary", "webhook")
            status = await replica.rotator.reconcile()
            assert (status.trusted, status.callers) == (True, 1)
            assert world.bundle("ours-canary")

        run(scenario)

    def test_a_steady_world_is_only_read(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            before = world.cluster.requests.copy()
            await world.rounds(5)
            grown = world.cluster.requests - before
            assert grown == {"get secret": 10, "get configuration": 20}
            assert world.replicas[0].rotator.status.reason.startswith("the leaf is valid, and is renewed at 2027-01-22")

        run(scenario)

    def test_the_status_says_what_metrics_need(self) -> None:
        async def scenario() -> None:
            world = World(1)
            await world.rounds(2)
            (replica,) = world.replicas
            status = replica.rotator.status
            state = read_secret(world.secret).state
            assert state.leaf is not None
            assert (status.leaf_not_before, status.leaf_not_after) == (state.leaf.not_before, state.leaf.not_after)
            assert status.ca_not_after == state.authorities[0].certificate.not_valid_after_utc
            assert (status.authorities, status.callers, status.trusted) == (1, 2, True)
            assert (status.passed_at, status.skew) == (world.time.now, timedelta())
            assert status.counts == {"rotate-ca": 1, "renew-leaf": 1, "store": 1, "inject": 1, "serve": 1}

        run(scenario)


class TestRotation:
    """The bundle first and seen there, the leaf second, the old CA last."""

    def test_each_step_waits_for_the_one_before(self) -> None:
        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            old = world.replicas[0].served
            await ask(world, Request.CA)
            await world.together()
            assert authorities(world) == 2
            assert {replica.served.fingerprint for replica in world.replicas} == {old.fingerprint}
            world.time.passes(29 * SECOND)
            await world.together()
            assert {replica.served.fingerprint for replica in world.replicas} == {old.fingerprint}
            world.time.passes(SECOND)
            await world.together()
            await world.together()
            world.assert_all_well()
            assert world.replicas[0].served != old
            assert authorities(world) == 2
            world.time.passes(89 * DAY)
            await world.rounds(2)
            assert authorities(world) == 2
            world.time.passes(DAY)
            await world.rounds(2)
            assert authorities(world) == 1
            world.assert_all_well()

        run(scenario)

    def test_a_compromised_ca_is_gone_within_minutes(self) -> None:
        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            (old,) = parse_bundle(world.bundle()).certificates
            await ask(world, Request.CA, Request.DROP_OLD)
            await world.rounds(7, apart=20 * SECOND)
            assert old not in parse_bundle(world.bundle()).certificates
            assert authorities(world) == 1
            assert read_secret(world.secret).state.requests == frozenset()
            world.assert_all_well()

        run(scenario)

    def test_a_replica_that_slept_through_a_forced_rotation_has_nothing_to_wait_for(self) -> None:
        """What it serves is trusted no more, so the new leaf can only be better."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            awake, asleep = world.replicas
            world.lawful = False
            await ask(world, Request.CA, Request.DROP_OLD)
            for _ in range(7):
                world.time.passes(20 * SECOND)
                await awake.rotator.reconcile()
            assert authorities(world) == 1
            assert asleep.served != awake.served
            await asleep.rotator.reconcile()
            world.assert_all_well()

        run(scenario)

    def test_a_new_leaf_by_hand(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            old = world.replicas[0].served
            await ask(world, Request.LEAF)
            await world.together()
            await world.together()
            world.assert_all_well()
            assert world.replicas[0].served != old
            assert authorities(world) == 1

        run(scenario)

    def test_a_replica_that_restarts_waits_anew_and_serves_the_stored_leaf(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            old = world.replicas[0].served
            await ask(world, Request.CA)
            await world.together()
            for _ in range(4):
                world.time.passes(29 * SECOND)
                for replica in world.replicas:
                    replica.restart()
                await world.together()
                assert {replica.served.fingerprint for replica in world.replicas} == {old.fingerprint}
            await world.rounds(2)
            world.assert_all_well()
            assert world.replicas[0].served != old

        run(scenario)

    def test_a_bundle_that_does_not_arrive_stops_the_rotation(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            old = world.replicas[0].served
            await ask(world, Request.CA)
            world.cluster.refusals["patch configuration"] = RefusedError("forbidden")
            for _ in range(5):
                world.time.passes(DAY)
                for replica in world.replicas:
                    with pytest.raises(RefusedError):
                        await replica.rotator.reconcile()
                    assert replica.served == old
                    assert replica.rotator.healthy()
                world.check()
            world.cluster.refusals.clear()
            await world.rounds(3)
            world.assert_all_well()
            assert world.replicas[0].served != old

        run(scenario)

    def test_a_configuration_that_can_not_be_read_stops_the_rotation(self) -> None:
        async def scenario() -> None:
            world = World(1)
            (replica,) = world.replicas
            await world.rounds(2)
            old = replica.served
            await ask(world, Request.CA)
            world.cluster.refusals["get configuration"] = UnavailableError("later")
            for _ in range(3):
                world.time.passes(DAY)
                with pytest.raises(UnavailableError):
                    await replica.rotator.reconcile()
                assert replica.served == old
                assert replica.rotator.healthy()
            world.cluster.refusals.clear()
            await world.rounds(3)
            world.assert_all_well()
            assert replica.served != old

        run(scenario)

    def test_a_new_leaf_waits_for_the_bundle_that_this_replica_reads(self) -> None:
        """Another replica saw the bundle and renewed; the one configuration that this one reads late lacks it."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            first, second = world.replicas
            old = second.served
            await ask(world, Request.CA)
            for _ in range(3):
                world.time.passes(31 * SECOND)
                await first.rotator.reconcile()
            assert first.served != old
            world.cluster.refusals["get configuration"] = UnavailableError("later")
            with pytest.raises(UnavailableError):
                await second.rotator.reconcile()
            assert second.served == old
            world.cluster.refusals.clear()
            # Somebody puts back the bundle of before, and it can't be healed: the old leaf is what is trusted.
            old_bundle = world.cluster.configurations["ours"]["webhooks"][0]["clientConfig"]["caBundle"]
            world.lawful = False
            world.empty_bundle(only_last(old_bundle))
            world.cluster.refusals["patch configuration"] = RefusedError("no")
            with pytest.raises(RefusedError):
                await second.rotator.reconcile()
            assert second.served == old
            world.cluster.refusals.clear()
            await world.together()
            world.assert_all_well()

        run(scenario)


def only_last(bundle: str) -> str:
    """Return *bundle*, base64 as in a configuration, without all but its oldest CA."""
    return base64.b64encode(render_bundle(parse_bundle(base64.b64decode(bundle)).certificates[-1:])).decode()


class TestStoppedReplicas:
    """A replica that is stopped within a pass goes on later with what it had read; it must not do harm."""

    @pytest.mark.parametrize(
        ("request_", "asked"),
        [
            ("get configuration", "before"),
            ("get configuration", "after"),
            ("get secret", "before"),
            ("get secret", "after"),
            ("replace secret", "before"),
            ("patch configuration", "before"),
        ],
    )
    def test_wherever_it_was_stopped(self, request_: str, asked: str) -> None:
        """A rotation is asked for before or after it was stopped, and another replica does it, twice."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            stopped, other = world.replicas
            go_on = asyncio.Event()
            stopped.api.held[request_] = go_on
            if asked == "before":
                await ask(world, Request.CA)
            if request_ == "patch configuration":
                # The new CA is stored, so the stopped replica is about to patch a bundle that grows old meanwhile.
                world.cluster.refusals[request_] = UnavailableError("for this pass")
                with pytest.raises(UnavailableError):
                    await other.rotator.reconcile()
                world.cluster.refusals.clear()
            task = asyncio.create_task(stopped.rotator.reconcile())
            for _ in range(10):
                await asyncio.sleep(0)
            if asked == "after":
                await ask(world, Request.CA)
            for _ in range(2):
                for _ in range(3):
                    await other.rotator.reconcile()
                    world.time.passes(31 * SECOND)
                await ask(world, Request.CA)
            await other.rotator.reconcile()
            bundle, leaf = world.bundle(), other.served
            assert not task.done()
            go_on.set()
            await task
            assert world.bundle() == bundle
            assert stopped.served == leaf
            await world.rounds(3)
            world.assert_all_well()

        run(scenario)


def weak_certificate() -> bytes:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak, as OpenSSL must find it
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, START, START + DAY)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class TestHealing:
    """What others break is put right without a failed call where that is possible."""

    def test_a_deleted_secret_comes_back_as_it_was(self) -> None:
        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            before = read_secret(world.secret).state
            world.delete_secret()
            await world.together()
            assert read_secret(world.secret).state == before
            world.assert_all_well()
            assert sum(replica.rotator.status.counts.get("restore", 0) for replica in world.replicas) == 1

        run(scenario)

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"tls_crt": None}, id="the certificate"),
            pytest.param({"ca_key": "eA=="}, id="the CA's key"),
            pytest.param({"ca_crt": "%"}, id="the bundle"),
            pytest.param(dict.fromkeys(("tls_crt", "tls_key", "ca_crt", "ca_key"), "eA=="), id="all of it"),
        ],
    )
    @pytest.mark.parametrize("first", ["a replica that remembers", "a replica that has just started"])
    def test_a_corrupted_secret_never_breaks_trust(self, changes: dict[str, str | None], first: str) -> None:
        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            before = read_secret(world.secret).state
            world.corrupt_secret(**changes)
            if first == "a replica that has just started":
                world.replicas[0].restart()
                await world.together(world.replicas[:1])
                await world.together(world.replicas[1:])
                assert before.authorities[0].certificate in parse_bundle(world.bundle()).certificates
            else:
                await world.together()
                assert read_secret(world.secret).state == before
            await world.rounds(3)
            world.assert_all_well()

        run(scenario)

    def test_a_leaf_made_in_haste_waits_where_the_one_before_is_good(self) -> None:
        """A replica without a memory found no Secret; API servers may not know its CA yet."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            new, knowing = world.replicas
            before = knowing.served
            world.delete_secret()
            new.restart()
            await new.rotator.reconcile()
            assert new.served != before
            for _ in range(3):
                await knowing.rotator.reconcile()
                assert knowing.served == before
                world.time.passes(10 * SECOND)
            await knowing.rotator.reconcile()
            assert knowing.served == new.served
            world.assert_all_well()

        run(scenario)

    def test_a_new_leaf_waits_for_a_bundle_that_nobody_may_patch(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            new, knowing = world.replicas
            before = knowing.served
            world.delete_secret()
            new.restart()
            world.cluster.refusals["patch configuration"] = RefusedError("no")
            for _ in range(3):
                world.time.passes(31 * SECOND)
                for replica in (new, knowing):
                    with pytest.raises(RefusedError):
                        await replica.rotator.reconcile()
            assert knowing.served == before
            assert knowing.rotator.healthy()
            assert not new.rotator.healthy()
            world.cluster.refusals.clear()
            await world.rounds(2)
            world.assert_all_well()

        run(scenario)

    def test_a_chain_that_no_server_can_serve_is_left_out(self) -> None:
        """OpenSSL refuses the whole pair for a weak certificate behind the leaf."""

        async def scenario() -> None:
            world = World(1)
            await world.rounds(2)
            leaf = world.replicas[0].served
            text = base64.b64encode(leaf.certificate_pem + weak_certificate()).decode()
            world.corrupt_secret(tls_crt=text)
            world.replicas[0].restart()
            await world.together()
            world.assert_all_well()
            assert world.replicas[0].served == leaf

        run(scenario)

    def test_a_secret_deleted_before_everybody_restarts_keeps_what_is_trusted(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            (old,) = parse_bundle(world.bundle()).certificates
            foreign = issue_ca(organization="somebody else", now=START, life=DAY)
            world.delete_secret()
            world.lawful = False
            current = base64.b64decode(world.cluster.configurations["ours"]["webhooks"][0]["clientConfig"]["caBundle"])
            world.empty_bundle(base64.b64encode(current + foreign.certificate_pem).decode())
            world.lawful = True
            for replica in world.replicas:
                replica.restart()
            await world.together()
            bundle = parse_bundle(world.bundle()).certificates
            assert len(bundle) == 2
            assert bundle[1] == old
            await world.rounds(1)
            world.assert_all_well()
            # Nobody knows which leaves the old one signed, so it stays for its whole life.
            world.time.passes(200 * DAY)
            await world.rounds(4)
            assert old in parse_bundle(world.bundle()).certificates
            world.time.passes(165 * DAY)
            await world.rounds(4)
            assert old not in parse_bundle(world.bundle()).certificates
            world.assert_all_well()

        run(scenario)

    def test_a_slow_memory_never_takes_trust_away(self) -> None:
        """A replica that missed a rotation finds the Secret corrupted: what it remembers is old."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            first, second = world.replicas
            await ask(world, Request.CA)
            for _ in range(3):
                world.time.passes(31 * SECOND)
                await first.rotator.reconcile()
            assert first.served != second.served
            world.corrupt_secret(ca_key=None, tls_key=None)
            await second.rotator.reconcile()
            world.check()
            await world.rounds(3)
            world.assert_all_well()

        run(scenario)

    @pytest.mark.parametrize("damage", ["what is stored", "what is remembered"])
    def test_damage_everywhere_leaves_trusted_what_anybody_knows_of(self, damage: str) -> None:
        """The bundle is emptied as the Secret is corrupted, and the one who heals was away during a rotation."""

        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            first, second = world.replicas
            await ask(world, Request.CA)
            for _ in range(3):
                world.time.passes(31 * SECOND)
                await first.rotator.reconcile()
            assert first.served != second.served
            world.lawful = False
            world.empty_bundle()
            if damage == "what is stored":
                # What is left of it is the new CA that the second replica has never heard of.
                world.corrupt_secret(ca_key=None, tls_key=None)
            else:
                # What is left of it works, but the old CA, which only a memory knows, is gone from it.
                newest = parse_bundle(read_secret(world.secret).state.bundle).certificates[:1]
                cut_off = render_bundle(newest) + b"-----BEGIN CERTIFICATE-----\n"
                world.corrupt_secret(ca_crt=base64.b64encode(cut_off).decode())
            await second.rotator.reconcile()
            assert authorities(world) == 2
            world.lawful = True
            world.check()
            await world.rounds(3)
            world.assert_all_well()

        run(scenario)

    @pytest.mark.parametrize("value", ["", "eA=="], ids=["emptied", "replaced"])
    def test_a_bundle_that_somebody_changed_is_put_right(self, value: str) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            bundle = world.bundle()
            world.lawful = False
            world.empty_bundle(value)
            # Readiness must not take the endpoints away, or healing would take longer than a pass.
            assert all(replica.rotator.healthy() for replica in world.replicas)
            await world.together()
            assert world.bundle() == bundle
            world.assert_all_well()

        run(scenario)

    def test_a_configuration_deleted_and_created_anew_is_filled(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            del world.cluster.configurations["ours"]
            await world.rounds(2)
            world.lawful = False
            world.cluster.configure("ours", "webhook", "other")
            await world.together()
            configuration = world.cluster.configurations["ours"]
            assert "caBundle" in configuration["webhooks"][0]["clientConfig"]
            assert "caBundle" not in configuration["webhooks"][1]["clientConfig"]

        run(scenario)

    def test_a_request_that_nobody_understands_is_removed_and_said(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            world = World(1)
            await world.rounds(2)
            before = read_secret(world.secret).state
            world.cluster.secrets["system", "certs"]["metadata"]["annotations"] = {"client-ip.dev/rotate": "all"}
            await world.together()
            assert world.replicas[0].rotator.status.problems == (
                "annotation client-ip.dev/rotate: must be leaf or ca, not 'all'",
            )
            assert read_secret(world.secret).state == before
            assert read_secret(world.secret).remarks == ()

        run(scenario)
        assert "the Secret system/certs: annotation client-ip.dev/rotate: must be leaf or ca, not 'all'" in caplog.text


class TestClocks:
    """Certificates are right by the clock that verifies them."""

    @pytest.mark.parametrize("skew", [400 * DAY, -400 * DAY])
    def test_one_replicas_clock_changes_nothing(self, skew: timedelta) -> None:
        async def scenario() -> None:
            world = World(3)
            world.replicas[0].skew = skew
            await world.rounds(2)
            before = read_secret(world.secret).state
            world.replicas[1].skew = skew
            await world.rounds(5)
            assert read_secret(world.secret).state == before
            world.assert_all_well()
            assert world.replicas[0].rotator.status.skew == skew

        run(scenario)

    def test_a_cluster_that_slept_400_days_is_right_after_one_pass_and_so_is_its_way_back(self) -> None:
        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            for jump in (400 * DAY, -400 * DAY):
                world.time.now += jump
                await world.together()
                await world.together()
                world.assert_all_well()
                await world.rounds(3)
                assert authorities(world) == 1

        run(scenario)


class TestRefusals:
    """An API server that is away or says no."""

    @pytest.mark.parametrize("verb", ["get secret", "create secret"])
    def test_nothing_is_served_that_is_not_stored(self, verb: str) -> None:
        async def scenario() -> None:
            world = World(1)
            (replica,) = world.replicas
            world.cluster.refusals[verb] = UnavailableError("no connection")
            with pytest.raises(UnavailableError):
                await replica.rotator.reconcile()
            assert replica.serving.pair is None
            assert world.cluster.requests["patch configuration"] == 0
            assert replica.rotator.status.error == "UnavailableError: no connection"

        run(scenario)

    def test_what_is_stored_is_looked_after_though_nothing_can_be_stored(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            old = world.replicas[0].served
            world.time.passes(61 * DAY)
            world.cluster.refusals["replace secret"] = RefusedError("the Secret is immutable")
            world.lawful = False
            world.empty_bundle()
            for replica in world.replicas:
                with pytest.raises(RefusedError):
                    await replica.rotator.reconcile()
                assert replica.served == old
                assert replica.rotator.healthy()
            assert world.bundle()
            world.cluster.refusals.clear()
            await world.rounds(2)
            world.assert_all_well()

        run(scenario)

    def test_endless_conflicts_end(self) -> None:
        async def scenario() -> None:
            world = World(1)
            world.cluster.refusals["create secret"] = ConflictError("somebody else is always faster")
            with pytest.raises(ConflictError):
                await world.replicas[0].rotator.reconcile()
            assert world.cluster.requests["create secret"] == 8
            assert world.replicas[0].rotator.status.counts == {"conflict": 7}

        run(scenario)

    def test_a_conflict_over_the_configuration_starts_the_pass_anew(self) -> None:
        async def scenario() -> None:
            world = World(1)
            world.cluster.refusals["patch configuration"] = ConflictError("reordered")
            with pytest.raises(ConflictError):
                await world.replicas[0].rotator.reconcile()
            world.cluster.refusals.clear()
            await world.rounds(1)
            world.assert_all_well()

        run(scenario)

    def test_a_request_by_hand_meets_conflicts_and_absence(self) -> None:
        async def scenario() -> None:
            world = World(1)
            with pytest.raises(NotFoundError):
                await ask(world, Request.CA)
            await world.rounds(1)
            world.cluster.refusals["replace secret"] = ConflictError("busy")
            with pytest.raises(ConflictError):
                await ask(world, Request.CA)
            assert world.cluster.requests["replace secret"] == 8
            world.cluster.refusals.clear()
            await asyncio.gather(ask(world, Request.CA), ask(world, Request.DROP_OLD))
            assert read_secret(world.secret).state.requests == {Request.CA, Request.DROP_OLD}

        run(scenario)


class TestRunning:
    """The loop: it goes on, it can be woken, and it never fights for long."""

    PACE = Pace(interval=5 * MILLISECOND, least=MILLISECOND, most=4 * MILLISECOND, disputed=30 * MILLISECOND)

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.001)

    def test_it_outlives_errors(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            world = World(1, pace=self.PACE)
            world.cluster.refusals["get secret"] = UnavailableError("no connection")
            (replica,) = world.replicas
            task = asyncio.create_task(replica.rotator.run())
            await self.until(lambda: world.cluster.requests["get secret"] > 4)
            world.cluster.refusals.clear()
            await self.until(replica.rotator.healthy)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(scenario)
        assert "certificates could not be reconciled: UnavailableError: no connection" in caplog.messages

    def test_it_outlives_what_nobody_expected(self, caplog: pytest.LogCaptureFixture) -> None:
        """A server must go on serving whatever its certificates' reconciler meets."""

        async def scenario() -> None:
            world = World(1, pace=self.PACE)
            (replica,) = world.replicas
            task = asyncio.create_task(replica.rotator.run())
            await self.until(replica.rotator.healthy)
            served = replica.served
            webhooks = world.cluster.configurations["ours"]["webhooks"]
            # No API server lets it be: a webhook without a name.
            world.cluster.configurations["ours"]["webhooks"] = [{**webhooks[0]} | {"name": 7, "clientConfig": 7}]
            await self.until(lambda: replica.rotator.status.error.startswith("AttributeError: "))
            assert replica.served == served
            world.cluster.configurations["ours"]["webhooks"] = webhooks
            await self.until(lambda: not replica.rotator.status.error)
            task.cancel()

        run(scenario)
        assert "certificates could not be reconciled: this is a bug" in caplog.messages

    def test_a_pace_that_leaves_replicas_behind_is_refused(self) -> None:
        World(1, pace=replace(self.PACE, interval=15 * SECOND))
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            World(1, pace=replace(self.PACE, interval=15 * SECOND + MILLISECOND))
        assert str(caught.value) == (
            "adoption: must be at least propagation and two intervals (0:01:00.002000), not 0:01:00"
        )

    def test_it_can_be_woken(self) -> None:
        async def scenario() -> None:
            world = World(1, settings=replace(SETTINGS, adoption=3 * DAY), pace=replace(self.PACE, interval=DAY))
            (replica,) = world.replicas
            task = asyncio.create_task(replica.rotator.run())
            await self.until(replica.rotator.healthy)
            world.delete_secret()
            replica.rotator.wake()
            await self.until(lambda: bool(world.cluster.secrets))
            task.cancel()

        run(scenario)

    def test_it_slows_down_when_somebody_undoes_its_work(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            world = World(1, pace=replace(self.PACE, disputed=100 * MILLISECOND))
            world.lawful = False
            (replica,) = world.replicas

            def undo() -> None:
                world.cluster.on_change = lambda: None
                for webhook in world.cluster.configurations["ours"]["webhooks"]:
                    webhook["clientConfig"]["caBundle"] = ""
                world.cluster.on_change = undo
                replica.rotator.wake()

            world.cluster.on_change = undo
            task = asyncio.create_task(replica.rotator.run())
            await self.until(lambda: "another client keeps changing" in caplog.text)
            loop = asyncio.get_running_loop()
            slowed_at, patches = loop.time(), world.cluster.requests["patch configuration"]
            assert patches == MAX_CHANGES_IN_A_ROW
            # It goes on, at the slow pace, however often it is woken.
            await self.until(lambda: world.cluster.requests["patch configuration"] > patches)
            assert loop.time() - slowed_at > 0.09
            task.cancel()

        with caplog.at_level(logging.INFO):
            run(scenario)


EVENTS = st.one_of(
    st.tuples(st.just("time"), st.floats(0.001, 25).map(lambda days: days * DAY)),
    st.tuples(st.just("time"), st.integers(1, 120).map(lambda seconds: seconds * SECOND)),
    st.tuples(st.just("restart"), st.integers(0, 2)),
    st.tuples(st.just("skew"), st.integers(0, 2)),
    st.tuples(st.just("request"), st.sampled_from([Request.LEAF, Request.CA])),
    st.tuples(st.just("delete the Secret"), st.none()),
    st.tuples(st.just("corrupt"), st.sampled_from(["tls_crt", "tls_key", "ca_crt", "ca_key"])),
    st.tuples(st.just("away"), st.integers(1, 2)),
    st.tuples(st.just("back"), st.integers(1, 2)),
    st.tuples(st.just("API server"), st.sampled_from(["get secret", "replace secret", "patch configuration"])),
)


@pytest.mark.slow
class TestLaws:
    """At every moment every served leaf verifies against every caBundle."""

    @given(events=st.lists(EVENTS, min_size=5, max_size=40))
    @budget(deadline=None, max_examples=30)
    def test_over_months_with_restarts_absences_and_damage(self, events: list[tuple[str, Any]]) -> None:
        """The law is checked at each write of anybody, whoever is away, by `World.check`."""

        async def scenario() -> None:
            world = World(3)
            await world.rounds(2)
            away: set[int] = set()
            for kind, value in events:
                self.happen(world, kind, value, away)
                if kind == "request" and world.cluster.secrets:
                    await ask(world, value)
                awake = [replica for index, replica in enumerate(world.replicas) if index not in away]
                if kind == "API server":
                    world.cluster.refusals[value] = UnavailableError("for this pass")
                    for replica in awake:
                        await self.tolerant_pass(replica)
                    world.cluster.refusals.clear()
                await world.together(awake)
                for replica in awake:
                    assert replica.rotator.healthy()
                    assert replica.served.not_after > world.time.now
            await world.rounds(4)
            world.assert_all_well()

        run(scenario)

    @staticmethod
    def happen(world: World, kind: str, value: Any, away: set[int]) -> None:
        if kind == "time":
            world.time.passes(value)
        elif kind == "restart":
            world.replicas[value].restart()
        elif kind == "skew":
            replica = world.replicas[value]
            replica.skew = 400 * DAY - replica.skew
        elif kind == "delete the Secret":
            world.delete_secret()
        elif kind == "corrupt":
            world.corrupt_secret(**{value: "eA=="})
        elif kind == "away":
            away.add(value)
        elif kind == "back":
            away.discard(value)

    @staticmethod
    async def tolerant_pass(replica: Replica) -> None:
        try:
            await replica.rotator.reconcile()
        except KubeError:
            assert replica.rotator.status.error

    @given(jumps=st.lists(st.sampled_from([400, -400, 1, 61, -61, 240, -240]), max_size=12))
    @budget(deadline=None, max_examples=10)
    def test_after_any_jump_of_all_clocks_two_passes_put_everything_right(self, jumps: list[int]) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            for jump in jumps:
                world.time.now += jump * DAY
                await world.together()
                await world.rounds(3)
                world.assert_all_well()
                assert authorities(world) <= 3

        run(scenario)


def test_the_fake_is_a_kube_api_with_real_versions() -> None:
    """Two writers read the same version: the second one conflicts."""

    async def scenario() -> None:
        cluster = MemoryCluster(lambda: START)
        api = cluster.client()
        secret = {"kind": "Secret", "type": "Opaque", "metadata": {"namespace": "system", "name": "certs"}, "data": {}}
        stored = await api.create_secret("system", secret)
        with pytest.raises(ConflictError):
            await api.create_secret("system", secret)
        await api.replace_secret("system", "certs", stored)
        with pytest.raises(ConflictError):
            await api.replace_secret("system", "certs", stored)
        assert api.server_time == START

    run(scenario)


def test_defaults_are_the_documented_ones() -> None:
    assert (SETTINGS.ca_life, SETTINGS.leaf_life) == (365 * DAY, 90 * DAY)
    assert (SETTINGS.propagation, SETTINGS.adoption) == (30 * SECOND, 60 * SECOND)
    assert Pace() == Pace(interval=10 * SECOND, least=SECOND, most=15 * SECOND, disputed=60 * SECOND)
    assert fingerprint(issue_ca(organization="x", now=START, life=DAY).certificate).islower()


class TestWhoeverMayWriteTheSecret:
    """He can't stop, blind or redirect us."""

    def test_somebody_elses_pair_is_neither_trusted_nor_served(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            served = world.replicas[0].served
            foreign = issue_ca(organization="attacker", now=START, life=3650 * DAY)
            leaf = issue_leaf(foreign, names=["kubernetes.default.svc"], now=START, life=3000 * DAY)
            world.corrupt_secret(
                ca_crt=encoded(foreign.certificate_pem),
                ca_key=encoded(foreign.key_pem),
                tls_crt=encoded(leaf.certificate_pem),
                tls_key=encoded(leaf.key_pem),
                authorities_json=encoded(b"{}"),
            )
            for replica in world.replicas:
                await replica.rotator.reconcile()
                assert replica.served == served
                assert foreign.certificate not in parse_bundle(world.bundle()).certificates
            await world.rounds(1)
            world.assert_all_well()

        run(scenario)

    def test_a_replica_that_starts_with_it_makes_its_own(self) -> None:
        async def scenario() -> None:
            world = World(1)
            await world.rounds(2)
            foreign = issue_ca(organization="attacker", now=START, life=3650 * DAY)
            leaf = issue_leaf(foreign, names=SETTINGS.names, now=START, life=3000 * DAY)
            world.corrupt_secret(
                ca_crt=encoded(foreign.certificate_pem),
                ca_key=encoded(foreign.key_pem),
                tls_crt=encoded(leaf.certificate_pem),
                tls_key=encoded(leaf.key_pem),
            )
            world.replicas[0].restart()
            await world.rounds(2)
            world.assert_all_well()
            assert foreign.certificate not in parse_bundle(world.bundle()).certificates

        run(scenario)

    def test_a_bundle_that_could_not_be_patched_any_more_is_healed(self) -> None:
        async def scenario() -> None:
            world = World(2)
            await world.rounds(2)
            many = b"".join(
                issue_ca(organization=SETTINGS.organization, now=START, life=365 * DAY).certificate_pem
                for _ in range(20)
            )
            world.corrupt_secret(ca_crt=encoded(base64.b64decode(world.secret["data"]["ca.crt"]) + many))  # type: ignore[index]
            await world.rounds(2)
            world.assert_all_well()
            assert authorities(world) <= MAX_AUTHORITIES
            world.corrupt_secret(ca_crt=encoded(many * 40))
            await world.rounds(2)
            world.assert_all_well()
            assert authorities(world) <= MAX_AUTHORITIES

        run(scenario)

    def test_an_immutable_secret_stops_nobody_and_is_named(self) -> None:
        async def scenario() -> None:
            world = World(1)
            await world.rounds(2)
            served = world.replicas[0].served
            stored = world.secret
            stored["immutable"] = True
            world.cluster.store(stored)
            world.corrupt_secret(tls_crt="")
            with pytest.raises(RefusedError, match="the Secret system/certs is immutable: delete it"):
                await world.replicas[0].rotator.reconcile()
            assert world.replicas[0].served == served
            assert world.replicas[0].rotator.healthy()

        run(scenario)


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()
