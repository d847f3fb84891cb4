"""A rotation under load: real handshakes by clients that trust what the configuration says at that moment."""

import asyncio
import base64
import contextlib
import ssl
import time
from datetime import timedelta

from certs.authority import service_names
from certs.clock import utc_now
from certs.lifecycle import Request, Settings
from certs.pair import fingerprint
from certs.rotator import Location, Pace, Rotator, request
from certs.secret import read_secret
from certs.serving import ServingCertificate
from tests.tls.listener import Listener, listening
from tests.unit.certs.apiserver import MemoryCluster

LOCATION = Location(namespace="system", secret="certs", configurations=("ours",))
SETTINGS = Settings(names=(*service_names("webhook", "system"), "localhost"))
PACE = Pace(interval=timedelta(milliseconds=20), least=timedelta(milliseconds=5))
# A second of the test is two minutes for those who wait for bundles to spread.
HASTE = 120


def caller(cluster: MemoryCluster) -> ssl.SSLContext:
    """Return a client that trusts the caBundle as it is now: the API server for its next connection."""
    bundle = cluster.configurations["ours"]["webhooks"][0]["clientConfig"]["caBundle"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=base64.b64decode(bundle).decode())
    return context


def test_a_forced_rotation_with_two_replicas_fails_no_handshake() -> None:
    async def scenario() -> None:
        cluster = MemoryCluster(utc_now)
        cluster.configure("ours", "webhook")
        servings = [ServingCertificate(), ServingCertificate()]
        rotators = [
            Rotator(
                cluster.client(),
                serving,
                location=LOCATION,
                settings=SETTINGS,
                pace=PACE,
                patience=lambda: timedelta(seconds=time.monotonic() * HASTE),
            )
            for serving in servings
        ]
        seen: list[str] = []
        done = False

        async def call(listener: Listener) -> None:
            while not done:
                handshake = await listener.handshake(caller(cluster))
                seen.append(handshake.certificate.hex())

        async def rotate() -> None:
            nonlocal done
            before = read_secret(cluster.secrets["system", "certs"]).state.authorities[0]
            await request(cluster.client(), LOCATION, frozenset({Request.CA, Request.DROP_OLD}))
            async with asyncio.timeout(60):
                while True:
                    state = read_secret(cluster.secrets["system", "certs"]).state
                    leaves = {serving.fingerprint for serving in servings}
                    if (
                        before not in state.authorities
                        and state.leaf is not None
                        and leaves == {state.leaf.fingerprint}
                        and not state.requests
                    ):
                        break
                    await asyncio.sleep(0.01)
            assert fingerprint(before.certificate) != fingerprint(state.authorities[0].certificate)
            done = True

        async with contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.create_task(rotator.run()) for rotator in rotators]
            async with asyncio.timeout(20):
                while not all(rotator.healthy() for rotator in rotators):  # noqa: ASYNC110 - bounded, no event of its own
                    await asyncio.sleep(0.005)
            listeners = [await stack.enter_async_context(listening(serving.context)) for serving in servings]
            async with asyncio.TaskGroup() as group:
                for listener in listeners:
                    group.create_task(call(listener))
                group.create_task(rotate())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(set(seen)) == 2
        assert len(seen) > 5

    asyncio.run(scenario())
