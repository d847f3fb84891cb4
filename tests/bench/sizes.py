"""
`python -m tests.bench.sizes [NODES ...]`: what one replica needs, by the number of nodes that it watches.

Prints the rows of the table in docs/operations.md. Each size is a real API server with that many nodes, which loses its
history once, so that everything is listed again while reviews come. 50,000 nodes take the API server some minutes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.bench import behind, compare
from tests.docs.measured import commit
from tests.parts.kube import ControlPlane

SIZES: Final = (1_000, 5_000, 50_000)


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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int)
    print(f"measured at {commit()}")
    for nodes in parser.parse_args().nodes or SIZES:
        found = measure(nodes)
        ready, peak = found["ready_peak_mib"], found["peak_mib"]
        print(f"| {nodes:,} | {ready:.0f} MiB | {peak:.0f} MiB | {found['ready_cpu_seconds']:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
