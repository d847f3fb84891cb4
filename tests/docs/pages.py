"""The project's texts: its pages, and the files that speak of them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.parts.cache import ROOT

SOURCES: Final = (".py", ".yaml", ".yml", ".toml", ".tpl", ".txt", ".in", ".go", ".lua", ".md", ".json")
SAMPLES: Final = ROOT / "tests" / "docs" / "test_docs.py"
"""Has wrong texts on purpose."""
PLAIN: Final = ("Makefile", "Dockerfile", ".ci/run")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, and where it stands."""

    path: Path
    number: int
    text: str

    @property
    def where(self) -> str:
        """`docs/server.md:12`."""
        return f"{self.path.relative_to(ROOT)}:{self.number}"


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files of the project, those included that were not added yet."""
    asked = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in told.splitlines() if (path := ROOT / name).is_file())


def pages() -> list[Path]:
    """Return the Markdown pages."""
    return [path for path in tracked() if path.suffix == ".md"]


def texts() -> list[Path]:
    """Return pages and sources: whatever may speak of a file of the project. Locks and golden files do not."""
    return [
        path
        for path in tracked()
        if (path.suffix in SOURCES or str(path.relative_to(ROOT)) in PLAIN)
        and path.parent.name != "requirements"
        and path != SAMPLES
        and path.name not in {"go.mod", "go.sum"}
    ]


def lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a text."""
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        yield Line(path, number, text)


def prose(path: Path) -> Iterator[Line]:
    """Yield the lines of a page that are not code."""
    fenced = False
    for line in lines(path):
        if line.text.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.text.startswith("    "):
            yield line


def code(path: Path) -> Iterator[Line]:
    """Yield the lines of a page's code blocks, indented or fenced, and its code spans, each as a line."""
    fenced = False
    for line in lines(path):
        if line.text.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.text.startswith("    "):
            yield Line(path, line.number, line.text.strip())
        else:
            yield from (Line(path, line.number, span) for span in spans(line.text))


def spans(text: str) -> list[str]:
    """Return the code spans of a line."""
    return re.findall(r"`([^`]+)`", text)


def tables(path: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yield the tables of a page: the head's cells, and each row's."""
    rows: list[list[str]] = []
    for line in (*prose(path), Line(path, 0, "")):
        if line.text.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.text.strip().strip("|"))
            rows.append([cell.strip().replace("\\|", "|") for cell in cells])
        elif rows:
            yield rows[0], rows[2:]
            rows = []
