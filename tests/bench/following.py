"""
Follows a cluster as `client-ip serve` does, and measures how long reviews would wait: started by `tests.bench.large`.

Beside the source a task takes every turn of the event loop that it gets, and notes what CPU time the others of a turn
took. That is what a review waits for where no other process takes the core. For each line on its input everything is
listed again; it writes a line of JSON for the start and for each.
"""

import asyncio
import json
import sys
import time

import uvloop

from webhook.facts.kube import connect
from webhook.facts.watch import ClusterSource


class Meter:
    """The longest turn of the event loop, in seconds of the thread's CPU time."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now


async def follow(kubeconfig: str) -> None:
    """Follow until the input ends."""
    source = ClusterSource(connect(kubeconfig, None), own_namespace="client-ip-system", once=True)
    running = asyncio.create_task(source.run())
    meter = Meter()
    measuring = asyncio.create_task(meter.run())
    await _all_listed(source)
    _say(source, meter)
    while await asyncio.to_thread(sys.stdin.readline):
        meter.longest = 0.0
        for followed in list(source._followed.values()):
            followed.tried = False
            source._start_following(followed)
        await _all_listed(source)
        _say(source, meter)
    running.cancel()
    measuring.cancel()
    await asyncio.gather(running, measuring, return_exceptions=True)


async def _all_listed(source: ClusterSource) -> None:
    while source.missing() or source.untried():  # noqa: ASYNC110  # the source has no event for it, nor needs one
        await asyncio.sleep(0.01)


def _say(source: ClusterSource, meter: Meter) -> None:
    snapshot = source.snapshot
    known = {
        "namespaces": len(snapshot.namespaces),
        "nodes": snapshot.nodes.everything.bit_count(),
        "policies": len(source.collector.stored_policies),
    }
    print(json.dumps({"longest_ms": meter.longest * 1e3, **known}), flush=True)


if __name__ == "__main__":
    uvloop.run(follow(sys.argv[1]))
