"""Whatever is sent, the server answers, never denies, and serves the next request."""

import gzip
import json
import socket
import ssl
import time
from typing import Any

import pytest

from tests.serve.server import POD, Server, review

GOOD = json.dumps(review(POD)).encode()


def _with(**request: Any) -> bytes:
    changed = review(POD)
    changed["request"].update(request)
    return json.dumps(changed).encode()


def _without(*path: str) -> bytes:
    changed = review(POD)
    target: Any = changed
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
    return json.dumps(changed).encode()


BAD = {
    "nothing": b"",
    "not JSON": b"hello",
    "truncated": GOOD[: len(GOOD) // 2],
    "a JSON list": b"[]",
    "JSON null": b"null",
    "another kind": GOOD.replace(b'"AdmissionReview"', b'"ConversionReview"'),
    "another version": GOOD.replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1"),
    "no request": _without("request"),
    "no uid": _without("request", "uid"),
    "an empty uid": _with(uid=""),
    "a uid that is a number": _with(uid=7),
    "deep nesting": b"[" * 100_000,
    "deep nesting in the object": GOOD.replace(b'"spec"', b'"x": ' + b"[" * 3_000_000 + b"]" * 3_000_000 + b', "spec"'),
    "invalid UTF-8": GOOD.replace(b"httpbin", b"http\xffbin"),
    "annotations of the wrong type": _with(object={**POD, "metadata": {"annotations": {"a": 1}}}),
    "annotations as a list": _with(object={**POD, "metadata": {"annotations": []}}),
    "labels as text": _with(object={**POD, "metadata": {"labels": "a"}}),
    "a spec that is a list": _with(object={**POD, "spec": []}),
    "a huge number": GOOD.replace(b'"containers"', b'"hostNetwork": 1' + b"0" * 5000 + b', "containers"'),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_bad_bodies_are_400_without_an_admission_review(server: Server, body: bytes) -> None:
    answer = server.ask(body)
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert len(answer.body) > 3
    assert server.ask(GOOD).response["allowed"] is True


def test_what_cannot_be_read_is_said(server: Server) -> None:
    assert b"request.object.metadata.annotations" in server.ask(BAD["annotations of the wrong type"]).body
    assert server.ask(BAD["deep nesting in the object"]).body == b"nested too deeply\n"
    assert server.ask(BAD["invalid UTF-8"]).body == b"not UTF-8\n"


NOT_OURS = {
    "object null": _with(object=None),
    "another kind of object": _with(
        object={"apiVersion": "v1", "kind": "ConfigMap"},
        kind={"group": "", "version": "v1", "kind": "ConfigMap"},
    ),
    "DELETE": _with(operation="DELETE", object=None, oldObject=POD),
    "an UPDATE of a pod": _with(operation="UPDATE"),
    "the ephemeralcontainers subresource": _with(operation="UPDATE", subResource="ephemeralcontainers"),
    "a pod binding": _with(
        object={"apiVersion": "v1", "kind": "Binding", "target": {}},
        kind={"group": "", "version": "v1", "kind": "Binding"},
        subResource="binding",
    ),
    "a later version": _with(kind={"group": "", "version": "v2", "kind": "Pod"}),
}


@pytest.mark.parametrize("body", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_what_is_not_ours_is_allowed_unpatched(server: Server, body: bytes) -> None:
    response = server.ask(body).response
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["auditAnnotations"]["reason"] == "not-handled"


def test_unknown_fields_and_duplicate_keys_pass(server: Server) -> None:
    body = GOOD.replace(b'"dryRun"', b'"fromTheFuture": {"a": [1]}, "dryRun": true, "dryRun"')
    assert server.ask(body).response["allowed"] is True


def test_another_content_type_is_415(server: Server) -> None:
    assert server.ask(GOOD, headers={"Content-Type": "application/yaml"}).status == 415
    assert server.ask(GOOD, headers={"Content-Type": "application/json; charset=utf-8"}).status == 200


def test_a_compressed_body_is_415(server: Server) -> None:
    assert server.ask(gzip.compress(GOOD), headers={"Content-Encoding": "gzip"}).status == 415


def test_seven_mebibytes_are_read_and_eight_are_413(server: Server) -> None:
    padding = "x" * (6 << 20)
    large = {**POD, "status": {"message": padding}}
    response = server.ask(review(large)).response
    assert response["patch"][0]["path"] == "/metadata/annotations"
    answer = server.ask(GOOD + b" " * (8 << 20))
    assert answer.status == 413
    assert server.ask(GOOD).status == 200


def test_other_paths_and_methods_are_refused(server: Server) -> None:
    assert server.ask(GOOD, path="/validate").status == 404
    connection = server.connect()
    connection.request("GET", "/mutate")
    assert connection.getresponse().status == 405
    connection.close()


def test_a_body_that_does_not_arrive_ends_at_the_timeout_and_stalls_nobody(server: Server) -> None:
    with (
        socket.create_connection(server.address) as plain,
        server.context().wrap_socket(plain, server_hostname=server.address[0]) as slow,
    ):
        head = f"POST /mutate?timeout=1s HTTP/1.1\r\nHost: a\r\nContent-Length: {len(GOOD)}"
        slow.sendall(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + GOOD[:10])
        started = time.monotonic()
        assert server.ask(GOOD).status == 200
        slow.settimeout(10)
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert 0.5 < time.monotonic() - started < 5


def test_plain_http_and_garbage_on_the_tls_port_stall_nobody(server: Server) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 1000):
        with socket.create_connection(server.address) as plain:
            plain.sendall(garbage)
            assert server.ask(GOOD).status == 200


def test_tls_1_2_is_spoken(server: Server) -> None:
    context = server.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(server.address) as plain,
        context.wrap_socket(plain, server_hostname=server.address[0]) as tls,
    ):
        assert tls.version() == "TLSv1.2"
        assert tls.selected_alpn_protocol() is None
