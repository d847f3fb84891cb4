"""Wiring: the two listeners, the tasks beside them, and the order in which it all ends."""

import asyncio
import contextlib
import gc
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from webhook.server.edge import State, probe_app, webhook_server

log: Final = logging.getLogger(__name__)


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
        probes = await _listen(stack, web.AppRunner(probe_app(state), access_log=None), probe_listen, None)
        reviews = await _listen(stack, web.ServerRunner(webhook_server(state)), listen, state.certificate.context)
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


async def _listen(
    stack: contextlib.AsyncExitStack,
    runner: web.AppRunner | web.ServerRunner,
    address: Address,
    context: ssl.SSLContext | None,
) -> Address:
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, ssl_context=context, shutdown_timeout=5.0, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    return Address(str(host), int(port))


RESTART_SECONDS: Final = 1.0


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
