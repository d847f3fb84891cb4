"""`client-ip scan` over files: forms, exit status, baselines, and what it says of bad input."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.command import APPS, CLUSTER, run
from tests.unit.running.cluster import LEGACY, of_deployment, workload

NOW: Final = ("--now", "2026-06-01T12:00:00Z")


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A dump of the namespace shop: one to restart, one to change."""
    path = tmp_path / "dump.yaml"
    objects = [workload("web"), workload("old", LEGACY)]
    pods = [of_deployment(name, number) for name in ("web", "old") for number in range(2)]
    path.write_text(yaml.safe_dump_all([*objects, *({"apiVersion": "v1", **each} for each in pods)]))
    return path


def scanned(*arguments: str, code: int = 0) -> Any:
    return json.loads(run("scan", "--state", CLUSTER, *arguments, *NOW, "-o", "json", code=code).stdout)


def test_the_sentence_comes_first(dump: Path) -> None:
    printed = run("scan", "--state", CLUSTER, "--state", str(dump), *NOW).stdout
    assert printed.splitlines()[0] == "2 workloads: 0 preserved, 1 after a restart, 1 needs a change"
    assert "    kubectl rollout restart deployment/web -n shop\n" in printed
    assert "incompatible-nodes: schedule the pod" in printed


def test_json_has_the_pair(dump: Path) -> None:
    found = scanned("--state", str(dump))
    assert [(row["name"], row["advice"], row["reason"]) for row in found["rows"]] == [
        ("web", "restart", "already-injected"),
        ("old", "change", "incompatible-nodes"),
    ]
    assert found["rows"][0]["now"]["outcome"] == "lost"
    assert found["rows"][0]["after"]["outcome"] == "preserved"
    assert found["counts"]["pods"] == 4


def test_it_fails_by_what_is_asked(dump: Path) -> None:
    scanned("--state", str(dump), "--fail-on", "lost", code=1)
    scanned("--state", str(dump), "--fail-on", "never")
    scanned("--state", APPS, "-n", "plain", "--fail-on", "lost")


def test_a_baseline_says_what_is_new(dump: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.json"
    first = run("scan", "--state", CLUSTER, "--state", str(dump), *NOW, "-o", "json", "--output-file", str(before))
    assert f"written to {before}" in first.stderr
    same = ("--state", str(dump), "--baseline", str(before), "--fail-on", "new")
    assert {row["change"] for row in scanned(*same)["rows"]} == {"unchanged"}
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(workload("more", LEGACY)))
    found = scanned(*same, "--state", str(more), code=1)
    assert {row["name"]: row["change"] for row in found["rows"]} == {
        "web": "unchanged",
        "old": "unchanged",
        "more": "new",
    }
    assert found["compared"] == "since 2026-06-01 12:00 UTC: 1 new, 2 unchanged"


def test_a_baseline_says_what_is_resolved_and_what_cannot_be_compared(dump: Path, tmp_path: Path) -> None:
    before, less = tmp_path / "before.json", tmp_path / "less.yaml"
    run("scan", "--state", CLUSTER, "--state", str(dump), *NOW, "-o", "json", "--output-file", str(before))
    less.write_text(yaml.safe_dump(workload("old", LEGACY)))
    state = ("--state", CLUSTER, "--state", str(less), "--baseline", str(before), *NOW)
    printed = run("scan", *state, "--fail-on", "new").stdout
    assert "since 2026-06-01 12:00 UTC: 1 unchanged, 1 resolved\n" in printed
    assert "Resolved, or not comparable (1)\n  resolved: shop deployment/web: already-injected\n" in printed
    # A scan of another namespace says nothing of shop.
    printed = run("scan", *state, "-n", "plain", "--fail-on", "new").stdout
    assert "since 2026-06-01 12:00 UTC: 2 not comparable\n" in printed
    assert "  not-comparable: shop deployment/web: already-injected\n" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not the output of client-ip scan -o json"),
        ("{}", "format: must be client-ip-scan/v1"),
        ('{"format": "client-ip-scan/v9"}', "format: must be client-ip-scan/v1"),
        ('{"format": "client-ip-scan/v1", "rows": [{"name": 1}]}', "rows[0].name: Expected `str`, got `int`"),
    ],
)
def test_a_bad_baseline_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    done = run("scan", "--state", CLUSTER, "--baseline", str(path), code=2)
    assert str(path) in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fail-on", "new"), "needs --baseline"),
        (("-A", "-n", "shop"), "cannot be combined"),
        (("--state", "missing/"), "no such file or folder"),
        (("--baseline", "missing.json"), "No such file"),
        (("--output-file", "/nonexistent/x"), "No such file"),
    ],
)
def test_what_cannot_be_asked_is_said(arguments: tuple[str, ...], said: str) -> None:
    assert said in run("scan", "--state", CLUSTER, *arguments, code=2).stderr


def test_a_mistake_in_a_dump_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dump.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec:\n  nodeName: 3\n")
    done = run("scan", "--state", CLUSTER, "--state", str(path), code=2)
    assert f"{path}:5 (document 1): spec.nodeName: Expected `str`, got `int`" in done.stderr


def test_without_a_cluster_it_says_so() -> None:
    assert "no --state, and no cluster" in run("scan", code=2).stderr


def test_an_opt_out_of_a_namespace_that_ended_is_named_and_changes_nothing(tmp_path: Path) -> None:
    namespaces = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"client-ip.dev/preserve": "audit"},
                "annotations": {"client-ip.dev/opt-out-owner": "<b>team</b>", "client-ip.dev/opt-out-until": until},
            },
        }
        for name, until in (("ended", "2020-01-31T00:00:00Z"), ("live", "2099-01-31T00:00:00Z"))
    ]
    (tmp_path / "state.yaml").write_text(yaml.safe_dump_all(namespaces))
    arguments = ("scan", "-A", "--state", str(tmp_path / "state.yaml"))
    printed = run(*arguments).stdout
    assert "  ended: ended: ended 2020-01-31 00:00 UTC, <b>team</b>; it is still in effect\n" in printed
    assert "live: ends" not in printed
    found = json.loads(run(*arguments, "-o", "json").stdout)["namespaceOptOuts"]
    assert [(each["namespace"], each["state"]) for each in found] == [("ended", "ended"), ("live", "live")]
    for form in ("csv", "markdown", "junit"):
        form_of = run(*arguments, "-o", form).stdout
        assert "ended 2020-01-31 00:00 UTC" in form_of
        assert "live" not in form_of
    page = run(*arguments, "-o", "html").stdout
    assert "&lt;b&gt;team" in page
    assert "<b>team" not in page
