"""Traces: what a collector gets, what it never gets, and that reviews don't depend on it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.apiserver import deployed
from tests.serve.collector import PATH, Collector, attributes
from tests.serve.conftest import CLUSTER
from tests.serve.server import POD, Server, review
from webhook import __version__

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"Traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"Traceparent": f"00-{TRACE}-{PARENT}-00"}
MOST = ("--traces-per-second", "1000")
SECRET = "s3cr3t-of-a-tenant"

eventually = partial(deployed.eventually, seconds=60)  # OpenTelemetry waits longer after each failure


def spans(server: Server, outcome: str) -> float:
    return server.metric(f'client_ip_trace_spans_total{{outcome="{outcome}"}}')


def clean(**more: str) -> dict[str, str]:
    return {**{key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}, **more}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Server]:
    options = ("--state", str(CLUSTER), "--drain-seconds", "0", "--otlp-endpoint", collector.url, *MOST)
    with Server(tmp_path_factory.mktemp("traced"), *options, environment=clean()) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()


def arrived(server: Server, collector: Collector, ask: Callable[[], None]) -> Span:
    """Return the one span that *ask* made."""
    before = len(collector.spans)
    ask()
    eventually(lambda: len(collector.spans) > before, server.log.read_text)
    eventually(lambda: spans(server, "exported") == len(collector.spans), server.log.read_text)
    (span,) = collector.spans[before:]
    return span


def test_a_sampled_review_is_one_server_span_below_its_caller(traced: Server, collector: Collector) -> None:
    before = time.time_ns()
    span = arrived(traced, collector, lambda: ask(traced, review(POD), SAMPLED))
    assert span.name == "review"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert before < span.start_time_unix_nano < span.end_time_unix_nano < time.time_ns()
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(span.attributes) == {
        "http.response.status_code": 200,
        "k8s.namespace.name": "shop",
        "client_ip.uid": review(POD)["request"]["uid"],
        "client_ip.kind": "Pod",
        "client_ip.operation": "CREATE",
        "client_ip.dry_run": False,
        "client_ip.reason": "tproxy",
        "client_ip.outcome": "preserved",
        "client_ip.mode": "enforce",
        "client_ip.patched": True,
        "client_ip.policy": "default",
    }
    assert not span.events
    assert collector.paths == {PATH}
    names = {key: collector.resources[-1][key] for key in ("service.name", "service.version", "service.namespace")}
    assert names == {
        "service.name": "client-ip-webhook",
        "service.version": __version__,
        "service.namespace": "client-ip-system",
    }


def ask(server: Server, body: Any, headers: dict[str, str], status: int = 200) -> None:
    assert server.ask(body, headers=headers).status == status


def test_a_review_in_an_unusual_form_is_traced_too(traced: Server, collector: Collector) -> None:
    """One more header, and aiohttp answers it."""
    span = arrived(traced, collector, lambda: ask(traced, review(POD), {"traceparent": SAMPLED["Traceparent"]}))
    assert span.parent_span_id.hex() == PARENT
    assert attributes(span.attributes)["client_ip.reason"] == "tproxy"


def test_a_body_that_is_refused_is_an_error(traced: Server, collector: Collector) -> None:
    span = arrived(traced, collector, lambda: ask(traced, b'{"kind": 1}', SAMPLED, 400))
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span.attributes) == {"http.response.status_code": 400, "error.type": "400"}


def test_what_is_not_sampled_makes_no_span(traced: Server, collector: Collector) -> None:
    for headers in ({}, UNSAMPLED, {"Traceparent": "nonsense"}, {"Tracestate": "a=1"}):
        ask(traced, review(POD), headers)
    last = arrived(traced, collector, lambda: ask(traced, review(POD, operation="UPDATE"), SAMPLED))
    assert attributes(last.attributes)["client_ip.operation"] == "UPDATE"


def test_a_trace_that_no_caller_may_have_is_a_trace_of_its_own(traced: Server, collector: Collector) -> None:
    """W3C: a traceparent of zeros is none; the span is made without a parent."""
    nobody = {"Traceparent": f"00-{'0' * 32}-{PARENT}-01"}
    span = arrived(traced, collector, lambda: ask(traced, review(POD), nobody))
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != "0" * 32


def test_what_tenants_write_is_not_in_a_trace(traced: Server, collector: Collector) -> None:
    secret = {
        **POD,
        "metadata": {
            "name": f"name-{SECRET}",
            "namespace": "shop",
            "labels": {"token": SECRET},
            "annotations": {"note": SECRET, "sidecar.istio.io/interceptionMode": SECRET},
        },
        "spec": {
            "nodeSelector": {"pool": SECRET},
            "containers": [{"name": SECRET, "image": SECRET, "env": [{"name": "PASSWORD", "value": SECRET}]}],
        },
    }
    more = {"Tracestate": f"vendor={SECRET}", "Authorization": f"Bearer {SECRET}", "User-Agent": SECRET}
    arrived(traced, collector, lambda: ask(traced, review(secret, name=SECRET), {**SAMPLED, **more}))
    arrived(traced, collector, lambda: ask(traced, f'{{"{SECRET}": '.encode(), {**SAMPLED, **more}, 400))
    assert SECRET.encode() not in collector.raw


def test_what_callers_make_up_is_bounded(traced: Server, collector: Collector) -> None:
    made_up: Any = {"kind": ("made.up", "v1", "K" * 5000), "namespace": "n" * 5000, "operation": "O" * 5000}
    span = arrived(traced, collector, lambda: ask(traced, review({}, **made_up), SAMPLED))
    found = attributes(span.attributes)
    assert (found["client_ip.kind"], found["client_ip.operation"]) == ("other", "other")
    assert len(found["k8s.namespace.name"]) == 253
    assert len(span.SerializeToString()) < 2000


@pytest.mark.slow
def test_callers_that_sample_everything_are_limited(tmp_path: Path, collector: Collector, cluster: str) -> None:
    options = ("--state", cluster, "--drain-seconds", "0", "--otlp-endpoint", collector.url, "--traces-per-second", "1")
    with Server(tmp_path, *options, environment=clean()) as server:
        connection = server.connect()
        for _ in range(60):
            assert server.ask(review(POD), headers=SAMPLED, connection=connection).status == 200
        connection.close()
        limited = spans(server, "limited")
        assert 0 < limited <= 55
        eventually(lambda: spans(server, "exported") == 60 - limited, server.log.read_text)
        assert server.stop() == 0


@pytest.mark.slow
def test_a_collector_that_is_away_costs_no_review_and_two_lines(tmp_path: Path, cluster: str) -> None:
    with Collector() as before:
        port = before.port
    environment = clean(OTEL_EXPORTER_OTLP_TIMEOUT="1", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    options = ("--state", cluster, "--drain-seconds", "0", *MOST)
    with Server(tmp_path, *options, environment=environment) as server:
        connection = server.connect()

        def ask_some() -> None:
            for _ in range(400):
                assert server.ask(review(POD), headers=SAMPLED, connection=connection).status == 200

        ask_some()
        eventually(lambda: spans(server, "failed") > 0, server.log.read_text)
        ask_some()
        assert spans(server, "exported") == 0
        with Collector(port) as collector:
            ask_some()
            eventually(lambda: spans(server, "exported") > 0, server.log.read_text)
            eventually(lambda: "are sent" in server.log.read_text(), server.log.read_text)
            # What would wait until the collector is gone again could not be sent either.
            outcomes = ("exported", "failed", "dropped", "limited")
            eventually(lambda: sum(spans(server, each) for each in outcomes) == 3 * 400, server.log.read_text)
            assert collector.spans
        connection.close()
        assert server.stop() == 0
        log = server.log.read_text()
    assert log.count("traces cannot be sent to") == 1
    assert log.count("are sent to") == 1
    assert len(log.splitlines()) < 15, log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_collector_that_never_answers_holds_nothing_up(tmp_path: Path, cluster: str) -> None:
    with Collector() as collector:
        collector.held.clear()
        options = ("--state", cluster, "--drain-seconds", "0", "--otlp-endpoint", collector.url, *MOST)
        with Server(tmp_path, *options, environment=clean(OTEL_EXPORTER_OTLP_TIMEOUT="600")) as server:
            connection = server.connect()
            for _ in range(600):
                assert server.ask(review(POD), headers=SAMPLED, connection=connection).status == 200
            connection.close()
            assert spans(server, "dropped") == 600 - 256
            assert server.stop() == 0, server.log.read_text()


def test_without_a_collector_nothing_of_opentelemetry_is_imported(tmp_path: Path, cluster: str) -> None:
    """As Python itself lists its imports."""
    options = ("--state", cluster, "--drain-seconds", "0")
    listed = clean(PYTHONPROFILEIMPORTTIME="1")
    with Server(tmp_path / "off", *options, environment=listed) as server:
        ask(server, review(POD), SAMPLED)
        assert "client_ip_trace_spans" not in server.probe("/metrics").body.decode()
        assert server.stop() == 0
        off = server.log.read_text().replace(" ", "")
    with Server(tmp_path / "on", *options, "--otlp-endpoint", "http://127.0.0.1:1", environment=listed) as server:
        assert server.stop() == 0
        on = server.log.read_text().replace(" ", "")
    assert "|webhook.server.sampling\n" in off
    assert "|opentelemetry" not in off
    assert "|webhook.server.tracing\n" not in off
    assert "|opentelemetry" in on


def test_what_can_not_be_used_is_said_at_the_start() -> None:
    command = [sys.executable, "-m", "webhook.cli", "serve", "--state", str(CLUSTER), "--tls-self-signed"]
    environment = clean(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "not a URL such as http://collector.observability:4318" in " ".join(done.stderr.split())


def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    """A folder that hides the packages, as where they are not installed."""
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(\"No module named 'opentelemetry'\")\n")
    command = [sys.executable, "-m", "webhook.cli", "serve", "--state", str(CLUSTER), "--tls-self-signed"]
    environment = clean(PYTHONPATH=str(tmp_path))
    done = subprocess.run(
        [*command, "--otlp-endpoint", "http://a:4318"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert "traces need the extra client-ip-webhook[tracing]" in " ".join(done.stderr.split())


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "CLIENT_IP_OTLP_ENDPOINT"])
def test_the_collector_may_be_named_in_the_environment_and_gets_the_last_spans(
    tmp_path: Path, cluster: str, variable: str
) -> None:
    with Collector() as collector:
        path = "/of/traces" if "TRACES" in variable else "/base"
        environment = clean(**{variable: f"{collector.url}{path}"})
        with Server(tmp_path, "--state", cluster, "--drain-seconds", "0", environment=environment) as server:
            ask(server, review(POD), SAMPLED)
            assert server.stop() == 0
        assert len(collector.spans) == 1
        assert collector.paths == {path if "TRACES" in variable else f"{path}{PATH}"}
