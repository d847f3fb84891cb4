"""The shapes in which people have an access log: whatever stands around an entry, it says the same."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from webhook.running.accesslog import Entry, judge
from webhook.running.logshapes import MAX_ENTRY_LINES, MAX_LINE, Lines, Read, Reader, looks_like_request, parse

LOGS = Path(__file__).parent / "accesslogs"
TEXT = (LOGS / "redirect.text.log").read_text().splitlines()[2]
JSON = (LOGS / "redirect.json.log").read_text().splitlines()[2]
TIME = "2026-01-02T03:04:05.679123456Z"
POD = "orders-7d4b9-x2x4z"


def read(data: bytes | str, *, chunk: int = 1 << 16) -> tuple[list[Read], Reader]:
    raw = data.encode() if isinstance(data, str) else data
    lines, reader = Lines(), Reader()
    found: list[Read] = []
    for start in range(0, len(raw), chunk):
        found += reader.read(lines.feed(raw[start : start + chunk]))
    found += [*reader.read(lines.end()), *reader.end()]
    return found, reader


def entries(data: bytes | str, *, chunk: int = 1 << 16) -> list[Entry | None]:
    return [each.entry for each in read(data, chunk=chunk)[0]]


def docker(line: str) -> str:
    return json.dumps({"log": line + "\n", "stream": "stdout", "time": TIME})


PREFIXES: dict[str, Callable[[str], str]] = {
    "nothing": lambda line: line,
    "kubectl --prefix": lambda line: f"[pod/{POD}/istio-proxy] {line}",
    "kubectl --timestamps": lambda line: f"{TIME} {line}",
    "kubectl --timestamps, another zone": lambda line: f"2026-01-02T03:04:05.679+08:00 {line}",
    "kubectl --prefix --timestamps": lambda line: f"[pod/{POD}/istio-proxy] {TIME} {line}",
    "stern": lambda line: f"{POD} istio-proxy {line}",
    "stern of all namespaces": lambda line: f"shop {POD} istio-proxy {line}",
    "stern in colours": lambda line: f"\x1b[36m{POD}\x1b[0m \x1b[96mistio-proxy\x1b[0m {line}",
    "stern --timestamps": lambda line: f"{POD} istio-proxy {TIME} {line}",
    "stern --timestamps=short": lambda line: f"{POD} istio-proxy 01-02 03:04:05 {line}",
    "stern --output json": lambda line: json.dumps(
        {"message": line, "nodeName": "n", "namespace": "shop", "podName": POD, "containerName": "istio-proxy"}
    ),
    "kubetail": lambda line: f"[{POD} istio-proxy] {line}",
    "kail": lambda line: f"shop/{POD}[istio-proxy]: {line}",
    "CRI": lambda line: f"{TIME} stdout F {line}",
    "CRI in two parts": lambda line: f"{TIME} stdout P {line[:50]}\n{TIME} stdout F {line[50:]}",
    "CRI in three parts, another stream between": lambda line: (
        f"{TIME} stdout P {line[:50]}\n{TIME} stdout P {line[50:60]}\n{TIME} stderr F warning\n"
        f"{TIME} stdout F {line[60:]}"
    ),
    "Docker's json-file": docker,
    "Docker's json-file in two parts": lambda line: "\n".join(
        [json.dumps({"log": line[:50], "stream": "stdout", "time": TIME}), docker(line[50:])]
    ),
    "Docker compose": lambda line: f"sidecar-1  | {line}",
    "journalctl": lambda line: f"Jan 02 03:04:05 node-1 istio-proxy[123]: {line}",
    "journalctl -o short-precise": lambda line: f"Jan 02 03:04:05.123456 node-1 istio-proxy[123]: {line}",
    "journalctl -o short-iso": lambda line: f"2026-01-02T03:04:05+0000 node-1 istio-proxy[123]: {line}",
    "journalctl -o short-full": lambda line: f"Fri 2026-01-02 03:04:05 UTC node-1 istio-proxy[123]: {line}",
    "journalctl -o short-unix": lambda line: f"1767323045.123456 node-1 istio-proxy[123]: {line}",
    "journalctl -o short-monotonic": lambda line: f"[  123.456789] node-1 istio-proxy[123]: {line}",
    "journalctl -o json": lambda line: json.dumps({"_PID": "1", "MESSAGE": line}),
    "journalctl -o json, of bytes": lambda line: json.dumps({"_PID": "1", "MESSAGE": list(line.encode())}),
    "syslog": lambda line: f"<13>Jan  2 03:04:05 node-1 docker/istio-proxy[123]: {line}",
    "syslog of RFC 5424": lambda line: f'<165>1 2026-01-02T03:04:05Z node-1 istio-proxy 12 - [a@1 b="c"] {line}',
    "rsyslog": lambda line: f"2026-01-02T03:04:05.123456+00:00 node-1 istio-proxy[123]: {line}",
    "fluentd": lambda line: f"2026-01-02 03:04:05.000000000 +0000 kube.x: {json.dumps({'log': line})}",
    "Grafana's text": lambda line: f"1767323045678\t2026-01-02T03:04:05.678Z\t{line}",
    "a timestamp and a tab": lambda line: f"{TIME}\t{line}",
    "a timestamp of Go's logger": lambda line: f"2026/01/02 03:04:05 {line}",
    "aws logs tail": lambda line: f"2026-01-02T03:04:05.678000+00:00 kube-apps/{POD}_istio-proxy {line}",
    "k9s": lambda line: f"{TIME}      {POD} istio-proxy {line}",
    "argocd app logs": lambda line: f"{POD}: {line}",
    "cat -n": lambda line: f"    12\t{line}",
    "quoted": lambda line: f"> {line}",
    "a level and a name": lambda line: f"INFO access {line}",
    "a hyperlink": lambda line: f"\x1b]8;;http://grafana.example\x07{line}\x1b]8;;\x1b\\",
    "logcli": lambda line: f'{TIME} {{app="orders", pod="{POD}"}} {line}',
    "fluent-bit": lambda line: json.dumps({"date": 1.5, "log": line, "kubernetes": {"pod_name": POD}}),
    "fluent-bit, the line as CRI's parser leaves it": lambda line: json.dumps(
        {"log": line, "stream": "stdout", "logtag": "F", "kubernetes": {"container_name": "istio-proxy"}}
    ),
    "fluent-bit, in two parts": lambda line: "\n".join(
        [json.dumps({"log": line[:50], "logtag": "P"}), json.dumps({"log": line[50:], "logtag": "F"})]
    ),
    "Elasticsearch": lambda line: json.dumps({"_index": "logs", "_source": {"message": line}}),
    "grep -n": lambda line: f"12:{line}",
    "grep -rn": lambda line: f"logs/istio-proxy.log:12:{line}",
    "a shipper around Docker": lambda line: json.dumps({"message": docker(line)}),
    "Cloud Logging": lambda line: json.dumps({"textPayload": line, "severity": "INFO"}),
    "carriage returns": lambda line: line + "\r",
    "spaces": lambda line: f"   {line}  ",
    "colours everywhere": lambda line: f"\x1b[1;32m{line}\x1b[0m",
    "a byte order mark": lambda line: "\ufeff" + line,
}


@pytest.mark.parametrize("shape", PREFIXES.values(), ids=PREFIXES.keys())
@pytest.mark.parametrize("line", [TEXT, JSON], ids=["text", "JSON"])
def test_an_entry_says_the_same_in_every_shape(shape: Callable[[str], str], line: str) -> None:
    whole = "\n".join(["Envoy proxy is ready", shape(line), "", shape(line)])
    assert entries(whole) == [parse(line)] * 2
    assert entries(whole, chunk=7) == [parse(line)] * 2


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda text: text.encode("utf-8-sig"), id="UTF-8 with its mark"),
        pytest.param(lambda text: text.encode("utf-16"), id="UTF-16 as PowerShell writes it"),
        pytest.param(lambda text: text.encode("utf-16-le"), id="UTF-16 without its mark"),
        pytest.param(lambda text: text.encode("utf-16-be"), id="UTF-16 the other way round"),
        pytest.param(lambda text: gzip.compress(text.encode()), id="gzip"),
        pytest.param(
            lambda text: b"".join(gzip.compress(each.encode() + b"\n") for each in text.split("\n")),
            id="gzip, several put together",
        ),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_an_entry_says_the_same_in_every_encoding(encode: Callable[[str], bytes], chunk: int) -> None:
    assert entries(encode(f"{TEXT}\n{JSON}\n{TEXT}"), chunk=chunk) == [parse(TEXT), parse(JSON), parse(TEXT)]


DOCUMENTS: dict[str, Callable[[list[str]], object]] = {
    "Loki's answer": lambda lines: {"data": {"result": [{"values": [[str(n), each] for n, each in enumerate(lines)]}]}},
    "Grafana's export": lambda lines: [{"line": each, "timestamp": "1", "fields": {}} for each in lines],
    "CloudWatch's events": lambda lines: {"events": [{"message": json.dumps({"log": each})} for each in lines]},
    "OpenTelemetry": lambda lines: {"logRecords": [{"body": {"stringValue": each}} for each in lines]},
    "Elasticsearch's answer": lambda lines: {"hits": {"hits": [{"_source": {"message": each}} for each in lines]}},
    "Azure": lambda lines: [{"LogMessage": each, "PodName": POD} for each in lines],
    "Elastic's schema": lambda lines: [{"message": "access", "event": {"original": each}} for each in lines],
    "with a method and a path of its own": lambda lines: [
        {"path": "/var", "method": "", "log": each} for each in lines
    ],
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("line", [TEXT, JSON], ids=["text", "JSON"])
def test_entries_are_found_at_any_place_in_a_document(
    document: Callable[[list[str]], object], indent: int | None, line: str
) -> None:
    found, reader = read(json.dumps(document([line, JSON, line]), indent=indent))
    assert [each.entry for each in found] == [parse(line), parse(JSON), parse(line)]
    assert reader.unread == 0


def test_entries_are_found_in_a_document_that_is_too_long_to_be_kept() -> None:
    document = {"events": [{"message": TEXT} for _ in range(MAX_ENTRY_LINES)]}
    assert entries(json.dumps(document, indent=2)) == [parse(TEXT)] * MAX_ENTRY_LINES


def test_fields_are_found_at_any_place_in_a_document() -> None:
    fields = json.loads(JSON)
    documents = [{"istio": fields}, {"level": "info", "access": {"log": fields}}, {"jsonPayload": fields}]
    for indent in (None, 2):
        assert entries("\n".join(json.dumps(each, indent=indent) for each in documents)) == [parse(JSON)] * 3


def test_what_another_container_says_of_its_requests_is_no_entry() -> None:
    own = '{"method":"GET","path":"/","duration":3}'
    assert entries(f"[pod/{POD}/app] {own}\n[pod/{POD}/istio-proxy] {TEXT}") == [parse(TEXT)]
    assert [None if each is None else each.method for each in entries(own)] == ["GET"]


# --- Several entries on one line


GOOD = TEXT.replace("127.0.0.6:", "10.88.0.30:")


def verdicts(data: str) -> list[str]:
    found = []
    for each in entries(data):
        finding = judge(each) if each is not None else None
        found.append(finding.verdict.value if finding is not None else "not read")
    return found


@pytest.mark.parametrize("between", ["", " ", "  ", ", ", "\r", f" [pod/{POD}/istio-proxy] ", f" {TIME} "])
def test_entries_in_the_text_format_on_one_line_are_read_apart(between: str) -> None:
    """A caller's user agent may look like the next entry: what stands before the last one can't be preserved."""
    assert verdicts(TEXT + between + TEXT) == ["lost", "lost"]
    assert verdicts(TEXT + between + GOOD) == ["lost", "preserved"]
    assert verdicts(GOOD + between + TEXT) == ["unknown", "lost"]
    assert verdicts(GOOD + between + GOOD + between + GOOD) == ["unknown", "unknown", "preserved"]


@pytest.mark.parametrize("between", ["", " ", ",", ", ", "\r"])
def test_entries_in_json_on_one_line_are_read_apart(between: str) -> None:
    good = JSON.replace("127.0.0.6:", "10.88.0.30:")
    assert verdicts(JSON + between + good + between + JSON) == ["lost", "preserved", "lost"]
    assert verdicts(f"[{good},{JSON}]") == ["preserved", "lost"]
    assert verdicts(good + between + TEXT) == ["preserved", "lost"]


def test_a_caller_who_writes_an_entry_into_its_own_proves_nothing() -> None:
    agent = TEXT[TEXT.index('" "', TEXT.index("curl")) : TEXT.index(" 127.0.0.6:")]
    forged = f"x{agent} 10.88.0.30:1 10.88.0.10:8080 10.88.0.30:1 - default {TEXT[: TEXT.index('curl')]}y"
    line = TEXT.replace("curl", forged, 1)
    assert "preserved" not in verdicts(line)
    assert verdicts(line)[-1] == "lost"


@pytest.mark.parametrize("line", [TEXT, JSON], ids=["text", "JSON"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_that_was_cut_off_anywhere_is_never_silent(line: str, end: str) -> None:
    """But for a few characters that may be anything; and behind the last address nothing is missing."""
    for length in range(6, len(line) - 40):
        found, reader = read(f"{GOOD}\n{line[:length]}{end}")
        assert reader.unread >= 1, line[:length]
        assert [each.entry for each in found if each.entry is not None] == [parse(GOOD)]


def test_a_compressed_log_that_ends_too_early_is_counted() -> None:
    whole = gzip.compress(f"{TEXT}\n".encode() * 1000)
    assert read(whole)[1].unread == 0
    assert read(whole + b"\0" * 512)[1].unread == 0
    for missing in (1, 4, 8, 9, 20):
        assert read(whole[:-missing])[1].unread >= 1


def test_nuls_hide_nothing() -> None:
    """A crash leaves them in a log; an archive has them before and behind each of its files."""
    assert entries(f"{TEXT}\n\0\0\0{TEXT}\n{JSON}\0\0\0\0{TEXT}\n") == [
        parse(each) for each in (TEXT, TEXT, JSON, TEXT)
    ]
    for number in range(1, 6):
        assert entries("\0" * number + f"{TEXT}\n{JSON}") == [parse(TEXT), parse(JSON)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"pods/orders-{number}/istio-proxy/current.log")
            data = f"{TIME} stdout F {TEXT}\n{TIME} stdout F {JSON}".encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    found, reader = read(out.getvalue())
    assert [each.entry for each in found] == [parse(TEXT), parse(JSON)] * 3
    assert reader.unread == 0


@pytest.mark.parametrize("shape", ["kubectl --prefix", "stern", "stern --output json", "fluent-bit"])
def test_the_pod_that_a_prefix_names_is_kept(shape: str) -> None:
    assert [each.pod for each in read(PREFIXES[shape](TEXT))[0]] == [POD]


# --- Several lines


def pretty(**more: object) -> str:
    return json.dumps({**json.loads(JSON), **more}, indent=2)


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(pretty(), id="jq"),
        pytest.param(json.dumps(json.loads(JSON), indent="\t"), id="tabs"),
        pytest.param("[\n" + pretty() + ",\n", id="in a list"),
        pytest.param(JSON.replace('","', '",\n "'), id="by hand"),
        pytest.param(pretty(more={"a": ["}", {"b": '"{'}]}), id="braces in it"),
        pytest.param("\n".join(docker(line) for line in pretty().split("\n")), id="through Docker"),
        pytest.param("\n".join(f"{TIME} stdout F {line}" for line in pretty().split("\n")), id="through CRI"),
        pytest.param("\n\n".join(pretty().split("\n")), id="blank lines between"),
        pytest.param("\n".join(f"\x1b[1;39m{line}\x1b[0m" for line in pretty().split("\n")), id="jq in colours"),
        pytest.param("\n".join(f"{POD} istio-proxy {line}" for line in pretty().split("\n")), id="through stern"),
        pytest.param("\n".join(f"{TIME} {line}" for line in pretty().split("\n")), id="behind timestamps"),
    ],
)
def test_an_entry_over_several_lines_is_one(whole: str) -> None:
    found, reader = read(f"{TEXT}\n{whole}\n{TEXT}")
    assert [each.entry for each in found] == [parse(TEXT), parse(JSON), parse(TEXT)]
    assert reader.unread == 0


def test_entries_of_several_pods_may_interleave() -> None:
    lines = pretty().split("\n")
    mixed = "\n".join(f"[pod/{pod}/istio-proxy] {line}" for line in lines for pod in ("a", "b"))
    assert [(each.pod, each.entry) for each in read(mixed)[0]] == [("a", parse(JSON)), ("b", parse(JSON))]


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param('{\n  "upstream_local_address": "127.0.0.6:1",', id="its end is missing"),
        pytest.param('{\n  "upstream_local_address": "127.0.0.6:1" "\n}', id="a string tears"),
        pytest.param('{\n  "upstream_local_address": "127.0.0.6:1"\n]\n', id="no JSON"),
        pytest.param("{\n" + '"upstream_local_address": "127.0.0.6:1",\n' * (MAX_ENTRY_LINES + 1), id="too many lines"),
    ],
)
def test_a_torn_entry_is_counted_and_what_follows_is_read(torn: str) -> None:
    found, reader = read(f"{torn}\n{TEXT}")
    assert [each.entry for each in found if each.entry is not None] == [parse(TEXT)]
    assert reader.unread >= 1


def test_a_brace_that_is_nothing_hides_no_request() -> None:
    found, reader = read(f"{{\n{TEXT}\n{JSON}\n")
    assert [each.entry for each in found] == [parse(TEXT), parse(JSON)]
    assert reader.unread == 0


# --- What can't be read


@pytest.mark.parametrize(
    "line",
    [
        'GET /a HTTP/1.1" 200 10.1.0.9',
        '10.1.0.9 - - [02/Jan/2026:03:04:05 +0000] "GET /a HTTP/1.1" 200 12',
        "10.1.0.9:50001 -> 127.0.0.6:40001 GET",
        "from=[fd00::9]:50001 peer=[::6]:40001",
        "200 inbound|8080|| 12ms",
        "POST /a 200 InboundPassthroughCluster",
        TEXT[: len(TEXT) // 2],
        TEXT[:60],
        JSON[: len(JSON) // 2],
        JSON[len(JSON) // 2 :],
        TEXT + " one more",
        "who knows what> " + TEXT,
        json.dumps({"peer": "127.0.0.6:1", "cluster": "inbound|8080||"}),
        json.dumps({"message": TEXT[:-40]}),
        f"{TIME} stdout P {TEXT}",
        f"2026-11-23T14:43:02.249366Z\tinfo\t{TEXT}",
        f"2026-11-23T14:43:02.249366Z\tinfo\taccess: {TEXT}",
        f"2026-11-23T14:43:02.249366Z\twarning\tenvoy main\t{JSON}",
        f"[2026-11-23 14:43:02.249][12][info] {TEXT}",
        f"[2026-11-23 14:43:02.249][12][info][lua] {JSON}",
        f"2026/11/23 14:43:02 access: {JSON}",
    ],
)
def test_a_line_that_looks_like_a_request_and_is_not_understood_is_counted(line: str) -> None:
    found, reader = read(line)
    assert reader.unread == 1
    assert [each.entry for each in found] == [None]
    assert found[0].text


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026-11-23T14:43:02.249366Z\tinfo\tEnvoy proxy is NOT ready: 10.0.0.1:15012 10.0.0.2:15012 HTTP/1.1 503",
        "[pod/a/istio-proxy] 2026-11-23T14:43:02.249366Z\twarning\tenvoy main\tGET /stats HTTP/1.1",
        "[2026-11-23 14:43:02.249][12][info][main] [source/server.cc:1] GET / HTTP/1.1",
        "2026/11/23 14:43:02 http: TLS handshake error: read tcp 10.0.0.1:15021->10.0.0.9:50001: reset",
        '{"level":"info","time":"2026-11-23T14:43:02Z","scope":"xdsproxy","msg":"connected to istiod:15012"}',
        "Envoy proxy is ready",
        "goroutine 1 [running]:",
        '[pod/a/app] 10.1.0.9 - - "GET /a HTTP/1.1" 200',
        '{"log":"GET / HTTP/1.1\\n","stream":"stdout","kubernetes":{"pod_name":"a","container_name":"app"}}',
        '{"message":"GET / HTTP/1.1","podName":"a","containerName":"app"}',
    ],
)
def test_what_a_container_says_of_itself_is_no_request(line: str) -> None:
    found, reader = read(line)
    assert (found, reader.unread) == ([], 0)


def test_a_line_too_long_is_counted_and_not_kept() -> None:
    found, reader = read(b"x" * (3 * MAX_LINE) + b"\n" + TEXT.encode())
    assert [each.entry for each in found] == [None, parse(TEXT)]
    assert (reader.lines, reader.unread) == (2, 1)


def test_damaged_gzip_is_counted() -> None:
    data = bytearray(gzip.compress((TEXT + "\n").encode() * 1000))
    data[len(data) // 2] ^= 0xFF
    assert read(bytes(data))[1].unread >= 1


# --- Other formats


def verdict(**fields: object) -> tuple[str, str] | None:
    (entry,) = entries(json.dumps(fields))
    finding = judge(entry) if entry is not None else None
    return None if finding is None else (finding.verdict.value, finding.field)


WHOLE = {
    "upstream_cluster": "inbound|8080||",
    "upstream_local_address": "10.1.0.9:40001",
    "downstream_local_address": "10.1.0.5:8080",
    "downstream_remote_address": "10.1.0.9:50001",
    "method": "GET",
    "response_code": 200,
}


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in WHOLE.items() if name not in names}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(WHOLE, ("preserved", "upstream_local_address"), id="all that decides"),
        pytest.param(
            without("upstream_cluster"), ("unknown", "upstream_cluster"), id="no cluster: inbound, or nobody knows"
        ),
        pytest.param(
            {**without("upstream_cluster"), "upstream_local_address": "127.0.0.6:1"},
            ("lost", "upstream_local_address"),
            id="no cluster, REDIRECT",
        ),
        pytest.param(
            {**without("upstream_cluster"), "upstream_local_address": "[::6]:1"},
            ("lost", "upstream_local_address"),
            id="no cluster, REDIRECT in IPv6",
        ),
        pytest.param(without("upstream_local_address"), ("unknown", "upstream_local_address"), id="not the peer"),
        pytest.param(
            without("upstream_local_address", "upstream_cluster"),
            ("unknown", "upstream_local_address"),
            id="neither",
        ),
        pytest.param(
            without("downstream_remote_address", "downstream_local_address"),
            ("unknown", "downstream_remote_address"),
            id="neither the caller nor the pod",
        ),
        pytest.param(
            {**without("downstream_remote_address"), "upstream_local_address": "10.1.0.5:40001"},
            ("unknown", "downstream_remote_address"),
            id="not the caller, and the pod's own address",
        ),
        pytest.param(
            {name.upper(): value for name, value in WHOLE.items()},
            ("preserved", "upstream_local_address"),
            id="names in capitals",
        ),
        pytest.param(
            {name.replace("_", "-"): value for name, value in WHOLE.items()},
            ("preserved", "upstream_local_address"),
            id="names with hyphens",
        ),
        pytest.param(
            {
                "upstreamCluster": "inbound|80||",
                "upstreamLocalAddress": "127.0.0.6:1",
                "downstreamRemoteAddress": "10.1.0.9:5",
            },
            ("lost", "upstream_local_address"),
            id="names in camel case",
        ),
        pytest.param({**WHOLE, "upstream_cluster": "outbound|80||b"}, None, id="a call by the application"),
        pytest.param({**WHOLE, "upstream_cluster": None}, None, id="none was dialled"),
    ],
)
def test_a_format_that_leaves_something_out_is_named(
    fields: dict[str, object], expected: tuple[str, str] | None
) -> None:
    assert verdict(**fields) == expected


@pytest.mark.parametrize(
    ("cluster", "inbound"),
    [
        ("inbound|8080||", True),
        ("inbound|8080|http|orders.shop.svc.cluster.local", True),
        ("inbound|15021|mgmt-15021|mgmtCluster", True),
        ("InboundPassthroughCluster", True),
        ("InboundPassthroughClusterIpv4", True),
        ("InboundPassthroughClusterIpv6", True),
        ("outbound|8080||orders.shop.svc.cluster.local", False),
        ("PassthroughCluster", False),
        ("BlackHoleCluster", False),
        ("prometheus_stats", False),
    ],
)
def test_clusters_of_inbound_traffic_old_and_new(cluster: str, inbound: bool) -> None:  # noqa: FBT001
    for line in (TEXT.replace("inbound|8080||", cluster), JSON.replace("inbound|8080||", cluster)):
        (entry,) = entries(line)
        assert entry is not None
        assert entry.inbound is inbound


# --- Laws


HOSTILE = {
    "one word": "a" * MAX_LINE,
    "quotation marks": '" ' * (MAX_LINE // 2),
    "a request that never ends": '[2026-01-01] "GET ' + "a " * (MAX_LINE // 2 - 20),
    "figures": '[2026-01-01] "GET / HTTP/1.1" 200 ' + "a 1 1 1 " * (MAX_LINE // 8 - 10),
    "braces": "{" * MAX_LINE,
    "torn strings": '{"' + '\\"' * (MAX_LINE // 2 - 2),
    "colours": "\x1b[" * (MAX_LINE // 2),
    "names": "a." * (MAX_LINE // 2),
    "addresses": "1.1.1.1:" * (MAX_LINE // 8),
    "labels": "{" + 'a="b",' * (MAX_LINE // 6 - 1),
    "timestamps": f"{TIME} " * (MAX_LINE // (len(TIME) + 1)),
    "documents": '{"log":"' * (MAX_LINE // 8),
    "beginnings": '[2026-01-02T03:04:05.678Z] "' * (MAX_LINE // 28),
    "objects": "{}" * (MAX_LINE // 8),
    "objects and brackets": "{}[" * (MAX_LINE // 12),
    "lists": "[{}," * (MAX_LINE // 4),
    "figures in a list": "[" + "1," * (MAX_LINE // 2 - 2) + "1]",
    "texts in a list": "[" + '"GET /",' * (MAX_LINE // 32) + "1]",
    "units": "a b/" * (MAX_LINE // 4),
    "NULs": "{{{\0" * (MAX_LINE // 16),
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_lines_are_read_in_one_pass(line: str) -> None:
    """Patterns that go back would need hours for these; the test ends, or it hangs."""
    found, reader = read(f"{line}\n{TEXT}")
    assert found[-1].entry == parse(TEXT)
    assert reader.lines == 2


def test_what_is_held_is_bounded() -> None:
    reader = Reader()
    for number in range(5_000):
        assert not list(reader.read([f"[pod/p{number}/c] {{", f"[pod/p{number}/c] {TIME} stdout P x"]))
    assert len(reader._open) <= 1_000
    assert len(reader._parts) <= 1_000


@given(st.lists(st.text(), max_size=5), st.sampled_from([1, 2, 5, 1000]))
def test_no_text_ends_the_reading_and_chunks_change_nothing(texts: list[str], chunk: int) -> None:
    data = "\n".join(texts).encode(errors="replace")
    found, reader = read(data, chunk=chunk)
    again, other = read(data)
    assert found == again
    assert (reader.lines, reader.unread) == (other.lines, other.unread)
    assert reader.unread == sum(each.entry is None for each in found)


@given(st.binary(), st.sampled_from([1, 2, 5, 1000]))
def test_no_bytes_end_the_reading(data: bytes, chunk: int) -> None:
    read(data, chunk=chunk)
    read(b"\x1f\x8b" + data, chunk=chunk)


@given(st.text())
def test_whether_it_looks_like_a_request_can_be_asked_of_any_text(text: str) -> None:
    assert looks_like_request(text) in {True, False}
