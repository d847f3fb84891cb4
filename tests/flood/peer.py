"""
Floods, as a peer without credentials makes them: `python -m tests.flood.peer HOST:PORT SECONDS [KIND…]`.

Each kind goes on for that time: what the server ends is opened again. It writes how often each thing happened.
"""

import argparse
import asyncio
import functools
import json
import resource
import ssl
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import uvloop

from tests.serve.server import POD, review

REVIEW: Final = json.dumps(review(POD)).encode()
AT_ONCE: Final = 64
"""Connections that are opened at the same time."""

PIECE: Final = 64 << 10


def head(length: int, *, more: str = "", timeout: str = "30s") -> bytes:
    """Return a request's head, as the API server writes it but for what is *more*."""
    return (
        f"POST /mutate?timeout={timeout} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"
        f"Content-Type: application/json\r\n{more}\r\n"
    ).encode()


@functools.cache
def _compressed() -> bytes:
    pieces = zlib.compressobj(level=1, wbits=31)
    body = b"".join([*(pieces.compress(b" " * (1 << 20)) for _ in range(100)), pieces.flush()])
    return head(len(body), more="Content-Encoding: identity\r\nContent-Encoding: gzip\r\n") + body


@dataclass(slots=True)
class Flood:
    """One peer and all of its connections."""

    host: str
    port: int
    source: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    _opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def __post_init__(self) -> None:
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    async def open(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        local = (self.source, 0) if self.source else None
        async with self._opening:
            pair = await asyncio.open_connection(
                self.host, self.port, ssl=self._context if tls else None, local_addr=local
            )
        self.counts["opened"] += 1
        return pair

    async def again(self, number: int, act: Callable[[], Awaitable[None]]) -> None:
        """Do *act* again and again until cancelled, *number* of it at once."""

        async def one() -> None:
            while True:
                try:
                    await act()
                except (OSError, EOFError) as error:
                    self.counts[type(error).__name__] += 1
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(one() for _ in range(number)))

    async def hold(self, sent: bytes = b"", *, tls: bool = True) -> None:
        """Open a connection, send something, and wait for its end."""
        reader, writer = await self.open(tls=tls)
        try:
            for start in range(0, len(sent), PIECE):
                writer.write(sent[start : start + PIECE])
                await writer.drain()
            answer = await reader.read(1 << 16)
            self.counts[answer[9:12].decode(errors="replace") if answer else "closed"] += 1
            if not answer:
                await asyncio.sleep(0.05)
        finally:
            writer.transport.abort()

    async def bodies(self) -> None:
        """60 bodies of 7 MiB that never end."""
        await self.again(60, lambda: self.hold(head(7 << 20) + b" " * ((7 << 20) - 1)))

    async def small_bodies(self) -> None:
        """2,000 bodies of 60 KiB that never end."""
        await self.again(2000, lambda: self.hold(head(60 << 10) + b" " * ((60 << 10) - 1)))

    async def idle(self) -> None:
        """6,000 connections on which nothing is asked."""
        await self.again(6000, self.hold)

    async def connects(self) -> None:
        """3,000 connections whose handshake never begins, and 3,000 that break off in it."""
        await asyncio.gather(
            self.again(3000, lambda: self.hold(tls=False)),
            self.again(3000, lambda: self.hold(b"\x16\x03\x01\x02\x00", tls=False)),
        )

    async def heads(self) -> None:
        """3,000 heads that never end."""
        await self.again(3000, lambda: self.hold(b"POST /mutate HTTP/1.1\r\nX-A: "))

    async def pipelines(self) -> None:
        """100 connections that ask without waiting, and read."""
        many = (head(len(REVIEW)) + REVIEW) * 20

        async def ask() -> None:
            reader, writer = await self.open()

            async def send() -> None:
                while True:
                    writer.write(many)
                    await writer.drain()
                    await asyncio.sleep(0)  # which draining is not, where there is room

            sending = asyncio.create_task(send())
            try:
                while data := await reader.read(1 << 18):
                    self.counts["answers"] += data.count(b"HTTP/1.1 200 ")
                raise EOFError
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                writer.transport.abort()

        await self.again(100, ask)

    async def unread(self) -> None:
        """100 connections that ask and never read."""
        many = (head(len(REVIEW)) + REVIEW) * 20

        async def ask() -> None:
            _, writer = await self.open()
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            try:
                while True:
                    writer.write(many)
                    await writer.drain()
                    await asyncio.sleep(0)  # which draining is not, where there is room
            finally:
                writer.transport.abort()

        await self.again(100, ask)

    async def compressed(self) -> None:
        """Eight at once of 100 MiB in 100 KB."""
        body = _compressed()
        await self.again(8, lambda: self.hold(body))

    async def garbage(self) -> None:
        """What is no HTTP, and clients that leave amid a body."""

        async def leave() -> None:
            _, writer = await self.open()
            writer.write(head(1000, more="X-Odd: 1\r\n") + b"{")
            await writer.drain()
            writer.transport.abort()

        await asyncio.gather(
            self.again(20, lambda: self.hold(b"GARBAGE" + b"x" * 8000 + b"\r\n\r\n")), self.again(20, leave)
        )


KINDS: Final[Mapping[str, Callable[[Flood], Awaitable[None]]]] = {
    "bodies": Flood.bodies,
    "small-bodies": Flood.small_bodies,
    "idle": Flood.idle,
    "connects": Flood.connects,
    "heads": Flood.heads,
    "pipelines": Flood.pipelines,
    "unread": Flood.unread,
    "compressed": Flood.compressed,
    "garbage": Flood.garbage,
}


async def flood(
    kinds: list[str], address: tuple[str, int], *, seconds: float, least: int, source: str | None
) -> Counter[str]:
    """
    Make all *kinds* at once, for *seconds*; return what happened.

    Args:
        least: Connections that are opened before it ends, where that takes no more than three times as long.

    """
    _compressed()  # before its time begins
    peer = Flood(*address, source)
    begun = time.monotonic()
    flooding = asyncio.gather(*(KINDS[kind](peer) for kind in kinds))
    while (passed := time.monotonic() - begun) < seconds or (peer.counts["opened"] < least and passed < 3 * seconds):
        await asyncio.wait([flooding], timeout=0.1)
        if flooding.done():
            break
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    return peer.counts


def main() -> None:
    """Make a flood, and print what happened as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("seconds", type=float)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--least", type=int, default=0, help="connections that are opened before it ends")
    parser.add_argument("--source", help="the address to come from")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    host, _, port = options.address.rpartition(":")
    happened = flood(
        options.kinds or list(KINDS),
        (host, int(port)),
        seconds=options.seconds,
        least=options.least,
        source=options.source,
    )
    print(json.dumps(uvloop.run(happened)))


if __name__ == "__main__":
    main()
