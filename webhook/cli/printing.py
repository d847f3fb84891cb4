"""
How commands print for people: one Console, tables, trees and progress bars by rich.

A terminal gets colours, wrapped columns and guide lines. A pipe or a file gets plain text: one line for each row, no
box, nothing wrapped or cut, so that `grep`, `awk` and `less` work on it. Text that a cluster, a file or a caller wrote
is shown as it is: rich neither reads markup, emoji names or paths in it, nor do control characters reach the terminal.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from webhook.rules.decision import shown

Cell: TypeAlias = str | Text
"""A text, styled or not; several lines in one are one line in a pipe."""

NARROW: Final = 72
"""Columns. Below this a table's rows are printed one field below the other: columns would be a few letters wide."""
PROGRESS_SECONDS: Final = 2.0
"""What is done sooner shows no progress bar."""
_GAP: Final = "  "


def console(*, stderr: bool = False) -> Console:
    """
    Return the Console that every command prints with.

    Colours follow the terminal, NO_COLOR, FORCE_COLOR and TERM=dumb, as rich documents them.
    """
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        force_jupyter=False,
        # Width and colours are the terminal's; what is piped is not laid out by rich at all.
        legacy_windows=False,
    )


def styled(text: str, style: str) -> Text:
    """Return *text* as it is shown, in rich's *style* (`bold red`)."""
    return Text(shown(text), style=style)


def on_terminal(out: Console) -> bool:
    """Return whether a person looks at it: a terminal, whatever FORCE_COLOR says about colours."""
    return out.file.isatty()


def say(out: Console, *parts: Cell) -> None:
    """Print one line: wrapped on a terminal, whole in a pipe."""
    line = Text.assemble(*(_text(part) for part in parts))
    out.print(line, soft_wrap=not on_terminal(out))


def _text(cell: Cell) -> Text:
    """Return *cell* as rich prints it; of a plain text each line is made safe."""
    return cell if isinstance(cell, Text) else Text("\n".join(map(shown, cell.split("\n"))))


# --- Tables


def print_table(out: Console, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print *rows* below *heads*; a cell's lines stand below each other on a terminal, in one line in a pipe."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if not on_terminal(out):
        _print_plain(out, heads, texts)
    elif out.width < NARROW:
        _print_stacked(out, heads, texts)
    else:
        _print_columns(out, heads, texts)


def _print_plain(out: Console, heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    lines = [[Text(head, style="bold") for head in heads], *([_joined(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(line[column].plain) for line in lines) for column in range(len(heads) - 1)]
    for line in lines:
        whole = Text()
        for cell, width in zip(line, [*widths, 0], strict=True):
            whole.append_text(cell)
            whole.append(" " * max(width - cell_len(cell.plain), 0) + (_GAP if width else ""))
        whole.rstrip()
        out.print(whole, soft_wrap=True)


def _joined(cell: Text) -> Text:
    return Text("  ").join(cell.split("\n")) if "\n" in cell.plain else cell


def _print_columns(out: Console, heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for number, head in enumerate(heads):
        longest = max((len(word) for row in rows for word in row[number].plain.split()), default=0)
        # Reasons and words of a few letters stay whole; names and sentences give way.
        whole = max(longest, len(head)) if longest <= 20 else None
        grid.add_column(head, overflow="fold", min_width=whole if number < len(heads) - 1 else None)
    for row in rows:
        grid.add_row(*row)
    out.print(grid)


def _print_stacked(out: Console, heads: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    for row in rows:
        out.print(row[0], overflow="fold")
        for head, cell in zip(heads[1:], row[1:], strict=True):
            named = Text.assemble((f"{head.lower()}: ", "bold"), cell)
            out.print(Padding(named, (0, 0, 0, 2), expand=False), overflow="fold")


# --- Trees


@dataclass(slots=True)
class Branch:
    """A line, and what belongs below it."""

    line: Cell
    below: "list[Branch]" = field(default_factory=list)

    def add(self, line: Cell) -> "Branch":
        """Put *line* below, and return its branch."""
        branch = Branch(line)
        self.below.append(branch)
        return branch


def print_tree(out: Console, root: Branch) -> None:
    """Print *root* and all below it: with guide lines on a terminal, indented in a pipe."""
    if on_terminal(out):
        out.print(_tree(root))
        return
    for depth, line in _flat(root, 0):
        out.print(Text("  " * depth).append_text(line), soft_wrap=True)


def _tree(branch: Branch) -> Tree:
    tree = Tree(_text(branch.line), guide_style="bright_black")
    for each in branch.below:
        tree.children.append(_tree(each))
    return tree


def _flat(branch: Branch, depth: int) -> Iterator[tuple[int, Text]]:
    yield from ((depth, line) for line in _text(branch.line).split("\n"))
    for each in branch.below:
        yield from _flat(each, depth + 1)


# --- Progress


class Bar:
    """A progress bar on standard error, or nothing at all where nobody looks or it is done within two seconds."""

    def __init__(self, what: str, total: float | None, unit: str) -> None:
        out = console(stderr=True)
        self._task = None
        self._timer: threading.Timer | None = None
        if not on_terminal(out) or out.is_dumb_terminal or "CI" in os.environ:
            return
        count = MofNCompleteColumn() if unit else TaskProgressColumn()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *((count,) if total is not None else ()),
            TextColumn(unit, markup=False),
            TimeElapsedColumn(),
            console=out,
            transient=True,
        )
        self._task = self._progress.add_task(what, total=total)
        self._timer = threading.Timer(PROGRESS_SECONDS, self._progress.start)
        self._timer.daemon = True
        self._timer.start()

    def advance(self, by: float = 1) -> None:
        """Say that *by* more is done."""
        if self._task is not None:
            self._progress.advance(self._task, by)

    def say(self, what: str) -> None:
        """Say what is being done now."""
        if self._task is not None:
            self._progress.update(self._task, description=shown(what))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take it away again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # it may just be starting
            self._progress.stop()


def progress(what: str, total: float | None = None, unit: str = "") -> Bar:
    """
    Return a progress bar for a `with` statement: it goes when the block ends, and `Bar.advance` moves it.

    Args:
        what: What is being done, in a few words.
        total: Where it ends; None where nobody knows, then the bar only moves.
        unit: What is counted (`files`); without it a percentage is shown.

    """
    return Bar(what, total, unit)
