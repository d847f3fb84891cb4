"""What the chart ships for Prometheus and Grafana, read from its files."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.parts.cache import ROOT

ALERTS: Final = ROOT / "deploy" / "chart" / "files" / "alerts.yaml"
DASHBOARD: Final = ROOT / "deploy" / "chart" / "files" / "dashboard.json"
RUNBOOK: Final = ROOT / "docs" / "runbook.md"

VARIABLES: Final = {"$__rate_interval": "5m", "$namespace": ".*"}
"""What stands in for Grafana's variables where promtool reads an expression."""
_STRINGS: Final = re.compile(r'"[^"]*"')
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")
_SELECTOR: Final = re.compile(r"\{[^}]*\}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*_[a-z0-9_]+\b(?!\s*\()")
"""A metric's name has an underscore; what a bracket follows is a function."""


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerting rules by name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels() -> list[dict[str, Any]]:
    """Return the panels that show something: all but the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rows() -> list[dict[str, Any]]:
    """Return the rows: the headings of the panels below them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] == "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression that is shipped, and where it stands, as Prometheus would read it."""
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics in *expression*."""
    bare = _GROUPING.sub(" ", _SELECTOR.sub(" ", _STRINGS.sub("", expression)))
    return set(_NAME.findall(bare))
