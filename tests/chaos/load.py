"""
Pods that somebody creates without a pause, through the real API server, at a rate that no slow answer changes.

Each creation is noted with its time and its answer; whether its pod was patched is asked of etcd.
"""

import asyncio
import json
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

PER_SECOND: Final = 60
TIMEOUT_SECONDS: Final = 15.0
"""Far above the two seconds that the API server waits for a webhook."""


@dataclass(slots=True)
class Call:
    """One creation."""

    name: str
    started: float
    """Monotonic, when it was asked for."""
    status: int | None = None
    """None where there was no answer; *said* tells why."""
    said: str = ""
    ended: float = 0.0


class Load:
    """A thread that creates pods between `start` and `stop`."""

    def __init__(self, url: str, *, ca: Path, token: str, namespace: str) -> None:
        self._url = f"{url}/api/v1/namespaces/{namespace}/pods"
        self._ca = ca
        self._token = token
        self._numbers = 0
        self._per_second: float = PER_SECOND
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.calls: list[Call] = []

    def start(self, per_second: float = PER_SECOND) -> None:
        """Begin anew, with no calls yet."""
        self.calls, self._failure = [], None
        self._per_second = per_second
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def stop(self) -> list[Call]:
        """End it once every call has its answer; return the calls."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure
        return self.calls

    def _run(self) -> None:
        try:
            asyncio.run(self._create_until_stopped())
        except BaseException as error:  # noqa: BLE001  # the test's thread raises it
            self._failure = error

    async def _create_until_stopped(self) -> None:
        context = ssl.create_default_context(cafile=str(self._ca))
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        begin = time.monotonic()
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):
            number = 0
            while not self._stop.is_set():
                number += 1
                self._numbers += 1
                call = Call(f"load-{self._numbers:06d}", time.monotonic())
                self.calls.append(call)
                tasks.create_task(self._create(session, call))
                # By the clock and not by pauses: what one tick was late the next ones make up for.
                await asyncio.sleep(max(0.0, begin + number / self._per_second - time.monotonic()))

    async def _create(self, session: aiohttp.ClientSession, call: Call) -> None:
        try:
            async with session.post(self._url, data=_pod(call.name)) as answer:
                body = await answer.read()
                call.status = answer.status
                if answer.status >= 400:
                    call.said = body[:300].decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            call.said = f"{type(error).__name__}: {error}"
        call.ended = time.monotonic()


def _pod(name: str) -> bytes:
    containers = [{"name": "app", "image": "registry.example.com/app:1"}]
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}
    return json.dumps(document).encode()
