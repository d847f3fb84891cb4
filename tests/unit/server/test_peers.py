"""Who may hold how much, and what goes first."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from webhook.server.peers import GRACE_SECONDS, MAX_WAITING, OPEN_BYTES, Ended, Peers, Source

BUDGET = 96 << 20
API_SERVERS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@dataclass(eq=False)
class Caller:
    """A connection, as far as its holdings go."""

    peers: Peers
    source: Source
    held: int = 0
    unfinished: bool = False
    used_at: float = 0.0
    ended: Ended | None = None
    rooms: int = 0

    def end(self, reason: Ended) -> None:
        self.ended = reason
        self.peers.leave(self)

    def room(self) -> None:
        self.rooms += 1


@dataclass
class Hall:
    """Peers, a clock that stands still, and counts."""

    budget: int = BUDGET
    now: float = 100.0
    counts: Counter[Ended] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.peers = Peers(self.budget, self.count, clock=lambda: self.now)

    def count(self, reason: Ended) -> None:
        self.counts[reason] += 1

    def enter(self, address: str, held: int = OPEN_BYTES) -> Caller | None:
        caller = Caller(self.peers, self.peers.source(address))
        return caller if self.peers.enter(caller, held) else None

    def opened(self, address: str, number: int, *, asked: bool = False) -> list[Caller]:
        found = [self.enter(address) for _ in range(number)]
        came = [each for each in found if each is not None]
        for each in came if asked else ():
            self.peers.finish(each)
        return came


def alive(callers: list[Caller]) -> int:
    return sum(each.ended is None for each in callers)


def test_what_is_held_is_counted_and_given_back() -> None:
    hall = Hall()
    caller = hall.enter("10.0.0.1", 1000)
    assert caller is not None
    assert hall.peers.take(caller, 500)
    assert (hall.peers.held, caller.held, caller.source.unfinished_held) == (1500, 1500, 1500)
    hall.peers.finish(caller)
    assert (caller.source.held, caller.source.unfinished_held) == (1500, 0)
    hall.peers.give(caller, 500)
    hall.peers.leave(caller)
    hall.peers.leave(caller)
    hall.peers.give(caller, 500)
    assert (hall.peers.held, hall.peers.sources) == (0, [])


def test_a_flood_of_one_address_takes_only_its_own_place() -> None:
    hall = Hall()
    kept = hall.opened(API_SERVERS[0], 500, asked=True)
    flood = hall.opened("10.9.9.9", 5000)
    assert alive(kept) == 500
    assert hall.peers.held <= BUDGET
    assert alive(flood) == BUDGET // OPEN_BYTES - 500


def test_an_api_server_that_comes_back_finds_room_in_a_full_house() -> None:
    hall = Hall()
    hall.opened("10.9.9.9", 5000)
    returned = [hall.opened(address, 500, asked=True) for address in API_SERVERS]
    assert [alive(each) for each in returned] == [500] * 3
    hall.opened("10.9.9.9", 5000)
    assert [alive(each) for each in returned] == [500] * 3


@pytest.mark.parametrize("asked", [False, True], ids=["never asked", "asked once"])
def test_each_of_a_few_addresses_is_left_500_whatever_one_other_does(*, asked: bool) -> None:
    hall = Hall()
    hall.opened("10.9.9.9", 5000, asked=asked)
    hall.now += 10
    returned = [hall.opened(address, 500, asked=True) for address in API_SERVERS]
    for _ in range(3):
        hall.now += 10
        hall.opened("10.9.9.9", 3000, asked=asked)
    assert [alive(each) for each in returned] == [500] * 3


def test_from_one_address_what_is_old_and_unfinished_goes_before_what_has_asked() -> None:
    hall = Hall()
    honest = hall.opened("10.0.0.1", 10, asked=True)
    flood = hall.opened("10.0.0.1", 6000)
    assert alive(flood) == BUDGET // OPEN_BYTES - 10
    assert hall.enter("10.0.0.1") is None  # all the others are as young
    hall.now += GRACE_SECONDS
    newest = hall.enter("10.0.0.1")
    assert newest is not None
    assert flood[0].ended is Ended.MEMORY
    hall.opened("10.0.0.1", 3000)
    assert alive(honest) == 10
    assert newest.ended is None


def test_a_body_of_an_api_server_goes_for_no_newcomer_of_a_flood() -> None:
    hall = Hall()
    body = hall.enter("10.0.0.1", 3 << 20)
    assert body is not None
    for _ in range(20):
        hall.opened("10.9.9.9", 500)
        hall.now += 1
    assert body.ended is None


def test_bodies_that_never_end_make_room_for_one_that_comes() -> None:
    hall = Hall()
    for _ in range(60):
        hall.enter("10.9.9.9", 7 << 20)
    assert hall.peers.held <= BUDGET
    body = hall.enter("10.0.0.1", 7 << 20)
    assert body is not None
    hall.now += 1
    own = hall.enter("10.9.9.9", 7 << 20)
    assert own is not None
    assert body.ended is None


def test_who_has_left_can_begin_nothing() -> None:
    hall = Hall()
    caller = hall.enter("10.0.0.1")
    assert caller is not None
    hall.peers.leave(caller)
    hall.peers.begin(caller)
    assert not caller.unfinished
    assert hall.opened("10.0.0.1", 6000)


def test_what_is_larger_than_all_ends_nobody() -> None:
    hall = Hall()
    others = hall.opened("10.9.9.9", 100)
    caller = hall.enter("10.0.0.1")
    assert caller is not None
    assert not hall.peers.take(caller, BUDGET + 1)
    assert alive(others) == 100


def test_whatever_bodies_want_who_comes_finds_room() -> None:
    hall = Hall()
    bodies = hall.opened("10.0.0.1", 60)
    taken = [hall.peers.take_body(each, 3 << 20) for each in bodies]
    assert 20 < taken.count(True) < 60
    assert alive(hall.opened("10.0.0.1", 500)) == 500
    assert alive(bodies) == 60


def test_who_waits_is_called_when_there_is_room_who_holds_least_first() -> None:
    async def scenario() -> list[int]:
        hall = Hall(budget=12_000)
        many = [hall.enter("10.0.0.1", 4_000), hall.enter("10.0.0.2", 4_000)]
        waiting = [hall.enter("10.0.0.2", 0), hall.enter("10.0.0.1", 0), hall.enter("10.0.0.1", 0)]
        callers = [each for each in (*many, *waiting) if each is not None]
        assert len(callers) == 5
        for each in callers[2:]:
            assert not hall.peers.take_body(each, 4_000)
            assert hall.peers.wait(each, 4_000)
        hall.peers.leave(callers[0])
        await asyncio.sleep(0)
        assert hall.peers.held <= hall.budget
        return [each.rooms for each in callers[2:]]

    assert asyncio.run(scenario()) == [0, 1, 0]


def test_no_more_wait_than_are_counted() -> None:
    hall = Hall()
    callers = hall.opened("10.0.0.1", MAX_WAITING + 1)
    assert [hall.peers.wait(each, 1) for each in callers].count(False) == 1


def test_whatever_happens_the_sums_are_right_and_the_budget_holds() -> None:
    chance = random.Random(11)  # noqa: S311  # what happens next
    hall = Hall(budget=1 << 20)
    callers: list[Caller] = []

    def enter() -> None:
        made = hall.enter(f"10.0.0.{chance.randrange(5)}", chance.randrange(60_000))
        if made is not None:
            callers.append(made)

    def each(act: Callable[[Caller], object]) -> None:
        if callers:
            act(chance.choice(callers))

    acts: list[Callable[[], None]] = [
        enter,
        lambda: each(lambda one: hall.peers.take_body(one, chance.randrange(200_000))),
        lambda: each(lambda one: hall.peers.take(one, chance.randrange(200_000))),
        lambda: each(lambda one: hall.peers.give(one, chance.randrange(one.held + 1))),
        lambda: each(hall.peers.begin if chance.random() < 0.5 else hall.peers.finish),
        lambda: each(hall.peers.leave),
    ]
    for _ in range(20_000):
        hall.now += chance.choice((0.0, 0.01, 1.0))
        chance.choice(acts)()
        callers = [one for one in callers if one in one.source.peers]
        assert hall.peers.held == sum(one.held for one in callers) <= hall.budget
    for source in hall.peers.sources:
        assert source.held == sum(one.held for one in source.peers)
        assert source.unfinished_held == sum(one.held for one in source.unfinished)
