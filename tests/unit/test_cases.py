"""Every case of `tests/cases/` through the review codec and the core, and through `client-ip check`."""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jsonpatch
import pytest
import yaml
from click.testing import CliRunner

from tests.cases.case import Case, Expected, cases, cluster_of, identifier, patch_of
from webhook.cli.main import client_ip
from webhook.facts.collect import Collector
from webhook.rules.decide import decide, explain
from webhook.rules.decision import OUTCOMES, Decision, Mode, Outcome, Reason
from webhook.rules.snapshot import Snapshot
from webhook.server.review import decode, decode_response, encode

CASES: Final = tuple(cases())
NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
of_every_case: Final = pytest.mark.parametrize("case", CASES, ids=identifier)


def snapshot_of(case: Case) -> Snapshot:
    """Return the facts as `serve` would have them."""
    namespace = case.namespace_document()
    facts = [*cluster_of(case), *([namespace] if namespace is not None else ())]
    collector = Collector(from_files=not case.injectors)
    for document in sorted(facts, key=lambda each: each["kind"] != "ClientIPPolicy"):  # nodes are read by its rules
        collector.put(document["apiVersion"], document["kind"], document)
    return collector.snapshot()


def review_of(case: Case, reviewed: Mapping[str, Any]) -> bytes:
    """Return the AdmissionReview as the API server sends it."""
    group, _, version = case.object["apiVersion"].rpartition("/")
    deleted = case.operation == "DELETE"
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": case.object["kind"]},
        "namespace": case.namespace_name,
        "name": case.object["metadata"].get("name", ""),
        "operation": case.operation,
        "object": None if deleted else reviewed,
        "oldObject": reviewed if deleted else case.old_object,
        "dryRun": case.dry_run,
    }
    if case.sub_resource:
        request["subResource"] = case.sub_resource
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def answered(case: Case, snapshot: Snapshot, reviewed: Mapping[str, Any]) -> tuple[Decision, dict[str, Any]]:
    """Return the decision, and the response as the API server reads it."""
    uid, request = decode(review_of(case, reviewed))
    decision = decide(request, snapshot, now=NOW)
    asked = explain(request, snapshot, now=NOW)
    first = next(each.answer for each in asked if each.answer is not None)
    assert (first.reason, first.cause) == (decision.reason, decision.cause)
    return decision, decode_response(encode(uid, decision))


def as_mapping(operations: list[dict[str, Any]]) -> dict[str, Any]:
    assert all(each["op"] == "add" for each in operations)
    return {each["path"]: each["value"] for each in operations}


def assert_warned(warnings: list[str], want: Expected) -> None:
    """A loss is warned of first, and only where it is enforced; then whatever else there is to say."""
    rest = list(warnings)
    if want.outcome is Outcome.LOST and want.mode is Mode.ENFORCE:
        head = rest.pop(0)
        assert head.startswith(f"client IP lost ({want.reason}): ")
    assert len(rest) == len(want.warnings), warnings
    assert all(part in warning for part, warning in zip(want.warnings, rest, strict=True)), warnings
    assert all(len(warning) <= 200 for warning in warnings)


@of_every_case
def test_a_case_is_decided_as_it_says(case: Case) -> None:
    want, snapshot = case.expect, snapshot_of(case)
    decision, response = answered(case, snapshot, case.object)
    assert (decision.reason, decision.outcome) == (want.reason, want.outcome), decision.cause
    assert want.cause in decision.cause
    assert response["allowed"] is True
    said = response["auditAnnotations"]
    if want.outcome is not Outcome.NOT_ASKED:
        assert decision.mode is want.mode
    assert (said["reason"], said["outcome"], said["mode"]) == (want.reason, want.outcome, decision.mode)
    assert bool(decision.invalid_preserve) == want.invalid_preserve
    assert_warned(response.get("warnings", []), want)
    assert as_mapping(response.get("patch", [])) == patch_of(want.patch)
    assert as_mapping([each.as_json() for each in decision.would_patch]) == patch_of(want.would_patch)
    if "patch" in response:
        assert response["patchType"] == "JSONPatch"


@of_every_case
def test_a_case_decided_on_its_own_output_changes_nothing(case: Case) -> None:
    snapshot = snapshot_of(case)
    decision, response = answered(case, snapshot, case.object)
    stored = jsonpatch.apply_patch(copy.deepcopy(case.object), response.get("patch", []))
    again, second = answered(case, snapshot, stored)
    assert again.reason is decision.reason
    assert "patch" not in second


CHECKED: Final = tuple(
    case
    for case in CASES
    if case.operation == "CREATE" and not case.sub_resource and case.expect.reason is not Reason.POLICY_INVALID
)
"""What `check` can be asked: it knows no other operation, and calls a policy that can't be used a mistake."""


@pytest.mark.parametrize("case", CHECKED, ids=identifier)
def test_check_says_the_same(case: Case, tmp_path: Path) -> None:
    """The same manifest, the same facts, by files."""
    state, manifest = tmp_path / "state.yaml", tmp_path / "manifest.yaml"
    namespace = case.namespace_document()
    state.write_text(yaml.safe_dump_all([*cluster_of(case), *([namespace] if namespace is not None else ())]))
    manifest.write_text(yaml.safe_dump(case.object))
    arguments = ["check", "--state", str(state), "-n", case.namespace_name, "--now", NOW.isoformat(), "--strict"]
    done = CliRunner().invoke(client_ip, [*arguments, "-o", "json", str(manifest)], standalone_mode=False)
    want = case.expect
    lost = want.outcome is Outcome.LOST and want.mode is Mode.ENFORCE
    assert done.return_value == (1 if lost else 0), done.output
    (element,) = json.loads(done.stdout)
    assert (element["reason"], element["outcome"]) == (want.reason, want.outcome)
    templated = case.object["kind"] not in {"Pod", "Service"}
    if not templated:
        assert as_mapping(element["patch"]) == patch_of(want.patch)
    assert as_mapping(element.get("wouldPatch", [])) == patch_of(want.would_patch)


def test_every_reason_and_outcome_is_reached() -> None:
    reached = {(case.expect.reason, case.expect.outcome) for case in CASES}
    usual = {(reason, OUTCOMES[reason]) for reason in Reason}
    by_mode = {(Reason.ALREADY_INJECTED, Outcome.PRESERVED), (Reason.MODE_ALREADY_SET, Outcome.PRESERVED)}
    assert reached == usual | by_mode


def test_every_case_has_a_name_of_its_own() -> None:
    names = [identifier(case) for case in CASES]
    assert sorted(set(names)) == sorted(names)
