"""Which reviews are traced."""

import re

import pytest
from hypothesis import given, strategies as st

from webhook.server.sampling import BURST_SECONDS, Bucket, sampled, traceparent, traces_url

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("parent", "want"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"01-{TRACE}-{PARENT}-01-of-a-later-version", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-02", False),
        (f"00-{TRACE}-{PARENT}-1", False),
        (f"00-{TRACE}-{PARENT}-011", False),
        (f"00-{TRACE}-{PARENT}", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT[1:]}-01", False),
        ("01", False),
        ("", False),
    ],
)
def test_the_callers_flag_counts(parent: str, want: bool) -> None:  # noqa: FBT001
    assert sampled(parent) is want


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    assert sampled(text) in {True, False}


@pytest.mark.parametrize(
    ("head", "want"),
    [
        (f"POST / HTTP/1.1\r\nHost: a\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n", f"00-{TRACE}-{PARENT}-01"),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("POST / HTTP/1.1\r\nHost: a\r\nTraceparent: \r\n\r\n", ""),
        (f"POST / HTTP/1.1\r\nHost: a\r\nTraceparent: {'a' * 513}\r\n\r\n", ""),
    ],
)
def test_the_head_is_read_and_not_the_body(head: str, want: str) -> None:
    body = f"\r\nTraceparent: 00-{PARENT * 2}-{PARENT}-01\r\n"
    assert traceparent((head + body).encode(), len(head)) == want


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(10)
    assert sum(bucket.take(100.0) for _ in range(200)) == 10 * BURST_SECONDS
    assert sum(bucket.take(101.0) for _ in range(200)) == 10
    assert sum(bucket.take(10_000.0) for _ in range(200)) == 10 * BURST_SECONDS


@given(st.lists(st.floats(0, 3, allow_nan=False), max_size=200), st.integers(1, 1000))
def test_a_bucket_never_lets_more_through_than_it_says(pauses: list[float], per_second: int) -> None:
    bucket, now, taken = Bucket(per_second), 1.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
    assert taken <= per_second * (BURST_SECONDS + sum(pauses)) + 1e-6


ALONE, DISABLED = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"


@pytest.mark.parametrize(
    ("endpoint", "environment", "want"),
    [
        (None, {}, None),
        ("", {}, None),
        ("http://a:4318", {}, "http://a:4318/v1/traces"),
        ("https://a/", {}, "https://a/v1/traces"),
        ("http://[::1]:4318/base/", {}, "http://[::1]:4318/base/v1/traces"),
        ("http://user:word@a", {}, "http://user:word@a/v1/traces"),
        ("http://a", {ALONE: "http://b/of/traces?x=1"}, "http://b/of/traces?x=1"),
        (None, {ALONE: "http://b"}, "http://b"),
        ("http://a", {DISABLED: "true"}, None),
        ("http://a", {DISABLED: " TRUE "}, None),
        ("http://a", {DISABLED: "false"}, "http://a/v1/traces"),
        ("http://a", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http://a/v1/traces"),
    ],
)
def test_where_spans_go(endpoint: str | None, environment: dict[str, str], want: str | None) -> None:
    assert traces_url(endpoint, environment) == want


@pytest.mark.parametrize(
    ("endpoint", "environment", "said"),
    [
        ("collector:4318", {}, "--otlp-endpoint: not a URL such as http://collector.observability:4318"),
        ("grpc://collector:4317", {}, "--otlp-endpoint: not a URL"),
        ("http://", {}, "--otlp-endpoint: not a URL"),
        ("http://a:notaport", {}, "--otlp-endpoint: not a URL"),
        ("http://a:99999", {}, "--otlp-endpoint: not a URL"),
        ("http://[a", {}, "--otlp-endpoint: not a URL"),
        ("http://a?token=1", {}, "--otlp-endpoint: not a URL"),
        ("http://a#b", {}, "--otlp-endpoint: not a URL"),
        (None, {ALONE: "ftp://a"}, f"{ALONE}: not a URL"),
        (
            "http://a",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is supported, not 'grpc'",
        ),
        ("http://a", {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: only"),
    ],
)
def test_what_is_no_collector(endpoint: str | None, environment: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        traces_url(endpoint, environment)
