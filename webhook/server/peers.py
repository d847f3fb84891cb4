"""
What peers may hold, all together and each: memory, and so connections.

Nobody shows who he is before he is read, so all that is known of a peer is its address. Whatever a connection holds is
counted against one budget, which follows from the container's memory: a handshake, an open connection, a body that is
not complete, answers that are not read. Where the budget is used up, room is made for who needs some, and what goes
first is what nobody will miss:

1. what is unfinished (a handshake, a first request, a body), of the address that holds most of it, the oldest first;
2. connections that wait for their next request, of the address that holds most, the longest idle first, as long as it
   holds more than who asks.

So a flood of whatever is never finished only takes the flood's own place, from the same address too; and what an API
server has open, or opens anew after a rollout, is taken by nobody who holds less. "Newest goes first" would do the
reverse: after a rollout it is the API servers that are new.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

HANDSHAKE_BYTES: Final = 56 << 10
"""What a TLS handshake under way holds; measured: 44 KiB."""
OPEN_BYTES: Final = 48 << 10
"""What an open TLS connection holds; measured: 31 KiB, 45 after a large body, 60 amid a record that does not end."""
GRACE_SECONDS: Final = 0.5
"""What is younger goes for nobody of its own address: an honest handshake or body is done by then."""
BODY_GRACE_SECONDS: Final = 2.0
"""Nor for a body: the others are waited for, as long as the API server would wait for their answers."""
IDLE_GRACE_SECONDS: Final = 10.0
"""Nor does a connection that has waited for its next request for less."""
BODIES_LEAVE: Final = 4
"""Bodies leave this part of the budget free, so that there is always room for new connections."""
MAX_WAITING: Final = 256
"""Maximum number of bodies that wait for memory and are not read in the meantime; further ones are refused."""


class Ended(StrEnum):
    """Why a connection was ended that would have gone on: the closed list of a metric's label."""

    HANDSHAKE_FAILED = "handshake-failed"
    HANDSHAKE_LATE = "handshake-late"
    HEAD_LATE = "head-late"
    BODY_LATE = "body-late"
    NEVER_ASKED = "never-asked"
    ANSWERS_UNREAD = "answers-unread"
    MALFORMED = "malformed"
    CLIENT_NAME = "client-name"
    MEMORY = "memory"
    DESCRIPTORS = "descriptors"
    LEFT = "left"


class Peer(Protocol):
    """A connection, as far as its holdings go."""

    source: "Source"
    held: int
    unfinished: bool
    used_at: float
    """When it was last of use, or when what is unfinished began; monotonic."""

    def end(self, reason: Ended) -> None:
        """End it at once, and give back what it holds."""

    def room(self) -> None:
        """Go on: there is room for what it waits for."""


class Source:
    """All connections of one address."""

    __slots__ = ("address", "held", "peers", "recent", "unfinished", "unfinished_held")

    def __init__(self, address: str) -> None:
        self.address = address
        self.held = 0
        self.peers: set[Peer] = set()
        self.unfinished: dict[Peer, None] = {}
        """The oldest first."""
        self.unfinished_held = 0
        self.recent = 0.0
        """Seconds of work that it cost lately."""


class Peers:
    """The connections of one listener, and what they hold."""

    def __init__(
        self, budget: int, count: Callable[[Ended], None], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.budget: Final = budget
        self._for_bodies: Final = budget - budget // BODIES_LEAVE
        self.held = 0
        self.count: Final = count
        self._clock = clock
        self._sources: dict[str, Source] = {}
        self._waiting: dict[Peer, int] = {}
        self._waking: asyncio.Handle | None = None

    @property
    def sources(self) -> list[Source]:
        """All addresses that hold something."""
        return list(self._sources.values())

    def states(self) -> Counter[str]:
        """Return how many connections are unfinished, and how many wait for their next request."""
        found = Counter({"unfinished": 0, "open": 0})
        for source in self._sources.values():
            found["unfinished"] += len(source.unfinished)
            found["open"] += len(source.peers) - len(source.unfinished)
        return found

    # --- A connection comes and goes

    def source(self, address: str) -> Source:
        """Return all that is known of *address*."""
        found = self._sources.get(address)
        if found is None:
            found = self._sources[address] = Source(address)
        return found

    def enter(self, peer: Peer, held: int) -> bool:
        """Let *peer* in, unfinished as it is; False where there is no room for it."""
        source = peer.source
        self._sources[source.address] = source
        source.peers.add(peer)
        peer.held = 0
        peer.unfinished = False
        self.begin(peer)
        if self.take(peer, held):
            return True
        self.leave(peer)
        return False

    def leave(self, peer: Peer) -> None:
        """Give back all that *peer* holds; again is nothing."""
        source = peer.source
        if peer not in source.peers:
            return
        self._waiting.pop(peer, None)
        self.finish(peer)
        self.give(peer, peer.held)
        source.peers.discard(peer)
        if not source.peers:
            self._sources.pop(source.address, None)

    # --- What it holds

    def begin(self, peer: Peer) -> None:
        """Note that something of *peer* is unfinished from now on."""
        if not peer.unfinished and peer in peer.source.peers:
            peer.unfinished = True
            peer.used_at = self._clock()
            peer.source.unfinished[peer] = None
            peer.source.unfinished_held += peer.held

    def finish(self, peer: Peer) -> None:
        """Note that nothing of *peer* is unfinished any more."""
        if peer.unfinished:
            peer.unfinished = False
            peer.used_at = self._clock()
            del peer.source.unfinished[peer]
            peer.source.unfinished_held -= peer.held

    def take(self, peer: Peer, count: int) -> bool:
        """Count *count* bytes more for *peer*, ending others where there is no room; False where there is none."""
        return self._take(peer, count, self.budget, GRACE_SECONDS)

    def take_body(self, peer: Peer, count: int) -> bool:
        """Count a body of *count* bytes for *peer*: bodies leave a part of the room to those who come."""
        return self._take(peer, count, self._for_bodies, BODY_GRACE_SECONDS)

    def _take(self, peer: Peer, count: int, most: int, grace: float) -> bool:
        if self.held + count > most and not self._make_room(peer, count, most, grace):
            return False
        self._add(peer, count)
        return True

    def owe(self, peer: Peer, count: int) -> None:
        """Count *count* bytes more for *peer* that it holds already, room or not."""
        if not self.take(peer, count):
            self._add(peer, count)

    def give(self, peer: Peer, count: int) -> None:
        """Count *count* bytes less for *peer*."""
        self._add(peer, -count)
        if self._waiting and self._waking is None:
            self._waking = asyncio.get_running_loop().call_soon(self._wake)

    def _add(self, peer: Peer, count: int) -> None:
        if peer not in peer.source.peers:  # it has left, and given back all
            return
        self.held += count
        peer.held += count
        peer.source.held += count
        if peer.unfinished:
            peer.source.unfinished_held += count

    # --- Who waits for room

    def wait(self, peer: Peer, count: int) -> bool:
        """Call *peer*'s `room` once a body of *count* bytes has room, and has it; False where too many wait already."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[peer] = count
        return True

    def wait_no_more(self, peer: Peer) -> None:
        """Forget that *peer* waits, if it does."""
        self._waiting.pop(peer, None)

    def _wake(self) -> None:
        """Who holds least is served first, and then who came first."""
        self._waking = None
        for peer in sorted(self._waiting, key=lambda each: each.source.held):
            count = self._waiting.get(peer)
            if count is None:
                continue
            if self.held + count > self._for_bodies:
                return
            del self._waiting[peer]
            self._add(peer, count)
            peer.room()

    # --- Who goes first

    def _make_room(self, peer: Peer, count: int, most: int, grace: float) -> bool:
        while count <= most < self.held + count:
            victim = self._unfinished_victim(peer, count, grace) or self._idle_victim(peer, count)
            if victim is None:
                return False
            self.count(Ended.MEMORY)
            victim.end(Ended.MEMORY)
        return self.held + count <= most

    def _unfinished_victim(self, peer: Peer, count: int, grace: float) -> Peer | None:
        """What has been unfinished for long before what has not; of its own address nothing that is young."""
        own = peer.source
        least = own.unfinished_held + count
        now = self._clock()
        old: tuple[int, Peer] | None = None
        young: tuple[int, Peer] | None = None
        for source in self._sources.values():
            if source is not own and source.unfinished_held <= least:
                continue
            oldest = next((each for each in source.unfinished if each is not peer), None)
            if oldest is None:
                continue
            if now - oldest.used_at >= (grace if source is own else GRACE_SECONDS):
                if old is None or source.unfinished_held > old[0]:
                    old = source.unfinished_held, oldest
            elif source is not own and (young is None or source.unfinished_held > young[0]):
                young = source.unfinished_held, oldest
        found = old or young
        return None if found is None else found[1]

    def _idle_victim(self, peer: Peer, count: int) -> Peer | None:
        own = peer.source
        hog = max(self._sources.values(), key=lambda each: each.held - each.unfinished_held)
        if hog is own or hog.held <= own.held + count:
            hog = own
        idle = (each for each in hog.peers if not each.unfinished and each is not peer)
        longest = min(idle, key=lambda each: each.used_at, default=None)
        if longest is None or (hog is own and self._clock() - longest.used_at < IDLE_GRACE_SECONDS):
            return None
        return longest
