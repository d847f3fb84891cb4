"""One connection of a peer: what it holds, until when it has to do what comes next, and how it is ended."""

import asyncio
from typing import Final, Protocol, cast

from webhook.server.peers import OPEN_BYTES, Ended, Peers, Source

WRITE_BUFFER_BYTES: Final = 32 << 10
"""Answers that wait for a peer to read them, before no more of its requests are read."""
UNREAD_BYTES: Final = 256 << 10
"""What is counted for such a peer: buffers of ours and of the kernel's, of both directions."""
ANSWERS_SECONDS: Final = 10.0
"""How long answers may wait to be read."""


class Connecting(Protocol):
    """A connection that is not open yet."""

    def cancel(self) -> object:
        """End it without a word."""


class Connection:
    """What all connections have in common; see `peers` for what it may hold."""

    __slots__ = (
        "_timer",
        "_unread",
        "connecting",
        "held",
        "peers",
        "recent",
        "source",
        "transport",
        "unfinished",
        "used_at",
    )

    def __init__(self, peers: Peers, source: Source) -> None:
        self.peers = peers
        self.source = source
        self.held = 0
        self.unfinished = False
        self.used_at = 0.0
        self.recent = 0.0
        self.connecting: Connecting | None = None
        """The handshake, while it is under way."""
        self.transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Go on with *transport*: the handshake is done."""
        self.transport = cast("asyncio.Transport", transport)
        self.connecting = None
        self.peers.give(self, self.held - OPEN_BYTES)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def within(self, seconds: float, reason: Ended) -> None:
        """End it for *reason* unless `in_time` comes within *seconds*."""
        self.in_time()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.end, reason)

    def in_time(self) -> None:
        """What had to come has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self, reason: Ended) -> None:
        """End it at once, without another word."""
        if reason is not Ended.MEMORY:
            self.peers.count(reason)
        self.forgotten()
        if self.connecting is not None:
            self.connecting.cancel()
        else:
            self.transport.abort()

    def forgotten(self) -> None:
        """Give back all that it holds."""
        self.in_time()
        self._read()
        self.peers.leave(self)

    def room(self) -> None:
        """Nothing here waits for room."""

    # --- Answers that are not read

    @property
    def writing_paused(self) -> bool:
        """Whether its answers wait to be read."""
        return self._unread is not None

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read its answers, and let it go if it goes on like that."""
        if self._unread is None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._unread = asyncio.get_running_loop().call_later(ANSWERS_SECONDS, self.end, Ended.ANSWERS_UNREAD)
            self.peers.begin(self)
            self.peers.owe(self, UNREAD_BYTES)

    def resume_writing(self) -> None:
        """Read on: what was written is on its way."""
        if self._unread is not None:
            self._read()
            self.peers.give(self, UNREAD_BYTES)
            self.peers.finish(self)
            self.transport.resume_reading()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
