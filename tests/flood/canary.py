"""
A small caller beside a flood: `python -m tests.flood.canary HOST:PORT CA SECONDS`.

It asks one small review so many times a second, open loop as the API server does, on connections that it keeps or on
fresh ones, and writes how long answers took.
"""

import argparse
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
    def __init__(self, host: str, port: int, context: ssl.SSLContext, name: str | None) -> None:
        self._to = host, port, context
        self._name = name
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, *, fresh: bool) -> None:
        host, port, context = self._to
        if self._free and not fresh:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=self._name)
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


async def canary(
    address: tuple[str, int], ca: str, seconds: float, *, name: str | None, per_second: float, fresh: bool
) -> Heard:
    """Ask for *seconds*, and return what was heard; the certificate must be for *name*, or else for the host."""
    caller = _Caller(*address, ssl.create_default_context(cafile=ca), name)
    took: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        begun = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await caller.ask(fresh=fresh)
        except (OSError, TimeoutError, EOFError) as error:
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


def main() -> None:
    """Ask, and print what was heard as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("ca", help="file of the CA's certificates")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--name", help="what the certificate must be for (default: HOST)")
    parser.add_argument("--per-second", type=float, default=20, help="(default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="a connection for each")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    heard = uvloop.run(
        canary(
            (host, int(port)),
            options.ca,
            options.seconds,
            name=options.name,
            per_second=options.per_second,
            fresh=options.fresh,
        )
    )
    print(json.dumps(asdict(heard)))


if __name__ == "__main__":
    main()
