"""What must never happen, and what always must, whatever is decided in whatever cluster."""

import copy
from collections import Counter
from typing import Final

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.property import clusters, documents as made, plain
from tests.property.clusters import METHOD, MODE, NAMESPACES, NEVER_TOUCHED, NOW, PRESERVE, Reviewed
from tests.property.documents import Document
from webhook.rules.decide import decide, explain
from webhook.rules.decision import ADVICE, OUTCOMES, Mode, Outcome, Reason
from webhook.rules.snapshot import Snapshot

law = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PATHS: Final = frozenset(
    {
        "/metadata/labels",
        "/metadata/labels/client-ip.dev~1method",
        "/metadata/annotations",
        "/metadata/annotations/sidecar.istio.io~1interceptionMode",
        "/spec/externalTrafficPolicy",
    },
)


def applied(document: Document, patch: list[Document]) -> Document:
    """Return *document* as the API server would store it."""
    patched: Document = jsonpatch.apply_patch(copy.deepcopy(document), patch)
    return patched


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_a_patch_only_adds_what_is_needed_and_applies(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """The API server refuses the request if a patch doesn't apply, whatever the failurePolicy."""
    patch = clusters.patch_of(snapshot, reviewed)
    before = reviewed.document
    for operation in patch:
        assert operation["op"] == "add"
        assert operation["path"] in PATHS
        after = applied(before, [operation])
        assert after != before, "an operation that changes nothing"
        before = after
    # What was there stays there, but for our own label and field.
    for part in ("labels", "annotations"):
        was = reviewed.document["metadata"].get(part) or {}
        now = before["metadata"].get(part) or {}
        assert {key: now[key] for key in was if key != METHOD} == {key: was[key] for key in was if key != METHOD}
    if reviewed.kind not in {"Pod", "Service"}:
        assert patch == []


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_deciding_on_our_own_output_changes_nothing(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """The same reason, and no patch."""
    patch = clusters.patch_of(snapshot, reviewed)
    again = reviewed.changed(applied(reviewed.document, patch))
    assert clusters.patch_of(snapshot, again) == []
    assert again.decided(snapshot).reason is reviewed.decided(snapshot).reason


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_explain_ends_where_decide_does(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """The first question that answers is the decision; those before it have a fact, those after it are not asked."""
    request = reviewed.request()
    decision = decide(request, snapshot, now=NOW)
    asked = explain(request, snapshot, now=NOW)
    first = next(each.answer for each in asked if each.answer is not None)
    assert (first.reason, first.cause) == (decision.reason, decision.cause)
    assert first.patch in {decision.patch, decision.would_patch} or decision.mode is Mode.DISABLED or not _pod(reviewed)
    answered = [each.answer is not None for each in asked].index(True)
    for each in asked[: answered + 1]:
        assert each.asked
        assert each.answer is None or each.fact == each.answer.cause
        assert each.fact, each.question
    for each in asked[answered + 1 :]:
        assert (each.asked, each.answer, each.fact) == (False, None, "")


def _pod(reviewed: Reviewed) -> bool:
    return reviewed.kind in {"Pod", "Service"}


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_what_did_not_opt_in_is_never_touched(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """Nor a system namespace, nor the webhook's own: no patch, no warning."""
    labels = reviewed.document["metadata"].get("labels") or {}
    around = NAMESPACES.get(reviewed.namespace, {}).get(PRESERVE)
    word = labels.get(PRESERVE)
    asked = word if word in {"enabled", "audit", "disabled"} else around
    decision = reviewed.decided(snapshot)
    if reviewed.namespace in NEVER_TOUCHED or (_pod(reviewed) and asked != "enabled"):
        assert not decision.patch
        assert not decision.warnings or decision.reason is Reason.NAMESPACE_UNKNOWN


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.pods)
def test_a_users_own_mode_stands(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """A mode that is there is never overwritten, and an injected pod never patched."""
    annotations = reviewed.document["metadata"].get("annotations") or {}
    patch = clusters.patch_of(snapshot, reviewed)
    if MODE in annotations or "sidecar.istio.io/status" in annotations:
        after = applied(reviewed.document, patch)["metadata"].get("annotations")
        assert after == reviewed.document["metadata"].get("annotations")
    if "sidecar.istio.io/status" in annotations:
        assert patch == []


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_audit_decides_as_enforce_does(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """The same reason; nothing is patched, nobody warned; what would be patched is told."""
    metadata = reviewed.document["metadata"]
    labels = metadata.get("labels") or {}

    def asking(word: str) -> Reviewed:
        return reviewed.changed({**reviewed.document, "metadata": {**metadata, "labels": {**labels, PRESERVE: word}}})

    if not _pod(reviewed):
        return
    enforced, audited = asking("enabled").decided(snapshot), asking("audit").decided(snapshot)
    assert audited.reason is enforced.reason
    assert audited.outcome is enforced.outcome
    assert audited.patch == ()
    assert audited.warnings == ()
    if enforced.mode is Mode.ENFORCE:
        assert audited.mode is Mode.AUDIT
        assert audited.would_patch == enforced.patch


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_who_loses_the_clients_ip_is_told_in_one_line(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """At most 200 characters, with what to do."""
    decision = reviewed.decided(snapshot)
    told = [warning for warning in decision.warnings if warning.startswith("client IP lost")]
    assert len(told) == (decision.outcome is Outcome.LOST and decision.mode is Mode.ENFORCE)
    for warning in decision.warnings:
        assert len(warning) <= 200
        assert warning.isprintable()
    for warning in told:
        assert warning.startswith(f"client IP lost ({decision.reason}): ")
        assert warning.endswith(f"; {ADVICE[decision.reason]}")
    assert decision.outcome in {OUTCOMES[decision.reason], Outcome.PRESERVED}


@settings(max_examples=300, deadline=None)
@given(nodes=made.clusters, spec=made.pod_specs, name=st.sampled_from(("", "", "", *made.NAMES[:4])))
def test_nodes_decide_as_the_plain_loop_does(nodes: list[Document], spec: Document, name: str) -> None:
    """Feasible nodes, those of the future, and a pod that has skipped the scheduler."""
    spec = {**spec, "nodeName": name} if name else spec
    pod = Reviewed("Pod", "shop", "CREATE", {"kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
    decision = pod.decided(clusters.snapshot_of(clusters.INJECTOR, *nodes))
    assert str(decision.reason) == plain.answer(spec, nodes)
    assert bool(decision.patch) == (decision.reason is Reason.TPROXY)


@pytest.mark.slow
def test_the_clusters_made_here_reach_every_reason() -> None:
    """Else the laws would say little."""
    reached: Counter[Reason] = Counter()

    @settings(max_examples=2000, deadline=None, derandomize=True, database=None)
    @given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
    def count(snapshot: Snapshot, reviewed: Reviewed) -> None:
        reached[reviewed.decided(snapshot).reason] += 1

    count()
    assert set(reached) == set(Reason), reached
