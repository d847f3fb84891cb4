"""`client-ip test`: our own cases by it, what differs, what is wrong with a case and where, and recording."""

import json
import shutil
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.cases.case import FOLDER, cases
from tests.cli.command import CLUSTER, run

NOW: Final = ("--now", "2026-06-01T00:00:00Z")
ISTIO: Final = f"{CLUSTER}/istio.yaml"
GOOD: Final = """\
case: pinned to nodes that can
object: {kind: Pod, spec: {nodeSelector: {pool: general}}}
expect: {reason: tproxy, outcome: preserved, patch: tproxy}
"""


def results_of(*arguments: str | Path, code: int = 0, output: str = "json") -> Any:
    options = ("--state", CLUSTER, *NOW, "-o", output)
    done = run("test", *options, *map(str, arguments), code=code)
    return json.loads(done.stdout) if output == "json" else done


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.yaml"
    path.write_text(GOOD)
    return path


def test_our_own_cases_are_of_this_format(tmp_path: Path) -> None:
    """All but those that our loader makes long (`!times`)."""
    shutil.copytree(FOLDER, tmp_path / "cases")
    made_long = [each for each in (tmp_path / "cases").glob("*/*.yaml") if "!times" in each.read_text()]
    for each in made_long:
        each.unlink()
    names = {each.stem for each in made_long}
    done = run("test", "--state", ISTIO, *NOW, "-o", "json", str(tmp_path / "cases"))
    results = json.loads(done.stdout)
    assert len(results) == len([each for each in cases() if each.file not in names]) > 100
    assert all(each["passed"] for each in results)


def test_what_differs_is_said_with_the_questions(case: Path) -> None:
    case.write_text(GOOD.replace("general", "legacy").replace("tproxy, outcome", "local, outcome"))
    said = results_of(case, code=1, output="text").stdout
    assert f"FAIL {case}:1 (document 1): pinned to nodes that can" in said
    assert "    reason: wanted local, got incompatible-nodes\n" in said
    assert "    outcome: wanted preserved, got lost\n" in said
    assert "got nothing\n" in said
    assert "do all feasible nodes support TPROXY? incompatible-nodes: no feasible node" in said
    assert said.splitlines()[-1] == "1 case: 0 passed, 1 failed"


def test_a_patch_that_was_not_made_is_never_called_applied(case: Path) -> None:
    """The policy matches nothing: what came out is said, and that the policy decided no case."""
    case.write_text(
        GOOD
        + "facts: [{kind: ClientIPPolicy, metadata: {name: strict}, "
        + "spec: {mode: Enforce, namespaceSelector: {matchLabels: {no: body}}}}]\n"
    )
    said = results_of(case, output="text").stdout
    assert "no case was decided by: strict" in said
    case.write_text(case.read_text().replace("patch: tproxy", "policy: strict, patch: tproxy"))
    assert "policy: wanted strict, got default" in results_of(case, code=1, output="text").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "case: a\nobject: {kind: Pod}\nexpect:\n  reason: tproxi\n  outcome: lost\n",
            ":4 (document 1): expect.reason:",
        ),
        ("case: a\nobject: {kind: Pod}\n", "missing required field `expect`"),
        (GOOD + "---\n" + GOOD + "expects: {}\n", ":8 (document 2): expects: Object contains unknown field"),
        (GOOD + "version: 2\n", ":4 (document 1): version: must be 1"),
        (GOOD.replace("patch: tproxy", "patch: tproxi"), "expect.patch: there is no common patch named 'tproxi'"),
        (GOOD.replace("kind: Pod", "kind: Gadget"), "object: every object needs a known kind: 'Gadget'"),
        (GOOD.replace("{pool: general}", "[]"), ":2 (document 1): object.spec.nodeSelector: Expected `object"),
        ("case: [\n", ":"),
        ("- a\n", "must be a case"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "this is a Kubernetes object, not a case"),
        (
            GOOD + "facts: [{kind: Node, metadata: {name: 3}}]\n",
            "facts: Node: metadata.name: Expected `str`, got `int`",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(case: Path, text: str, said: str) -> None:
    case.write_text(text)
    done = run("test", "--state", CLUSTER, str(case), code=2)
    assert f"{case}:" in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_no_case_at_all_is_no_success(case: Path, text: str) -> None:
    case.write_text(text)
    assert "the input has no case" in run("test", "--state", CLUSTER, str(case), code=2).stderr
    assert "no such file or folder" in run("test", str(case.parent / "missing"), code=2).stderr


def test_junit_has_a_failure_for_each_difference(case: Path) -> None:
    case.write_text(GOOD + "---\n" + GOOD.replace("outcome: preserved", "outcome: lost"))
    root = ET.fromstring(results_of(case, code=1, output="junit").stdout)  # noqa: S314  # our own output
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    (failure,) = root.iter("failure")
    assert failure.get("message") == "outcome: wanted lost, got preserved"


def test_a_recorded_manifest_passes_as_it_is(tmp_path: Path) -> None:
    """Whatever the examples hold; and a changed policy shows."""
    recorded = tmp_path / "recorded.yaml"
    done = run("test", "--record", "--state", CLUSTER, *NOW, "examples/apps")
    recorded.write_text(done.stdout)
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) > 5
    assert {each["version"] for each in documents} == {1}
    results = results_of(recorded)
    assert [each["case"] for each in results if not each["passed"]] == []
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: client-ip.dev/v1alpha1\nkind: ClientIPPolicy\nmetadata: {name: disabled}\nspec: {mode: Disabled}\n"
    )
    changed = json.loads(
        run("test", "--state", CLUSTER, "--policy", str(policy), *NOW, "-o", "json", str(recorded), code=1).stdout
    )
    assert any("reason: wanted tproxy, got policy-disabled" in each["differences"] for each in changed)
