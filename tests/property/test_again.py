"""What is decided again is decided as it would be alone, whatever was decided before, and when."""

import copy
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.property import clusters
from tests.property.clusters import NOW, PRESERVE, Reviewed
from webhook.facts.collect import Collector
from webhook.rules.again import decide_again, what_is_read
from webhook.rules.decide import decide
from webhook.rules.decision import Reason
from webhook.rules.ends import NOTICE, end_state, state_changes
from webhook.rules.limits import KEPT_DECISIONS, KEPT_PODS_BYTES, KEPT_PODS_OF_BYTES
from webhook.rules.objects import Container, ObjectMeta, Pod, PodSpec
from webhook.rules.snapshot import Request, Snapshot

SECOND: Final = timedelta(seconds=1)
TIMES: Final = (timedelta(days=-400), timedelta(), SECOND, timedelta(days=3), timedelta(days=30), timedelta(days=4000))


def sized(reviewed: Reviewed) -> Request:
    """Return the request as it comes over the wire: its size is known."""
    return msgspec.structs.replace(reviewed.request(), size=len(msgspec.json.encode(reviewed.document)) + 500)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    snapshot=clusters.snapshots,
    asked=st.lists(st.tuples(clusters.reviewed, st.sampled_from(TIMES)), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_a_decision_is_the_same_however_often_it_is_asked(
    snapshot: Snapshot, asked: Sequence[tuple[Reviewed, timedelta]], order: Any
) -> None:
    """In any order, the clock going back too."""
    requests = [(sized(reviewed), NOW + after) for reviewed, after in asked] * 3
    order.shuffle(requests)
    for request, now in requests:
        assert decide_again(request, snapshot, now=now) == decide(request, snapshot, now=now)


# Each part of a pod that is read, and something else in its place.
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "metadata": {
        "name": "b",
        "generate_name": "b-",
        "namespace": "b",
        "labels": {"app": "b"},
        "annotations": {"a": "b"},
        "deletion_timestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "node_name": "b",
        "node_selector": {"zone": "b"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "tolerations": [{"operator": "Exists"}],
        "host_network": True,
        "runtime_class_name": "b",
        "containers": [{"name": "a"}, {"name": "b"}],
        "init_containers": [{"name": "b"}],
    },
}


def test_every_part_of_a_pod_has_its_place_in_what_is_read() -> None:
    """A field that decisions come to read is told apart, or this fails."""
    assert set(OTHERS["metadata"]) == set(ObjectMeta.__struct_fields__)
    assert set(OTHERS["spec"]) == set(PodSpec.__struct_fields__)
    pod = Pod(metadata=ObjectMeta(name="a"), spec=PodSpec(containers=[Container(name="a")]))
    found = {what_is_read(pod, "shop"), what_is_read(pod, "other")}
    for part, fields in OTHERS.items():
        types = msgspec.structs.fields(type(getattr(pod, part)))
        for name, value in fields.items():
            kind = next(each.type for each in types if each.name == name)
            changed = msgspec.structs.replace(getattr(pod, part), **{name: msgspec.convert(value, kind)})
            found.add(what_is_read(msgspec.structs.replace(pod, **{part: changed}), "shop"))
    assert len(found) == 2 + sum(map(len, OTHERS.values()))


EXCEPTION: Final = {
    "name": "moving",
    "owner": "team-a",
    "reason": "the old load balancer",
    "selector": {"matchLabels": {"app": "a"}},
    "expires": "2026-12-01T00:00:00Z",
}
EXPIRES: Final = datetime(2026, 12, 1, tzinfo=UTC)


def excepting() -> Snapshot:
    """Return a cluster with an exception that ends."""
    return clusters.snapshot_of(
        clusters.policy("default", {"mode": "Enforce", "exceptions": [EXCEPTION]}), nodes_synced=True
    )


def of_app(app: str, *, size: int = 2_000, **metadata: Any) -> Request:
    """Return a review of a pod of *app*."""
    pod = Pod(metadata=ObjectMeta(generate_name=f"{app}-", labels={"app": app}, **metadata))
    return Request(object=pod, namespace="shop", kind="Pod", size=size)


@pytest.mark.parametrize("back", [False, True], ids=["as time goes", "the clock goes back"])
def test_what_was_kept_is_forgotten_when_an_exception_begins_to_end_and_ends(back: bool) -> None:  # noqa: FBT001
    snapshot = excepting()
    times = [EXPIRES + after for edge in (-NOTICE, timedelta()) for after in (edge - SECOND, edge, edge + SECOND)]
    decisions = []
    for now in reversed(times) if back else times:
        for _ in range(2):
            decision = decide_again(of_app("a"), snapshot, now=now)
            assert decision == decide(of_app("a"), snapshot, now=now)
        decisions.append(decision)
    reasons = [each.reason for each in decisions]
    assert reasons.count(Reason.EXCEPTED) == 4
    assert len({(each.reason, each.warnings) for each in decisions}) == 3, "that it ends is told before it does"
    assert len(snapshot.decided) == 1


@pytest.mark.parametrize("end", ["0001-01-01T00:00:00+00:00", "0001-01-03T00:00:00+14:00", "2026-12-01T00:00:00+00:00"])
def test_a_state_changes_at_its_changes_and_at_no_other_time(end: str) -> None:
    ends = datetime.fromisoformat(end)
    begins, ended = state_changes(ends)
    assert ended == ends
    just = timedelta(microseconds=1)
    if ends.year > 1:
        assert end_state(ends, now=begins - just) is not end_state(ends, now=begins)
    assert end_state(ends, now=ended) is end_state(ends, now=NOW.replace(year=9000))
    if begins < ended:
        assert end_state(ends, now=begins) is end_state(ends, now=ended - just) is not end_state(ends, now=ended)


def test_few_decisions_are_kept_and_none_on_much() -> None:
    """Whatever is asked: a tenant may ask something else with every pod."""
    snapshot = excepting()
    for number in range(3 * KEPT_DECISIONS):
        decide_again(of_app(f"app-{number}"), snapshot, now=NOW)
        assert 0 < len(snapshot.decided) <= KEPT_DECISIONS
    snapshot = excepting()
    decide_again(of_app("a", annotations={"long": "a" * KEPT_PODS_BYTES}), snapshot, now=NOW)
    decide_again(of_app("a", size=KEPT_PODS_OF_BYTES + 1), snapshot, now=NOW)
    decide_again(of_app("a", size=0), snapshot, now=NOW)
    assert len(snapshot.decided) == 0
    decide_again(of_app("a"), snapshot, now=NOW)
    assert len(snapshot.decided) == 1


@pytest.mark.parametrize(
    "request_",
    [
        of_app("a", annotations={"sidecar.istio.io/status": "{}"}),
        msgspec.structs.replace(of_app("a"), operation="UPDATE"),
        msgspec.structs.replace(of_app("a"), subresource="exec"),
        msgspec.structs.replace(of_app("a"), excess="spec.tolerations: 9,000"),
        msgspec.structs.replace(
            of_app("a"), object=Pod(metadata=ObjectMeta(labels={PRESERVE: "audit"}), spec=PodSpec())
        ),
        msgspec.structs.replace(of_app("a"), object=Pod(spec=PodSpec(init_containers=[Container(name="istio-proxy")]))),
    ],
    ids=["injected", "UPDATE", "a subresource", "too large", "an end of its own", "a proxy of its own"],
)
def test_what_is_rare_is_decided_anew(request_: Request) -> None:
    snapshot = excepting()
    assert decide_again(request_, snapshot, now=NOW) == decide(request_, snapshot, now=NOW)
    assert len(snapshot.decided) == 0


def test_a_snapshot_that_is_made_from_another_begins_with_nothing() -> None:
    snapshot = excepting()
    decide_again(of_app("a"), snapshot, now=NOW)
    other = dataclasses.replace(snapshot, namespaces={"shop": {}})
    assert len(snapshot.decided) == 1
    assert len(other.decided) == 0
    assert decide_again(of_app("a"), other, now=NOW) == decide(of_app("a"), other, now=NOW)
    assert decide_again(of_app("a"), snapshot, now=NOW) == decide(of_app("a"), snapshot, now=NOW)
    assert copy.copy(Collector().snapshot()).decided is not snapshot.decided
