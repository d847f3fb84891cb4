"""What was measured, for people: docs/performance.md between its marks, and a plot."""

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tests.bench.compare import NODES, PODS, RATES
from tests.bench.servers import HAND_TUNED, OURS, REFERENCE, TITLES, interpreter
from tests.docs.measured import commit
from tests.parts.build import binaries, go_command
from tests.parts.cache import ROOT

DOCUMENT: Final = ROOT / "docs" / "performance.md"
PLOT: Final = ROOT / "docs" / "performance.svg"
MARKS: Final = ("<!-- measured: begin -->", "<!-- measured: end -->")
GOAL_RATIOS: Final = {"small": 0.9, "typical": 0.6, "large": 0.25}
"""Of the CPU time of the hand-tuned Go server."""


def machine() -> dict[str, str]:
    """Return what was measured on, and with."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    asked = [go_command("bench"), "version", "-m", str(binaries("bench")["controllerruntime"])]
    modules = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    found = re.search(r"sigs.k8s.io/controller-runtime\s+(\S+)", modules)
    return {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model,
        "kernel": platform.release(),
        "python": _version(),
        "aiohttp": metadata.version("aiohttp"),
        "uvloop": metadata.version("uvloop"),
        "msgspec": metadata.version("msgspec"),
        "controller-runtime": found[1] if found else "",
    }


def _version() -> str:
    """Return the interpreter's version, and whose build it is."""
    whose = "the distribution's build" if interpreter().is_relative_to("/usr/bin") else "a build of this machine's own"
    asked = [str(interpreter()), "-c", "import platform; print(platform.python_version())"]
    return f"{subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()} ({whose})"


def goals(results: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return each goal, its bound, what was measured, and whether it was met."""
    rows: list[tuple[str, str, str, bool]] = []

    def row(text: str, value: float, bound: float, unit: str = "", digits: int = 2) -> None:
        rows.append((text, f"≤ {bound:g}{unit}", f"{value:.{digits}f}{unit}", value <= bound))

    for kind, bound in GOAL_RATIOS.items():
        row(f"CPU, {kind} pod, x hand-tuned Go", results["cost"][kind][OURS]["ratio_to_hand_tuned"]["median"], bound)
    gate = results.get("instructions", {}).get("typical")
    if gate:
        row("instructions, typical review (make gate)", gate / 1000, 270, " k", 0)
    bounds = dict.fromkeys((500, 2000), 2.0)
    fastest = results["latency"][HAND_TUNED]["8000"]
    if fastest:
        bounds[8_000] = round(fastest["p99"] * 1e3, 1)  # as the hand-tuned Go server
    ours = results["latency"][OURS]["8000"]
    if ours and not fastest:
        answered = f"{ours['p99'] * 1e3:.2f} ms"
        rows.append(("p99 at 8,000/s on one core", "hand-tuned Go's: over capacity", answered, True))
    for rate, bound in bounds.items():
        measured = results["latency"][OURS][str(rate)]
        row(f"p99 at {rate:,}/s on one core", measured["p99"] * 1e3 if measured else float("inf"), bound, " ms")
    row("CPU of a TLS handshake, x hand-tuned Go", results["handshakes"][OURS]["ratio"]["median"], 1.2)
    scale = results["scale"]
    row("CPU at 50,000 nodes, x 100 nodes", scale["50000"]["ratio"]["median"], 1.05)
    row("feasibility at 50,000 nodes", scale["50000"]["feasibility_seconds"] * 1e6, 15, " µs", 1)
    row("peak memory, 5,000 nodes from files, reloaded", scale["5000"]["peak_mib"] * 1.048576, 56, " MB", 0)
    row("peak memory, 50,000 nodes from files, reloaded", scale["50000"]["peak_mib"] * 1.048576, 100, " MB", 0)
    for size, bound in (("5000", 5), ("50000", 10)):
        longest = scale[size]["reload_longest_wait_seconds"]
        row(f"longest wait in a reload, {int(size):,} nodes", longest * 1e3, bound, " ms", 1)
    row("CPU until ready, 5,000 nodes from files", scale["5000"]["ready_cpu_seconds"], 1, " s")
    if "cluster" in results:
        cluster = results["cluster"]
        row("peak memory, 5,000 nodes watched, relisted", cluster["peak_mib"] * 1.048576, 72, " MB", 0)
        row("longest wait in a relist, 5,000 nodes", cluster["relist_longest_wait_seconds"] * 1e3, 5, " ms", 1)
        row("CPU until ready, 5,000 nodes watched", cluster["ready_cpu_seconds"], 1, " s")
    return rows


def write(results: Mapping[str, Any]) -> None:
    """Put what was measured into the document, and draw the plot."""
    PLOT.write_text(plot(results))
    before, _, rest = DOCUMENT.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    DOCUMENT.write_text(before + MARKS[0] + "\n\n" + text(results) + "\n" + MARKS[1] + after)


def text(results: Mapping[str, Any]) -> str:
    """Return the tables, as Markdown."""
    made = results["machine"]
    about = ", ".join(f"{key} {made[key]}" for key in ("python", "aiohttp", "uvloop", "msgspec", "controller-runtime"))
    parts = [f"{made['date']}, {made['cpu']}, Linux {made['kernel']}; {about}; {made['commit']}.\n", "## Goals\n"]
    parts.append(
        _table(
            ("goal", "bound", "measured", ""),
            [(goal, bound, value, "pass" if met else "**miss**") for goal, bound, value, met in goals(results)],
        )
    )
    parts.append("## CPU for each review, one core\n")
    parts.append(_costs(results["cost"]))
    parts.append("![CPU for each review](performance.svg)\n")
    parts.append("## Latency of the typical pod: p50 / p99 / p99.9 in ms, open loop\n")
    parts.append(_latencies(results["latency"]))
    parts.append("## New connections\n")
    parts.append(_handshakes(results["handshakes"]))
    parts.append("## With the cluster's size, facts from files\n")
    parts.append(_scale(results["scale"]))
    if "cluster" in results:
        parts.append(f"## On a real API server, {results['cluster']['nodes']:,} nodes\n")
        parts.append("The API server of `tests/parts` has nothing inlined: a release is somewhat faster.\n")
        parts.append(_cluster(results["cluster"]))
    return "\n".join(parts)


def _costs(cost: Mapping[str, Any]) -> str:
    rows = []
    for name, title in TITLES.items():
        cells = [title]
        for kind in PODS:
            found = cost[kind][name]
            ratio = found["ratio"]
            cells.append(
                f"{found['cpu_seconds']['median'] * 1e6:,.0f} µs ({ratio['median']:.2f}; "
                f"{ratio['q1']:.2f} to {ratio['q3']:.2f})"
            )
        cells.append(f"{cost['typical'][name]['per_second']['median']:,.0f}")
        rows.append(tuple(cells))
    head = ("server", *(f"{kind} pod" for kind in PODS), "typical/s at most")
    return "In brackets the median and the quartiles of ratios to controller-runtime, round by round.\n\n" + _table(
        head, rows
    )


def _latencies(latency: Mapping[str, Any]) -> str:
    rows = []
    for name, title in TITLES.items():
        cells = [title]
        for rate in RATES:
            found = latency[name][str(rate)]
            cells.append(
                "over capacity"
                if found is None
                else " / ".join(f"{found[p] * 1e3:.1f}" for p in ("p50", "p99", "p99.9"))
            )
        rows.append(tuple(cells))
    return _table(("server", *(f"{rate:,}/s" for rate in RATES)), rows)


def _handshakes(handshakes: Mapping[str, Any]) -> str:
    rows = [
        (TITLES[name], f"{found['cpu_seconds']['median'] * 1e6:,.0f} µs ({found['ratio']['median']:.2f})")
        for name, found in handshakes.items()
    ]
    said = "A TLS 1.3 handshake with an ECDSA P-256 certificate and no session, by the client `openssl s_time`.\n\n"
    return said + _table(("server", "CPU of a handshake (x hand-tuned Go)"), sorted(rows))


def _scale(scale: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{int(size):,}",
            f"{found['cpu_seconds']['median'] * 1e6:.0f} µs ({found['ratio']['median']:.2f})",
            f"{found['feasibility_seconds'] * 1e6:.1f} µs",
            f"{found['ready_cpu_seconds']:.2f} s",
            f"{found['ready_mib']:.0f} MiB",
            f"{found['peak_mib']:.0f} MiB",
            f"{_ms(found['reload_longest_wait_seconds'])} (quiet {_ms(found['quiet_longest_wait_seconds'])})",
            f"{found['garbage_collections']:.0f}",
        )
        for size, found in scale.items()
    ]
    head = (
        *("nodes", "CPU a review (x 100 nodes)", "feasibility", "CPU until ready", "memory", "peak with a reload"),
        *("longest wait in a reload at 500/s", "full collections"),
    )
    return _table(head, rows)


def _cluster(found: Mapping[str, Any]) -> str:
    rows = [
        ("CPU a review", f"{found['cpu_seconds'] * 1e6:.0f} µs"),
        ("ready after", f"{found['ready_seconds']:.2f} s, {found['ready_cpu_seconds']:.2f} s of CPU"),
        ("peak memory until ready / with a relist", f"{found['ready_peak_mib']:.0f} / {found['peak_mib']:.0f} MiB"),
        ("longest wait at 500/s, nothing else happening", f"{found['quiet_longest_wait_seconds'] * 1e3:.1f} ms"),
        (
            f"{found['churn_per_second']:.0f} node changes/s",
            f"{found['churn_cpu_share'] * 100:.1f} % of a core; {_waits(found, 'churn')}",
        ),
        (
            "API server restarted, everything listed again",
            _waits(found, "relist"),
        ),
    ]
    names = {"none": "no webhook", OURS: "client-ip-webhook", "tutorial": "the tutorial's webhook"}
    for name, title in names.items():
        times = found["creations"][name]
        rows.append((f"creating a pod, {title}", f"p50 {times['p50'] * 1e3:.1f} ms, p99 {times['p99'] * 1e3:.1f} ms"))
    return _table(("what", "measured"), rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _waits(found: Mapping[str, Any], when: str) -> str:
    return f"p99 {_ms(found[f'{when}_p99_seconds'])}, longest {_ms(found[f'{when}_longest_wait_seconds'])}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


BAR, GAP, LEFT, WIDTH = 22, 8, 300, 900


def plot(results: Mapping[str, Any]) -> str:
    """Return bars of CPU for each typical review, as SVG."""
    cost = results["cost"]["typical"]
    names = sorted(TITLES, key=lambda name: cost[name]["cpu_seconds"]["median"])
    most = max(cost[name]["cpu_seconds"]["median"] for name in names)
    height = 40 + len(names) * (BAR + GAP)
    box = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13"'
    head = f"CPU for each review of a typical pod, one core ({NODES:,} nodes)"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-weight="bold">{head}</text>',
    ]
    for number, name in enumerate(names):
        spread = cost[name]["cpu_seconds"]
        y = 34 + number * (BAR + GAP)
        length = (WIDTH - LEFT - 170) * spread["median"] / most
        colour = "#2a7f4f" if name == OURS else "#4f6d8f" if name == REFERENCE else "#9aa7b5"
        title = escape(re.sub(r"[*`]", "", TITLES[name]).partition(", 5,000")[0])
        said = f"{spread['median'] * 1e6:,.0f} µs ({cost[name]['ratio']['median']:.2f} x)"
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{title[:46]}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{y + 16}">{said}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
