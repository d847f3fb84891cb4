"""A real API server that traces every request: its calls of the webhook go on as spans of ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.apiserver.deployed import Deployed, eventually, namespace_of, pod
from tests.parts.kube import ControlPlane
from tests.serve.collector import Collector, attributes

pytestmark = pytest.mark.slow  # an API server of its own; all else of tracing is in tests/serve
TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAMESPACE = "traced"


def tracing_configuration(folder: Path) -> Path:
    """
    Write what makes an API server sample every request; its own spans go nowhere.

    https://kubernetes.io/docs/concepts/cluster-administration/system-traces/#kube-apiserver-traces
    """
    path = folder / "tracing.yaml"
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "TracingConfiguration",
        "endpoint": "127.0.0.1:1",
        "samplingRatePerMillion": 1_000_000,
    }
    path.write_text(yaml.safe_dump(configuration))
    return path


@dataclass
class Traced:
    """An API server that samples everything, a webhook that it calls, and where the webhook's spans go."""

    deployed: Deployed
    collector: Collector

    def spans_of(self, trace: str) -> list[Span]:
        """Return the spans of one trace that have come."""
        return [span for span in self.collector.spans if span.trace_id.hex() == trace]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("tracing")
    flags = [f"--tracing-config-file={tracing_configuration(folder)}"]
    options = ("--traces-per-second", "1000", "--otlp-endpoint")
    with Collector() as collector, ControlPlane("1.37", folder / "kube", flags=flags) as plane:
        deployed = Deployed(plane, folder / "webhook", options=(*options, collector.url))
        namespace_of(deployed.api, NAMESPACE, preserve="enabled", injection="enabled")
        number = iter(range(10_000))

        def called() -> bool:
            deployed.api.create(pod(f"first-{next(number)}"), namespace=NAMESPACE)
            return bool(collector.spans)

        eventually(called, deployed.server.log.read_text)
        yield Traced(deployed, collector)
        deployed.close()
        plane.stop_api_server(crash=True)  # in order it would wait for a collector of its own


def test_every_call_of_an_api_server_that_samples_everything_is_a_span(traced: Traced) -> None:
    api, server = traced.deployed.api, traced.deployed.server

    def all_came() -> bool:
        exported = server.metric('client_ip_trace_spans_total{outcome="exported"}')
        return exported == server.metric("client_ip_review_duration_seconds_count") == len(traced.collector.spans)

    eventually(all_came, server.log.read_text)
    before = len(traced.collector.spans)
    names = [f"each-{number}" for number in range(5)]
    for name in names:
        api.create(pod(name), namespace=NAMESPACE)
    eventually(lambda: len(traced.collector.spans) >= before + len(names) and all_came(), server.log.read_text)
    spans = traced.collector.spans[before:]
    assert len(spans) == len(names)
    # Each request of a client without a trace is one of the API server's own, and its call of us is the parent.
    assert len({span.trace_id for span in spans}) == len(names)
    for span in spans:
        assert span.parent_span_id.strip(b"\0")
        assert span.kind == Span.SPAN_KIND_SERVER
        found = attributes(span.attributes)
        assert (found["k8s.namespace.name"], found["client_ip.kind"]) == (NAMESPACE, "Pod")
        assert found["client_ip.operation"] == "CREATE"
    assert len({attributes(span.attributes)["client_ip.uid"] for span in spans}) == len(names)
    assert not any(name.encode() in traced.collector.raw for name in names)


def test_the_trace_of_who_asks_goes_on_to_the_webhook(traced: Traced) -> None:
    """Of an administrator, whose trace an API server takes up: ours is below its own span, not below the client's."""
    api = traced.deployed.plane.client()
    api._headers["Traceparent"] = f"00-{TRACE}-{CLIENT}-01"
    api.create(pod("asked"), namespace=NAMESPACE)
    eventually(lambda: traced.spans_of(TRACE), traced.deployed.server.log.read_text)
    (span,) = traced.spans_of(TRACE)
    assert span.parent_span_id.hex() != CLIENT
    assert span.parent_span_id.strip(b"\0")


def test_no_call_failed_for_it(traced: Traced) -> None:
    text = traced.deployed.api.text("/metrics")
    assert not [line for line in text.splitlines() if "webhook_fail_open_count{" in line and "client-ip.dev" in line]
