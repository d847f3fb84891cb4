"""
Proxies as companies have them: HTTP CONNECT (RFC 9110, 9.3.6) and SOCKS 5 (RFC 1928, 1929), on loopback.

Each knows names that nobody else resolves, and remembers whom it was asked for: a client that reaches such a name went
through the proxy.
"""

import base64
import contextlib
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

BUFFER: Final = 1 << 16


class Proxy:
    """A proxy in a thread; a context manager."""

    def __init__(self, speak: "Speak", names: Mapping[str, str], credentials: tuple[str, str] | None = None) -> None:
        """
        Describe it.

        Args:
            speak: `connect` or `socks5`.
            names: Addresses by the names that it knows.
            credentials: The user and password that it asks for.

        """
        self.asked: list[str] = []
        self._names = dict(names)
        self._credentials = credentials
        self._speak = speak

    def __enter__(self) -> Self:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    upstream = proxy._speak(proxy, self.request)
                    if upstream is not None:
                        with upstream:
                            _pump(self.request, upstream)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        """`HOST:PORT`."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """What it asks for."""
        return self._credentials

    def reach(self, host: str, port: int) -> socket.socket:
        """Connect to whom it was asked for."""
        self.asked.append(f"{host}:{port}")
        return socket.create_connection((self._names.get(host, host), port), 10)


Speak = Callable[[Proxy, socket.socket], socket.socket | None]


def connect(proxy: Proxy, client: socket.socket) -> socket.socket | None:
    """Speak HTTP CONNECT."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = client.recv(BUFFER)
        if not part:
            return None
        head += part
    line, *headers = head.decode().split("\r\n")
    method, target, _ = line.split(" ")
    if proxy.credentials is not None:
        expected = base64.b64encode(":".join(proxy.credentials).encode()).decode()
        if f"Proxy-Authorization: Basic {expected}" not in headers:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
    if method != "CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        return None
    host, _, port = target.rpartition(":")
    upstream = proxy.reach(host, int(port))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return upstream


def socks5(proxy: Proxy, client: socket.socket) -> socket.socket | None:
    """Speak SOCKS 5."""
    _, count = _read(client, 2)
    methods = _read(client, count)
    if proxy.credentials is None:
        client.sendall(b"\x05\x00")
    elif 2 in methods:
        client.sendall(b"\x05\x02")
        _, length = _read(client, 2)
        user = _read(client, length).decode()
        password = _read(client, _read(client, 1)[0]).decode()
        if (user, password) != proxy.credentials:
            client.sendall(b"\x01\x01")
            return None
        client.sendall(b"\x01\x00")
    else:
        client.sendall(b"\x05\xff")
        return None
    _, _, _, kind = _read(client, 4)
    if kind == 3:
        host = _read(client, _read(client, 1)[0]).decode()
    else:
        family = socket.AF_INET if kind == 1 else socket.AF_INET6
        host = socket.inet_ntop(family, _read(client, 4 if kind == 1 else 16))
    (port,) = struct.unpack("!H", _read(client, 2))
    upstream = proxy.reach(host, port)
    client.sendall(b"\x05\x00\x00\x01" + bytes(6))
    return upstream


def _read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise ConnectionError("the client has gone")
        data += part
    return data


def _pump(one: Any, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    while True:
        for ready in select.select([one, other], [], [])[0]:
            data = ready.recv(BUFFER)
            if not data:
                return
            (other if ready is one else one).sendall(data)
