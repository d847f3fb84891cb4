"""
What `serve --mark-reasons` costs, in instructions a review: `python -m tests.bench.mark` (needs valgrind).

A pod that is patched bears no mark; one that is left alone on purpose bears one. Asked as `make gate` asks, of a
cluster of 200 nodes: the mark knows no nodes.
"""

import json
from typing import Final

from tests.bench.bodies import bodies
from tests.bench.gate import cost

NODES: Final = 200


def reviews() -> dict[str, bytes]:
    """Return a pod that is patched, and the same where no feasible node supports TPROXY."""
    typical = bodies()["typical"]
    review = json.loads(typical)
    review["request"]["object"]["spec"].pop("affinity", None)
    review["request"]["object"]["spec"]["nodeSelector"] = {"pool": "legacy"}
    return {"patched": typical, "left alone": json.dumps(review, separators=(",", ":")).encode()}


def main() -> None:
    """Print what each review costs without and with marks."""
    without, marked = cost(reviews(), nodes=NODES), cost(reviews(), "--mark-reasons", nodes=NODES)
    print(f"{'review':<12} {'without':>10} {'with':>10} {'mark':>8}")
    for kind, before in without.items():
        print(f"{kind:<12} {before:>10,} {marked[kind]:>10,} {marked[kind] - before:>8,}")


if __name__ == "__main__":
    main()
