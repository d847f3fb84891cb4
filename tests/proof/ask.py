"""Requests from inside a network namespace: HTTP, HTTPS and plain TCP, each with a connection of its own."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.parts.api import connect

SECONDS: Final = 5.0


class Unanswered(OSError):  # noqa: N818  # what happened
    """No answer came: refused, reset, or silence until the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an HTTP server said."""

    status: int
    body: str

    @property
    def told(self) -> dict[str, Any]:
        """The body, which is JSON."""
        if self.status != 200:
            raise Unanswered(f"HTTP {self.status}: {self.body[:200]}")
        told: dict[str, Any] = json.loads(self.body)
        return told


def http_get(
    netns: str,
    address: str,
    port: int,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls_name: str | None = None,
    seconds: float = SECONDS,
) -> Answer:
    """
    GET *path* once.

    Args:
        netns: The network namespace to ask from.
        address: The server's.
        port: Likewise.
        path: The request's.
        headers: Added to the request; `Host` names a virtual host.
        tls_name: Speak TLS, and ask for this name. Whether the certificate is good is not the question here.
        seconds: The bound for each step.

    Raises:
        Unanswered: No answer came.

    """
    try:
        connection = http.client.HTTPConnection(address, port, timeout=seconds)
        connection.sock = _connection(netns, address, port, tls_name, seconds)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(status=response.status, body=response.read().decode())
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(f"{address}:{port}{path}: {error!r}") from error


def tcp_ask(netns: str, address: str, port: int, *, seconds: float = SECONDS) -> tuple[str, int]:
    """Send a line and return the peer that the application saw, with its port."""
    try:
        with _connection(netns, address, port, None, seconds) as stream:
            stream.sendall(b"who do you see?\n")
            seen, seen_port = stream.recv(100).decode().split()
            return seen, int(seen_port)
    except (OSError, ValueError) as error:
        raise Unanswered(f"{address}:{port}: {error!r}") from error


def _connection(netns: str, address: str, port: int, tls_name: str | None, seconds: float) -> socket.socket:
    plain = connect((address, port), netns=netns, timeout_seconds=seconds)
    if tls_name is None:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=tls_name)
