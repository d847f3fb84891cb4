"""
The API server's own requests, answered without a task, a request and a response object for each.

A fast path. What it replaces is `edge.webhook_server`, aiohttp's server, and it gives the same bytes; a typical review
costs less than half (`make bench`). It knows one form of request, which Go's HTTP client sends, to the letter. Anything
else, be it one more header, goes to aiohttp with all that follows on its connection: no other HTTP is read here.
"""

import asyncio
import time
from email.utils import formatdate
from http import HTTPStatus
from time import perf_counter
from typing import Final

from aiohttp.http import SERVER_SOFTWARE

from webhook.server.clients import may_call
from webhook.server.connection import Connection
from webhook.server.edge import BODY_LIMIT, BODY_TOO_LATE, FULL, JSON, TEXT, State, refusal, reply
from webhook.server.encrypted import RECEIVED_BYTES
from webhook.server.handed import Handed, HandedServer
from webhook.server.heads import BLANK_LINE, HEAD_LIMIT, Head, Heads
from webhook.server.peers import Ended, Peers, Source
from webhook.server.sampling import traceparent
from webhook.server.turns import GAP_SECONDS, SLICE_SECONDS

FIRST_SECONDS: Final = 30.0
"""From the handshake to the first byte; Go opens connections that it may not need."""
SMALL_PIECE_BYTES: Final = 4096
"""Pieces of a body that are shorter are put together."""
SHUTDOWN_LEAST_SECONDS: Final = 0.1
"""aiohttp takes 0 for "no timeout"."""


class ReviewServer:
    """Makes the protocol of each connection, and ends them all."""

    def __init__(self, state: State, fallback: HandedServer, peers: Peers) -> None:
        self.state = state
        self.fallback = fallback
        self.peers = peers
        self.heads = Heads()
        self.connections: set[ReviewProtocol] = set()
        self.dated_until = 0.0
        self.last = b""
        self.last_closing = b""
        self.date()

    def __call__(self, source: Source) -> "ReviewProtocol":
        """Return the protocol of a new connection from *source*."""
        return ReviewProtocol(self, source)

    def date(self) -> None:
        """Make the answers' last headers anew: they are the same for a second."""
        now = time.time()
        self.dated_until = perf_counter() + 1 - now % 1
        same = f"\r\nDate: {formatdate(int(now), usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n"
        self.last = f"{same}\r\n".encode()
        self.last_closing = f"{same}Connection: close\r\n\r\n".encode()

    async def shutdown(self, seconds: float) -> None:
        """Close what waits for a request, let bodies that are under way arrive within *seconds*, and end the rest."""
        self.fallback.pre_shutdown()
        deadline = time.monotonic() + seconds
        for connection in [each for each in self.connections if each.idle]:
            connection.close()
        while any(not each.idle for each in self.connections) and time.monotonic() < deadline:  # noqa: ASYNC110  # many, any of which may be the last
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.close()
        await self.fallback.shutdown(max(deadline - time.monotonic(), SHUTDOWN_LEAST_SECONDS))


class ReviewProtocol(Connection, asyncio.Protocol):
    """One connection: requests are answered as their last byte comes, in order."""

    __slots__ = ("_chunks", "_line", "_lined", "_missing", "_reserved", "_server", "_turns", "_wanted")

    def __init__(self, server: ReviewServer, source: Source) -> None:
        super().__init__(server.peers, source)
        self._server = server
        self._turns = server.state.turns
        self._chunks: list[bytes | bytearray] = []
        self._missing = 0
        self._reserved = 0
        """What is counted for the body that is under way."""
        self._wanted = 0
        """What it waits to be counted."""
        self._line = b""
        """What has come and is not looked at before it is its turn."""
        self._lined = 0
        """What is counted for it, and for what came with it."""

    @property
    def idle(self) -> bool:
        """Whether no request has begun that is not answered."""
        return not self._chunks and not self._line

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.opened(transport)
        if not may_call(transport.get_extra_info("peercert"), self._server.state.client_names):
            self.end(Ended.CLIENT_NAME)
            return
        self._server.connections.add(self)
        # Whoever never asks is let go of; whoever has asked is never closed on, lest it should ask at that moment.
        self.within(FIRST_SECONDS, Ended.NEVER_ASKED)

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        if self._chunks:
            self.peers.count(Ended.LEFT)
        self.forgotten()

    def forgotten(self) -> None:
        """Give back all that it holds."""
        super().forgotten()
        self._chunks.clear()
        self._line = b""
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer the request that *data* completes."""
        size = len(data)
        if self._chunks:
            self._add(data, size)
            self._missing -= size
            if self._missing > 0:
                return
            data = b"".join(self._chunks)
            self._end_body()
        elif self._line:
            self._line += data
            self._wait_in_line(size)
            return
        if self._timer is not None:
            self.in_time()
        if self._turns.busy:
            self._line_up(data)
        elif rest := self._take(data):
            self._line_up(rest)

    def _take(self, data: bytes) -> bytes:
        """Answer the request that *data* begins with, if it is complete, and return what comes after it."""
        server, turns = self._server, self._turns
        start = data.find(BLANK_LINE, 0, HEAD_LIMIT) + len(BLANK_LINE)
        head = server.heads[data[:start]]
        if head is None:
            self._hand_over(data)
            return b""
        state = server.state
        end = start + head.length
        rest = b""
        if end != len(data):
            if end > len(data):
                self._await_rest(data, end, head)
                return b""
            data, rest = data[:end], data[end:]
        span = None if state.sample is None else state.sample(traceparent(data, start))
        begun = perf_counter()
        status, text, ended = reply(state, data, begun, span, start)
        # The API server keeps connections to pods that are gone: let it go elsewhere now.
        self._write(status, text, ended, state.draining)
        self.used_at = ended
        if self.unfinished and not self.writing_paused:
            self.peers.finish(self)
        # What `turns.took` does first: a call less.
        row = ended - begun if begun - turns.until > GAP_SECONDS else turns.row + ended - begun
        turns.row, turns.until = row, ended
        if turns.busy or row > SLICE_SECONDS:
            turns.note(self, ended - begun)
        return rest

    # --- In line

    def _line_up(self, data: bytes) -> None:
        """Look at *data* when it is its turn."""
        if self.transport.is_closing():
            return
        self._line = data
        self._turns.line_up(self)
        self._wait_in_line(len(data))

    def _wait_in_line(self, size: int) -> None:
        """Read no more meanwhile: what was not asked for is left in the kernel, or with what came in the same piece."""
        self.transport.pause_reading()
        self._owe(size)

    def _owe(self, size: int) -> None:
        if not self._lined:
            size += RECEIVED_BYTES
        self._lined += size
        self.peers.owe(self, size)

    def turn(self) -> bool:
        """Answer one request of what stands in line; return whether there is more."""
        data = self._line
        if not data or self.writing_paused:
            return False
        self._line = b""
        self.peers.give(self, self._lined)
        self._lined = 0
        if self.transport.is_closing():
            return False
        rest = self._take(data)
        if rest and not self.transport.is_closing():
            self._line = rest
            self._owe(len(rest))
            return not self.writing_paused
        if not self.writing_paused and not self._wanted and self in self._server.connections:
            self.transport.resume_reading()
        return False

    def resume_writing(self) -> None:
        """Go on with what stands in line, or read on."""
        super().resume_writing()
        if self._line:
            self.transport.pause_reading()
            self._turns.line_up(self)

    # --- A body that comes in pieces

    def _await_rest(self, data: bytes, end: int, head: Head) -> None:
        """Keep *data* until there are *end* bytes of it, or until the caller would no longer wait for the answer."""
        length = head.length
        if length > BODY_LIMIT:
            self._hand_over(data)
            return
        self._chunks.append(data)
        self._missing = end - len(data)
        peers = self.peers
        peers.begin(self)
        if peers.take_body(self, length):
            self._reserved = length
        elif peers.wait(self, length):
            self._wanted = length
            self.transport.pause_reading()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, FULL)
            return
        self._timer = asyncio.get_running_loop().call_later(head.seconds, self._too_late)

    def _add(self, data: bytes, size: int) -> None:
        """Keep *data* too; small pieces together, since each alone takes thirty bytes and more, however short it is."""
        chunks = self._chunks
        if size >= SMALL_PIECE_BYTES:
            chunks.append(data)
            return
        last = chunks[-1]
        if isinstance(last, bytearray):
            last += data
        else:
            chunks.append(bytearray(data))

    def room(self) -> None:
        """Read the body on: there is room for all of it."""
        self._reserved, self._wanted = self._wanted, 0
        self.transport.resume_reading()

    def _end_body(self) -> None:
        """Forget the body that was under way."""
        self._chunks.clear()
        if self._wanted:
            self.peers.wait_no_more(self)
        self.peers.give(self, self._reserved)
        self._reserved = self._wanted = 0
        self.peers.finish(self)

    def _too_late(self) -> None:
        self.peers.count(Ended.BODY_LATE)
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, BODY_TOO_LATE)

    def _refuse(self, status: int, message: str) -> None:
        self._end_body()
        self._write(status, refusal(self._server.state, status, message), perf_counter(), True)  # noqa: FBT003

    # --- Answers

    def _write(self, status: int, body: bytes, now: float, close: bool) -> None:  # noqa: FBT001  # called for each review
        server = self._server
        if now >= server.dated_until:
            server.date()
        first = _OK if status == HTTPStatus.OK else _status(status)
        last = server.last_closing if close else server.last
        self.transport.write(b"%b%d%b%b" % (first, len(body), last, body))
        if close:
            self.close()

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp answer *data* and whatever else comes on this connection."""
        self._server.connections.discard(self)
        self.transport.resume_reading()
        handed = Handed(self._server.fallback, self)
        self.transport.set_protocol(handed)
        handed.begin(data)


def _status(status: int) -> bytes:
    """Return the answer's first lines, up to the length."""
    kind = JSON if status == HTTPStatus.OK else TEXT
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: ".encode()


_OK: Final = _status(HTTPStatus.OK)
