"""
Whose request is answered next.

As long as there is time, a request is answered the moment that its last byte is there. Once answers have taken a slice
of the event loop in a row, what comes is put in line, and each turn of the loop answers for a slice from there: first
whose address has cost least lately, and within it whose connection has, which puts off the others for half a second at
most. So neither many requests in one piece nor many connections put off who asks now and then, and a request waits for
one answer of somebody else's, not for all of them.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from webhook.server.peers import Source

T = TypeVar("T")
SLICE_SECONDS: Final = 0.01
"""How long answers may keep the event loop until it looks for what else is to be done."""
FADE_SECONDS: Final = 1.0
"""What was noted counts for half after it."""
LEAST_SECONDS: Final = 0.0001
"""What counts for less is forgotten."""
MOST_NOTED_SECONDS: Final = 0.1
"""No answer costs more: what took longer was not its doing, such as another process that had the CPU."""
PUT_OFF_SECONDS: Final = 0.5
"""The most that an expensive peer waits longer than a peer without cost, however many of the latter there are."""
GAP_SECONDS: Final = 0.0005
"""Answers that are further apart than this are not in a row: the loop has had time in between."""


class Charged(Protocol):
    """A connection, as far as work for it is noted."""

    source: Source
    recent: float
    """Seconds of work that it cost lately."""


class Asker(Protocol):
    """Who stands in line with a request that is complete."""

    source: Source
    recent: float

    def turn(self) -> bool:
        """Answer one request; return whether another one is complete."""


class Work(Generic[T]):
    """Work for a peer that is answered by a task of its own."""

    __slots__ = ("_turns", "_work", "asker", "done", "recent", "source")

    def __init__(self, turns: "Turns", asker: "Charged", work: Callable[[], T]) -> None:
        self.asker = asker
        self.source = asker.source
        self.recent = asker.recent
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._turns = turns
        self._work = work

    def turn(self) -> bool:
        """Do it, unless nobody waits for it any more."""
        if not self.done.done():
            try:
                self.done.set_result(self._turns.now(self.asker, self._work))
            except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
                self.done.set_exception(error)
        return False


class Turns:
    """The line, and what answers have taken in a row."""

    __slots__ = ("_clock", "_fading", "_heaps", "_noted", "_numbers", "busy", "row", "until")

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.busy = False
        """Whether requests are to be put in line."""
        self._clock = clock
        self.until = 0.0
        """When the last answer ended, by the clock."""
        self.row = 0.0
        """Seconds that answers took in a row until then."""
        self._noted: dict[Charged, None] = {}
        self._fading: asyncio.TimerHandle | None = None
        self._numbers = itertools.count()
        self._heaps: dict[Source, list[tuple[float, int, Asker]]] = {}

    def took(self, asker: Charged, begun: float, ended: float) -> None:
        """Note that an answer to *asker* took from *begun* to *ended*, by the clock."""
        row = ended - begun if begun - self.until > GAP_SECONDS else self.row + ended - begun
        self.row, self.until = row, ended
        if self.busy or row > SLICE_SECONDS:
            self.note(asker, ended - begun)

    def note(self, asker: Charged, cost: float) -> None:
        """Note that *asker* has cost so much: others wait. Where nobody waits it does not matter who asked."""
        cost = min(cost, MOST_NOTED_SECONDS)
        asker.recent += cost
        asker.source.recent += cost
        self._noted[asker] = None
        if self._fading is None:
            self._fading = asyncio.get_running_loop().call_later(FADE_SECONDS, self._fade)
        if not self.busy:
            self._pause()

    def now(self, asker: "Charged", work: Callable[[], T]) -> T:
        """Do *work* for *asker* and note what it took."""
        begun = self._clock()
        try:
            return work()
        finally:
            self.took(asker, begun, self._clock())

    async def in_turn(self, asker: "Charged", work: Callable[[], T]) -> T:
        """Do *work* for *asker* when it is its turn."""
        if not self.busy:
            return self.now(asker, work)
        waiting = Work(self, asker, work)
        self.line_up(waiting)
        return await waiting.done

    def line_up(self, asker: Asker) -> None:
        """Put *asker* in line: it has a request that is complete."""
        heap = self._heaps.setdefault(asker.source, [])
        # A time, not what it has cost alone: in a line that never ends, that would let it wait for ever.
        after = self._clock() + min(asker.recent, PUT_OFF_SECONDS)
        heapq.heappush(heap, (after, next(self._numbers), asker))
        if not self.busy:
            self._pause()

    def _fade(self) -> None:
        """Let what was noted count for half from now on, and forget what is hardly anything."""
        self._fading = None
        for source in {each.source for each in self._noted}:
            source.recent /= 2
        for each in list(self._noted):
            each.recent /= 2
            if each.recent < LEAST_SECONDS:
                each.recent = 0.0
                del self._noted[each]
        if self._noted:
            self._fading = asyncio.get_running_loop().call_later(FADE_SECONDS, self._fade)

    def _pause(self) -> None:
        self.busy = True
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Answer for one slice."""
        self.row = 0.0
        deadline = self._clock() + SLICE_SECONDS
        try:
            while self._heaps and self._clock() < deadline:
                source = min(self._heaps, key=lambda each: each.recent)
                heap = self._heaps[source]
                asker = heapq.heappop(heap)[2]
                if not heap:
                    del self._heaps[source]
                if asker.turn():
                    self.line_up(asker)
        finally:
            self.row = 0.0
            if self._heaps:
                asyncio.get_running_loop().call_soon(self._run)
            else:
                self.busy = False
