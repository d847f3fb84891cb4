"""
A connection that aiohttp answers: reviews in an unusual form, probes, and whatever else is sent.

aiohttp reads HTTP; here is what it has no limit for: how long a head may take, and how long a connection stays open on
which nothing is asked. It knows neither of the two ends of a request by name: the request's factory is called when a
head is complete, and the handler returns when the answer is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage

from webhook.server.connection import Connection
from webhook.server.peers import Ended, Peers

HEAD_SECONDS: Final = 10.0
"""From a head's first byte to its last."""
IDLE_SECONDS: Final = 60.0
"""From an answer to the next request's first byte."""
LINGER_SECONDS: Final = 2.0
"""How long the rest of a body that was refused is read, so that its sender sees the answer."""
HANDED_BYTES: Final = 160 << 10
"""What aiohttp holds for one: its parser, a task, and a body's reader of twice READ_BYTES."""
READ_BYTES: Final = 64 << 10

Answer = Callable[[web.BaseRequest, Connection], Awaitable[web.StreamResponse]]


class HandedServer(web.Server):
    """aiohttp's low-level server, for connections that are watched over."""

    def __init__(self, answer: Answer, peers: Peers, *, name: str, body_limit: int, **options: Any) -> None:
        self.handed: dict[web.RequestHandler, Handed] = {}
        loop = asyncio.get_running_loop()

        def request_of(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: web.RequestHandler,
            writer: AbstractStreamWriter,
            task: "asyncio.Task[None]",
        ) -> web.BaseRequest:
            handed = self.handed.get(protocol)
            if handed is not None:
                handed.asked()
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=body_limit)

        async def watched(request: web.BaseRequest) -> web.StreamResponse:
            handed = self.handed.get(request.protocol)
            if handed is None:
                raise ConnectionResetError("the connection is gone")
            try:
                # Of what is pipelined aiohttp answers all that came in one piece, on Python 3.12 and later in one turn
                # of the loop: so whoever else asks comes in between.
                await asyncio.sleep(0)
                return await answer(request, handed.connection)
            finally:
                handed.answered()

        super().__init__(
            watched,
            request_factory=request_of,
            access_log=None,
            # Inflating what is refused anyway would cost a thousand times what was sent.
            auto_decompress=False,
            logger=_logger(name, peers),
            lingering_time=LINGER_SECONDS,
            read_bufsize=READ_BYTES,
            **options,
        )


class Handed(asyncio.Protocol):
    """Gives what comes to aiohttp's handler, and ends what takes too long."""

    __slots__ = ("_asked", "_begun", "_handler", "_server", "connection")

    def __init__(self, server: HandedServer, connection: Connection) -> None:
        self.connection = connection
        self._server = server
        self._handler = server()
        self._asked = False
        """Whether a request is being answered."""
        self._begun = False
        """Whether a head has begun that is not complete."""

    def begin(self, data: bytes = b"") -> None:
        """Go on with the connection that was opened, and with the *data* that came on it."""
        connection = self.connection
        if not connection.peers.take(connection, HANDED_BYTES):
            connection.peers.count(Ended.MEMORY)
            connection.end(Ended.MEMORY)
            return
        connection.peers.begin(connection)
        self._server.handed[self._handler] = self
        self._handler.connection_made(connection.transport)
        if data:
            self.data_received(data)
        else:
            connection.within(HEAD_SECONDS, Ended.NEVER_ASKED)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, on a connection that was aiohttp's from the start."""
        self.connection.opened(transport)
        self.begin()

    def data_received(self, data: bytes) -> None:
        """Give it on; where it begins a head, the rest must come in time."""
        if not self._asked and not self._begun:
            self._begun = True
            self.connection.within(HEAD_SECONDS, Ended.HEAD_LATE)
        self._handler.data_received(data)

    def asked(self) -> None:
        """A head is complete."""
        self._asked, self._begun = True, False
        self.connection.in_time()

    def answered(self) -> None:
        """Its answer is made."""
        self._asked = False
        connection = self.connection
        if connection not in connection.source.peers:  # it left before its answer
            return
        # It stays unfinished: where room is short it goes before what the API server has open. But it begins anew.
        connection.peers.finish(connection)
        connection.peers.begin(connection)
        connection.within(IDLE_SECONDS, Ended.NEVER_ASKED)

    def eof_received(self) -> None:
        """Nothing more comes."""
        self._handler.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self.connection.forgotten()
        self._server.handed.pop(self._handler, None)
        self._handler.connection_lost(error)

    def pause_writing(self) -> None:
        """Write no more for now."""
        self.connection.pause_writing()
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Write on."""
        self.connection.resume_writing()
        self._handler.resume_writing()


def _logger(name: str, peers: Peers) -> logging.Logger:
    logger = logging.getLogger(f"{__name__}.{name}")
    for each in list(logger.filters):
        logger.removeFilter(each)
    logger.addFilter(Malformed(peers))
    return logger


class Malformed(logging.Filter):
    """
    Counts what peers make aiohttp complain of, in place of a traceback each; a fault of ours passes.

    A request that is no HTTP, and a client that leaves amid a body.
    """

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._peers = peers

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is to be logged."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, HttpProcessingError):
            self._peers.count(Ended.MALFORMED)
            return False
        if isinstance(error, (ConnectionError, web.RequestPayloadError)):
            self._peers.count(Ended.LEFT)
            return False
        return True
