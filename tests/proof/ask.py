"""Requests from inside a network namespace: HTTP, HTTPS and plain TCP, with connections of their own or over one."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

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
    with KeptOpen(netns, address, port, tls_name=tls_name, seconds=seconds) as connection:
        return connection.get(path, headers=headers)


class KeptOpen:
    """One connection for many requests, as a pool keeps it; a context manager. Arguments as for `http_get`."""

    def __init__(
        self, netns: str, address: str, port: int, *, tls_name: str | None = None, seconds: float = SECONDS
    ) -> None:
        self._server = f"{address}:{port}"
        self._http = http.client.HTTPConnection(address, port, timeout=seconds)
        self._http.auto_open = 0  # closed is closed
        try:
            self._http.sock = _connection(netns, address, port, tls_name, seconds)
        except OSError as error:
            raise Unanswered(f"{self._server}: {error!r}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """
        GET *path*.

        Raises:
            Unanswered: No answer came.

        """
        try:
            self._http.request("GET", path, headers=dict(headers or {}))
            response = self._http.getresponse()
            return Answer(status=response.status, body=response.read().decode())
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(f"{self._server}{path}: {error!r}") from error


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
