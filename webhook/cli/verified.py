"""
How `client-ip verify` prints what a log proves: row by row as it is read, so that the longest log costs no memory.

A terminal gets a table (of a very long log its beginning), a pipe one line for each request, JSON one document.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from webhook.cli.printing import Cell, console, on_terminal, print_table, say, styled
from webhook.rules.decision import shown
from webhook.running.accesslog import Entry, Finding, Verdict
from webhook.running.logshapes import Read

STYLES: Final = {"preserved": "green", "lost": "red", "unknown": "yellow", "not read": "yellow"}
NOT_READ: Final = "not read"
EXAMPLES: Final = 10
"""Lines that were not read and are named; all are counted."""
TABLE_ROWS: Final = 500
"""Rows of one verdict that a terminal shows: more are scrolled away, and each takes its time to lay out."""
BATCH: Final = 1000
"""Rows that are written at a time, and by which a pipe's columns are laid out."""
REQUEST_WIDTH: Final = 40


class PodMode(msgspec.Struct, frozen=True, kw_only=True):
    """The interception mode that a pod was injected with, and what contradicts it."""

    pod: str
    mode: str | None
    fact: str
    contradiction: str | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One request or connection of a log, or (without a finding) a line that was not read, with where it stands."""

    file: str
    pod: str
    """As the log or its line names it; empty where neither does."""
    read: Read
    finding: Finding | None

    @property
    def verdict(self) -> str:
        """The finding's, or that the line was not read."""
        return NOT_READ if self.finding is None else self.finding.verdict


class Printer(Protocol):
    """Prints what was judged, in the order in which it comes."""

    def begin(self, pods: Sequence[PodMode]) -> None:
        """Print what is known of the pods."""

    def add(self, judged: Judged) -> None:
        """Print one request, now or later."""

    def flush(self) -> None:
        """Print what has been added: nothing more may come for a while."""

    def end(self, tally: "Tally") -> None:
        """Print the rest and the counts."""


class Tally:
    """Counts what was judged and gives it on to be printed."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self.counts: Counter[str] = Counter()
        self.open = 0
        """Requests that are unknown and may have reached the application."""
        self.examples: list[Judged] = []
        self.faults: list[str] = []
        """What could not be read at all: a pod without a log."""
        self.contradicted = False
        self.lines = 0
        self.entries = 0

    def begin(self, pods: Sequence[PodMode]) -> None:
        """Take the pods in whose logs are read."""
        self.contradicted = any(pod.contradiction for pod in pods)
        self._printer.begin(pods)

    def add(self, judged: Judged) -> None:
        """Count a request and print it."""
        self.counts[judged.verdict] += 1
        if judged.finding is None:
            if len(self.examples) < EXAMPLES:
                self.examples.append(judged)
        elif judged.finding.leaves_open:
            self.open += 1
        self._printer.add(judged)

    def flush(self) -> None:
        """Print what was added: nothing more may come for a while."""
        self._printer.flush()

    def end(self) -> None:
        """Print the rest."""
        self._printer.end(self)

    @property
    def judged(self) -> int:
        """How many requests have a verdict."""
        return sum(self.counts[verdict] for verdict in Verdict)

    @property
    def unread(self) -> int:
        """How many lines look like requests and were not read."""
        return self.counts[NOT_READ]

    @property
    def proved(self) -> bool:
        """Whether every request that reached the application is known to be preserved, and there was one."""
        return (
            self.counts[Verdict.PRESERVED] > 0
            and not self.counts[Verdict.LOST]
            and not (self.open or self.unread or self.faults or self.contradicted)
        )

    def summary(self) -> str:
        """Return the counts in one line."""
        counts = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in Verdict)
        return f"{counts}, {self.unread} {NOT_READ}" if self.unread else counts

    def remarks(self) -> list[str]:
        """Return what keeps the proof open, apart from lost requests; nothing where it is proved."""
        said = list(self.faults)
        if self.unread:
            first = self.examples[0]
            lines = (
                "1 line looks like a request and was"
                if self.unread == 1
                else f"{self.unread} lines look like requests and were"
            )
            said.append(
                f"nothing proved: {lines} not read, first {first.file}:{first.read.line}: {shown(first.read.text)}"
            )
        elif not self.judged:
            said.append(self._nothing())
        elif self.open and not self.counts[Verdict.LOST]:
            said.append(f"nothing proved: for {self.open} requests, it is not known what the application saw")
        return said

    def _nothing(self) -> str:
        if self.entries:
            return (
                f"nothing proved: none of the {self.entries} requests in the log is inbound "
                "(the log is a gateway's, or has only outbound calls)"
            )
        return (
            f"nothing proved: no access log in {self.lines} lines; to turn it on, set meshConfig.accessLogFile or "
            "create a Telemetry resource, with the format JSON or Istio's default text format"
        )


# --- People


def _heads(*, pods: bool) -> list[str]:
    return ["VERDICT", *(["POD"] if pods else []), "REQUEST", "UPSTREAM_LOCAL_ADDRESS", "WHY"]


def _row(judged: Judged, *, pods: bool) -> list[str]:
    entry, finding = judged.read.entry, judged.finding
    middle = [judged.pod or "-"] if pods else []
    if entry is None or finding is None:
        why = f"looks like a request, but has an unknown format ({judged.file}:{judged.read.line})"
        return [NOT_READ, *middle, _cut(judged.read.text), "-", why]
    request = " ".join(part for part in (entry.method, entry.path) if part) or "TCP connection"
    why = finding.why if finding.field == "upstream_local_address" else f"{finding.field}: {finding.why}"
    return [finding.verdict, *middle, _cut(request), shown(entry.upstream_local_address or "-"), shown(why)]


def _cut(text: str) -> str:
    """Return *text*, which a caller wrote, without control characters and no longer than a column."""
    plain = text[: REQUEST_WIDTH + 1]
    if not plain.isprintable():
        plain = "".join(character if character.isprintable() else "?" for character in plain)
    return plain if len(plain) <= REQUEST_WIDTH else plain[: REQUEST_WIDTH - 1] + "…"


class TextPrinter:
    """Prints for people: on a terminal as a table at the end, in a pipe and with *live* row by row."""

    def __init__(self, *, live: bool) -> None:
        self._out = console()
        self._table = on_terminal(self._out) and not live
        self._rows: list[Judged] = []
        self._shown: Counter[str] = Counter()
        self._widths: list[int] = []
        self._pods = False

    def begin(self, pods: Sequence[PodMode]) -> None:
        """Print each pod's mode."""
        for pod in pods:
            say(self._out, f"{pod.pod}: injected mode {pod.mode or 'unknown'} ({pod.fact})")
            if pod.contradiction:
                say(self._out, styled(f"! {pod.contradiction}", "red"))
        self._pods = len(pods) > 1

    def add(self, judged: Judged) -> None:
        """Keep it for the table, or for the next batch of rows."""
        if self._table:
            self._shown[judged.verdict] += 1
            if self._shown[judged.verdict] > TABLE_ROWS:
                return
        self._rows.append(judged)
        if len(self._rows) >= BATCH and not self._table:
            self._write()

    def flush(self) -> None:
        """Print the rows that a pipe or a follower waits for."""
        if self._rows and not self._table:
            self._write()
            self._out.file.flush()

    def end(self, tally: Tally) -> None:
        """Print the table, and how many there were."""
        if self._table:
            self._print_table()
        else:
            self.flush()
        if tally.judged or tally.unread:
            say(self._out, tally.summary())

    def _print_table(self) -> None:
        if not self._rows:
            return
        pods = self._pods or any(each.pod for each in self._rows)
        rows: list[list[Cell]] = [
            [styled(row[0], STYLES[str(row[0])]), *row[1:]] for row in (_row(each, pods=pods) for each in self._rows)
        ]
        print_table(self._out, _heads(pods=pods), rows)
        hidden = [f"{count - TABLE_ROWS} {verdict}" for verdict, count in self._shown.items() if count > TABLE_ROWS]
        if hidden:
            say(self._out, f"… and {', '.join(hidden)} are not shown; use a pipe or -o json to see all")

    def _write(self) -> None:
        if not self._widths:
            self._pods = self._pods or any(each.pod for each in self._rows)
        rows = [_row(each, pods=self._pods) for each in self._rows]
        self._rows = []
        if not self._widths:
            heads = _heads(pods=self._pods)
            self._widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads) - 1)]
            rows.insert(0, heads)
        if on_terminal(self._out):
            for row in rows:
                say(
                    self._out,
                    styled(f"{row[0]:<{self._widths[0]}}", STYLES.get(row[0], "bold")),
                    self._line(row)[self._widths[0] :],
                )
            return
        self._out.file.write("".join([f"{self._line(row)}\n" for row in rows]))

    def _line(self, row: list[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row, self._widths, strict=False)]
        return "  ".join([*cells, row[-1]])


# --- Machines


class JSONPrinter:
    """Prints one JSON document, request by request."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._requests = False

    def begin(self, pods: Sequence[PodMode]) -> None:
        """Begin the document."""
        self._parts += [b'{\n  "pods": ', _indented(pods, b"  "), b',\n  "requests": [']

    def add(self, judged: Judged) -> None:
        """Write one element; lines that were not read are told at the end."""
        entry, finding = judged.read.entry, judged.finding
        if entry is None or finding is None:
            return
        element = _element(judged, entry, finding)
        self._parts += [b",\n    " if self._requests else b"\n    ", _indented(element, b"    ")]
        self._requests = True
        if len(self._parts) >= 2 * BATCH:
            self._write()

    def flush(self) -> None:
        """Write what is ready."""
        self._write()

    def end(self, tally: Tally) -> None:
        """End the document."""
        rest = {
            "counts": {str(verdict): tally.counts[verdict] for verdict in Verdict},
            "notRead": {
                "count": tally.unread,
                "examples": [
                    {"file": each.file, "line": each.read.line, "text": each.read.text} for each in tally.examples
                ],
            },
            "faults": tally.faults,
            "proved": tally.proved,
        }
        self._parts.append(b"\n  ]" if self._requests else b"]")
        for name, value in rest.items():
            self._parts += [b',\n  "', name.encode(), b'": ', _indented(value, b"  ")]
        self._parts.append(b"\n}\n")
        self._write()

    def _write(self) -> None:
        text, self._parts = b"".join(self._parts), []
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def _indented(value: object, indent: bytes) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).replace(b"\n", b"\n" + indent)


def _element(judged: Judged, entry: Entry, finding: Finding) -> dict[str, Any]:
    element: dict[str, Any] = {
        "file": judged.file,
        "line": judged.read.line,
        "verdict": finding.verdict,
        "field": finding.field,
        "why": finding.why,
        "peer": finding.peer,
        "method": entry.method,
        "path": entry.path,
        "upstreamLocalAddress": entry.upstream_local_address,
        "downstreamRemoteAddress": entry.downstream_remote_address,
        "xForwardedFor": entry.x_forwarded_for,
    }
    if judged.pod:
        element["pod"] = judged.pod
    return element
