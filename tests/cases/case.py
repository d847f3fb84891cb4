"""
Decisions as YAML: what is asked, by which facts, and what must come out.

One evaluator serves the server, the command line and these files, so each case runs in both places that matter: against
the pure core with the review codec around it (`tests/unit/test_cases.py`), and through a real API server
(`tests/apiserver/test_cases.py`). README.md in this folder says what may stand in a case.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from webhook.cases.format import Case, Expected, OnTheAPIServer, completed, patch_of

__all__ = ["Case", "Expected", "OnTheAPIServer", "cases", "cluster_of", "completed", "identifier", "load", "patch_of"]

FOLDER: Final = Path(__file__).parent
CLUSTER: Final = FOLDER / "cluster.yaml"
ISTIO: Final = FOLDER.parents[1] / "examples" / "cluster" / "istio.yaml"


def cluster_of(case: Case) -> list[dict[str, Any]]:
    """Return the facts of a case but its namespace: nodes, injectors and what the case adds."""
    nodes = case.nodes if case.nodes is not None else load(CLUSTER)
    return [*map(completed, nodes), *(load(ISTIO) if case.injectors else ()), *map(completed, case.facts)]


class _Loader(yaml.CSafeLoader):
    """YAML with `!times [NUMBER, TEXT]`, the text so often, and `!times [NUMBER, {…}]`, so many with `%d` counted."""


def _times(loader: _Loader, node: yaml.SequenceNode) -> Any:
    number, each = loader.construct_sequence(node, deep=True)
    if isinstance(each, str):
        return each * number
    text = json.dumps(each)
    return [json.loads(text.replace("%d", str(count))) for count in range(number)]


_Loader.add_constructor("!times", _times)


def load(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [each for each in yaml.load_all(path.read_text(), Loader=_Loader) if each]


def cases() -> Iterator[Case]:
    """Yield every case of this folder."""
    for path in sorted(FOLDER.glob("*/*.yaml")):
        for number, document in enumerate(load(path), 1):
            try:
                case = msgspec.convert(document, Case)
            except msgspec.ValidationError as error:
                raise ValueError(f"{path.name}, document {number}: {error}") from error
            yield msgspec.structs.replace(
                case,
                file=path.stem,
                number=number,
                object=completed(case.object),
                old_object=completed(case.old_object) if case.old_object is not None else None,
            )


def identifier(case: Case) -> str:
    """Return how pytest calls a case."""
    return f"{case.file}: {case.name}"
