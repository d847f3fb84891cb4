"""
Mutates what other people write, for a time, and holds every answer to what is promised: `make fuzz`.

Own mutation, not atheris: it must run on every Python that is supported and on every machine, and what is looked for
is not a crash of C but a broken promise, which needs whole objects more than it needs coverage. First the inputs are
tried that earlier runs kept, each with an outcome of its own (`corpus`). A run is the same for the same seed, and a
failure names its own.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from tests.fuzz import corpus, mutate
from tests.fuzz.kinds import EXAMPLES, HEADS, KINDS, coarse
from tests.serve.test_wire import BODIES, request, serving


async def heads(chance: random.Random, seconds: float, seen: Counter[str]) -> None:
    """Served heads: a mutated request gets no 500, whichever path takes it, and the next connection's is answered."""
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name), str(EXAMPLES)) as server:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                sent = mutate.text(chance, chance.choice(HEADS))
                before = server.by_aiohttp
                client = await server.connect()
                client.writer.write(sent)
                try:
                    async with asyncio.timeout(0.2):
                        answer = await client.answer()
                except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, AssertionError):
                    answer = b""
                client.close()
                by = "aiohttp" if server.by_aiohttp > before else "fast path"
                status = re.match(rb"HTTP/1\.1 (\d+)", answer)
                seen[f"served: {by} {status[1].decode() if status else 'no answer'}"] += 1
                assert status is None or status[1] != b"500", (sent, answer)
                assert (await server.ask(request(BODIES["a pod"]))).startswith(b"HTTP/1.1 200 "), "the next one fails"


class Run:
    """What was seen so far."""

    def __init__(self, only: str | None) -> None:
        self._kinds = {kind: each for kind, each in KINDS.items() if only in (None, kind)}
        self.seen: Counter[str] = Counter()
        self.outcomes: dict[str, dict[str, bytes]] = {kind: {} for kind in KINDS}
        """By kind and outcome: the smallest input that had it."""

    def replay(self) -> None:
        """Try the inputs that were kept."""
        for kind in self._kinds:
            for number, data in enumerate(corpus.kept(kind), start=1):
                self._hold(kind, data, f"line {number} of tests/fuzz/corpus/{kind}.jsonl")

    def round(self, seed: int) -> int:
        """Give each kind its turn; return the next seed."""
        for kind, each in self._kinds.items():
            for _ in range(each.times):
                data = each.make(random.Random(seed))
                self._hold(kind, data, f"python -m tests.fuzz --kind {kind} --seed {seed}")
                seed += 1
        return seed

    def _hold(self, kind: str, data: bytes, again: str) -> None:
        try:
            outcome = KINDS[kind].hold(data)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            sys.exit(f"{kind}: {type(error).__name__}: {error}\nagain: {again}\n{data[:2000]!r}")
        self.seen[f"{kind}: {outcome.partition(':')[0][:60]}"] += 1
        known = self.outcomes[kind]
        key = coarse(outcome)
        if len(data) <= corpus.INPUT_BYTES and len(data) < len(known.get(key, data + b" ")):
            known[key] = data


def main() -> None:
    """Run for some time; fail with the seed of what broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=100.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutation (default: %(default)s)")
    parser.add_argument("--kind", choices=sorted(KINDS), help="only this, once, with --seed: to see a failure again")
    parser.add_argument("--only", choices=sorted(KINDS), help="only this, for the whole time")
    parser.add_argument("--keep", action="store_true", help="write the inputs of new outcomes into tests/fuzz/corpus")
    options = parser.parse_args()
    if options.kind:
        only = KINDS[options.kind]
        data = only.make(random.Random(options.seed))
        print(data[:2000])
        print(only.hold(data))
        return
    run = Run(options.only)
    started, seed = time.monotonic(), options.seed
    run.replay()
    replayed = sum(run.seen.values())
    served = 0.0 if options.only else options.seconds * 0.1
    while time.monotonic() - started < options.seconds - served:
        seed = run.round(seed)
    if served:
        uvloop.run(heads(random.Random(options.seed), served, run.seen))
    for name, number in sorted(run.seen.items()):
        print(f"{number:>9,}  {name}")
    distinct = sum(map(len, run.outcomes.values()))
    print(
        f"{replayed:,} inputs kept before, {sum(run.seen.values()) - replayed:,} mutations (seeds {options.seed} to "
        f"{seed - 1}), {distinct:,} outcomes, {time.monotonic() - started:.0f} s, 0 failed"
    )
    if options.keep:
        for kind, found in run.outcomes.items():
            corpus.write(kind, found)


if __name__ == "__main__":
    main()
