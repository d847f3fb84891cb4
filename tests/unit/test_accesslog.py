"""What lines of an access log prove. The samples in `accesslogs/` were written by Envoy under a real istiod."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from webhook.running.accesslog import Entry, Finding, Verdict, judge
from webhook.running.logshapes import parse

LOGS = Path(__file__).parent / "accesslogs"
UPSTREAM = "upstream_local_address"


def judged(name: str) -> list[tuple[str, str | None]]:
    found = []
    for line in (LOGS / name).read_text().splitlines():
        entry = parse(line)
        finding = judge(entry) if entry is not None else None
        if finding is not None:
            found.append((finding.verdict.value, finding.peer))
    return found


def test_redirect_is_lost_whoever_calls() -> None:
    assert judged("redirect.json.log") == [("lost", "127.0.0.6")] * 8
    assert judged("redirect.text.log") == [("lost", "127.0.0.6")] * 9


def test_tproxy_is_preserved_for_pods_outside_clients_mtls_forged_headers_tcp_and_gateways() -> None:
    assert judged("tproxy.json.log") == [
        ("preserved", "10.88.0.30"),
        ("preserved", "10.88.0.30"),
        ("preserved", "203.0.113.50"),
        ("preserved", "10.88.0.30"),
        ("preserved", "10.88.0.12"),
        ("preserved", "10.88.0.30"),
        ("preserved", "10.88.0.20"),
        ("preserved", "10.88.0.20"),
    ]


def test_a_user_agent_that_looks_like_the_rest_of_the_line_changes_nothing() -> None:
    line = (LOGS / "tproxy.text.log").read_text().splitlines()[3]
    assert 'inbound|8080|| 10.0.0.9:1 10.0.0.9:1 10.0.0.9:1 - default" "' in line
    assert parse(line) == Entry(
        upstream_cluster="inbound|8080||",
        upstream_local_address="10.88.0.30:32786",
        downstream_local_address="10.88.0.11:8080",
        downstream_remote_address="198.51.100.7:0",
        x_forwarded_for="198.51.100.7",
        start_time="2026-11-23T14:48:51.527Z",
        method="GET",
        path="/ip",
        response_code="200",
        upstream_host="10.88.0.11:8080",
        response_code_details="via_upstream",
    )


def test_a_request_that_never_reached_the_application_is_unknown() -> None:
    assert judged("tproxy.text.log")[-1] == ("unknown", None)


def test_a_gateways_log_is_not_about_inbound_traffic() -> None:
    assert judged("gateway.text.log") == judged("gateway.json.log") == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "2026-11-23T14:43:02.249366Z\tinfo\tJWT policy is third-party-jwt",
        '{"level":"info","msg":"Envoy proxy is ready"}',
        '{"upstream_local_address":',
        "[1,2]",
        '[2026-11-23T14:48:49.757Z] "GET /ip HTTP/1.1" 200 and nothing more',
    ],
)
def test_what_is_no_access_log_line_is_nothing(line: str) -> None:
    assert parse(line) is None


SEEN = Entry(
    upstream_cluster="inbound|8080||",
    upstream_local_address="10.0.0.30:41000",
    downstream_local_address="10.0.0.11:8080",
    downstream_remote_address="10.0.0.30:40000",
)


@pytest.mark.parametrize(
    ("changes", "verdict", "field"),
    [
        pytest.param({}, Verdict.PRESERVED, UPSTREAM, id="the caller itself"),
        pytest.param({"upstream_local_address": "127.0.0.6:41000"}, Verdict.LOST, UPSTREAM, id="REDIRECT"),
        pytest.param({"upstream_local_address": "[::6]:41000"}, Verdict.LOST, UPSTREAM, id="REDIRECT in IPv6"),
        pytest.param({"upstream_local_address": "127.0.0.1:41000"}, Verdict.LOST, UPSTREAM, id="Istio before 1.10"),
        pytest.param({"upstream_local_address": "[::1]:41000"}, Verdict.LOST, UPSTREAM, id="loopback in IPv6"),
        pytest.param({"upstream_local_address": "10.0.0.11:41000"}, Verdict.LOST, UPSTREAM, id="the pod's own address"),
        pytest.param(
            {"upstream_local_address": "10.0.0.11:41000", "downstream_remote_address": "10.0.0.11:40000"},
            Verdict.PRESERVED,
            UPSTREAM,
            id="a pod that calls itself",
        ),
        pytest.param(
            {"upstream_local_address": "10.0.0.11:41000", "downstream_remote_address": "198.51.100.7:0"},
            Verdict.UNKNOWN,
            "downstream_remote_address",
            id="the pod itself, or nobody knows: the caller is only claimed",
        ),
        pytest.param(
            {"downstream_remote_address": "127.0.0.6:0"}, Verdict.PRESERVED, UPSTREAM, id="a forged X-Forwarded-For"
        ),
        pytest.param(
            {
                "upstream_local_address": "[fd00::30]:41000",
                "downstream_local_address": "[fd00::11]:8080",
                "downstream_remote_address": "[fd00:0::30]:40000",
            },
            Verdict.PRESERVED,
            UPSTREAM,
            id="IPv6, written in two ways",
        ),
        pytest.param(
            {"upstream_local_address": "[::ffff:127.0.0.6]:1"}, Verdict.LOST, UPSTREAM, id="IPv4 in an IPv6 socket"
        ),
        pytest.param({"upstream_local_address": None}, Verdict.UNKNOWN, UPSTREAM, id="no connection"),
        pytest.param(
            {"upstream_local_address": None, "response_code_details": "via_upstream"},
            Verdict.UNKNOWN,
            UPSTREAM,
            id="the application answered whom nobody logged",
        ),
        pytest.param(
            {"upstream_local_address": "10.0.0.11:41000", "downstream_remote_address": None},
            Verdict.LOST,
            UPSTREAM,
            id="the pod's own address, and no caller",
        ),
        pytest.param(
            {"upstream_local_address": "10.0.0.40:41000"}, Verdict.LOST, UPSTREAM, id="a peer that is not the caller"
        ),
        pytest.param(
            {"upstream_local_address": "10.0.0.40:41000", "downstream_remote_address": "[fd00::9]:50001"},
            Verdict.LOST,
            UPSTREAM,
            id="a peer of another family than the caller",
        ),
        pytest.param(
            {
                "upstream_local_address": "10.0.0.40:41000",
                "downstream_local_address": "[fd00::11]:8080",
                "downstream_remote_address": "198.51.100.7:0",
            },
            Verdict.UNKNOWN,
            "downstream_local_address",
            id="a caller only claimed, and a peer of another family than the pod's address",
        ),
        pytest.param(
            {
                "upstream_local_address": "10.0.0.40:41000",
                "upstream_host": "10.0.0.40:8080",
                "downstream_remote_address": "198.51.100.7:0",
            },
            Verdict.UNKNOWN,
            "downstream_remote_address",
            id="a caller only claimed, and the application's own address",
        ),
        pytest.param({"upstream_local_address": "@/run/app.sock"}, Verdict.UNKNOWN, UPSTREAM, id="no IP at all"),
        pytest.param({"upstream_local_address": "somewhere:80"}, Verdict.UNKNOWN, UPSTREAM, id="a name"),
        pytest.param(
            {"downstream_remote_address": None}, Verdict.PRESERVED, UPSTREAM, id="a format without the caller"
        ),
    ],
)
def test_the_upstream_local_address_decides(changes: dict[str, str | None], verdict: Verdict, field: str) -> None:
    finding = judge(replace(SEEN, **changes))
    assert finding is not None
    assert (finding.verdict, finding.field) == (verdict, field)


@pytest.mark.parametrize(
    ("changes", "open_"),
    [
        pytest.param({}, False, id="preserved"),
        pytest.param({"upstream_local_address": None}, False, id="never delivered"),
        pytest.param({"upstream_local_address": None, "response_code_details": "via_upstream"}, True, id="delivered"),
        pytest.param({"upstream_local_address": "@/run/app.sock"}, True, id="no IP at all"),
        pytest.param(
            {"upstream_local_address": None, "missing": ("upstream_local_address",)}, True, id="not in the format"
        ),
    ],
)
def test_what_reached_the_application_and_is_unknown_leaves_the_proof_open(
    changes: dict[str, object],
    open_: bool,  # noqa: FBT001
) -> None:
    finding = judge(replace(SEEN, **changes))
    assert finding is not None
    assert finding.leaves_open is open_


def test_a_finding_says_why_in_one_sentence() -> None:
    forged = replace(SEEN, downstream_remote_address="198.51.100.7:0")
    assert judge(forged) == Finding(
        verdict=Verdict.PRESERVED,
        field=UPSTREAM,
        why="the application's socket showed the caller, 10.0.0.30 (X-Forwarded-For claims 198.51.100.7)",
        peer="10.0.0.30",
    )


@given(st.text())
def test_no_line_breaks_the_reading(line: str) -> None:
    entry = parse(line)
    if entry is not None:
        judge(entry)


@given(agent=st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"))))
def test_no_user_agent_changes_what_a_text_line_says(agent: str) -> None:
    template = (LOGS / "redirect.text.log").read_text().splitlines()[2]
    forged = parse(template.replace("curl/7.88.1", agent))
    honest = parse(template)
    assert honest is not None
    assert forged == honest
