"""
What a list's objects go into until its last page is there.

Nothing that is in use changes before: a list may end half way.
"""

import gc
import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from webhook.facts.collect import Collector, FactError
from webhook.facts.kube import GoneError
from webhook.rules.nodes import Node

log: Final = logging.getLogger(__name__)


class _Name(msgspec.Struct, frozen=True):
    name: str = ""


class _Named(msgspec.Struct, frozen=True):
    metadata: _Name = _Name()


_named: Final = msgspec.json.Decoder(_Named)
node_decoder: Final = msgspec.json.Decoder(Node)


class Listing(Protocol):
    """Where the objects of one list go, page by page; what is known stays in use until the end."""

    def take(self, raw: msgspec.Raw) -> None:
        """Take one object in, and nothing of the page that *raw* is part of."""

    async def end(self) -> None:
        """
        Put all that was taken in the place of what was known.

        Raises:
            GoneError: What was taken is of no use any more; list again.

        """


class Kept:
    """A list of which each object is kept to the end: they are few, or small."""

    def __init__(
        self, known: Callable[[], set[str]], put: Callable[[bytes], None], remove: Callable[[str], None]
    ) -> None:
        self._known, self._put, self._remove = known, put, remove
        self._items: list[bytes] = []

    def take(self, raw: msgspec.Raw) -> None:
        """Keep it."""
        self._items.append(bytes(raw))

    async def end(self) -> None:
        """Remove those that are gone, put the others."""
        names = {_named.decode(item).metadata.name for item in self._items}
        for name in self._known() - names:
            self._remove(name)
        for item in self._items:
            try:
                self._put(item)
            except (FactError, msgspec.MsgspecError) as error:
                log.warning("an object can't be read and is passed over: %s", error)


class NodeListing:
    """Nodes go straight into an index beside the one in use; what is as it was is shared with that."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._builder = collector.next_nodes(collector.builder.freeze())
        self._names: set[str] = set()

    def take(self, raw: msgspec.Raw) -> None:
        """Index it."""
        node = node_decoder.decode(raw)
        self._builder.put(node)
        self._names.add(node.metadata.name)

    async def end(self) -> None:
        """Remove those that are gone and use the index."""
        if self._builder.rules != self._collector.policies.default.node_rules:
            raise GoneError("a policy with other rules for nodes came meanwhile")
        self._builder.keep(self._names)
        self._collector.replace_nodes(self._builder)
        self._collector.nodes_synced = True
        # What was loaded stays: a full collection would walk it for nothing.
        gc.freeze()
