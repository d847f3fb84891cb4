"""Wiring: the two listeners, the tasks beside them, and the order in which it all ends."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from webhook.server.connection import Connection
from webhook.server.edge import State, probe_server, webhook_server
from webhook.server.handed import Handed
from webhook.server.listener import Listener
from webhook.server.peers import Source
from webhook.server.wire import ReviewServer

log: Final = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0
"""How long a review that is under way may still take once the drain is over."""
PROBE_STOP_SECONDS: Final = 0.5
RESTART_SECONDS: Final = 1.0
DEFAULT_MEMORY_BYTES: Final = 256 << 20
"""Where nothing limits it: what the chart allows."""
REVIEWS_PART: Final = 3, 8
"""
Of the memory, what callers may hold.

The rest is for what they can't make larger: the interpreter and the facts of 5,000 nodes (68 MiB at most, in a relist),
one body as it is decoded, and what allocators and the kernel hold beside.
"""
PROBES_PART: Final = 32


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def serve(
    state: State,
    *,
    listen: Address,
    probe_listen: Address,
    drain_seconds: float,
    memory_bytes: int,
    tasks: Sequence[Callable[[], Awaitable[None]]],
    started: Callable[[Address, Address], None],
) -> None:
    """
    Serve until SIGTERM or SIGINT, then drain: not ready at once, go on answering, then stop.

    Raises:
        OSError: An address can't be listened on.

    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        probes = await _listen_probes(stack, state, probe_listen, memory_bytes)
        reviews = await _listen_reviews(stack, state, listen, memory_bytes)
        running = [asyncio.ensure_future(_supervised(task)) for task in tasks]
        try:
            # What was loaded stays: a full collection would walk it for nothing.
            gc.collect()
            gc.freeze()
            started(reviews, probes)
            await stop.wait()
            state.draining = True
            log.info("draining for %g s", drain_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), drain_seconds)
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    log.info("stopped")


async def _listen_probes(
    stack: contextlib.AsyncExitStack, state: State, address: Address, memory_bytes: int
) -> Address:
    peers = state.metrics.watch("probes", memory_bytes // PROBES_PART)
    server = probe_server(state, peers)

    def make(source: Source) -> tuple[Connection, asyncio.Protocol]:
        connection = Connection(peers, source)
        return connection, Handed(server, connection)

    listener = Listener(peers=peers, make=make)
    name = await listener.listen(address.host, address.port)
    stack.push_async_callback(server.shutdown, PROBE_STOP_SECONDS)
    stack.callback(listener.close)
    return _bound(name)


async def _listen_reviews(
    stack: contextlib.AsyncExitStack, state: State, address: Address, memory_bytes: int
) -> Address:
    used, of = REVIEWS_PART
    peers = state.metrics.watch("reviews", memory_bytes * used // of)
    server = ReviewServer(state, webhook_server(state, peers), peers)

    def make(source: Source) -> tuple[Connection, asyncio.Protocol]:
        protocol = server(source)
        return protocol, protocol

    listener = Listener(peers=peers, make=make, context=state.certificate.context)
    name = await listener.listen(address.host, address.port)
    stack.push_async_callback(server.shutdown, STOP_SECONDS)
    stack.callback(listener.close)  # first: nobody comes any more
    return _bound(name)


def _bound(name: Sequence[object]) -> Address:
    return Address(str(name[0]), int(str(name[1])))


async def _supervised(task: Callable[[], Awaitable[None]]) -> None:
    """Run *task* for good: one that fails is a bug, is logged, and starts again."""
    while True:
        try:
            await task()
            return
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a background task failed and is restarted")
            await asyncio.sleep(RESTART_SECONDS)
