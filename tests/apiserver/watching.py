"""A ClusterSource that runs in this process, in an event loop of its own thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.apiserver.deployed import OWN_NAMESPACE
from webhook.facts.kube import KubeClient, connect
from webhook.facts.watch import ClusterSource

STOP_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 0.25
"""TLS connections say goodbye in the event loop after their session was closed."""


@contextmanager
def watching(cluster: Path | KubeClient, *, synced: bool = True) -> Iterator[ClusterSource]:
    """Follow a kubeconfig's or client's cluster until the block ends; *synced*: once all is listed or found absent."""
    loop = asyncio.new_event_loop()
    client = connect(str(cluster), None) if isinstance(cluster, Path) else cluster
    source = ClusterSource(client, own_namespace=OWN_NAMESPACE)
    task = loop.create_task(source.run())
    thread = threading.Thread(target=_run, args=(loop, task))
    thread.start()
    try:
        if synced:
            wait_for(lambda: not source.missing() and not source.untried(), lambda: (source.missing(), task))
        yield source
        assert not task.done(), task
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(STOP_SECONDS)
        assert not thread.is_alive()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(asyncio.wait([task]))
    finally:
        loop.run_until_complete(asyncio.sleep(CLOSE_SECONDS))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def wait_for(reached: Callable[[], object], said: Callable[[], object] = str, seconds: float = 60.0) -> None:
    """Wait until *reached* returns something true, for at most *seconds*."""
    over = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if reached():
            return
        over.wait(0.05)
    raise AssertionError(f"not within {seconds:g} s: {said()}")
