"""How far a long step is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LOG_SECONDS: Final = 20.0


class Steps:
    """
    Tells how far the steps of one task are; a context manager.

    >>> with Steps("kube-1.37") as steps:
    ...     steps.begin("compiling", "packages", 2079)
    ...     steps.advance()
    """

    def __init__(self, title: str) -> None:
        """
        Describe a task.

        Args:
            title: What is made.

        """
        self._title = title
        self._started = time.monotonic()
        self._told = 0.0
        self._doing, self._unit, self._done, self._total = "", "", 0, 0
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TextColumn("{task.fields[unit]}"), TimeElapsedColumn(), console=self._console
            )
            self._task = self._bar.add_task(title, total=None, unit="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """How long the task has taken."""
        return time.monotonic() - self._started

    def begin(self, doing: str, unit: str, total: int) -> None:
        """Begin a step of *total* units."""
        self._doing, self._unit, self._done, self._total = doing, unit, 0, total
        if self._bar is not None:
            described = f"{self._title}: {doing}"
            self._bar.update(self._task, description=described, completed=0, total=total or None, unit=unit)
        self._told = 0.0
        self.tick()

    def advance(self) -> None:
        """One unit more is done."""
        self._done = min(self._done + 1, self._total) if self._total else self._done + 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        self.tick()

    def tick(self) -> None:
        """Say how far it is, where nobody was told for a while; a terminal's bar moves by itself."""
        now = time.monotonic()
        if self._bar is None and now - self._told >= LOG_SECONDS:
            self._told = now
            of = f" of {self._total:,}" if self._total else ""
            self.say(f"{self._title}: {self._doing}, {self._done:,}{of} {self._unit}, {self.seconds:.0f} s")

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)
