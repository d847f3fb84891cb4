"""`client-ip verify` over the lab's logs: verdicts, exit codes, and what it says where nothing is proved."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from webhook.cli.verify import command

LOGS = Path(__file__).parent / "accesslogs"


def verify(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(
        command, [str(each) for each in arguments], input=io.BytesIO(stdin), standalone_mode=False
    )


@pytest.mark.parametrize("log", ["tproxy.json.log", "tproxy.text.log"])
def test_all_preserved_ends_with_zero(log: str) -> None:
    assert verify(LOGS / log).return_value == 0


@pytest.mark.parametrize("log", ["redirect.json.log", "redirect.text.log"])
def test_a_lost_one_ends_with_one(log: str) -> None:
    result = verify(LOGS / "tproxy.json.log", LOGS / log)
    assert result.return_value == 1
    assert result.stdout.splitlines()[-1].startswith("8 preserved, ")


def test_standard_input_is_read_like_a_file() -> None:
    data = (LOGS / "tproxy.json.log").read_bytes()
    assert verify("-", stdin=data).stdout == verify(LOGS / "tproxy.json.log").stdout


def test_bytes_that_are_no_text_end_nothing() -> None:
    data = b"\xff\xfe\n" + (LOGS / "tproxy.json.log").read_bytes()
    assert verify("-", stdin=data).return_value == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "nothing proved: no access log among 0 lines"),
        (b"2026-11-23T14:43:02Z\tinfo\tready\n", "nothing proved: no access log among 1 lines"),
        ((LOGS / "gateway.text.log").read_bytes(), "nothing proved: none of the 3 requests in the log is inbound"),
    ],
    ids=["empty", "only the agent's own lines", "a gateway"],
)
def test_nothing_proved_is_said_and_ends_with_one(data: bytes, said: str) -> None:
    result = verify("-", stdin=data)
    assert result.return_value == 1
    assert result.stderr.startswith(said)


def test_only_unknown_requests_prove_nothing() -> None:
    last = (LOGS / "tproxy.text.log").read_bytes().splitlines()[-1]
    result = verify("-", stdin=last)
    assert (result.return_value, result.stdout.splitlines()[-1]) == (1, "0 preserved, 0 lost, 1 unknown")


def test_the_pod_tells_its_injected_mode() -> None:
    result = verify("--pod", LOGS / "tproxy.pod.yaml", LOGS / "tproxy.json.log")
    assert result.return_value == 0
    assert result.stdout.splitlines()[0] == (
        "demo/app-tproxy: injected mode TPROXY (container istio-proxy runs with ISTIO_META_INTERCEPTION_MODE=TPROXY)"
    )


def test_an_annotation_that_lies_is_told_and_ends_with_one() -> None:
    pod = (LOGS / "redirect.pod.yaml").read_text()
    lying = pod.replace("annotations:\n", "annotations:\n    sidecar.istio.io/interceptionMode: TPROXY\n")
    result = verify("--pod", "-", LOGS / "tproxy.json.log", stdin=lying.encode())
    assert result.return_value == 1
    assert result.stdout.splitlines()[1] == (
        "! annotation sidecar.istio.io/interceptionMode=TPROXY came after the injection: it lies"
    )


def test_a_pod_without_a_sidecar_is_told() -> None:
    pod = (
        b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": []}}'
    )
    result = verify("--pod", "-", LOGS / "tproxy.json.log", stdin=pod)
    assert result.stdout.splitlines()[0] == "b/a: injected mode not said (no istio-proxy was injected)"


def test_json_names_field_and_reason_of_each_request() -> None:
    result = verify("-o", "json", "--pod", LOGS / "redirect.pod.yaml", LOGS / "redirect.json.log")
    told = json.loads(result.stdout)
    assert told["counts"] == {"preserved": 0, "lost": 8, "unknown": 0}
    assert told["pods"][0]["mode"] == "REDIRECT"
    assert told["requests"][3] == {
        "file": str(LOGS / "redirect.json.log"),
        "line": 6,
        "verdict": "lost",
        "field": "upstream_local_address",
        "why": "127.0.0.6 is where REDIRECT dials every application from",
        "peer": "127.0.0.6",
        "method": "GET",
        "path": "/",
        "upstreamLocalAddress": "127.0.0.6:57760",
        "downstreamRemoteAddress": "198.51.100.7:0",
        "xForwardedFor": "198.51.100.7",
    }


def test_what_a_caller_wrote_reaches_no_terminal_as_it_is() -> None:
    line = (LOGS / "tproxy.text.log").read_text().splitlines()[2].replace("/ip", "/\x1b[31m" + "a" * 60)
    row = verify("-", stdin=line.encode()).stdout.splitlines()[1]
    assert "GET /?[31m" in row
    assert "…" in row


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("no/such.log",), b"", "no/such.log: No such file or directory"),
        (("--pod", "no/such.yaml", "-"), b"", "--pod no/such.yaml: No such file or directory"),
        (("--pod", "-", "-"), b"", "standard input can be read once"),
        (("--pod", "-", str(LOGS / "tproxy.json.log")), b"kind: [", "--pod:\n"),
        (
            ("--pod", "-", str(LOGS / "tproxy.json.log")),
            b"{apiVersion: v1, kind: Service, metadata: {name: a}}",
            "--pod -: there is no Pod in it",
        ),
        (
            ("--pod", "-", str(LOGS / "tproxy.json.log")),
            b"{apiVersion: v1, kind: Pod, metadata: {labels: [1]}}",
            "--pod -: ",
        ),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], stdin: bytes, said: str) -> None:
    error = verify(*arguments, stdin=stdin).exception
    assert error is not None
    assert str(getattr(error, "message", error)).startswith(said)
