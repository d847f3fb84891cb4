"""
One request, seen from three places: what the application answered, whom its socket talks to, and what Envoy logged.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tests.parts.process import wait_until
from tests.proof.ask import http_get, tcp_ask
from tests.proof.lab import HTTP_PORT, TCP_PORT
from tests.proof.network import LOAD_BALANCER
from tests.proof.node_agent import RunningPod
from tests.proof.report import Check, Names

LOG_SECONDS: Final = 5.0
"""Envoy writes its access log once a second."""
APPLICATION: Final = "the application's answer to /ip"
SOCKET: Final = "its socket's peer"
LOG: Final = "the access log's upstream_local_address"

_numbers: Final = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one request showed."""

    pod: RunningPod
    """Who answered."""
    origin: str
    """What the application takes for its client."""
    peer: str
    """The application's peer as the kernel lists it."""
    told: Mapping[str, Any]
    """All that the application said."""
    marks: Callable[[Mapping[str, Any]], bool]
    """Knows the request's line in the access log."""

    @cached_property
    def log(self) -> Mapping[str, Any]:
        """The access log's line, waited for: ask first, look later."""
        return logged(self.pod, self.marks)

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers as they reached the application."""
        headers: Mapping[str, str] = self.told["headers"]
        return headers

    @property
    def upstream_local_address(self) -> str:
        """The address, without its port, that Envoy dialled the application from."""
        return without_port(str(self.log["upstream_local_address"]))

    @property
    def is_mtls(self) -> bool:
        """Whether the caller's sidecar came with mutual TLS: only that names a server."""
        return bool(self.log.get("requested_server_name"))


def http(
    pod: RunningPod,
    netns: str,
    address: str,
    port: int = HTTP_PORT,
    *,
    path: str = "/ip",
    headers: Mapping[str, str] | None = None,
    tls_name: str | None = None,
) -> Seen:
    """Ask by HTTP what reaches *pod*'s application, and look it up in its sidecar's log."""
    marked = f"{path}?{next(_numbers)}"
    told = http_get(netns, address, port, marked, headers=headers, tls_name=tls_name).told
    peer = _peer(pod, HTTP_PORT, told["peer_port"])
    return Seen(pod=pod, origin=told["origin"], peer=peer, told=told, marks=lambda line: line.get("path") == marked)


def tcp(pod: RunningPod, netns: str, address: str) -> Seen:
    """Likewise by plain TCP. The connection is short: the application reports its own peer."""
    peer, port = tcp_ask(netns, address, TCP_PORT)
    ending = f":{port}"
    return Seen(
        pod=pod,
        origin=peer,
        peer=peer,
        told={},
        marks=lambda line: str(line["upstream_local_address"]).endswith(ending),
    )


def logged(pod: RunningPod, marks: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """Return the access log's line of a request."""

    def line() -> Mapping[str, Any] | None:
        return next((each for each in pod.access_log() if marks(each)), None)

    return wait_until(line, what=f"the access log of {pod.name} to tell of a request", seconds=LOG_SECONDS)


def add_rows(
    check: Check,
    names: Names,
    traffic: str,
    mode: str,
    seen: Seen,
    *,
    expected: str,
    expected6: str | None = None,
    headline: bool = False,
) -> None:
    """Add the three rows that a request makes; all show the same where the client's IP is not in a header."""
    wanted = names.tell(expected if expected6 is None or ":" not in seen.peer else expected6)
    check(traffic, mode, APPLICATION, expected=wanted, seen=names.tell(seen.origin), headline=headline)
    check(traffic, mode, SOCKET, expected=wanted, seen=names.tell(seen.peer))
    check(traffic, mode, LOG, expected=wanted, seen=names.tell(seen.upstream_local_address))


def without_port(address: str) -> str:
    """Return the address in ADDRESS:PORT or [ADDRESS]:PORT."""
    return address.rpartition(":")[0].strip("[]").removeprefix("::ffff:")


def through_gateway(
    netns: str,
    *,
    address: str = LOAD_BALANCER,
    port: int = 80,
    path: str,
    tls_name: str | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 3.0,
) -> dict[str, Any]:
    """Ask an ingress gateway once and return what the application behind it answered."""
    return http_get(netns, address, port, path, tls_name=tls_name, headers=headers, seconds=seconds).told


def _peer(pod: RunningPod, own_port: int, peer_port: int) -> str:
    """Return whom the application's socket talks to at *peer_port*, as netstat shows it; Envoy keeps it open."""
    for own, peer in pod.sockets():
        if own.endswith(f":{own_port}") and peer.endswith(f":{peer_port}"):
            return without_port(peer)
    return "closed already"
