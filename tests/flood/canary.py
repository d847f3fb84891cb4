"""
A small caller beside a flood: `python -m tests.flood.canary HOST:PORT CA SECONDS [PER_SECOND] [fresh]`.

It asks one small review so many times a second, open loop as the API server does, on one connection or on fresh ones,
and writes how long answers took.
"""

import asyncio
import json
import ssl
import sys
import time
from dataclasses import asdict, dataclass

import uvloop

from tests.flood.peer import REVIEW, head

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What became of what was asked."""

    asked: int
    failed: int
    median_ms: float
    longest_ms: float


class _Caller:
    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._to = host, port, context
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, *, fresh: bool) -> None:
        host, port, context = self._to
        if self._free and not fresh:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(head(len(REVIEW), timeout="2s") + REVIEW)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise OSError(answer[:60])
        length = int(answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if fresh or b"Connection: close" in answer:
            writer.transport.abort()
        else:
            self._free.append((reader, writer))


async def canary(host: str, port: int, ca: str, seconds: float, per_second: float, *, fresh: bool) -> Heard:
    """Ask for *seconds*, and return what was heard."""
    caller = _Caller(host, port, ssl.create_default_context(cafile=ca))
    took: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        begun = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await caller.ask(fresh=fresh)
        except (OSError, TimeoutError, EOFError, asyncio.IncompleteReadError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
        took.append(time.monotonic() - begun)

    begun = time.monotonic()
    asking = []
    while time.monotonic() < begun + seconds:
        asking.append(asyncio.create_task(one()))
        await asyncio.sleep(max(begun + len(asking) / per_second - time.monotonic(), 0))
    await asyncio.gather(*asking)
    took.sort()
    return Heard(asked=len(took), failed=failed, median_ms=took[len(took) // 2] * 1e3, longest_ms=took[-1] * 1e3)


def main(arguments: list[str]) -> None:
    """Ask as the *arguments* say."""
    address, ca, seconds, *more = arguments
    host, _, port = address.rpartition(":")
    per_second = next((float(each) for each in more if each != "fresh"), 20.0)
    heard = uvloop.run(canary(host, int(port), ca, float(seconds), per_second, fresh="fresh" in more))
    print(json.dumps(asdict(heard)))


if __name__ == "__main__":
    main(sys.argv[1:])
