"""
Which reviews are traced: those whose caller samples them, as long as they are not too many.

The caller says so in `traceparent` (https://www.w3.org/TR/trace-context-1/#traceparent-header). It is not to be
trusted: an API server without tracing of its own hands on what any of its clients sends, sampled flag and all. So a
token bucket limits what is traced. What is recorded and where it goes is known to `tracing`, which alone imports
OpenTelemetry.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from webhook.rules.decision import Decision
from webhook.rules.snapshot import Request

BURST_SECONDS: Final = 5
"""How many seconds' spans may be begun at once: reviews come in rollouts."""
_HEADER: Final = re.compile(rb"\r\nTraceparent: ([\x21-\x7e]{55,512})\r\n")
_SAMPLED: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf](?![0-9a-f])", re.ASCII)


class Span(Protocol):
    """One review that is traced; neither of these raises."""

    def answered(self, uid: str, asked: Request, decision: Decision, begun: float, ended: float) -> None:
        """Record the review *uid*, from *begun* to *ended* by `time.perf_counter`."""

    def failed(self, status: int, begun: float, ended: float) -> None:
        """Record a review that was answered with an HTTP status and without an AdmissionReview."""


Sample = Callable[[str], Span | None]
"""Return the span of a review with a traceparent (empty where there is none); None where it is not to be traced."""


def traceparent(data: bytes, end: int) -> str:
    """Return the traceparent in the head of *data*, which ends at *end*; empty where there is none."""
    found = _HEADER.search(data, 0, end)
    return "" if found is None else found[1].decode()


def sampled(parent: str) -> bool:
    """Return whether a traceparent says that its caller records this trace."""
    return _SAMPLED.match(parent) is not None


def traces_url(endpoint: str | None, environment: Mapping[str, str]) -> str | None:
    """
    Return the URL that takes spans; None where there is none, or where OTEL_SDK_DISABLED says so.

    A collector's own URL gets the path of OTLP; that of traces alone goes before and is taken as it stands.
    https://github.com/open-telemetry/opentelemetry-specification/blob/v1.57.0/specification/protocol/exporter.md#endpoint-urls-for-otlphttp

    Args:
        endpoint: The collector's own URL.
        environment: The variables that may say more; none where the endpoint was named by hand.

    Raises:
        ValueError: It is no URL, or another protocol is asked for; with a message for whoever starts the server.

    """
    alone = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    url = alone or endpoint
    if not url or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if environment.get(name, "") not in {"", "http/protobuf"}:
            raise ValueError(f"{name}: only http/protobuf is supported, not {environment[name][:40]!r}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or (not alone and (parts.query or parts.fragment)):
        named = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if alone else "--otlp-endpoint"
        raise ValueError(f"{named}: not a URL such as http://collector.observability:4318")
    return url if alone else f"{url.rstrip('/')}/v1/traces"


class Bucket:
    """Lets so many a second through, and as many at once as gather in `BURST_SECONDS`."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._most = per_second * BURST_SECONDS
        self._tokens = self._most
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Return whether one more may pass at *now*, in seconds by a clock that never goes back."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
