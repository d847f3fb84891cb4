"""
Spans of reviews, sent to a collector by OTLP over HTTP.

The only module that imports OpenTelemetry, and imported only where a collector is named: the packages are those of the
extra `tracing`. One SERVER span a review, with the caller's span as its parent, made when the answer is there already.
A thread of the SDK's sends them; whatever becomes of them, reviews are answered as if nobody traced.
https://github.com/open-telemetry/opentelemetry-specification/blob/v1.57.0/specification/protocol/exporter.md
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

import webhook
from webhook.rules.decision import Decision
from webhook.rules.limits import UID_LIMIT
from webhook.rules.objects import GROUPS
from webhook.rules.snapshot import Request
from webhook.server.counts import OPERATIONS
from webhook.server.sampling import Bucket, sampled

log: Final = logging.getLogger(__name__)

QUEUE: Final = 256
"""Spans that wait to be sent, or are being sent; there are no more, however long the collector is away."""
BATCH: Final = 64
SEND_SECONDS: Final = 1.0
"""How long a span waits for others."""
CLOSE_SECONDS: Final = 3.0
"""How long the last spans may take once the server has stopped."""
NAME_LIMIT: Final = 253
"""Characters of a namespace's or a policy's name, as Kubernetes limits them; callers may send more."""


class Tracing:
    """Makes spans and counts what becomes of them."""

    def __init__(self, endpoint: str, *, per_second: float, namespace: str) -> None:
        """
        Begin to send spans.

        Args:
            endpoint: The full URL, which ends in `/v1/traces` for most collectors.
            per_second: How many spans there may be in a second.
            namespace: The webhook's own, for those who look at the traces of many.

        Raises:
            ValueError: A variable of OpenTelemetry's says what can't be used.
            OSError: A file that such a variable names can't be read.

        """
        _quiet()
        self._counted = _Counted(OTLPSpanExporter(endpoint), where=place(endpoint))
        self._provider = TracerProvider(resource=_resource(namespace), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._counted,
                max_queue_size=QUEUE,
                max_export_batch_size=BATCH,
                schedule_delay_millis=SEND_SECONDS * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("client-ip-webhook", webhook.__version__)
        self._bucket = Bucket(per_second)
        self._started = 0
        self._limited = 0
        self._dropped = 0

    def sample(self, parent: str) -> "_Review | None":
        """Return the span of a review that came with this traceparent, or None; see `sampling.Sample`."""
        if not sampled(parent):
            return None
        if not self._bucket.take(time.monotonic()):
            self._limited += 1
            return None
        return _Review(self, parent)

    def counts(self) -> Mapping[str, int]:
        """Return how many sampled reviews came to what, since the start."""
        counted = self._counted
        return {
            "exported": counted.exported,
            "failed": counted.failed,
            "dropped": self._dropped,
            "limited": self._limited,
        }

    def record(
        self, parent: str, attributes: Mapping[str, AttributeValue], *, error: bool, begun: float, ended: float
    ) -> None:
        """Make a span of what is over; times by `time.perf_counter`."""
        if self._started - self._counted.done >= QUEUE:
            self._dropped += 1
            return
        try:
            ended_ns = time.time_ns() - int((time.perf_counter() - ended) * 1e9)
            # Without tracestate: any client of the API server may have written it.
            context = TraceContextTextMapPropagator().extract({"traceparent": parent})
            span = self._tracer.start_span(
                "review",
                context,
                SpanKind.SERVER,
                attributes=attributes,
                start_time=ended_ns - int((ended - begun) * 1e9),
            )
            if span.is_recording():  # unless OTEL_TRACES_SAMPLER wants fewer
                self._started += 1
            if error:
                span.set_status(StatusCode.ERROR)
            span.end(ended_ns)
        except Exception:
            self._dropped += 1
            log.exception("a span could not be created")

    def close(self) -> None:
        """Send what waits to be sent, and give up on it after `CLOSE_SECONDS`."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)


class _Review:
    """A review that is traced."""

    __slots__ = ("_parent", "_tracing")

    def __init__(self, tracing: Tracing, parent: str) -> None:
        self._tracing = tracing
        self._parent = parent

    def answered(self, uid: str, asked: Request, decision: Decision, begun: float, ended: float) -> None:
        """Record what was decided: nothing of the object but its kind and its namespace."""
        attributes: dict[str, AttributeValue] = {
            "http.response.status_code": 200,
            "k8s.namespace.name": asked.namespace[:NAME_LIMIT],
            "client_ip.uid": uid[:UID_LIMIT],
            "client_ip.kind": asked.kind if asked.kind in GROUPS else "other",
            "client_ip.operation": asked.operation if asked.operation in OPERATIONS else "other",
            "client_ip.dry_run": asked.dry_run,
            "client_ip.reason": decision.reason.value,
            "client_ip.outcome": decision.outcome.value,
            "client_ip.mode": decision.mode.value,
            "client_ip.patched": bool(decision.patch),
            "client_ip.policy": decision.policy[:NAME_LIMIT],
        }
        self._tracing.record(self._parent, attributes, error=False, begun=begun, ended=ended)

    def failed(self, status: int, begun: float, ended: float) -> None:
        """Record that there was no decision."""
        attributes: dict[str, AttributeValue] = {"http.response.status_code": status, "error.type": str(status)}
        self._tracing.record(self._parent, attributes, error=True, begun=begun, ended=ended)


class _Counted(SpanExporter):
    """Counts what is sent, and says when that begins to fail and when it works again: not for each span."""

    def __init__(self, exporter: SpanExporter, *, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._failing = False
        self.exported = 0
        self.failed = 0

    @property
    def done(self) -> int:
        """How many spans wait no more."""
        return self.exported + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*, in the SDK's own thread."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  # a collector's answer, whatever it is
            log.debug("traces: %s", error)
            result = SpanExportResult.FAILURE
        failing = result is not SpanExportResult.SUCCESS
        if failing:
            self.failed += len(spans)
        else:
            self.exported += len(spans)
        if failing != self._failing:
            self._failing = failing
            if failing:
                log.warning("traces cannot be sent to %s; reviews are not affected", self._where)
            else:
                log.info("traces are sent to %s again", self._where)
        return result

    def shutdown(self) -> None:
        """End."""
        self._exporter.shutdown()


def place(endpoint: str) -> str:
    """Return where an endpoint is, for a log: without what may be secret in a URL."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _resource(namespace: str) -> Resource:
    """Return who we are; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before."""
    ours = {
        "service.name": "client-ip-webhook",
        "service.version": webhook.__version__,
        "service.namespace": namespace,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _quiet() -> None:
    """Let the SDK log nothing of its own for a collector that is away: it would for each batch, and each retry."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
