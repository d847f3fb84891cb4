"""Wiring: the two listeners, the tasks beside them, and the order in which it all ends."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from webhook.server.edge import State, probe_app, webhook_server
from webhook.server.wire import ReviewServer

log: Final = logging.getLogger(__name__)

STOP_SECONDS: Final = 5.0
"""How long a review that is under way may still take once the drain is over."""
RESTART_SECONDS: Final = 1.0


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
        probes = await _listen_probes(stack, web.AppRunner(probe_app(state), access_log=None), probe_listen)
        reviews = await _listen_reviews(stack, ReviewServer(state, webhook_server(state)), listen)
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


async def _listen_probes(stack: contextlib.AsyncExitStack, runner: web.AppRunner, address: Address) -> Address:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, shutdown_timeout=STOP_SECONDS)
    await site.start()
    return _bound(runner.addresses[0])


async def _listen_reviews(stack: contextlib.AsyncExitStack, reviews: ReviewServer, address: Address) -> Address:
    context = reviews.state.certificate.context
    listener = await asyncio.get_running_loop().create_server(
        reviews, address.host, address.port, ssl=context, backlog=1024
    )
    stack.push_async_callback(reviews.shutdown, STOP_SECONDS)
    stack.callback(listener.close)  # first: nobody comes any more
    return _bound(listener.sockets[0].getsockname())


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
            log.exception("a background task failed and starts again")
            await asyncio.sleep(RESTART_SECONDS)
