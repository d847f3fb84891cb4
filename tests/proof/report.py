"""
What was expected and what was seen, row by row: for the test that asks, for people (`docs/proof.md`) and for machines
(`build/proof.json`).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

COLUMNS: Final = ("traffic", "mode", "check", "expected", "seen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One observation."""

    traffic: str
    mode: str
    check: str
    expected: str
    seen: str

    @property
    def good(self) -> bool:
        """Whether it was as expected."""
        return self.expected == self.seen


@dataclass(slots=True)
class Chapter:
    """The rows of one named test."""

    title: str
    text: str
    rows: list[Row] = field(default_factory=list)
    headlines: list[Row] = field(default_factory=list)
    """The rows that say it all, also shown at the top of the document."""


@dataclass(slots=True)
class Names:
    """Whom addresses belong to, so that rows can be read."""

    known: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *addresses: str) -> None:
        """Remember *name*'s addresses."""
        self.known.update(dict.fromkeys(addresses, name))

    def tell(self, addresses: str) -> str:
        """Return *addresses* (one, or several with commas between) with their owners' names."""
        told = [each.strip() for each in addresses.split(",")]
        return ", ".join(f"{each} ({self.known[each]})" if each in self.known else each for each in told)


class Report:
    """Collects what the tests see."""

    def __init__(self, versions: str) -> None:
        """Start; *versions* says of what everything was."""
        self.versions = versions
        self.names = Names()
        self.chapters: list[Chapter] = []

    @property
    def rows(self) -> list[Row]:
        """All rows in order."""
        return [row for chapter in self.chapters for row in chapter.rows]

    @contextmanager
    def chapter(self, title: str, text: str) -> Iterator["Check"]:
        """Open a named test's chapter; at its end every row that is not as expected fails it, together."""
        chapter = Chapter(title, " ".join(text.split()))
        self.chapters.append(chapter)
        yield Check(chapter)
        wrong = [row for row in chapter.rows if not row.good]
        assert not wrong, "\n" + table(wrong)

    def write(self, json_path: Path, markdown_path: Path | None) -> None:
        """Write the rows for machines and, where a path is given, for people."""
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([asdict(row) for row in self.rows], indent=1) + "\n")
        if markdown_path is not None:
            markdown_path.write_text(self.markdown())

    def markdown(self) -> str:
        """Return the document: each chapter with its table."""
        headlines = [row for chapter in self.chapters for row in chapter.headlines]
        parts = [HEAD.format(versions=self.versions), "## In short\n", _markdown_table(headlines)]
        for chapter in self.chapters:
            parts.append(f"## {chapter.title}\n\n{chapter.text}\n")
            parts.append(_markdown_table(chapter.rows))
        return "\n".join(parts)


@dataclass(slots=True)
class Check:
    """Takes a test's observations."""

    chapter: Chapter

    def __call__(
        self, traffic: str, mode: str, check: str, *, expected: object, seen: object, headline: bool = False
    ) -> None:
        """Add a row; a *headline* is also shown at the top of the document."""
        row = Row(traffic=traffic, mode=mode, check=check, expected=_said(expected), seen=_said(seen))
        self.chapter.rows.append(row)
        if headline:
            self.chapter.headlines.append(row)


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


HEAD: Final = """# The proof

`make proof` generates this page; do not edit it. It starts a real control plane, Istio, Envoy, kube-proxy and the
webhook in network namespaces of one machine, sends traffic, and records what the application saw. Each row is an
assertion of the test suite; `build/proof.json` has the same rows. The [page of the lab](../tests/proof/README.md)
describes the parts. {versions}.
"""


def table(rows: Sequence[Row]) -> str:
    """Return *rows* as plain text in columns; the last says which are not as expected."""
    lines = [COLUMNS, *((row.traffic, row.mode, row.check, row.expected, row.seen) for row in rows)]
    marks = ["", *("" if row.good else "  <-- not as expected" for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + mark
        for line, mark in zip(lines, marks, strict=True)
    )


def _markdown_table(rows: Sequence[Row]) -> str:
    """Return *rows* as a table; neighbours that differ in their check alone share a line."""
    lines: list[list[str]] = []
    for row in rows:
        line = [row.traffic, row.mode, row.check, row.seen]
        if lines and [*lines[-1][:2], lines[-1][3]] == [row.traffic, row.mode, row.seen]:
            lines[-1][2] += f"; {row.check}"
        else:
            lines.append(line)
    head = ["| traffic | mode | check | seen, as expected |", "|---|---|---|---|"]
    return "\n".join([*head, *("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
