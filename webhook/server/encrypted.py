"""
TLS on an accepted socket, one record at a time.

The event loop's own TLS gives OpenSSL all that has come, and OpenSSL reads on until there is data. A peer may send
nothing but messages that have none (KeyUpdate, RFC 8446, 4.6.3), each of 27 bytes, each of which costs a new key: one
such peer kept everybody else waiting for two seconds. Here OpenSSL is given whole records, one after the other, so each
call ends, and who sends too many without data is ended. It also costs less: no task for each handshake, no buffers of
256 KiB, and no question whether there is more (`make bench`). It is an ordinary `asyncio.Transport` otherwise, so
aiohttp can have it.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from webhook.server.peers import Ended

RECORD_BYTES: Final = 16 << 10
"""What a TLS record holds at most."""
RECEIVED_BYTES: Final = 2 * RECORD_BYTES
"""Read at once."""
HEADER_BYTES: Final = 5
LONGEST_BYTES: Final = HEADER_BYTES + RECORD_BYTES + 2048
"""A record as it is sent, at most (RFC 5246, 6.2.3)."""
RECORDS: Final = 16
"""Read of one connection in one turn of the event loop at most; Go's client begins with records of a kilobyte."""
EMPTY_RECORDS: Final = 32
"""Records without data on a connection: some at its beginning, one at its end, new keys after millions of records."""
BYTES_FOR_AN_EMPTY_ONE: Final = 1 << 20
"""So much data earns another one."""
DRAINED_BYTES: Final = 64 << 10
"""Read at once of what comes after the end, and is thrown away."""
HIGH_BYTES: Final = 64 << 10
_TYPES: Final = range(20, 25)
"""Of records, all that there are."""


class _Nobody(asyncio.Protocol):
    """Hears what comes after the end."""


_NOBODY: Final = _Nobody()


class EncryptedTransport(asyncio.Transport):
    """One TLS connection, from its handshake on."""

    __slots__ = (
        "_closing",
        "_closing_seconds",
        "_context",
        "_empty",
        "_ended",
        "_fd",
        "_high",
        "_incoming",
        "_late",
        "_left",
        "_loop",
        "_low",
        "_outgoing",
        "_paused",
        "_pending",
        "_protocol",
        "_queued",
        "_shaken",
        "_socket",
        "_tls",
        "_writing",
        "_writing_paused",
    )

    def __init__(
        self,
        accepted: socket.socket,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        *,
        handshake_seconds: float,
        closing_seconds: float,
        shaken: Callable[[Ended | None], None],
    ) -> None:
        """
        Begin the handshake on *accepted*, which is not blocking.

        Args:
            accepted: Belongs to the transport from now on, whatever becomes of it.
            context: A server's.
            protocol: Hears of the connection when the handshake is done.
            handshake_seconds: How long the handshake may take.
            closing_seconds: How long what was written may take to be sent, and the peer to close, once it is closed.
            shaken: Called once, when the handshake is over; with why it failed, where it did.

        """
        super().__init__()
        self._socket = accepted
        self._fd = accepted.fileno()
        self._context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol = protocol
        self._shaken: Callable[[Ended | None], None] | None = shaken
        self._closing_seconds = closing_seconds
        self._loop = asyncio.get_running_loop()
        self._left = b""
        """What has come and was not given to OpenSSL: less than a record, unless it waits for its turn."""
        self._queued: asyncio.Handle | None = None
        self._empty = EMPTY_RECORDS * BYTES_FOR_AN_EMPTY_ONE
        """How many records without data it may still send, in terms of data."""
        self._pending = bytearray()
        """What was encrypted and is not sent."""
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._paused = self._writing = self._writing_paused = self._closing = self._ended = False
        self._late: asyncio.TimerHandle | None = self._loop.call_later(handshake_seconds, self._too_late)
        self._loop.add_reader(self._fd, self._read)

    # --- The handshake

    def _shake(self) -> None:
        """Go on with the handshake: one more record has come."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except OSError:  # ssl.SSLError is one
            self._send()  # why
            self._give_up(Ended.HANDSHAKE_FAILED)
        else:
            self._send()
            self._on_time()
            self._over(None)
            if not self._ended:
                self._tell(self._protocol.connection_made, self)

    def _too_late(self) -> None:
        self._give_up(Ended.HANDSHAKE_LATE)

    def cancel(self) -> None:
        """End the handshake without a word."""
        self._give_up(None)

    def _give_up(self, reason: Ended | None) -> None:
        self._protocol = _NOBODY
        self._end(None)
        self._over(reason)

    def _over(self, reason: Ended | None) -> None:
        shaken, self._shaken = self._shaken, None
        if shaken is not None:
            shaken(reason)

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    # --- Reading

    def _read(self) -> None:
        try:
            came = self._socket.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not came:
            self._hear_the_end()
            return
        left = self._left
        self._take(left + came if left else came)

    def _take(self, came: bytes) -> None:
        """Give OpenSSL the whole records of *came*, and keep the rest."""
        self._left = b""
        at, end = 0, len(came)
        for _ in range(RECORDS):
            if end - at < HEADER_BYTES:
                break
            after = at + HEADER_BYTES + (came[at + 3] << 8 | came[at + 4])
            if after > end and after - at <= LONGEST_BYTES and came[at] in _TYPES:
                break
            # What is no record OpenSSL is given too: it knows what to answer.
            self._incoming.write(memoryview(came)[at:after] if at or after < end else came)
            at = min(after, end)
            if self._shaken is not None:
                self._shake()
            else:
                self._open_record()
            if self._ended or self._closing:
                return
            if self._paused:
                break
        else:  # enough for one turn
            if at < end:
                self._loop.remove_reader(self._fd)
                self._queued = self._loop.call_soon(self._take_the_rest)
        if at < end:
            self._left = came[at:] if at else came

    def _take_the_rest(self) -> None:
        """Go on with what is left, and then with what comes."""
        self._queued = None
        self._take(self._left)
        if self._queued is None and not self._paused and not self._closing:
            self._loop.add_reader(self._fd, self._read)

    def _open_record(self) -> None:
        """Tell the protocol what one record holds."""
        try:
            data = self._tls.read(RECORD_BYTES)
        except ssl.SSLWantReadError:
            self._send()  # to a new key belongs an answer
            self._empty -= BYTES_FOR_AN_EMPTY_ONE
            if self._empty < 0:
                self._end(ssl.SSLError("too many records without data"))
            return
        except OSError as error:
            self._send()
            self._end(error)
            return
        if not data:  # it says that this was all
            self._hear_the_end()
            return
        self._empty += len(data)
        try:
            self._protocol.data_received(data)
        except Exception as error:  # noqa: BLE001  # a bug, which is told
            self._bug(error)

    def _lose(self, error: Exception) -> None:
        if self._shaken is not None:
            self._give_up(Ended.HANDSHAKE_FAILED)
        else:
            self._end(error)

    def is_reading(self) -> bool:
        """Return whether what comes is read."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._paused and not self._closing:
            self._paused = True
            self._loop.remove_reader(self._fd)
            if self._queued is not None:
                self._queued.cancel()
                self._queued = None

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused and not self._closing:
            self._paused = False
            if self._left:
                self._queued = self._loop.call_soon(self._take_the_rest)
            else:
                self._loop.add_reader(self._fd, self._read)

    # --- Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, at once where there is room; what was written after the end is dropped."""
        if self._closing or not data:
            return
        try:
            sent = self._tls.write(data)
            while sent < len(data):
                sent += self._tls.write(memoryview(data)[sent:])
        except OSError as error:
            self._end(error)
            return
        self._send()
        if len(self._pending) > self._high and not self._writing_paused and not self._ended:
            self._writing_paused = True
            self._tell(self._protocol.pause_writing)

    def _send(self) -> None:
        """Send what OpenSSL has for the peer."""
        if not self._outgoing.pending:
            return
        data = self._outgoing.read()
        if self._pending:
            self._pending += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._pending += memoryview(data)[sent:]
            self._writing = True
            self._loop.add_writer(self._fd, self._flush)

    def _flush(self) -> None:
        try:
            del self._pending[: self._socket.send(self._pending)]
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if self._writing_paused and len(self._pending) <= self._low and not self._closing:
            self._writing_paused = False
            self._tell(self._protocol.resume_writing)
        if not self._pending and not self._ended:
            self._stop_writing()
            if self._closing:
                self._wait_for_the_end()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Let the protocol write no more from *high* bytes on that are not sent, until there are *low*."""
        self._high = HIGH_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were written and are not sent."""
        return len(self._pending)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return both limits, the low one first."""
        return self._low, self._high

    def can_write_eof(self) -> bool:
        """Return that TLS has no half of a connection."""
        return False

    # --- The end

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Send what was written, say that this was all, and close when the peer has closed too, or is late."""
        if self._closing:
            return
        self._stop_reading()
        self._say_goodbye()
        if self._ended:
            return
        self._late = self._loop.call_later(self._closing_seconds, self._end, None)
        if not self._pending:
            self._wait_for_the_end()

    def _hear_the_end(self) -> None:
        """Nothing more comes: close, too, at once where all is sent."""
        if self._shaken is not None:
            self._give_up(Ended.HANDSHAKE_FAILED)
            return
        self._tell(self._protocol.eof_received)
        if self._pending:
            self.close()
        elif not self._closing:
            self._stop_reading()
            self._say_goodbye()
            self._end(None)

    def _stop_reading(self) -> None:
        self._closing = True
        self._left = b""
        self._loop.remove_reader(self._fd)
        if self._queued is not None:
            self._queued.cancel()
            self._queued = None

    def _say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it has not said so yet, or sends on
            self._tls.unwrap()
        self._send()

    def _wait_for_the_end(self) -> None:
        """Close our side; until the peer's is closed what it sends is read, since a reset would take our last words."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(None)
            return
        self._loop.add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        try:
            if self._socket.recv(DRAINED_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(None)

    def abort(self) -> None:
        """Close at once, without another word."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_reading()
        self._on_time()
        self._stop_writing()
        self._pending.clear()
        self._socket.close()
        protocol, self._protocol = self._protocol, _NOBODY
        if protocol is not _NOBODY:
            self._loop.call_soon(protocol.connection_lost, error)

    def _tell(self, heard: Callable[..., object], *arguments: object) -> None:
        try:
            heard(*arguments)
        except Exception as error:  # noqa: BLE001  # a bug, which is told
            self._bug(error)

    def _bug(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
        )
        self._end(error)

    # --- Who it is

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let *protocol* hear of what comes from now on."""
        if not self._ended:
            self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who hears of what comes."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's own transports say by *name*, such as `peername` or `peercert`."""
        match name:
            case "socket":
                return self._socket
            case "ssl_object":
                return self._tls
            case "sslcontext":
                return self._context
            case "peercert":
                return self._tls.getpeercert()
            case "cipher":
                return self._tls.cipher()
            case "peername" | "sockname":
                try:
                    return self._socket.getpeername() if name == "peername" else self._socket.getsockname()
                except OSError:
                    return default
            case _:
                return default
