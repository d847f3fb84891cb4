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
        (b"", "nothing proved: no access log in 0 lines"),
        (b"2026-11-23T14:43:02Z\tinfo\tready\n", "nothing proved: no access log in 1 lines"),
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
        "! annotation sidecar.istio.io/interceptionMode=TPROXY was added after injection, and does not match the proxy"
    )


def test_a_pod_without_a_sidecar_is_told() -> None:
    pod = (
        b'{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": []}}'
    )
    result = verify("--pod", "-", LOGS / "tproxy.json.log", stdin=pod)
    assert result.stdout.splitlines()[0] == "b/a: injected mode unknown (no istio-proxy was injected)"


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
        "why": "127.0.0.6 is the source address of every connection in REDIRECT mode",
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


PRESERVED = (LOGS / "tproxy.text.log").read_bytes().splitlines()[2] + b"\n"
LOST = (LOGS / "redirect.text.log").read_bytes().splitlines()[2] + b"\n"


@pytest.mark.parametrize(
    ("data", "code", "last"),
    [
        pytest.param(PRESERVED, 0, "1 preserved, 0 lost, 0 unknown", id="proved"),
        pytest.param(
            PRESERVED + b'[2026-01-02T03:04:05.678Z] "GET /a HTTP/1.1" 200 cut\n',
            1,
            "1 preserved, 0 lost, 0 unknown, 1 not read",
            id="a line was not read",
        ),
        pytest.param(
            PRESERVED + b'{"method": "GET", "response_code": 200, "upstream_cluster": "inbound|80||"}\n',
            1,
            "1 preserved, 0 lost, 1 unknown",
            id="a format leaves out what decides",
        ),
        pytest.param(
            PRESERVED.replace(b"InboundPassthroughCluster", b"InboundPassthroughClusterIpv4")
            + LOST.replace(b"inbound|8080||", b"InboundPassthroughClusterIpv4"),
            1,
            "1 preserved, 1 lost, 0 unknown",
            id="clusters of older releases",
        ),
        pytest.param(
            LOST.replace(b"127.0.0.6:", b"10.88.0.10:").replace(b" 10.88.0.10:8080 10.", b" [fd00::5]:8080 10."),
            1,
            "0 preserved, 1 lost, 0 unknown",
            id="a peer that is not the caller, of another family",
        ),
    ],
)
def test_what_was_not_read_is_not_proved(data: bytes, code: int, last: str) -> None:
    result = verify("-", stdin=data)
    assert (result.return_value, result.stdout.splitlines()[-1]) == (code, last)


def test_lines_that_were_not_read_are_shown_and_counted() -> None:
    cut = b'GET /a HTTP/1.1" 200\n'
    result = verify("-", stdin=PRESERVED + cut * 12)
    assert result.stdout.splitlines()[2].startswith('not read   GET /a HTTP/1.1" 200')
    assert result.stderr == (
        'nothing proved: 12 lines look like requests and were not read, first -:2: GET /a HTTP/1.1" 200\n'
    )
    told = json.loads(verify("-o", "json", "-", stdin=PRESERVED + cut * 12).stdout)
    assert (told["proved"], told["notRead"]["count"], len(told["notRead"]["examples"])) == (False, 12, 10)
    assert told["notRead"]["examples"][0] == {"file": "-", "line": 2, "text": 'GET /a HTTP/1.1" 200'}


def test_json_of_nothing_is_a_document_as_well() -> None:
    assert json.loads(verify("-o", "json", "-").stdout) == {
        "pods": [],
        "requests": [],
        "counts": {"preserved": 0, "lost": 0, "unknown": 0},
        "notRead": {"count": 0, "examples": []},
        "faults": [],
        "proved": False,
    }


def test_a_long_log_is_written_as_it_is_read(tmp_path: Path) -> None:
    """Batches change nothing: every request has its row, and the document is whole."""
    log = tmp_path / "long.log"
    log.write_bytes(PRESERVED * 2_500)
    assert len(verify(log).stdout.splitlines()) == 2_502
    assert len(json.loads(verify("-o", "json", log).stdout)["requests"]) == 2_500


def test_the_pods_own_addresses_count(tmp_path: Path) -> None:
    """A caller that is only claimed, and a peer that is the pod's other address: nobody can tell."""
    line = PRESERVED.replace(b" 10.88.0.30:32786 ", b" 10.88.0.77:32786 ").replace(
        b"10.88.0.30:41116", b"203.0.113.9:0"
    )
    assert verify("-", stdin=line).return_value == 0
    pod = tmp_path / "pod.yaml"
    pod.write_text(
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: []}, "
        "status: {podIPs: [{ip: 10.88.0.11}, {ip: 10.88.0.77}]}}"
    )
    result = verify("--pod", pod, "-", stdin=line)
    assert (result.return_value, result.stdout.splitlines()[-1]) == (1, "0 preserved, 0 lost, 1 unknown")


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("no/such.log",), b"", "no/such.log: No such file or directory"),
        (("reviews",), b"", "reviews: No such file or directory (in the cluster: pod/reviews, deploy/reviews)"),
        ((str(LOGS),), b"", f"{LOGS}: Is a directory"),
        (("deploy/reviews", "-"), b"", "use either logs, or KIND/NAME in a cluster"),
        (("deploy/reviews", "--pod", "-"), b"", "--pod can only be used with a log"),
        (("--since", "5m", "-"), b"", "--since, --follow and --namespace can only be used with KIND/NAME"),
        (("--follow", "-"), b"", "--since, --follow and --namespace can only be used with KIND/NAME"),
        (("--since", "5", "deploy/reviews"), b"", "'5' is not a duration such as 90s, 5m or 1h30m"),
        (("--since", "0s", "deploy/reviews"), b"", "'0s': must be greater than zero"),
        (("--pod", "no/such.yaml", "-"), b"", "--pod no/such.yaml: No such file or directory"),
        (("--pod", "-", "-"), b"", "standard input can be read only once"),
        (("--pod", "-", str(LOGS / "tproxy.json.log")), b"kind: [", "--pod:\n"),
        (
            ("--pod", "-", str(LOGS / "tproxy.json.log")),
            b"{apiVersion: v1, kind: Service, metadata: {name: a}}",
            "--pod -: it contains no Pod",
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
