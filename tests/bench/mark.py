"""
What `serve --mark-reasons` costs, in instructions a review: `python -m tests.bench.mark` (needs valgrind).

A pod that is patched bears no mark; one that is left alone on purpose does. What is decided is the same with and
without; the mark is computed with each decision that patches nothing, and written where it was asked for. A whole
review, as `make gate` counts it, differs by less than two runs of the same server do, so each step is counted alone.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.bodies import bodies, write_cluster
from webhook.facts.files import load
from webhook.rules.decide import decide
from webhook.rules.decision import Answer
from webhook.rules.mark import mark
from webhook.rules.objects import Pod
from webhook.rules.pods import PodCase
from webhook.server.review import decode, encode

NODES: Final = 200
"""The mark knows no nodes."""
SHORT, LONG = 50, 550
NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)


def reviews() -> dict[str, bytes]:
    """Return a pod that is patched, and the same where no feasible node supports TPROXY."""
    typical = bodies()["typical"]
    review = json.loads(typical)
    review["request"]["object"]["spec"].pop("affinity", None)
    review["request"]["object"]["spec"]["nodeSelector"] = {"pool": "legacy"}
    return {"patched": typical, "left alone": json.dumps(review, separators=(",", ":")).encode()}


def main() -> None:
    """Print what each step of a review costs."""
    with tempfile.TemporaryDirectory(prefix="client-ip-mark-") as folder:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        child = [*command, "--combine-dumps=no", sys.executable, "-m", "tests.bench.mark", folder]
        subprocess.run(child, check=True, env=environment, stderr=subprocess.DEVNULL)


def measure(folder: Path) -> None:
    """Count, inside of callgrind, and print."""
    snapshot = load([str(write_cluster(folder, NODES))]).snapshot()
    _control("--instr=on")
    print(f"{'review':<12} {'bytes more':>10} {'decide':>9} {'of it mark':>10} {'encode':>9} {'with mark':>9}")
    for kind, body in reviews().items():
        uid, request = decode(body)
        assert isinstance(request.object, Pod)
        decision = decide(request, snapshot, now=NOW)
        case = PodCase(request.object, request.namespace, snapshot, now=NOW, size=request.size)
        answer = Answer(decision.reason, decision.cause, decision.patch)
        plain, marked = encode(uid, decision), encode(uid, decision, marks=True)
        decided = _cost(folder, partial(decide, request, snapshot, now=NOW))
        of_it = _cost(folder, partial(mark, case, answer, decision.mode)) if decision.mark else 0
        encoded, with_mark = (_cost(folder, partial(encode, uid, decision, marks=marks)) for marks in (False, True))
        more = len(marked) - len(plain)
        print(f"{kind:<12} {more:>10} {decided:>9,} {of_it:>10,} {encoded:>9,} {with_mark:>9,}")


def _cost(folder: Path, step: Callable[[], object]) -> int:
    for _ in range(SHORT):
        step()
    counts = []
    for length in (SHORT, LONG):
        _control("--zero")
        for _ in range(length):
            step()
        _control("--dump")
        (path,) = folder.glob("out.*")
        found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
        path.unlink()
        assert found is not None
        counts.append(int(found.group(1)))
    return round((counts[1] - counts[0]) / (LONG - SHORT))


def _control(option: str) -> None:
    subprocess.run(["callgrind_control", option, str(os.getpid())], check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
    else:
        main()
