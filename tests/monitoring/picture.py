"""
Draws the dashboard's panels as one picture: `make dashboard`, after `make chaos`.

    python -m tests.monitoring.picture [build/chaos-dashboard.json [docs/dashboard.png]]

The data is what a real Prometheus answered to the panels' own expressions at the end of the run. Grafana draws the same
panels in the same places, more nicely. The titles are in the picture's metadata, so that a test can tell a stale one.
"""

import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, Final

from tests.monitoring.shipped import rows
from tests.parts.cache import ROOT
from tests.parts.wheels import wheels

DATA: Final = ROOT / "build" / "chaos-dashboard.json"
PICTURE: Final = ROOT / "docs" / "dashboard.png"
TITLES: Final = "Description"
"""The PNG's text that has the panels' titles."""
COLUMNS: Final = 24
INCHES: Final = 14.0
ROW_INCHES: Final = 0.36
DPI: Final = 72
SERIES: Final = 12
"""In a legend; a panel with more is drawn without the rest."""
ROWS: Final = 10
"""Of a table."""
UNITS: Final = {"s": "s", "reqps": "/s", "bytes": "MiB", "percentunit": "%", "none": ""}
SCALES: Final = {"bytes": 1 / (1 << 20), "percentunit": 100.0}


def main() -> None:
    """Draw the picture."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE
    if not data.exists():
        sys.exit(f"{data} is not there: make chaos writes it")
    read = json.loads(data.read_text())
    sys.path.insert(0, str(wheels("plot")))
    draw(read["panels"], read["commit"], picture)
    print(f"{picture.relative_to(ROOT) if picture.is_relative_to(ROOT) else picture}: {picture.stat().st_size:,} bytes")


def draw(found: list[dict[str, Any]], commit: str, picture: Path) -> None:
    """Write the picture of panels with their series."""
    import matplotlib as mpl  # from its own lock
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    plt.rcParams.update(
        {"font.size": 7, "axes.titlesize": 8, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 6}
    )
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in found)
    figure = plt.figure(figsize=(INCHES, ROW_INCHES * height), facecolor="#fafafa")
    began = min((float(value[0]) for panel in found for each in panel["series"] for value in each["values"]), default=0)
    for row in rows():
        figure.text(0.008, 1 - (row["gridPos"]["y"] + 0.75) / height, row["title"], fontsize=9, weight="bold")
    for panel in found:
        grid = panel["gridPos"]
        x, w = grid["x"] / COLUMNS, grid["w"] / COLUMNS
        y, h = 1 - (grid["y"] + grid["h"]) / height, grid["h"] / height
        pad = 0.55 / height
        axes = figure.add_axes((x + 0.03, y + 1.5 * pad, w - 0.04, h - 4 * pad))
        axes.set_title(panel["title"], loc="left")
        _KINDS[panel["type"]](axes, panel, began)
    figure.text(0.995, 0.002, f"make chaos at {commit.strip('`')}", ha="right", fontsize=6, color="#888888")
    titles = "; ".join(panel["title"] for panel in found)
    figure.savefig(picture, dpi=DPI, metadata={TITLES: titles, "Software": None}, pil_kwargs={"optimize": True})


def _lines(axes: Any, panel: dict[str, Any], began: float) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    scale = SCALES.get(unit, 1.0)
    drawn = 0
    for each in panel["series"]:
        points = _with_gaps([(float(at) - began, float(value) * scale) for at, value in each["values"]])
        if not points:
            continue
        drawn += 1
        label = _legend(each) if drawn <= SERIES and len(panel["series"]) <= 2 * SERIES else None
        axes.plot(*zip(*points, strict=True), linewidth=0.8, label=label)
    axes.set_xlabel(f"s since the start{f'; {UNITS[unit]}' if UNITS[unit] else ''}", fontsize=6, labelpad=1)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-9) * 1.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", frameon=False, ncols=3)
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#888888", transform=axes.transAxes)


def _with_gaps(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return *points* without what is no number, and with one that is none where samples are missing."""
    found: list[tuple[float, float]] = []
    points = [point for point in points if not math.isnan(point[1])]
    usual = min((after[0] - before[0] for before, after in itertools.pairwise(points)), default=0.0)
    for point in points:
        if found and point[0] - found[-1][0] > 3 * usual:
            found.append((point[0], math.nan))
        found.append(point)
    return found


def _number(axes: Any, panel: dict[str, Any], _began: float) -> None:
    axes.set_axis_off()
    values = [float(each["values"][-1][1]) for each in panel["series"]]
    unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    text = "no data" if not values else _readable(values[0], unit)
    axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=15, color="#2f7d32", transform=axes.transAxes)


def _table(axes: Any, panel: dict[str, Any], _began: float) -> None:
    axes.set_axis_off()
    rows = sorted(panel["series"], key=lambda each: -float(each["values"][-1][1]))[:ROWS]
    if not rows:
        return
    head = sorted({key for each in rows for key in each["metric"]})
    cells = [[*(each["metric"].get(key, "") for key in head), f"{float(each['values'][-1][1]):.0f}"] for each in rows]
    axes.table(cellText=cells, colLabels=[*head, "count"], loc="upper left", edges="horizontal")


_KINDS: Final = {"timeseries": _lines, "stat": _number, "table": _table}


def _legend(series: dict[str, Any]) -> str:
    named: str = re.sub(r"\{\{(\w+)\}\}", lambda found: series["metric"].get(found[1], ""), series["legend"])
    return named


def _readable(value: float, unit: str) -> str:
    if unit == "s" and value > 2 * 86400:
        return f"{value / 86400:.0f} d"
    return f"{value:.3g} {unit}".strip() if value < 1000 else f"{value:.0f} {unit}".strip()


def titles_of(picture: bytes) -> list[str]:
    """
    Return the titles that a picture says it has drawn.

    PNG's tEXt chunks: a length, the type, a keyword, NUL and text (https://www.w3.org/TR/png-3/#11tEXt).
    """
    at = 8
    while at + 8 <= len(picture):
        size, kind = int.from_bytes(picture[at : at + 4]), picture[at + 4 : at + 8]
        keyword, _, text = picture[at + 8 : at + 8 + size].partition(b"\0")
        if kind == b"tEXt" and keyword.decode("latin-1") == TITLES:
            return text.decode("latin-1").split("; ")
        at += 12 + size
    return []


if __name__ == "__main__":
    main()
