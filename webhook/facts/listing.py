"""
What a list's objects go into until its last page is there.

Nothing that is in use changes before: a list may end half way. Of each object only what decisions read is kept: it is
folded to that when it is taken in, so that a page can be let go.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from webhook.facts.collect import Collector, FactError
from webhook.facts.kube import GoneError
from webhook.rules.nodes import Node

log: Final = logging.getLogger(__name__)

SLICE_SECONDS: Final = 0.001
"""How long objects are taken in before the event loop may serve somebody else."""
APART_BYTES: Final = 16 << 10
"""An object that is larger is read in a thread, where much is read of it; of nodes and namespaces little is."""
FREEZE_BYTES: Final = 256 << 10
"""What was taken in stays: after so much of it, it is set aside, or full collections would walk it again and again."""

node_decoder: Final = msgspec.json.Decoder(Node)


class Slices:
    """Time, in slices: a task that does much gives way between two of them."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_SECONDS
        self._bytes = 0

    async def taken(self, size: int) -> None:
        """Note that an object of *size* bytes was taken in; give way where the slice is over."""
        self._bytes += size
        if self._bytes > FREEZE_BYTES:
            self._bytes = 0
            gc.freeze()
        await self.breathe()

    async def breathe(self) -> None:
        """Give way where the slice is over."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_SECONDS


class Listing(Protocol):
    """Where the objects of one list go, page by page; what is known stays in use until the end."""

    def take(self, name: str, folded: Any) -> None:
        """Take in what one object was folded to."""

    async def end(self) -> None:
        """
        Put all that was taken in the place of what was known.

        Raises:
            GoneError: What was taken is of no use any more; list again.

        """


class Kept:
    """A list of which what each object was folded to is kept to the end."""

    def __init__(
        self, known: Callable[[], set[str]], put: Callable[[Any], None], remove: Callable[[str], None]
    ) -> None:
        self._known, self._put, self._remove = known, put, remove
        self._items: dict[str, Any] = {}

    def take(self, name: str, folded: Any) -> None:
        """Keep it."""
        self._items[name] = folded

    async def end(self) -> None:
        """Remove those that are gone, put the others."""
        slices = Slices()
        for name in self._known() - self._items.keys():
            self._remove(name)
            await slices.breathe()
        for folded in self._items.values():
            try:
                self._put(folded)
            except FactError as error:
                log.warning("an object cannot be read and is skipped: %s", error)
            await slices.breathe()
        gc.freeze()


class NodeListing:
    """Nodes go straight into an index beside the one in use; what is as it was is shared with that."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._builder = collector.next_nodes(collector.builder.freeze())
        self._names: set[str] = set()

    def take(self, name: str, folded: Node) -> None:
        """Index it."""
        self._builder.put(folded)
        self._names.add(name)

    async def end(self) -> None:
        """Remove those that are gone and use the index."""
        if self._builder.rules != self._collector.policies.default.node_rules:
            raise GoneError("a policy with other node rules was received in the meantime")
        self._builder.keep(self._names)
        self._collector.replace_nodes(self._builder)
        self._collector.nodes_synced = True
        # What was loaded stays: a full collection would walk it for nothing.
        gc.freeze()


Fold = Callable[[msgspec.Raw | bytes], tuple[str, Any]]


async def folded(fold: Fold, raw: msgspec.Raw, size: int, *, apart: bool) -> tuple[str, Any]:
    """
    Return the name of the object *raw* of *size* bytes, and what it is folded to.

    Args:
        fold: How; it may run in a thread.
        raw: The object.
        size: Its bytes.
        apart: Whether reading a large one costs much.

    """
    if apart and size > APART_BYTES:
        return await asyncio.to_thread(fold, raw)
    return fold(raw)


Begin = Callable[[], Awaitable[Listing]]
