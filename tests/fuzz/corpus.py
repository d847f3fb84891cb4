"""
Inputs that are kept, since each had an outcome of its own: `corpus/KIND.jsonl`, small ones, tried first in each run.

Bytes are written as Latin-1 text, one input a line, so that a change shows what it is.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"
INPUT_BYTES: Final = 1_500
"""Of one input; larger ones are not kept."""
KIND_BYTES: Final = 25_000
"""Of a kind's file: all of them have less than 200 KB."""


def kept(kind: str) -> Iterator[bytes]:
    """Yield the inputs of *kind*."""
    path = FOLDER / f"{kind}.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line).encode("latin-1")


def write(kind: str, found: Mapping[str, bytes]) -> None:
    """Keep inputs, one for each outcome, the smallest first."""
    lines: list[str] = []
    left = KIND_BYTES
    for each in sorted(found.values(), key=lambda data: (len(data), data)):
        line = json.dumps(each.decode("latin-1"))
        left -= len(line) + 1
        if left < 0:
            break
        lines.append(line)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
