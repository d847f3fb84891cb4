"""
`python -m tests.bench.sizes [NODES ...]`: what one replica needs, by the number of nodes that it watches.

Prints rows of the table in docs/operations.md; without NODES it measures all sizes and writes the page. Each size is a
real API server with that many nodes, which loses its history once, so that everything is listed again while reviews
come. 50,000 nodes take the API server some minutes.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench import behind, compare
from tests.docs.measured import commit, rewritten
from tests.docs.pages import tables
from tests.parts.cache import ROOT
from tests.parts.kube import ControlPlane

SIZES: Final = (1_000, 5_000, 50_000)
PAGE: Final = ROOT / "docs" / "operations.md"


def measure(nodes: int) -> dict[str, Any]:
    """Return the figures of one size: seconds, and MiB."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="client-ip-sizes-") as name:
        folder = Path(name)
        review = compare.write_bodies(folder)["typical"]
        with ControlPlane("1.37", folder / "kube", prefix=behind.OUT_OF_THE_WAY) as plane:
            behind.fill(plane, folder, nodes, results)
            with behind.watching(plane, folder, results) as (target, _):
                results |= behind.relist(plane, target, review)
    return results


def main() -> None:
    """Measure, print, and write the page where all sizes were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int)
    asked = parser.parse_args().nodes
    made = commit()
    print(f"measured at {made}")
    rows = []
    for nodes in asked or SIZES:
        rows.append(row(nodes, measure(nodes)))
        print(rows[-1], flush=True)
    if not asked:
        PAGE.write_text(rewritten(PAGE.read_text(), "| nodes |", rows, made, "`python -m tests.bench.sizes`"))
        print(f"written to {PAGE.relative_to(ROOT)}")


def row(nodes: int, found: Mapping[str, Any]) -> str:
    """Return the page's row of one size: what was measured, and what the page tells to request for it."""
    ready, peak = found["ready_peak_mib"], found["peak_mib"]
    told = {cells[0]: cells[-2:] for head, rows in tables(PAGE) if head[0] == "nodes" for cells in rows}
    requests, limits = told.get(f"{nodes:,}", ("", ""))
    cpu = found["ready_cpu_seconds"]
    return f"| {nodes:,} | {ready:.0f} MiB | {peak:.0f} MiB | {cpu:.1f} s | {requests} | {limits} |"


if __name__ == "__main__":
    main()
