"""What a cluster's size costs our server: reviews, memory, start, reload; from files."""

import contextlib
import gc
import json
import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.bodies import bodies, cluster, write_cluster
from tests.bench.compare import Effort
from tests.bench.figures import Spread, by_name, paired_ratios
from tests.bench.load import ask, finish, start
from tests.bench.servers import Target, ours
from tests.serve.server import Server
from webhook.facts.collect import Collector
from webhook.rules.nodes import feasible_nodes
from webhook.rules.objects import Pod
from webhook.server.review import decode

SIZES: Final = (100, 1_000, 5_000, 50_000)
REFERENCE: Final = "100"
RELOAD_RATE: Final = 500
RELOAD_SECONDS: Final = 12.0
TICKS: Final = 100
"""Of the kernel's clock per second (USER_HZ)."""


def measure(folder: Path, review: Path, effort: Effort, chance: random.Random) -> dict[str, Any]:
    """Return the figures of each size."""
    results: dict[str, Any] = {str(size): {"feasibility_seconds": feasibility(size)} for size in SIZES}
    states = {str(size): write_cluster(folder, size) for size in SIZES}
    with contextlib.ExitStack() as stack:
        servers = {}
        for size, state in states.items():
            running = stack.enter_context(started(folder / f"nodes-{size}", state, results[size]))
            servers[size] = running
        rounds = []
        for number in range(effort.rounds):
            order = list(servers)
            chance.shuffle(order)
            rounds.append({size: _cost(servers[size][0], review, effort) for size in order})
            print(f"scale, round {number + 1} of {effort.rounds}", flush=True)
        for size in servers:
            results[size]["cpu_seconds"] = by_name(rounds, size).as_json()
            results[size]["ratio"] = paired_ratios(rounds, size, REFERENCE).as_json()
        for size, (target, server) in servers.items():
            results[size] |= reload(target, server, states[size], review)
            results[size]["garbage_collections"] = server.metric('python_gc_collections_total{generation="2"}')
            print(f"{size} nodes: {json.dumps(results[size])}", flush=True)
    return results


@contextlib.contextmanager
def started(folder: Path, state: Path, figures: dict[str, Any]) -> Iterator[tuple[Target, Server]]:
    """Run our server and note what it took until it was ready."""
    begun = time.monotonic()
    with ours(folder, "--state", str(state)) as (target, server):
        figures["ready_seconds"] = time.monotonic() - begun
        figures["ready_cpu_seconds"] = cpu_seconds(target.pid)
        figures["ready_mib"] = memory(target.pid, "VmRSS")
        figures["ready_peak_mib"] = memory(target.pid, "VmHWM")
        yield target, server


def _cost(target: Target, review: Path, effort: Effort) -> float:
    return ask(target, review, seconds=effort.seconds).cpu_seconds_per_review


def reload(target: Target, server: Server, state: Path, review: Path) -> dict[str, Any]:
    """
    Change the file while reviews come at a steady rate; return the longest wait and the peak of memory.

    A review waits for whatever keeps the event loop from it: the longest latency, counted from when it was due.
    """
    quiet = ask(target, review, seconds=3, rate=RELOAD_RATE, seed=3).latency_seconds["max"]
    documents = json.loads(state.read_text())
    documents["items"][-1]["metadata"]["labels"]["bench/turn"] = "again"
    changed = state.with_suffix(".part")
    changed.write_text(json.dumps(documents, separators=(",", ":")))
    running = start(target, review, seconds=RELOAD_SECONDS, rate=RELOAD_RATE, seed=4)
    time.sleep(1)
    changed.rename(state)
    load = finish(running, "reload", seconds=120)
    server.wait_for_log("reloaded changed files")
    return {
        "reload_longest_wait_seconds": load.latency_seconds["max"],
        "reload_p99_seconds": load.latency_seconds["p99"],
        "quiet_longest_wait_seconds": quiet,
        "peak_mib": memory(target.pid, "VmHWM"),
    }


def feasibility(size: int) -> float:
    """Return the seconds that the typical pod's feasible nodes take to find, in this process."""
    collector = Collector()
    for document in cluster(size)["items"]:
        if document["kind"] == "Node":
            collector.put("v1", "Node", document)
    index = collector.snapshot().nodes
    _, request = decode(bodies()["typical"])
    assert isinstance(request.object, Pod)
    spec = request.object.spec
    arguments: Mapping[str, Any] = {
        "node_selector": spec.node_selector,
        "terms": spec.terms(),
        "tolerations": spec.tolerations or (),
    }
    assert feasible_nodes(index, **arguments)
    gc.collect()
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        for _ in range(500):
            feasible_nodes(index, **arguments)
        times.append((time.perf_counter() - begun) / 500)
    return Spread.of(times).median


def memory(pid: int, field: str) -> float:
    """Return a process' memory in MiB: VmRSS now, VmHWM at its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, and of the children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def now() -> str:
    """Return today's date."""
    return datetime.now(UTC).date().isoformat()
