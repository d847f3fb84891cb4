"""
Accepts connections, and refuses those for which there is no room before anything is read of them.

Connections are accepted here and not by the event loop's own server, which says nothing of a connection before its
handshake is done: until then it could be neither counted nor ended.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from webhook.server.connection import Connecting, Connection
from webhook.server.encrypted import EncryptedTransport
from webhook.server.peers import HANDSHAKE_BYTES, OPEN_BYTES, Ended, Peers, Source

log: Final = logging.getLogger(__name__)

BACKLOG: Final = 1024
ACCEPTS: Final = 16
"""Connections accepted in one turn of the event loop: a handshake costs half a millisecond and more."""
RECEIVE_BYTES: Final = 64 << 10
"""The kernel doubles it. What comes at once, and so what buffers grow to, is no larger; 3 MiB take no longer."""
SEND_BYTES: Final = 64 << 10
HANDSHAKE_SECONDS: Final = 5.0
CLOSING_SECONDS: Final = 1.0
"""How long a connection that was closed may take to send what was written, and its peer to close too."""
PAUSE_SECONDS: Final = 0.1
"""How long no connection is accepted after the kernel had no descriptor left."""

MakeProtocol = Callable[[Source], tuple[Connection, asyncio.Protocol]]


@dataclass(slots=True, kw_only=True)
class Listener:
    """One address that is listened on."""

    peers: Peers
    make: MakeProtocol
    """Gives the connection and the protocol for one from this source."""
    context: ssl.SSLContext | None = None
    sockets: list[socket.socket] = field(default_factory=list)
    _opening: dict[Connecting, Connection] = field(default_factory=dict)

    async def listen(self, host: str, port: int) -> Sequence[object]:
        """
        Begin to accept; return the address of the first socket.

        Raises:
            OSError: The address can't be listened on.

        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self.sockets.append(_bound(family, address))
            for each in self.sockets:
                each.listen(BACKLOG)
                loop.add_reader(each, self._accept, each)
        except OSError:
            self.close()
            raise
        name: Sequence[object] = self.sockets[0].getsockname()
        return name

    def close(self) -> None:
        """Accept nobody any more, and end handshakes that are under way."""
        for each in self.sockets:
            with contextlib.suppress(ValueError, OSError):
                asyncio.get_running_loop().remove_reader(each)
            each.close()
        for opening, connection in list(self._opening.items()):
            opening.cancel()
            connection.forgotten()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            self._admit(accepted, str(address[0]) if address else "")

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """There is no descriptor: let those that are open come to an end."""
        self.peers.count(Ended.DESCRIPTORS)
        log.debug("no connections are accepted for %g s: %s", PAUSE_SECONDS, error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def again() -> None:
            if listening.fileno() >= 0:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(PAUSE_SECONDS, again)

    def _admit(self, accepted: socket.socket, address: str) -> None:
        connection, protocol = self.make(self.peers.source(address))
        if not self.peers.enter(connection, OPEN_BYTES if self.context is None else HANDSHAKE_BYTES):
            self.peers.count(Ended.MEMORY)
            accepted.close()
            return
        accepted.settimeout(0)
        if self.context is None:
            self._open(accepted, connection, protocol)
        else:
            self._shake_hands(self.context, accepted, connection, protocol)

    def _shake_hands(
        self, context: ssl.SSLContext, accepted: socket.socket, connection: Connection, protocol: asyncio.Protocol
    ) -> None:
        def shaken(reason: Ended | None) -> None:
            if connection.connecting is not None:
                self._opening.pop(connection.connecting, None)
            if reason is not None:
                self.peers.count(reason)
                connection.forgotten()

        connection.connecting = EncryptedTransport(
            accepted,
            context,
            protocol,
            handshake_seconds=HANDSHAKE_SECONDS,
            closing_seconds=CLOSING_SECONDS,
            shaken=shaken,
        )
        self._opening[connection.connecting] = connection

    def _open(self, accepted: socket.socket, connection: Connection, protocol: asyncio.Protocol) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(accepted, connection, protocol))
        connection.connecting = task
        self._opening[task] = connection

        def done(ended: "asyncio.Task[None]") -> None:
            self._opening.pop(ended, None)
            if ended.cancelled():
                accepted.close()  # which the event loop has not where it was ended before it began

        task.add_done_callback(done)

    async def _connect(self, accepted: socket.socket, connection: Connection, protocol: asyncio.Protocol) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
        except OSError:
            self.peers.count(Ended.HANDSHAKE_FAILED)
            connection.forgotten()


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections have what their listening socket has.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
