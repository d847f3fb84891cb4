"""Reports in the cluster: which API, and what is written: nothing twice, nothing of others, not too fast."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.deployed import eventually
from tests.apiserver.reportcrds import crd
from tests.cli.command import run
from tests.deploy.manifests import only, render
from tests.parts.api import Api, ApiError
from tests.parts.kube import ControlPlane
from tests.parts.relay import WRITES, Relay
from webhook.facts.cluster import open_cluster
from webhook.facts.scanresult import KEY, parse
from webhook.rules.decision import Outcome, Reason
from webhook.running.as_report import APIS, LABELS, NAME, OPEN_REPORTS, POLICY_REPORT, ReportAPI
from webhook.running.findings import Row, Scope, fingerprint
from webhook.running.publishing import NoReportAPI, Publisher, Written, served_api
from webhook.running.verdicts import Advice, Verdict

VARIANTS_ARE_SLOW: Final = True

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
LOST: Final = Verdict(outcome=Outcome.LOST, reason=Reason.POD_SECURITY, cause="level restricted")
FINE: Final = Verdict(outcome=Outcome.PRESERVED, reason=Reason.TPROXY)


def serve(api: Api, wanted: set[str]) -> None:
    """Have the cluster serve these report APIs and no other."""
    for each in APIS:
        name = f"{each.plural}.{each.group}"
        there = api.find("apiextensions.k8s.io/v1", "CustomResourceDefinition", name) is not None
        if each.name in wanted and not there:
            api.create(crd(each))
        elif each.name not in wanted and there:
            api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)

    def settled() -> bool:
        for each in APIS:
            try:
                api.request("GET", each.path())
                served = True
            except ApiError as error:
                served = error.status != 404
            if served != (each.name in wanted):
                return False
        return True

    eventually(settled)


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[Api]:
    made = control_plane.client()
    yield made
    serve(made, set())


@pytest.fixture(params=APIS, ids=lambda each: str(each.name))
def kind(request: pytest.FixtureRequest, api: Api) -> ReportAPI:
    """A cluster that serves one of the two."""
    made: ReportAPI = request.param
    serve(api, {made.name})
    return made


def namespace(api: Api, prefix: str = "reports") -> str:
    name = f"{prefix}-{secrets.token_hex(4)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def row(where: str, name: str, after: Verdict = LOST, **more: Any) -> Row:
    lost = after.outcome is Outcome.LOST
    return Row(
        fingerprint=fingerprint(where, "Deployment", name, after.reason),
        namespace=where,
        kind="Deployment",
        name=name,
        uid="0d4e6d2a-0000-4000-8000-000000000000",
        advice=Advice.CHANGE if lost else Advice.PRESERVED,
        reason=after.reason,
        policy="default",
        now=after,
        after=after,
        **more,
    )


def publish(
    plane: ControlPlane,
    kind: ReportAPI,
    rows: list[Row],
    *namespaces: str,
    at: datetime = AT,
    rate: float = 1000,
    events: bool = False,
    kubeconfig: Path | None = None,
) -> Written:
    async def work() -> Written:
        async with open_cluster(str(kubeconfig or plane.kubeconfig)) as cluster:
            publisher = Publisher(cluster, kind, writes_per_second=rate)
            scope = Scope(source="test", namespaces=list(namespaces))
            return await publisher.publish(rows, scope, at=at, events=events)

    return asyncio.run(work())


def stored(api: Api, kind: ReportAPI, where: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in api.request("GET", kind.path(where))["items"]}


@pytest.mark.parametrize(
    ("served", "asked", "used"),
    [
        ({"OpenReports", "PolicyReport"}, None, OPEN_REPORTS),
        ({"PolicyReport"}, None, POLICY_REPORT),
        ({"OpenReports"}, None, OPEN_REPORTS),
        ({"OpenReports", "PolicyReport"}, POLICY_REPORT, POLICY_REPORT),
        (set(), None, None),
        ({"PolicyReport"}, OPEN_REPORTS, None),
    ],
    ids=[
        "both",
        "the older alone",
        "the newer alone",
        "both, the older asked for",
        "neither",
        "what is asked for is not",
    ],
)
def test_one_api_is_used_by_what_is_served(
    control_plane: ControlPlane, api: Api, served: set[str], asked: ReportAPI | None, used: ReportAPI | None
) -> None:
    serve(api, served)

    async def find() -> ReportAPI:
        async with open_cluster(str(control_plane.kubeconfig)) as cluster:
            return await served_api(cluster, asked)

    if used is not None:
        assert asyncio.run(find()) is used
        return
    with pytest.raises(NoReportAPI, match="no reports are written"):
        asyncio.run(find())


def test_what_is_not_preserved_is_in_the_namespaces_report(
    control_plane: ControlPlane, api: Api, kind: ReportAPI
) -> None:
    where = namespace(api)
    written = publish(control_plane, kind, [row(where, "web", owner="team-a"), row(where, "fine", FINE)], where)
    assert (written.created, written.updated, written.unchanged, written.failed) == (1, 0, 0, [])
    (document,) = stored(api, kind, where).values()
    assert document["metadata"]["name"] == NAME
    assert document["metadata"]["labels"] == dict(LABELS)
    assert document["summary"] == {"pass": 1, "fail": 1, "warn": 0, "skip": 0, "error": 0}
    assert ("source" in document) == (kind is OPEN_REPORTS)
    (result,) = document["results"]
    assert (result["policy"], result["rule"], result["result"]) == ("default", "pod-security", "fail")
    assert result["timestamp"] == {"seconds": int(AT.timestamp()), "nanos": 0}
    assert result["resources"] == [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "namespace": where,
            "name": "web",
            "uid": "0d4e6d2a-0000-4000-8000-000000000000",
        }
    ]
    assert result["properties"]["resultID"] == row(where, "web").fingerprint
    assert result["properties"]["owner"] == "team-a"


def test_an_unchanged_namespace_costs_no_write(control_plane: ControlPlane, api: Api, kind: ReportAPI) -> None:
    """Later, in another order, with other counts of pods: nothing is written, and the first time stands."""
    where = namespace(api)
    rows = [row(where, "web"), row(where, "api"), row(where, "fine", FINE)]
    publish(control_plane, kind, rows, where)
    before = stored(api, kind, where)
    again = publish(control_plane, kind, rows[::-1], where, at=AT.replace(year=2027))
    assert (again.created, again.updated, again.unchanged, again.pruned) == (0, 0, 1, 0)
    assert stored(api, kind, where) == before
    later = publish(control_plane, kind, [*rows, row(where, "new")], where, at=AT.replace(year=2027))
    assert later.updated == 1
    (document,) = stored(api, kind, where).values()
    times = {each["resources"][0]["name"]: each["timestamp"]["seconds"] for each in document["results"]}
    first, second = int(AT.timestamp()), int(AT.replace(year=2027).timestamp())
    assert times == {"web": first, "api": first, "new": second}


@pytest.mark.slow
def test_many_rows_are_in_shards_and_stale_ones_go(control_plane: ControlPlane, api: Api, kind: ReportAPI) -> None:
    where = namespace(api)
    rows = [row(where, f"web-{number:04}") for number in range(1001)]
    assert publish(control_plane, kind, rows, where).created == 3
    sizes = {name: len(each["results"]) for name, each in stored(api, kind, where).items()}
    assert sizes == {"client-ip": 500, "client-ip-2": 500, "client-ip-3": 1}
    fewer = publish(control_plane, kind, rows[:10], where)
    assert (fewer.updated, fewer.pruned) == (1, 2)
    assert stored(api, kind, where).keys() == {"client-ip"}
    assert publish(control_plane, kind, [], where).pruned == 1
    assert stored(api, kind, where) == {}


def test_what_others_wrote_is_never_touched(control_plane: ControlPlane, api: Api, kind: ReportAPI) -> None:
    """By our name without our labels, by our labels under another name, in a namespace that was not looked at."""
    where, elsewhere = namespace(api), namespace(api)

    def report(name: str, place: str, labels: dict[str, str]) -> None:
        document = {"apiVersion": f"{kind.group}/{kind.version}", "kind": kind.kind}
        api.create({**document, "metadata": {"name": name, "namespace": place, "labels": labels}, "results": []})

    report(NAME, where, {"app.kubernetes.io/managed-by": "kyverno"})
    report("mine", where, dict(LABELS))
    report("client-ip-2x", where, dict(LABELS))
    report(NAME, elsewhere, dict(LABELS))
    before = {**stored(api, kind, where), "elsewhere": stored(api, kind, elsewhere)[NAME]}
    written = publish(control_plane, kind, [row(where, "web")], where)
    assert (written.created, written.updated, written.pruned) == (0, 0, 0)
    assert len(written.failed) == 1
    assert f"{where}/client-ip: another client wrote it" in written.failed[0]
    assert {**stored(api, kind, where), "elsewhere": stored(api, kind, elsewhere)[NAME]} == before


@pytest.mark.slow
def test_what_others_added_to_our_report_stays(control_plane: ControlPlane, api: Api, kind: ReportAPI) -> None:
    where = namespace(api)
    publish(control_plane, kind, [row(where, "web")], where)
    marked = {"metadata": {"annotations": {"example.com/seen": "yes"}, "labels": {"team": "a"}}}
    api.request("PATCH", kind.path(where, NAME), body=marked, content_type="application/merge-patch+json")
    assert publish(control_plane, kind, [row(where, "web")], where).unchanged == 1
    assert publish(control_plane, kind, [row(where, "api")], where).updated == 1
    metadata = stored(api, kind, where)[NAME]["metadata"]
    assert metadata["annotations"] == {"example.com/seen": "yes"}
    assert metadata["labels"] == {**LABELS, "team": "a"}


@pytest.mark.slow
def test_writes_come_slowly(control_plane: ControlPlane, api: Api) -> None:
    serve(api, {"OpenReports"})
    places = [namespace(api) for _ in range(6)]
    begun = time.monotonic()
    written = publish(control_plane, OPEN_REPORTS, [row(each, "web") for each in places], *places, rate=5)
    assert written.created == 6
    assert time.monotonic() - begun >= 1.0


@pytest.mark.slow
def test_a_busy_api_server_says_when_to_come_back(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """429 with Retry-After: the same write comes again, not sooner; who wants to be left alone for long is."""
    serve(api, {"OpenReports"})
    places = [namespace(api) for _ in range(2)]
    rows = [row(each, "web") for each in places]
    refused: set[str] = set()

    def once(method: str, path: str) -> int | None:
        """Refuse the first write of each report for a second."""
        if method not in WRITES or path in refused:
            return None
        refused.add(path)
        return 1

    with Relay(control_plane, tmp_path, refuse=once) as relay:
        written = publish(control_plane, OPEN_REPORTS, rows, *places, kubeconfig=relay.kubeconfig)
        assert (written.created, written.failed) == (2, [])
        for place in places:
            first, second = relay.writes(OPEN_REPORTS.path(place))
            assert (first.refused, second.refused) == (True, False)
            assert second.at - first.at >= 1.0
    changed = [row(each, "api") for each in places]
    with Relay(control_plane, tmp_path, refuse=lambda method, _: 3600 if method in WRITES else None) as relay:
        written = publish(control_plane, OPEN_REPORTS, changed, *places, kubeconfig=relay.kubeconfig)
        assert len(relay.writes("/apis/")) == 1, "nothing more is sent to who asked for an hour"
    assert (written.updated, len(written.failed)) == (0, 2)
    assert written.failed[0] == f"{min(places)}/client-ip: 429: too many requests"
    assert publish(control_plane, OPEN_REPORTS, changed, *places).updated == 2, "the next run does what is left"


def test_a_loss_that_is_new_makes_one_event_on_its_workload(control_plane: ControlPlane, api: Api) -> None:
    """Found by `kubectl describe`, since it carries the uid; not again while the report knows it."""
    serve(api, {"OpenReports"})
    where = namespace(api)
    rows = [row(where, "web"), row(where, "fine", FINE)]

    def events() -> list[dict[str, Any]]:
        return api.list("events.k8s.io/v1", "Event", namespace=where)

    assert publish(control_plane, OPEN_REPORTS, rows, where, events=True).events == 1
    assert publish(control_plane, OPEN_REPORTS, rows, where, events=True).events == 0
    (event,) = events()
    assert (event["reason"], event["type"], event["regarding"]["name"]) == ("ClientIPLost", "Normal", "web")
    assert event["regarding"]["uid"] == rows[0].uid
    assert "allow privileged" in event["note"]
    # It was mended, and is lost again: within five minutes nothing more is said, later the series counts it.
    publish(control_plane, OPEN_REPORTS, [], where)
    assert publish(control_plane, OPEN_REPORTS, rows, where, events=True).events == 0
    assert "series" not in events()[0]
    path = f"/apis/events.k8s.io/v1/namespaces/{where}/events/{event['metadata']['name']}"
    long_ago = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}
    api.request("PATCH", path, body=long_ago, content_type="application/merge-patch+json")
    publish(control_plane, OPEN_REPORTS, [], where)
    assert publish(control_plane, OPEN_REPORTS, rows, where, events=True).events == 1
    assert events()[0]["series"]["count"] == 3


def test_the_command_says_what_it_wrote_once(control_plane: ControlPlane, api: Api) -> None:
    options = ("scan", "--kubeconfig", str(control_plane.kubeconfig), "--write-reports", "-n", "default")
    serve(api, set())
    said = run(*options).stderr
    assert said.count("no reports are written") == 1
    assert "serves neither openreports.io/v1alpha1 nor wgpolicyk8s.io/v1alpha2" in said
    assert "serves no openreports.io/v1alpha1" in run(*options, "--reports-api", "OpenReports", code=2).stderr
    serve(api, {"PolicyReport"})
    assert "reports (PolicyReport) for " in run(*options).stderr


def test_files_have_no_reports(tmp_path: Path) -> None:
    for options, said in ((("--write-reports",), "needs a cluster"), (("--events",), "needs --write-reports")):
        assert said in run("scan", "--state", str(tmp_path), *options, code=2).stderr


@pytest.fixture
def empty(control_plane: ControlPlane, tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster of its own for what reports on every namespace, at five writes a second."""
    with ControlPlane(control_plane.version, tmp_path / "kube") as plane:
        yield plane


@pytest.mark.slow
def test_the_charts_cron_job_may_do_what_it_does(empty: ControlPlane) -> None:
    """Its own ServiceAccount with the rendered RBAC and nothing else runs the rendered command to the end."""
    api = empty.client()
    serve(api, {"OpenReports"})
    for name in ("client-ip-system", "istio-system"):
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    rendered = render({"scan": {"enabled": True, "events": True, "jitterSeconds": 0}})
    for document in rendered:
        if document["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "client-ip-scan":
            api.apply(document)
    pod = only(rendered, "CronJob", "client-ip-scan")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    kubeconfig = empty.service_account_kubeconfig("client-ip-system", pod["serviceAccountName"])
    done = run(*pod["containers"][0]["args"], "--kubeconfig", str(kubeconfig))
    assert "reports (OpenReports) for " in done.stderr
    assert "not read" not in done.stderr
    assert "not written" not in done.stderr
    assert "recorded in client-ip-system/client-ip-scan" in done.stderr
    data = api.get("v1", "ConfigMap", "client-ip-scan", namespace="client-ip-system")["data"]
    left = parse(data[KEY].encode(), now=datetime.now(UTC))
    assert datetime.now(UTC) - left.time < timedelta(hours=1)
    allowed = empty.client(token=empty.service_account_token("client-ip-system", "client-ip-scan"))
    with pytest.raises(ApiError, match="403"):
        allowed.list("v1", "Secret", namespace="client-ip-system")
    for change in ({"metadata": {"name": "other"}}, {"metadata": {"name": "client-ip-scan"}}):
        with pytest.raises(ApiError, match="403"):
            allowed.create({"apiVersion": "v1", "kind": "ConfigMap", **change}, namespace="client-ip-system")
    with pytest.raises(ApiError, match="403"):
        allowed.get("v1", "ConfigMap", "client-ip-scan", namespace="client-ip-system")
    api.delete("v1", "ConfigMap", "client-ip-scan", namespace="client-ip-system")
    missing = run(*pod["containers"][0]["args"], "--kubeconfig", str(kubeconfig), code=2)
    assert "the ConfigMap client-ip-system/client-ip-scan does not exist" in missing.stderr
    with pytest.raises(ApiError, match="403"):
        allowed.patch("v1", "Namespace", "default", {"metadata": {"labels": {"a": "b"}}})
