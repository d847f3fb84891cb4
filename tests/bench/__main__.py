"""`python -m tests.bench`: our server beside what would be used instead; ten minutes on two quiet cores."""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import behind, compare, handshakes, report, scale
from tests.bench.compare import QUICK, WHOLE
from tests.parts.build import binaries
from tests.parts.cache import ROOT

JSON: Final = ROOT / "build" / "bench.json"
GATE: Final = ROOT / "build" / "gate.json"
PARTS: Final = ("compare", "scale", "cluster")


def main() -> None:
    """Measure, and write build/bench.json; with everything measured also docs/performance.md and its plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three minutes; figures that say little")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; repeatable")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which servers are asked")
    chosen = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("make bench needs two cores: one for the server, one for the load")
    effort = QUICK if chosen.quick else WHOLE
    parts = chosen.only or PARTS
    chance = random.Random(chosen.seed)  # noqa: S311  # an order, no secret
    begun = time.monotonic()
    for part in ("bench", *(("kube-1.37",) if "cluster" in parts else ())):
        binaries(part)
    results: dict[str, Any] = {"machine": report.machine()}
    with tempfile.TemporaryDirectory(prefix="client-ip-bench-") as name:
        folder = Path(name)
        reviews = compare.write_bodies(folder)
        if "compare" in parts:
            with compare.everyone(folder) as targets:
                results["cost"] = compare.cost(targets, reviews, effort, chance)
                capacity = {each: results["cost"]["typical"][each]["per_second"]["median"] for each in targets}
                results["latency"] = compare.latency(targets, reviews["typical"], capacity, effort, chance)
                results["handshakes"] = handshakes.measure(targets, effort, chance)
        if "scale" in parts:
            results["scale"] = scale.measure(folder, reviews["typical"], effort, chance)
        if "cluster" in parts:
            results["cluster"] = behind.measure(folder, reviews["typical"], effort, chance)
    if GATE.exists():
        results["instructions"] = json.loads(GATE.read_text())
    results["seconds"] = round(time.monotonic() - begun)
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['seconds']} s: {JSON.relative_to(ROOT)}")
    if set(parts) == set(PARTS):
        for goal, bound, measured, met in report.goals(results):
            print(f"{'pass' if met else 'MISS':<5} {goal:<75} {bound:>10} {measured:>10}")
        if not chosen.quick:
            report.write(results)
            print("docs/performance.md and docs/performance.svg say so")


if __name__ == "__main__":
    main()
