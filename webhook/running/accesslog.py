"""
What an entry of a sidecar's access log proves: whether the application saw who called it.

Envoy writes an entry for each request and connection. `upstream_local_address` decides: it is the address that Envoy
dialled the application from, and so the peer of the application's socket. `downstream_remote_address` proves nothing
by itself: where the listener does not use the remote address, it is what X-Forwarded-For says, which anyone can write.

How entries are found in what people have of a log is not known here (`logshapes`).
"""

import ipaddress
import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

INBOUND_SOURCES: Final = frozenset(map(ipaddress.ip_address, ("127.0.0.6", "::6")))
"""Where REDIRECT dials the application from: "6 is the magical number for inbound" (listener_address.go:35)."""
INBOUND_PREFIXES: Final = ("inbound|", "InboundPassthroughCluster")
"""
How clusters of inbound traffic are called: `inbound|PORT||`, in older releases `inbound|PORT|NAME|HOST`.

And what takes the traffic for a port that no Service names: InboundPassthroughCluster, before Istio 1.23
InboundPassthroughClusterIpv4 and Ipv6:
https://github.com/istio/istio/blob/1.22.0/pilot/pkg/networking/util/util.go
"""
VIA_UPSTREAM: Final = "via_upstream"
"""%RESPONSE_CODE_DETAILS% of an answer that came from the application."""
MAX_HOST: Final = 64
"""Characters: the longest IPv6 address in brackets with an IPv4 tail and a zone takes fewer."""
MAX_PORT: Final = 5
NO_OWN: Final[frozenset[IPAddress]] = frozenset()


class Verdict(StrEnum):
    """What one request shows of the client's IP."""

    PRESERVED = "preserved"
    LOST = "lost"
    UNKNOWN = "unknown"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the log; a field that Envoy had nothing to say for is None."""

    upstream_cluster: str | None = None
    upstream_host: str | None = None
    upstream_local_address: str | None = None
    downstream_local_address: str | None = None
    downstream_remote_address: str | None = None
    x_forwarded_for: str | None = None
    start_time: str | None = None
    method: str | None = None
    path: str | None = None
    response_code: str | None = None
    response_code_details: str | None = None
    missing: tuple[str, ...] = ()
    """Fields that decide and that the log's own format leaves out."""
    forgeable: bool = False
    """More follows on its line, so that a caller may have written it into the next entry."""

    @property
    def inbound(self) -> bool:
        """Whether it is about a call of the application, not by it; where no cluster is named, whether it may be."""
        if self.upstream_cluster is None:
            return "upstream_cluster" in self.missing
        return self.upstream_cluster.startswith(INBOUND_PREFIXES)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, with the field that it rests on and why."""

    verdict: Verdict
    field: str
    why: str
    peer: str | None = None
    """The peer of the application's socket, where one was seen."""
    leaves_open: bool = False
    """The application may have been reached, but it is not known what it saw: the whole log proves nothing."""


UPSTREAM: Final = "upstream_local_address"
REMOTE: Final = "downstream_remote_address"


def judge(entry: Entry, own: frozenset[IPAddress] = NO_OWN) -> Finding | None:
    """
    Return what *entry* proves; None where it is not about inbound traffic.

    Args:
        entry: Of a sidecar's log.
        own: The pod's addresses, where they are known.

    """
    if entry.upstream_local_address is None:
        return _no_peer(entry) if entry.inbound else None
    peer = _host(entry.upstream_local_address)
    if peer is None:
        why = f"not an address and port:  {entry.upstream_local_address!r}"
        return Finding(verdict=Verdict.UNKNOWN, field=UPSTREAM, why=why, leaves_open=True) if entry.inbound else None
    cluster = None if entry.upstream_cluster is None else entry.inbound
    if cluster is not False and peer in _REDIRECTED:
        # Whatever the format leaves out: nothing but an inbound cluster dials from there.
        return _REDIRECTED[peer]
    address = entry.downstream_remote_address
    remote = None if address is None else _host(address)
    if cluster and peer == remote and not entry.forgeable and _IPV4.fullmatch(peer):
        # What `_judge` would say, without reading the address: logs have as many as there are callers.
        return _preserved(peer)
    found = _judge(
        peer=peer,
        cluster=cluster,
        remote=remote,
        # Envoy writes port 0 for what X-Forwarded-For claims, which has no ports.
        claimed=address is not None and address.endswith(":0"),
        hosts=(_host(entry.downstream_local_address or ""), _host(entry.upstream_host or "")),
        missing=entry.missing,
        own=own,
    )
    if found is not None and entry.forgeable and found.verdict is Verdict.PRESERVED:
        why = "another entry follows on its line, of which a caller may have written this part"
        return Finding(verdict=Verdict.UNKNOWN, field=UPSTREAM, why=why, peer=found.peer, leaves_open=True)
    return found


@lru_cache(maxsize=4096)
def _judge(
    *,
    peer: str,
    cluster: bool | None,
    remote: str | None,
    claimed: bool,
    hosts: tuple[str | None, str | None],
    missing: tuple[str, ...],
    own: frozenset[IPAddress],
) -> Finding | None:
    """Return what these addresses show; a log has the same ones again and again."""
    address = ip_address(peer)
    if address is None:
        why = f"not an address:  {peer!r}"
        return Finding(verdict=Verdict.UNKNOWN, field=UPSTREAM, why=why, leaves_open=True) if cluster else None
    if address in INBOUND_SOURCES and cluster is not False:
        return _redirected(address)
    if cluster is None:
        if "upstream_cluster" not in missing:
            return None  # it had none: nothing was dialled for it
        return _missing("upstream_cluster", "it is not known whether the request was inbound", address)
    return _judge_peer(address, remote, claimed, hosts, missing, own) if cluster else None


def _judge_peer(
    peer: IPAddress,
    remote_text: str | None,
    claimed: bool,  # noqa: FBT001  # as `_judge` knows it
    hosts: tuple[str | None, str | None],
    missing: tuple[str, ...],
    own: frozenset[IPAddress],
) -> Finding:
    if peer.is_loopback:
        return _lost(peer, f"{peer} is the pod's own loopback")
    remote = ip_address(remote_text or "")
    if peer == remote:
        return _preserved(str(peer))
    local, host = ip_address(hosts[0] or ""), ip_address(hosts[1] or "")
    is_own = peer in own or peer in (local, host)
    if remote is not None and not claimed:
        whose = "the pod's own address" if is_own else "not the caller's address"
        return _lost(peer, f"{peer} is {whose}; the caller was {remote}")
    claim = "not logged" if remote is None else f"{remote}, as X-Forwarded-For claims"
    if is_own:
        if REMOTE in missing:
            return _missing(REMOTE, f"{peer} is the pod's own address, from which only the pod itself can call", peer)
        if remote is None:
            return _lost(peer, f"{peer} is the pod's own address; the caller was {claim}")
        why = f"{peer} is the pod's own address, and the caller is known only from X-Forwarded-For"
        return Finding(verdict=Verdict.UNKNOWN, field=REMOTE, why=why, peer=str(peer), leaves_open=True)
    known = own or ({local} if local is not None else set())
    if not any(each.version == peer.version for each in known):
        # A pod has an address of each family: this one may be its own.
        why = f"{peer} may be the pod's own address, and the caller was {claim}"
        field = REMOTE if REMOTE in missing else "downstream_local_address"
        return Finding(verdict=Verdict.UNKNOWN, field=field, why=why, peer=str(peer), leaves_open=True)
    # An address that is neither the pod's nor loopback can only be one that Envoy took over from the caller's
    # connection; downstream_remote_address differs where the request brought an X-Forwarded-For.
    why = f"the application's socket showed the caller, {peer} (X-Forwarded-For claims {remote or 'nothing'})"
    return Finding(verdict=Verdict.PRESERVED, field=UPSTREAM, why=why, peer=str(peer))


def _preserved(peer: str) -> Finding:
    why = f"the application's socket showed the caller, {peer}"
    return Finding(verdict=Verdict.PRESERVED, field=UPSTREAM, why=why, peer=peer)


def _redirected(peer: IPAddress) -> Finding:
    return _lost(peer, f"{peer} is the source address of every connection in REDIRECT mode")


def _lost(peer: IPAddress | None, why: str) -> Finding:
    return Finding(verdict=Verdict.LOST, field=UPSTREAM, why=why, peer=str(peer))


def _no_peer(entry: Entry) -> Finding:
    if UPSTREAM in entry.missing:
        return _missing(UPSTREAM, "it is not known what the application saw", None)
    if entry.response_code_details == VIA_UPSTREAM:
        why = "the application answered, but Envoy did not log the source address of its connection"
        return Finding(verdict=Verdict.UNKNOWN, field=UPSTREAM, why=why, leaves_open=True)
    why = "Envoy did not reach the application for this request"
    return Finding(verdict=Verdict.UNKNOWN, field=UPSTREAM, why=why)


def _missing(field: str, consequence: str, peer: IPAddress | None) -> Finding:
    why = f"the log's format has no {field}: {consequence}"
    told = None if peer is None else str(peer)
    return Finding(verdict=Verdict.UNKNOWN, field=field, why=why, peer=told, leaves_open=True)


def _host(text: str) -> str | None:
    """Return the host of `10.0.0.1:80` or `[fd00::1]:80`; None where it is neither."""
    host, colon, port = text.rpartition(":")
    return host if colon and port.isdecimal() and len(port) <= MAX_PORT and len(host) <= MAX_HOST else None


def ip_address(host: str) -> IPAddress | None:
    """Return the address; an IPv4 address of a socket for both families as IPv4."""
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


_REDIRECTED: Final = {text: _redirected(peer) for peer in INBOUND_SOURCES for text in (str(peer), f"[{peer}]")}
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4: Final = re.compile(rf"(?!127\.){_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}", re.ASCII)
"""An IPv4 address as it is written, and no loopback."""
