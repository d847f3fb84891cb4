"""
Nodes by an integer that they carry: those above a bound, or below it, without visiting them all.

Sets of nodes are ints, as in `nodes`. A set for each integer would take 160 MB for one label at 50,000 nodes, and a
walk over all integers for each bound stops everybody else for seconds: so there is a set at every so many of them, and
what lies between is added.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

CHECKPOINT_BYTES: Final = 2_500_000
"""What the sets may take together; with the integers themselves a key stays below 4 MiB at 50,000 nodes."""
STEP: Final = 16
"""Integers between two sets, at least."""
WIDE: Final = 1_024
"""Bytes of a set from which on single bits are put into a buffer: each `|` copies the set."""


class Ordering:
    """Which nodes hold which integer, in order."""

    __slots__ = ("_everyone", "_held", "_marks", "_numbers", "_step")

    def __init__(self, held: Iterable[tuple[int, int | Sequence[int]]]) -> None:
        """
        Put *held* in order.

        Args:
            held: Each integer (64 bits at most) with its nodes: a set, or the slots of a few.

        """
        pairs = sorted(held, key=_number)
        self._numbers = array("q", map(_number, pairs))
        self._held = tuple(nodes for _, nodes in pairs)
        width = max((_width(nodes) for nodes in self._held), default=0)
        self._step = max(STEP, -(-len(pairs) * (width * 16 // 15 + 28) // CHECKPOINT_BYTES))
        self._marks = [0]
        for start in range(0, len(pairs), self._step):
            self._marks.append(_union(self._marks[-1], self._held[start : start + self._step]))
        self._everyone = self._marks[-1]

    def above(self, bound: int) -> int:
        """Return the nodes whose integer is greater than *bound*."""
        return self._everyone ^ self._first(bisect_right(self._numbers, bound))

    def below(self, bound: int) -> int:
        """Return the nodes whose integer is less than *bound*."""
        return self._first(bisect_left(self._numbers, bound))

    def _first(self, number: int) -> int:
        """Return the nodes of the first *number* integers."""
        if number == len(self._numbers):
            return self._everyone
        mark, more = divmod(number, self._step)
        first = number - more
        if 2 * more <= self._step:
            return _union(self._marks[mark], self._held[first:number])
        # From the next set back it is nearer. A node holds one integer, so that what is taken off is in no other's.
        return self._marks[mark + 1] ^ _union(0, self._held[number : first + self._step])


def _number(pair: tuple[int, int | Sequence[int]]) -> int:
    return pair[0]


def _width(nodes: int | Sequence[int]) -> int:
    return (nodes.bit_length() if isinstance(nodes, int) else max(nodes) + 1) // 8 + 1


def _union(nodes: int, more: Iterable[int | Sequence[int]]) -> int:
    """Return the set *nodes* with all of *more*."""
    singles: list[int] = []
    for each in more:
        if isinstance(each, int):
            nodes |= each
        else:
            singles += each
    if not singles:
        return nodes
    width = max(nodes.bit_length(), max(singles) + 1) // 8 + 1
    if width < WIDE:
        for slot in singles:
            nodes |= 1 << slot
        return nodes
    bits = bytearray(nodes.to_bytes(width, "little"))
    for slot in singles:
        bits[slot >> 3] |= 1 << (slot & 7)
    return int.from_bytes(bits, "little")
