"""
The API server's own requests, answered without a task, a request and a response object for each.

A fast path. What it replaces is `edge.webhook_server`, aiohttp's server, and it gives the same bytes; a typical review
costs less than half (`make bench`). It knows one form of request, which Go's HTTP client sends, to the letter. Anything
else, be it one more header, goes to aiohttp with all that follows on its connection: no other HTTP is read here.
"""

import asyncio
import re
import socket
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from webhook.server.edge import (
    BODY_LIMIT,
    BODY_TOO_LATE,
    JSON,
    KEEPALIVE_SECONDS,
    TEXT,
    State,
    refusal,
    reply,
    timeout_seconds,
)

_SAME_WITHOUT: Final = (
    rb"(?:(?:Accept|Accept-Encoding|Authorization|Host|Traceparent|Tracestate|User-Agent): [\x20-\x7e]*\r\n"
    rb"|Content-Type: application/json\r\n)*+"
)
_HEAD: Final = re.compile(
    rb"POST /mutate(?:\?timeout=([0-9a-z.]{1,20}))? HTTP/1\.1\r\n"
    + _SAME_WITHOUT
    + rb"Content-Length: ([0-9]{1,8})\r\n"
    + _SAME_WITHOUT
    + rb"\r\n",
)
"""
A head that says nothing but how long the body is and how long it may take.

https://github.com/golang/go/blob/go1.26.0/src/net/http/request.go#L599
"""
_CONTENT_TYPE: Final = b"\r\nContent-Type: application/json\r\n"


class ReviewServer:
    """Makes the protocol of each connection, and ends them all."""

    def __init__(self, state: State, fallback: web.Server) -> None:
        self.state = state
        self.fallback = fallback
        self.connections: set[ReviewProtocol] = set()

    def __call__(self) -> "ReviewProtocol":
        """Return the protocol of a new connection."""
        return ReviewProtocol(self)

    async def shutdown(self, seconds: float) -> None:
        """Close what waits for a request, let bodies that are under way arrive within *seconds*, and close the rest."""
        self.fallback.pre_shutdown()
        deadline = time.monotonic() + seconds
        for connection in [each for each in self.connections if each.idle]:
            connection.close()
        while any(not each.idle for each in self.connections) and time.monotonic() < deadline:  # noqa: ASYNC110  # many, any of which may be the last
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        await self.fallback.shutdown(max(deadline - time.monotonic(), 0.0))


class ReviewProtocol(asyncio.Protocol):
    """One connection: requests are answered as their last byte comes, in order."""

    __slots__ = ("_chunks", "_loop", "_missing", "_server", "_timer", "_transport")

    def __init__(self, server: ReviewServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._chunks: list[bytes] = []
        self._missing = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no request has begun that is not answered."""
        return not self._chunks

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        plain: socket.socket | None = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Whoever never asks is let go of; whoever has asked is never closed on, lest it should ask at that moment.
        self._timer = self._loop.call_later(KEEPALIVE_SECONDS, self.close)

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        self._stop_timer()
        self._chunks.clear()
        self._server.connections.discard(self)

    def pause_writing(self) -> None:
        """Read no more from a client that does not read its answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on: what was written is on its way."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer the requests that *data* completes."""
        if self._chunks:
            self._chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        if self._timer is not None:
            self._stop_timer()
        while data and not self._transport.is_closing():
            head = _HEAD.match(data)
            if head is None or _CONTENT_TYPE not in head[0]:
                self._hand_over(data)
                return
            start = head.end()
            end = start + int(head[2])
            if end > len(data):
                self._await_rest(data, end, head)
                return
            self._answer(data[start:end])
            data = data[end:]

    def _await_rest(self, data: bytes, end: int, head: "re.Match[bytes]") -> None:
        """Keep *data* until there are *end* bytes of it, or until the caller would no longer wait for the answer."""
        if end - head.end() > BODY_LIMIT:
            self._hand_over(data)
            return
        self._chunks.append(data)
        self._missing = end - len(data)
        seconds = timeout_seconds(head[1].decode() if head[1] else "")
        self._timer = self._loop.call_later(seconds, self._too_late)

    def _answer(self, body: bytes) -> None:
        state = self._server.state
        status, text = reply(state, body)
        # The API server keeps connections to pods that are gone: let it go elsewhere now.
        self._write(status, text, close=state.draining)

    def _too_late(self) -> None:
        status = HTTPStatus.REQUEST_TIMEOUT
        self._write(status, refusal(self._server.state, status, BODY_TOO_LATE), close=True)

    def _write(self, status: int, body: bytes, *, close: bool) -> None:
        head = b"%b%d%b" % (_status(status), len(body), _tail(int(time.time()), close))
        self._transport.write(head + body)
        if close:
            self.close()

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp answer *data* and whatever else comes on this connection."""
        self._server.connections.discard(self)
        handler = self._server.fallback()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        handler.data_received(data)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@lru_cache(maxsize=8)
def _status(status: int) -> bytes:
    """Return the answer's first lines, up to the length."""
    kind = JSON if status == HTTPStatus.OK else TEXT
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: ".encode()


@lru_cache(maxsize=2)
def _tail(second: int, close: bool) -> bytes:  # noqa: FBT001  # lru_cache is quicker without keywords
    """Return the answer's last headers, which are the same for a second (Unix time)."""
    last = "Connection: close\r\n" if close else ""
    return f"\r\nDate: {formatdate(second, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n{last}\r\n".encode()
