"""Every alert fires when it should and not else, by promtool, and points to its section of the runbook."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.monitoring.promtool import promtool
from tests.monitoring.shipped import ALERTS, RUNBOOK, alerts, expressions

CASES: Final[list[dict[str, Any]]] = yaml.safe_load((Path(__file__).parent / "cases.yaml").read_text())


def rendered(text: str, labels: dict[str, str], value: str) -> str:
    """Return an annotation as Prometheus renders it."""
    named = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", value, named)


def as_promtool_reads_it(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case in promtool's format; the annotations are those of the alert, exactly."""
    rule = alerts()[case["alert"]]
    value = case.get("value", "")
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": str(values)} for series, values in case["series"].items()],
        "alert_rule_test": [
            {
                "eval_time": case["at"],
                "alertname": case["alert"],
                "exp_alerts": [
                    {
                        "exp_labels": {**rule["labels"], **labels},
                        "exp_annotations": {
                            name: rendered(text, labels, value) for name, text in rule["annotations"].items()
                        },
                    }
                    for labels in case["fires"]
                ],
            }
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['alert']}: {case['name']}")
def test_it_fires_when_it_should_and_never_else(case: dict[str, Any], tmp_path: Path) -> None:
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [as_promtool_reads_it(case)]}))
    status, printed = promtool("test", "rules", tests)
    assert status == 0, printed


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    verdicts = {bool(case["fires"]) for case in CASES if case["alert"] == name}
    assert verdicts == {True, False}


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_every_alert_points_to_its_own_section_of_the_runbook(name: str, rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert f"\n### {name}\n" in RUNBOOK.read_text()
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_the_runbook_has_no_section_for_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (ClientIP\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == set(alerts())


def test_promtool_takes_every_expression_of_alerts_and_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"test:expression:{number}", "expr": each} for number, (_, each) in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    status, printed = promtool("check", "rules", file)
    assert status == 0, printed
    assert f"{len(rules)} rules found" in printed


def test_promtool_refuses_an_expression_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": [{"record": "a:b:c", "expr": "sum(rate(x))"}]}]}))
    assert promtool("check", "rules", file)[0] != 0
