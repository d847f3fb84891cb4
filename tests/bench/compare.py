"""Our server beside its peers: CPU for each review, and latency at given rates; interleaved and shuffled."""

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.bodies import bodies, write_cluster
from tests.bench.figures import Spread, by_name, paired_ratios
from tests.bench.load import Load, ask
from tests.bench.servers import HAND_TUNED, OURS, PEERS, REFERENCE, Target, ours, peer
from tests.parts.process import Ports

NODES: Final = 5_000
PODS: Final = ("small", "typical", "large")
RATES: Final = (100, 500, 2_000, 8_000)
BASELINE_FULL: Final = 0.95
"""A rate beyond this share of what a server can answer at all is not asked of it: its queue only grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    rounds: int
    seconds: float
    latency_rounds: int
    latency_seconds: float


WHOLE: Final = Effort(rounds=5, seconds=1.5, latency_rounds=3, latency_seconds=3.0)
QUICK: Final = Effort(rounds=2, seconds=0.6, latency_rounds=1, latency_seconds=1.5)


@contextlib.contextmanager
def everyone(folder: Path) -> Iterator[Mapping[str, Target]]:
    """Run all servers, each on the server's core; those that are not asked do nothing."""
    state = write_cluster(folder, NODES)
    with contextlib.ExitStack() as stack:
        ports = Ports()
        stack.callback(ports.close)
        found = {each.name: stack.enter_context(peer(each, folder, ports)) for each in PEERS}
        mine, _ = stack.enter_context(ours(folder / "ours", "--state", str(state)))
        yield {OURS: mine, **found}


def write_bodies(folder: Path) -> dict[str, Path]:
    """Write the reviews and return their files."""
    found = {}
    for name, body in bodies().items():
        found[name] = folder / f"{name}.json"
        found[name].write_bytes(body)
    return found


def cost(targets: Mapping[str, Target], reviews: Mapping[str, Path], effort: Effort, chance: random.Random) -> Any:
    """Return CPU seconds for each review of each kind, of each server, with ratios to the reference."""
    results: dict[str, Any] = {}
    for kind in PODS:
        rounds: list[dict[str, float]] = []
        capacity: dict[str, list[float]] = {name: [] for name in targets}
        for number in range(effort.rounds):
            order = list(targets)
            chance.shuffle(order)
            spent = {}
            for name in order:
                load = ask(targets[name], reviews[kind], seconds=effort.seconds)
                spent[name] = load.cpu_seconds_per_review
                capacity[name].append(load.per_second)
            rounds.append(spent)
            _progress(f"{kind}, round {number + 1} of {effort.rounds}: " + _figures(spent))
        results[kind] = {
            name: {
                "cpu_seconds": by_name(rounds, name).as_json(),
                "ratio": paired_ratios(rounds, name, REFERENCE).as_json(),
                "ratio_to_hand_tuned": paired_ratios(rounds, name, HAND_TUNED).as_json(),
                "per_second": Spread.of(capacity[name]).as_json(),
            }
            for name in targets
        }
    return results


def latency(
    targets: Mapping[str, Target],
    review: Path,
    capacity: Mapping[str, float],
    effort: Effort,
    chance: random.Random,
) -> Any:
    """Return latencies of the typical pod at each rate; None where the rate is over a server's capacity."""
    results: dict[str, Any] = {name: {} for name in targets}
    for rate in RATES:
        able = [name for name in targets if rate < capacity[name] * BASELINE_FULL]
        for name in set(targets) - set(able):
            results[name][str(rate)] = None
        loads: dict[str, list[Load]] = {name: [] for name in able}
        for number in range(effort.latency_rounds):
            chance.shuffle(able)
            for name in able:
                loads[name].append(
                    ask(targets[name], review, seconds=effort.latency_seconds, rate=rate, seed=number + 1)
                )
        for name, found in loads.items():
            results[name][str(rate)] = _medians(found)
        _progress(f"{rate}/s: " + ", ".join(f"{name} {results[name][str(rate)]['p99'] * 1e3:.2f} ms" for name in able))
    return results


def _medians(loads: Sequence[Load]) -> dict[str, float]:
    return {key: Spread.of([load.latency_seconds[key] for load in loads]).median for key in ("p50", "p99", "p99.9")}


def _figures(spent: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {seconds * 1e6:.0f} µs" for name, seconds in sorted(spent.items(), key=lambda each: each[1])
    )


def _progress(text: str) -> None:
    print(text, flush=True)
