"""When waivers end, and who hears of it: exceptions of a policy, and opt-outs of an object's own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhook.facts.collect import Collector, decode
from webhook.rules.decide import decide, explain
from webhook.rules.decision import Decision, Reason
from webhook.rules.ends import NOTICE, End, end_state, moment, read_time
from webhook.rules.limits import OWNER_LIMIT
from webhook.rules.objects import Reviewed
from webhook.rules.optin import opt_out
from webhook.rules.snapshot import Request, Snapshot

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
UNTIL = "client-ip.dev/opt-out-until"
OWNER = "client-ip.dev/opt-out-owner"


@pytest.mark.parametrize(
    ("ahead", "want"),
    [
        (NOTICE + SECOND, End.LIVE),
        (NOTICE, End.ENDING),
        (SECOND, End.ENDING),
        (timedelta(), End.ENDED),
        (-SECOND, End.ENDED),
    ],
    ids=["ALMOST within a week", "JUST within a week", "the last second", "the end itself", "after it"],
)
def test_a_waiver_is_live_then_ending_then_ended(ahead: timedelta, want: End) -> None:
    assert end_state(NOW + ahead, now=NOW) is want


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z"])
def test_the_first_and_last_moments_can_be_compared(text: str) -> None:
    assert end_state(read_time(text), now=NOW) is (End.LIVE if text.startswith("9") else End.ENDED)


def test_a_moment_is_written_as_it_is_read() -> None:
    for text in ("2027-01-31T00:00:00Z", "2027-01-31T08:00:00+08:00"):
        assert moment(read_time(text)) == text


def snapshot(*exceptions: dict[str, Any], mode: str = "Enforce", preserve: str = "enabled") -> Snapshot:
    collector = Collector()
    labels = {"client-ip.dev/preserve": preserve} if preserve else {}
    namespace = {"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
    collector.put("v1", "Namespace", namespace)
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    injector = {"metadata": {"name": "istio", "labels": {"app": "sidecar-injector"}}, "webhooks": [{"rules": [rule]}]}
    collector.put("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", injector)
    policy = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "default"},
        "spec": {"mode": mode, "exceptions": list(exceptions)},
    }
    collector.put("client-ip.dev/v1alpha1", "ClientIPPolicy", policy)
    return collector.snapshot()


def exception(name: str, expires: datetime, **fields: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "web"}}
    said = {"name": name, "owner": "team-shop", "reason": "old", "expires": moment(expires), "selector": selector}
    return {**said, **fields}


def decided(facts: Snapshot, *, kind: str = "Pod", now: datetime = NOW, **metadata: Any) -> Decision:
    pod = {"metadata": {"name": "a", "labels": {"app": "web"}, **metadata}, "spec": {"containers": []}}
    document = {"kind": kind, **pod} if kind == "Pod" else {"kind": kind, "spec": {"template": pod}}
    reviewed = decode(document, Reviewed)
    return decide(Request(object=reviewed, namespace="shop", kind=kind), facts, now=now)


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_whoever_applies_what_an_exception_covers_hears_of_its_end_a_week_before(kind: str) -> None:
    facts = snapshot(exception("legacy", NOW))
    said = ("exception legacy of policy default ends 2026-11-25T12:00:00Z (team-shop)",)
    before = decided(facts, kind=kind, now=NOW - NOTICE - SECOND)
    within = decided(facts, kind=kind, now=NOW - NOTICE)
    assert (before.reason, before.warnings) == (Reason.EXCEPTED, ())
    assert (within.reason, within.warnings) == (Reason.EXCEPTED, said)
    after = decided(facts, kind=kind, now=NOW)
    assert after.reason is not Reason.EXCEPTED
    assert after.warnings[1:] == ("exception legacy of policy default ended 2026-11-25T12:00:00Z (team-shop)",)


def test_the_exception_that_covered_it_last_is_named() -> None:
    facts = snapshot(
        exception("first", NOW - 9 * SECOND),
        exception("last", NOW - SECOND, owner="team-b"),
        exception("others", NOW, selector={"matchLabels": {"app": "other"}}),
    )
    said = "exception last of policy default ended 2026-11-25T11:59:59Z (team-b)"
    assert decided(facts).warnings[1:] == (said,)
    pod = decode({"kind": "Pod", "metadata": {"name": "a", "labels": {"app": "web"}}}, Reviewed)
    facts_told = [each.fact for each in explain(Request(object=pod, namespace="shop"), facts, now=NOW)]
    assert "its exception last ended 2026-11-25T11:59:59Z (team-b)" in facts_told[1]


def test_an_exception_that_goes_on_hides_one_that_ended() -> None:
    facts = snapshot(exception("old", NOW - SECOND), exception("new", NOW + 2 * NOTICE))
    assert (decided(facts).reason, decided(facts).warnings) == (Reason.EXCEPTED, ())


@pytest.mark.parametrize(
    "facts", [snapshot(exception("e", NOW), mode="Audit"), snapshot(exception("e", NOW), preserve="audit")]
)
def test_in_audit_nobody_is_warned(facts: Snapshot) -> None:
    assert decided(facts, now=NOW - SECOND).warnings == ()
    assert decided(facts, now=NOW).warnings == ()


def opted_out(until: str, owner: str = "team-shop", preserve: str = "disabled") -> dict[str, Any]:
    labels = {"app": "web", "client-ip.dev/preserve": preserve}
    return {"labels": labels, "annotations": {UNTIL: until, OWNER: owner}}


def test_whoever_applies_what_opted_out_hears_of_its_end_a_week_before() -> None:
    metadata = opted_out(moment(NOW))
    assert decided(snapshot(), now=NOW - NOTICE - SECOND, **metadata).warnings == ()
    within = decided(snapshot(), now=NOW - NOTICE, **metadata)
    ends = "label client-ip.dev/preserve=disabled ends 2026-11-25T12:00:00Z (team-shop)"
    said = f"{ends}: then the namespace's label applies"
    assert (within.reason, within.warnings) == (Reason.OPTED_OUT, (said,))
    after = decided(snapshot(), now=NOW, **metadata)
    assert after.reason is not Reason.OPTED_OUT
    said = "label client-ip.dev/preserve=disabled ended 2026-11-25T12:00:00Z (team-shop): the namespace's label applies"
    assert after.warnings[-1] == said


@pytest.mark.parametrize("facts", [snapshot(preserve="audit"), snapshot(preserve=""), snapshot(mode="Audit")])
def test_nobody_is_warned_where_the_end_changes_nothing_that_is_patched(facts: Snapshot) -> None:
    metadata = opted_out(moment(NOW))
    assert decided(facts, now=NOW - SECOND, **metadata).warnings == ()
    assert decided(facts, now=NOW, **metadata).warnings == ()


def test_a_long_owner_and_a_long_end_are_cut() -> None:
    out = opt_out({UNTIL: "2027-01-31T00:00:00." + "0" * 300_000 + "Z", OWNER: "o" * 300_000})
    assert out is not None
    assert out.until is None
    assert len(out.owner) == OWNER_LIMIT
    assert len(str(out)) < 200
    decision = decided(snapshot(), **opted_out("9" * 300_000, "o" * 300_000))
    assert decision.reason is Reason.OPTED_OUT
    assert len(decision.cause) < 300


def test_an_end_without_an_owner_says_so() -> None:
    assert str(opt_out({UNTIL: "2027-01-31T00:00:00Z"})) == "until 2027-01-31T00:00:00Z, without an owner"
    assert opt_out({OWNER: "team-shop"}) is None
    assert opt_out(None) is None
