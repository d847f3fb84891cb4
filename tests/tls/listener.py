"""A real TLS listener around an SSLContext, and clients that trust what they are told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from certs.pair import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a client saw: the certificate and the connection's parameters."""

    certificate: bytes
    version: str
    alpn: str | None


def trusting(*authorities: Pair) -> ssl.SSLContext:
    """Return a client that trusts *authorities* alone, as the API server trusts a caBundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=b"".join(ca.certificate_pem for ca in authorities).decode())
    context.set_alpn_protocols(["http/1.1"])
    return context


class Listener:
    """An aiohttp server on a loopback port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, path: str = "/") -> str:
        return f"https://localhost:{self.port}{path}"

    async def handshake(self, client: ssl.SSLContext, *, name: str | None = "localhost") -> Handshake:
        """Shake hands as *client*, verifying *name*."""
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=client, server_hostname=name)
            try:
                connection = writer.get_extra_info("ssl_object")
                # One answer: in TLS 1.3 a server may still refuse after the client believes that it is through.
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                certificate = connection.getpeercert(binary_form=True)
                return Handshake(
                    certificate=certificate, version=connection.version(), alpn=connection.selected_alpn_protocol()
                )
            finally:
                writer.transport.abort()


@asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[Listener]:
    """Serve with *context* for the length of the block."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="served")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    (address,) = runner.addresses
    try:
        yield Listener(address[1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def keep_alive_client(authorities: Sequence[Pair]) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client that keeps one connection open, as the API server does."""
    connector = aiohttp.TCPConnector(limit=1, ssl=trusting(*authorities), force_close=False, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
