"""
TLS on an accepted socket: OpenSSL reads and writes the socket itself.

The event loop's own TLS carries every byte through two buffers in memory, keeps 256 KiB for it, and needs a task for
each handshake; here a review costs a tenth less CPU and a new connection a fifth (`make bench`). It is an ordinary
`asyncio.Transport` otherwise, so aiohttp can have it. A record is read when the socket has some of it, and nothing is
read ahead: what was not asked for is left in the kernel, where it is bounded.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from webhook.server.connection import Connection
from webhook.server.peers import Ended

RECORD_BYTES: Final = 16 << 10
"""What a TLS record holds at most."""
RECORDS: Final = 8
"""Read of one connection in one turn of the event loop at most; Go's client begins with records of a kilobyte."""
DRAINED_BYTES: Final = 64 << 10
"""Read at once of what comes after the end, and is thrown away."""
HIGH_BYTES: Final = 64 << 10


class _Nobody(asyncio.Protocol):
    """Hears what comes after the end."""


_NOBODY: Final = _Nobody()


class EncryptedTransport(asyncio.Transport):
    """One TLS connection, from its handshake on."""

    __slots__ = (
        "_closing",
        "_closing_seconds",
        "_connection",
        "_context",
        "_ended",
        "_fd",
        "_high",
        "_late",
        "_loop",
        "_low",
        "_paused",
        "_pending",
        "_protocol",
        "_shaken",
        "_socket",
        "_writing",
        "_writing_paused",
    )

    def __init__(
        self,
        accepted: socket.socket,
        context: ssl.SSLContext,
        connection: Connection,
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
            connection: Says by `unfinished` whether more is about to come.
            protocol: Hears of the connection when the handshake is done.
            handshake_seconds: How long the handshake may take.
            closing_seconds: How long what was written may take to be sent, and the peer to close, once it is closed.
            shaken: Called once, when the handshake is over; with why it failed, where it did.

        Raises:
            OSError: The peer has gone already.

        """
        super().__init__()
        try:
            accepted.getpeername()
            self._socket = context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except OSError:
            accepted.close()
            raise
        self._fd = self._socket.fileno()
        self._context = context
        self._connection = connection
        self._protocol = protocol
        self._shaken: Callable[[Ended | None], None] | None = shaken
        self._closing_seconds = closing_seconds
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        """What was written and is not sent."""
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._paused = self._writing = self._writing_paused = self._closing = self._ended = False
        self._late: asyncio.TimerHandle | None = self._loop.call_later(handshake_seconds, self._too_late)
        self._loop.add_reader(self._fd, self._shake)

    # --- The handshake

    def _shake(self) -> None:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._stop_writing()
        except ssl.SSLWantWriteError:
            self._write_when_ready(self._shake)
        except OSError:  # ssl.SSLError is one
            self._give_up(Ended.HANDSHAKE_FAILED)
        else:
            self._stop_writing()
            self._on_time()
            self._over(None)
            self._loop.add_reader(self._fd, self._read)
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
        for _ in range(RECORDS):
            try:
                data = self._socket.recv(RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLEOFError:  # it has gone without a goodbye, as it may
                self._tell(self._protocol.eof_received)
                self._end(None)
                return
            except OSError as error:  # also where a peer changes its key and reads nothing: it can't be told
                self._end(error)
                return
            if not data:
                self._tell(self._protocol.eof_received)
                self._close_after_the_peer()
                return
            try:
                self._protocol.data_received(data)
            except Exception as error:  # noqa: BLE001  # a bug, which is told
                self._bug(error)
                return
            if self._paused or self._closing or not (len(data) == RECORD_BYTES or self._connection.unfinished):
                return

    def is_reading(self) -> bool:
        """Return whether what comes is read."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self._paused and not self._closing:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read on."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.add_reader(self._fd, self._read)

    # --- Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, at once where there is room; what was written after the end is dropped."""
        if self._closing or not data:
            return
        if self._pending:
            self._pending += data
        else:
            try:
                sent = self._socket.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent = 0
            except OSError as error:
                self._end(error)
                return
            if sent == len(data):
                return
            self._pending += memoryview(data)[sent:]
            self._write_when_ready(self._flush)
        if len(self._pending) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._tell(self._protocol.pause_writing)

    def _flush(self) -> None:
        """Send what is pending: OpenSSL wants the same bytes again, and takes more behind them."""
        try:
            while self._pending:
                del self._pending[: self._socket.send(self._pending)]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._end(error)
            return
        if self._writing_paused and len(self._pending) <= self._low and not self._closing:
            self._writing_paused = False
            self._tell(self._protocol.resume_writing)
        if not self._pending:
            self._stop_writing()
            if self._closing and not self._ended:
                self._say_goodbye()

    def _write_when_ready(self, callback: Callable[[], None]) -> None:
        self._writing = True
        self._loop.add_writer(self._fd, callback)

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
        self._closing = True
        if not self._paused:
            self._loop.remove_reader(self._fd)
        self._late = self._loop.call_later(self._closing_seconds, self._end, None)
        if not self._pending:
            self._say_goodbye()

    def _close_after_the_peer(self) -> None:
        """Close; where all is sent there is nothing to wait for."""
        if self._pending or self._closing:
            self.close()
            return
        with contextlib.suppress(OSError):
            self._socket.unwrap()
        self._end(None)

    def _say_goodbye(self) -> None:
        """Close our side; until the peer's is closed what it sends is read, since a reset would take our last words."""
        try:
            with contextlib.suppress(ssl.SSLError):  # it has not closed yet, or sends on
                self._socket.unwrap()
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
        except OSError:
            self._end(None)
            return
        self._loop.add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        try:
            if socket.socket.recv(self._socket, DRAINED_BYTES):
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
        self._ended = self._closing = True
        self._on_time()
        self._loop.remove_reader(self._fd)
        self._stop_writing()
        self._pending.clear()
        self._socket.close()
        del self._connection  # which holds the transport: what has ended is not left to the garbage collector
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
            case "socket" | "ssl_object":
                return self._socket
            case "sslcontext":
                return self._context
            case "peercert":
                return self._socket.getpeercert()
            case "cipher":
                return self._socket.cipher()
            case "peername" | "sockname":
                try:
                    return self._socket.getpeername() if name == "peername" else self._socket.getsockname()
                except OSError:
                    return default
            case _:
                return default
