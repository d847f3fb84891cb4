"""Tables in pages, and the chart's values, agree with the code that they describe."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.docs.commands import commands
from tests.docs.pages import lines, pages, spans, tables
from tests.parts.cache import ROOT
from webhook.rules.decision import OUTCOMES, Outcome, Reason

DOCS: Final = ROOT / "docs"
CHART: Final = ROOT / "deploy" / "chart"
METRICS: Final = tuple(ROOT / "webhook" / "server" / name for name in ("counts.py", "metrics.py"))
EITHER: Final = frozenset({Reason.ALREADY_INJECTED, Reason.MODE_ALREADY_SET})
"""Reasons whose outcome depends on the mode in effect."""


def faults() -> Iterator[str]:
    """Yield where a table says something else than the code, a sentence each."""
    yield from decisions()
    yield from metrics()
    yield from serve_options()
    yield from values()
    yield from resources()
    for page in pages():
        yield from twice(page)


def twice(page: Path) -> Iterator[str]:
    """Yield what a table lists twice: an option, a metric, a field, whatever its first cell gives as code."""
    for _, rows in tables(page):
        firsts = Counter(row[0] for row in rows if row[0].startswith("`"))
        yield from (f"{page.relative_to(ROOT)}: {cell} is listed twice" for cell, count in firsts.items() if count > 1)


def _table(page: str, *head: str) -> list[list[str]]:
    """Return the rows of the table of a page that has this head."""
    for found, rows in tables(DOCS / page):
        if tuple(found[: len(head)]) == head:
            return rows
    raise LookupError(f"docs/{page} has no table with the head {' | '.join(head)}")


def decisions() -> Iterator[str]:
    """Compare the reasons of decisions.md with the closed list."""
    told: dict[str, str] = {}
    for row in _table("decisions.md", "Reason", "outcome"):
        for name in spans(row[0]):
            if name in told:
                yield f"docs/decisions.md: {name} stands there twice"
            told[name] = row[1]
    for name in told.keys() - {str(reason) for reason in Reason}:
        yield f"docs/decisions.md: there is no Reason {name}"
    for reason, outcome in OUTCOMES.items():
        says = told.get(reason)
        if says is None:
            yield f"docs/decisions.md: {reason} is missing"
        elif not says.replace(" ", "-").startswith(outcome):
            yield f"docs/decisions.md: {reason} is {outcome}, not {says}"
        elif (f"or {Outcome.PRESERVED}" in says) != (reason in EITHER):
            yield f"docs/decisions.md: whether {reason} can be preserved is not so"


def metrics() -> Iterator[str]:
    """Compare the metrics of server.md with those that the code makes: names and labels."""
    told: dict[str, set[str]] = {}
    for row in _table("server.md", "metric", "labels"):
        names = [name for name in spans(row[0]) if name.startswith("client_ip_")]
        labels = set(filter(None, re.split(r"[,\s]+", row[1])))
        for name in names:
            told[name] = labels
    made = made_metrics()
    yield from (f"docs/server.md: there is no metric {name}" for name in sorted(told.keys() - made.keys()))
    yield from (f"docs/server.md: the metric {name} is missing" for name in sorted(made.keys() - told.keys()))
    for name in sorted(told.keys() & made.keys()):
        if not made[name] <= told[name]:
            yield f"docs/server.md: {name} has the labels {', '.join(sorted(made[name])) or 'none'}"


def made_metrics() -> dict[str, set[str]]:
    """Return the labels of each metric, read from the calls that make them."""
    found: dict[str, set[str]] = {}
    for path in METRICS:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                name = call.args[0].value
                if isinstance(name, str) and name.startswith("client_ip_"):
                    maker = ast.unparse(call.func)
                    counts = "Counter" in maker and not name.endswith("_total")
                    found[f"{name}_total" if counts else name] = _labels(call)
    return found


def _labels(call: ast.Call) -> set[str]:
    given = [*call.args[2:], *(each.value for each in call.keywords if each.arg in {"labels", "labelnames", "label"})]
    for each in given:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            return {each.value}
        if isinstance(each, (ast.Tuple, ast.List)):
            return {str(item.value) for item in each.elts if isinstance(item, ast.Constant)}
    return set()


def serve_options() -> Iterator[str]:
    """Compare the options of server.md with those of `client-ip serve`: names and defaults."""
    told = {name: row[1] for row in _table("server.md", "option", "default") for name in spans(row[0])}
    known: dict[str, str] = {}
    for each in commands()["serve"].params:
        default = each.default
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        known[each.opts[0]] = f"{default:g}" if isinstance(default, float) else str(default) if plain else ""
    yield from (f"docs/server.md: there is no option {name}" for name in sorted(told.keys() - known.keys()))
    for name, default in known.items():
        if name not in told:
            yield f"docs/server.md: the option {name} is missing"
        elif told[name].strip("`") != default:
            yield f"docs/server.md: {name} is {default or 'without a default'}, not {told[name]}"


def values() -> Iterator[str]:
    """Compare values.yaml with the schema, with the templates, and look for values that nothing describes."""
    path = CHART / "values.yaml"
    given = set(_leaves(yaml.safe_load(path.read_text())))
    schema = json.loads((CHART / "values.schema.json").read_text())
    named = set(_properties(schema, schema)) - {"global"}
    free = set(_free(schema, schema))
    for name in sorted(given - named):
        if not any(name.startswith(f"{each}.") for each in free):
            yield f"values.schema.json has no {name}"
    described = {name for name in named if not any(name.startswith(f"{each}.") for each in given)}
    yield from (f"values.yaml has no {name}" for name in sorted(described - given - _parents(given)))
    templates = "\n".join(each.read_text() for each in sorted((CHART / "templates").rglob("*.*")))
    used = set(re.findall(r"\.Values\.([\w.]+)", templates))
    known = given | _parents(given)
    yield from (f"the chart's templates use .Values.{name}, which is no value" for name in sorted(used - known - named))
    for name in sorted(given):
        if not any(name == each or name.startswith(f"{each}.") for each in used | _withs(templates)):
            yield f"values.yaml: no template uses {name}"
    before = ""
    for line in lines(path):
        if re.match(r"\s*\w+:", line.text) and not line.text.endswith(":") and not before.lstrip().startswith("#"):
            inline = re.match(r"\s*(requests|limits):", line.text)  # described by what they are in
            if not inline and line.text.strip().split(":")[0] != "mode":
                yield f"{line.where}: nothing says what {line.text.strip().split(':')[0]} is"
        before = line.text


def _withs(templates: str) -> set[str]:
    """Return the values that a template reaches through `with` or a variable."""
    return set(re.findall(r"(?:with|range|:=)\s+(?:\$)?\.Values\.([\w.]+)", templates))


def _leaves(found: Any, prefix: str = "") -> Iterator[str]:
    for name, value in found.items():
        if isinstance(value, Mapping) and value and name != "resources":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _parents(names: set[str]) -> set[str]:
    return {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}


def _properties(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in schema.get("properties", {}).items():
        found = value
        if "$ref" in value:
            found = root["definitions"][value["$ref"].rsplit("/", 1)[1]]
        yield f"{prefix}{name}"
        yield from _properties(found, root, f"{prefix}{name}.")


def _free(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the values that are maps of whatever the user gives."""
    for name, value in schema.get("properties", {}).items():
        found = root["definitions"][value["$ref"].rsplit("/", 1)[1]] if "$ref" in value else value
        if found.get("type") == "object" and "properties" not in found:
            yield f"{prefix}{name}"
        yield from _free(found, root, f"{prefix}{name}.")


def resources() -> Iterator[str]:
    """Compare the sizing of operations.md with the chart's defaults, which are for 5,000 nodes."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["resources"]
    rows = {row[0]: row for row in _table("operations.md", "nodes")}
    if "5,000" not in rows:
        yield "docs/operations.md: the sizing has no row for 5,000 nodes"
    elif rows["5,000"][-2:] != [defaults["requests"]["memory"], defaults["limits"]["memory"]]:
        yield f"docs/operations.md: for 5,000 nodes the chart has {defaults}"
