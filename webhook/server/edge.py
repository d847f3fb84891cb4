"""
HTTP: routes, limits, and the one table from what went wrong to a status.

Whatever is not answered with an AdmissionReview lets the API server's failurePolicy decide.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import Final

from aiohttp import web

from certs.rotator import Rotator
from certs.serving import ServingCertificate
from webhook.facts.source import FactSource
from webhook.rules.again import decide_again
from webhook.server.connection import Connection
from webhook.server.handed import HandedServer
from webhook.server.heads import timeout_seconds
from webhook.server.metrics import Metrics
from webhook.server.peers import Ended, Peers
from webhook.server.review import BadReview, decode, encode
from webhook.server.sampling import Sample, Span
from webhook.server.tls import utc_now
from webhook.server.turns import Turns

log: Final = logging.getLogger(__name__)

BODY_LIMIT: Final = 7 << 20
"""Two objects of 3 MB and 1 MB around them: controller-runtime's arithmetic for what etcd can hold."""
KEEPALIVE_SECONDS: Final = 3600.0
"""Longer than any client's, so that it is never the server that closes an idle connection under a request."""
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
BODY_TOO_LATE: Final = "the body did not arrive before the timeout"
TOO_LARGE: Final = f"the body is larger than {BODY_LIMIT} bytes"
FULL: Final = "too many request bodies are in progress: try again"
PROBE_BODY_LIMIT: Final = 1 << 10


@dataclass(slots=True)
class State:
    """What the handlers share."""

    source: FactSource
    certificate: ServingCertificate
    metrics: Metrics
    rotator: Rotator | None = None
    """Who keeps the certificate, where it is kept in a Secret."""
    marks: bool = False
    """Whether objects that are not patched on purpose are marked."""
    draining: bool = False
    client_names: frozenset[str] = frozenset()
    """Accepted names in a caller's certificate; empty if its CA is sufficient, or if no certificate is required."""
    sample: Sample | None = None
    """Chooses the reviews that are traced; None where none is."""
    turns: Turns = field(default_factory=Turns)
    now: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        """Let the gauge say what /readyz says."""
        self.metrics.ready.set_function(lambda: float(not self.not_ready()))

    def not_ready(self) -> list[str]:
        """Return why the server is not ready; empty where it is."""
        reasons = [f"not synced: {kind}" for kind in self.source.missing()]
        if self.rotator is not None and not self.rotator.healthy():
            status = self.rotator.status
            reasons.append(f"the certificate is not yet served and trusted: {status.error or status.reason}")
        elif self.rotator is None and not self.certificate.healthy(self.now()):
            reasons.append("the serving certificate is not valid now")
        return ["shutting down", *reasons] if self.draining else reasons


def webhook_server(state: State, peers: Peers) -> HandedServer:
    """
    Return what answers the API server; the requests that it usually sends are taken before this by `wire`.

    aiohttp's low-level server: for one path a router, its match_info and its signals would only be work.
    """

    async def answer(request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        if request.path != "/mutate":
            return _refuse(state, 404, "reviews are answered at /mutate")
        if request.method != "POST":
            return _refuse(state, 405, "send POST")
        refused = _unreadable(state, request)
        if refused is not None:
            return refused
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await _mutate(state, request, connection)

    return HandedServer(answer, peers, name="reviews", body_limit=BODY_LIMIT, keepalive_timeout=KEEPALIVE_SECONDS)


def _unreadable(state: State, request: web.BaseRequest) -> web.Response | None:
    """Return the refusal of a body that its head says is none of ours, before any of it is read."""
    if request.content_type != JSON:
        return _refuse(state, 415, f"send {JSON}, not {request.content_type[:80]}")
    if any(encoding != "identity" for encoding in request.headers.getall("Content-Encoding", ())):
        return _refuse(state, 415, "send the body without a Content-Encoding")
    if (request.content_length or 0) > BODY_LIMIT:
        return _refuse(state, 413, TOO_LARGE)
    return None


async def _mutate(state: State, request: web.BaseRequest, connection: Connection) -> web.Response:
    peers = connection.peers
    # What comes in chunks may become as large as any.
    length = BODY_LIMIT if request.content_length is None else request.content_length
    if not peers.take_body(connection, length):
        return _refuse(state, 503, FULL)
    try:
        async with asyncio.timeout(timeout_seconds(request.query.get("timeout", ""))):
            body = await request.read()
        span = None if state.sample is None else state.sample(request.headers.get("Traceparent", ""))
        status, text, _ = await state.turns.in_turn(connection, lambda: reply(state, body, perf_counter(), span))
    except TimeoutError:
        peers.count(Ended.BODY_LATE)
        return _refuse(state, 408, BODY_TOO_LATE)
    except web.HTTPRequestEntityTooLarge:
        return _refuse(state, 413, TOO_LARGE)
    finally:
        peers.give(connection, length)
    response = web.Response(status=status, body=text, headers={"Content-Type": JSON if status == 200 else TEXT})
    if state.draining:
        # The API server keeps connections to pods that are gone: let it go elsewhere now.
        response.force_close()
    return response


def reply(state: State, message: bytes, begun: float, span: Span | None, start: int = 0) -> tuple[int, bytes, float]:
    """
    Return the HTTP status and the body that answer the review in *message*, and when; a bug is logged, and a 500.

    Args:
        state: What the handlers share.
        message: The review, or a request that ends with it.
        begun: When it was there, by `time.perf_counter`.
        span: What records it, where it is traced.
        start: Where in *message* the review begins.

    """
    try:
        uid, asked = decode(message, start)
        decision = decide_again(asked, state.source.snapshot, now=state.now())
        answer = encode(uid, decision, marks=state.marks)
        ended = perf_counter()
        state.metrics.reviewed(asked, decision, ended - begun)
    except BadReview as error:
        return _failed(state, 400, str(error), begun, span)
    except Exception:
        log.exception("a review could not be answered; the object is admitted unpatched")
        return _failed(state, 500, "internal error; see the server's log", begun, span)
    if span is not None:
        span.answered(uid, asked, decision, begun, ended)
    return 200, answer, ended


def _failed(state: State, status: int, message: str, begun: float, span: Span | None) -> tuple[int, bytes, float]:
    ended = perf_counter()
    if span is not None:
        span.failed(status, begun, ended)
    return status, refusal(state, status, message), ended


def refusal(state: State, status: int, message: str) -> bytes:
    """Return the text of an answer without an AdmissionReview, and count it."""
    state.metrics.refused(status)
    return (message[:500] + "\n").encode()


def _refuse(state: State, status: int, message: str) -> web.Response:
    response = web.Response(status=status, body=refusal(state, status, message), headers={"Content-Type": TEXT})
    if status in {408, 413, 503}:
        response.force_close()  # the rest of the body is of no use
    return response


def probe_server(state: State, peers: Peers) -> HandedServer:
    """Return what answers the kubelet and Prometheus."""

    async def answer(request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            return _text(405, "send GET\n")
        match request.path:
            case "/healthz":
                return _text(200, "ok\n")
            case "/readyz":
                return _ready(state)
            case "/metrics":
                body = await state.turns.in_turn(connection, state.metrics.render)
                return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
            case _:
                return _text(404, "available paths: /healthz, /readyz and /metrics\n")

    return HandedServer(answer, peers, name="probes", body_limit=PROBE_BODY_LIMIT, keepalive_timeout=KEEPALIVE_SECONDS)


def _ready(state: State) -> web.Response:
    reasons = state.not_ready()
    if reasons:
        return _text(503, "\n".join(reasons) + "\n")
    pair = state.certificate.pair
    until = f"certificate {pair.fingerprint[:16]} until {pair.not_after.isoformat()}\n" if pair is not None else ""
    return _text(200, f"ok\n{until}")


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
