"""
What a line of a sidecar's access log proves: whether the application saw who called it.

Envoy writes a line for each request and connection. `upstream_local_address` decides: it is the address that Envoy
dialled the application from, and so the peer of the application's socket. `downstream_remote_address` proves nothing:
where the listener does not use the remote address, it is what X-Forwarded-For says, which anyone can write.

Istio's formats (JSON keys and the default text, "for Istio 1.9 onwards"):
https://github.com/istio/istio/blob/86c9f01fd735/pilot/pkg/model/telemetry_logging.go#L44-L104
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

INBOUND_SOURCES: Final = frozenset(map(ipaddress.ip_address, ("127.0.0.6", "::6")))
"""Where REDIRECT dials the application from: "6 is the magical number for inbound" (listener_address.go:35)."""
INBOUND_PREFIX: Final = "inbound|"
PASSTHROUGH: Final = "InboundPassthroughCluster"
"""The cluster of inbound traffic for a port that no Service names."""
ABSENT: Final = "-"

# %UPSTREAM_HOST% and what follows: the rest of the line is the caller's to write (user agent, path), so the fields are
# taken from the line's end.
_TEXT_END: Final = re.compile(
    r'"(?P<upstream_host>[^" ]+)" (?P<upstream_cluster>\S+) (?P<upstream_local_address>\S+) '
    r"(?P<downstream_local_address>\S+) (?P<downstream_remote_address>\S+) \S+ \S+$",
)
_TEXT_BEGIN: Final = re.compile(
    r'^\[(?P<start_time>[^\]]+)\] "(?P<method>\S+) (?P<path>.*?) (?P<protocol>\S+)" (?P<response_code>\d+) ',
)
_TEXT_FORWARDED: Final = re.compile(r'\S+ \d+ \d+ \d+ \S+ "(?P<x_forwarded_for>[^"]*)" "')


class Verdict(StrEnum):
    """What one request shows of the client's IP."""

    PRESERVED = "preserved"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log; a field that Envoy had nothing to say for is None."""

    upstream_cluster: str | None = None
    upstream_local_address: str | None = None
    downstream_local_address: str | None = None
    downstream_remote_address: str | None = None
    x_forwarded_for: str | None = None
    start_time: str | None = None
    method: str | None = None
    path: str | None = None
    response_code: str | None = None

    @property
    def inbound(self) -> bool:
        """Whether it is about a call of the application, not by it."""
        cluster = self.upstream_cluster or ""
        return cluster.startswith(INBOUND_PREFIX) or cluster == PASSTHROUGH


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict, with the field that it rests on and why."""

    verdict: Verdict
    field: str
    why: str
    peer: str | None = None
    """The peer of the application's socket, where one was seen."""


def parse(line: str) -> Entry | None:
    """Return the line's fields; None where it is not of Istio's access log, such as the agent's own messages."""
    text = line.strip()
    fields = _json(text) if text.startswith("{") else _text(text)
    if fields is None:
        return None
    return Entry(**{name: _said(fields.get(name)) for name in Entry.__dataclass_fields__})


def _json(text: str) -> Mapping[str, Any] | None:
    try:
        fields = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return fields if isinstance(fields, dict) and "upstream_local_address" in fields else None


def _text(text: str) -> Mapping[str, Any] | None:
    begin, end = _TEXT_BEGIN.match(text), _TEXT_END.search(text)
    if begin is None or end is None:
        return None
    forwarded = _TEXT_FORWARDED.search(text, begin.end())
    return {**begin.groupdict(), **end.groupdict(), **(forwarded.groupdict() if forwarded else {})}


def _said(value: Any) -> str | None:
    return None if value is None or value == ABSENT else str(value)


def judge(entry: Entry) -> Finding | None:
    """Return what *entry* proves; None where it is not about inbound traffic."""
    if not entry.inbound:
        return None
    if entry.upstream_local_address is None:
        why = "Envoy did not reach the application for this request"
        return Finding(verdict=Verdict.UNKNOWN, field="upstream_local_address", why=why)
    peer = _host(entry.upstream_local_address)
    if peer is None:
        why = f"no address and port: {entry.upstream_local_address!r}"
        return Finding(verdict=Verdict.UNKNOWN, field="upstream_local_address", why=why)
    return _judge_peer(entry, peer)


def _judge_peer(entry: Entry, peer: IPAddress) -> Finding:
    def finding(verdict: Verdict, why: str, field: str = "upstream_local_address") -> Finding:
        return Finding(verdict=verdict, field=field, why=why, peer=str(peer))

    if peer in INBOUND_SOURCES:
        return finding(Verdict.LOST, f"{peer} is where REDIRECT dials every application from")
    if peer.is_loopback:
        return finding(Verdict.LOST, f"{peer} is the pod's own loopback")
    remote = _host(entry.downstream_remote_address or "")
    if peer == remote:
        return finding(Verdict.PRESERVED, f"the application's socket showed the caller, {peer}")
    if peer == _host(entry.downstream_local_address or ""):
        if _is_claimed(entry.downstream_remote_address):
            why = f"{peer} is the pod itself, and the caller only what X-Forwarded-For claims"
            return finding(Verdict.UNKNOWN, why, "downstream_remote_address")
        return finding(Verdict.LOST, f"{peer} is the pod's own address, the caller was {remote or 'not said'}")
    # An address that is neither the pod's nor loopback can only be one that Envoy took over from the caller's
    # connection; downstream_remote_address differs where the request brought an X-Forwarded-For.
    why = f"the application's socket showed the caller, {peer} (X-Forwarded-For claims {remote or 'nothing'})"
    return finding(Verdict.PRESERVED, why)


def _is_claimed(address: str | None) -> bool:
    """Return whether Envoy took *address* from X-Forwarded-For, which has no ports: it writes port 0."""
    return address is not None and address.endswith(":0")


def _host(address: str) -> IPAddress | None:
    """Return the IP of `10.0.0.1:80` or `[fd00::1]:80`, an IPv4 address of a socket for both families as IPv4."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return None
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
