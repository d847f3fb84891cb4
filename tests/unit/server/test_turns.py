"""Whose request is answered next."""

import asyncio
from dataclasses import dataclass, field

import pytest

from webhook.server.peers import Source
from webhook.server.turns import MOST_NOTED_SECONDS, PUT_OFF_SECONDS, SLICE_SECONDS, Turns


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Asker:
    """A connection with some requests left, each of which takes as long."""

    name: str
    source: Source
    turns: Turns
    clock: Clock
    answered: list[str]
    left: int
    seconds: float
    recent: float = 0.0

    def turn(self) -> bool:
        begun = self.clock.now
        self.clock.now += self.seconds
        self.turns.took(self, begun, self.clock.now)
        self.answered.append(self.name)
        self.left -= 1
        return self.left > 0


@dataclass
class Room:
    clock: Clock = field(default_factory=Clock)
    answered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.turns = Turns(clock=self.clock)
        self.sources: dict[str, Source] = {}

    def asker(self, name: str, address: str, left: int, seconds: float) -> Asker:
        source = self.sources.setdefault(address, Source(address))
        return Asker(name, source, self.turns, self.clock, self.answered, left, seconds)


def test_answers_that_take_a_slice_in_a_row_are_put_in_line_after_it() -> None:
    async def scenario() -> None:
        room = Room()
        one = room.asker("a", "10.0.0.1", 0, 0)
        for _ in range(int(SLICE_SECONDS / 0.001)):
            assert not room.turns.busy
            room.turns.took(one, room.clock.now, room.clock.now + 0.001)
            room.clock.now += 0.0011
        room.turns.took(one, room.clock.now, room.clock.now + 0.001)
        assert room.turns.busy
        await asyncio.sleep(0)
        assert not room.turns.busy

    asyncio.run(scenario())


def test_answers_with_time_between_them_are_never_put_in_line() -> None:
    async def scenario() -> None:
        room = Room()
        one = room.asker("a", "10.0.0.1", 0, 0)
        for _ in range(1000):
            room.turns.took(one, room.clock.now, room.clock.now + 0.005)
            room.clock.now += 0.006
        assert not room.turns.busy

    asyncio.run(scenario())


def test_a_hundred_that_ask_without_waiting_put_off_another_address_by_one_answer() -> None:
    async def scenario() -> None:
        room = Room()
        for number in range(100):
            room.turns.line_up(room.asker(f"flood {number}", "10.9.9.9", 1000, 0.1))
        await asyncio.sleep(0)
        assert len(room.answered) == 1
        room.turns.line_up(room.asker("other", "10.0.0.1", 1, 0.0001))
        await asyncio.sleep(0)
        assert room.answered[1] == "other"

    asyncio.run(scenario())


def test_within_an_address_who_has_cost_least_is_next() -> None:
    async def scenario() -> None:
        room = Room()
        heavy = room.asker("heavy", "10.0.0.1", 1000, 0.1)
        room.turns.line_up(heavy)
        await asyncio.sleep(0)
        for number in range(3):
            room.turns.line_up(room.asker(f"light {number}", "10.0.0.1", 1, 0.0001))
        await asyncio.sleep(0)
        assert room.answered == ["heavy", "light 0", "light 1", "light 2", "heavy"]

    asyncio.run(scenario())


def test_whoever_has_cost_much_is_answered_though_others_keep_coming() -> None:
    async def scenario() -> None:
        room = Room()
        costly = room.asker("costly", "10.0.0.1", 1, 0.001)
        costly.recent = 60.0
        room.turns.line_up(costly)
        begun = room.clock.now
        for number in range(10_000):
            # The line never ends: each turn of the loop finds as many as it answers.
            for light in range(12):
                room.turns.line_up(room.asker(f"light {number}.{light}", "10.0.0.1", 1, 0.001))
            await asyncio.sleep(0)
            if not costly.left:
                break
        assert not costly.left
        assert PUT_OFF_SECONDS <= room.clock.now - begun < 2 * PUT_OFF_SECONDS

    asyncio.run(scenario())


def test_what_took_longer_than_any_answer_can_is_not_all_noted() -> None:
    async def scenario() -> None:
        room = Room()
        stopped = room.asker("a", "10.0.0.1", 0, 0)
        room.turns.took(stopped, 0.0, 30.0)
        assert stopped.recent == stopped.source.recent == MOST_NOTED_SECONDS

    asyncio.run(scenario())


def test_what_was_costly_is_forgiven_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.server.turns.FADE_SECONDS", 0.001)

    async def scenario() -> None:
        room = Room()
        costly = room.asker("a", "10.0.0.1", 0, 0)
        for _ in range(80):
            room.turns.took(costly, 0.0, 0.1)
        assert costly.recent == costly.source.recent == pytest.approx(8.0)
        async with asyncio.timeout(20):
            while costly.recent:  # noqa: ASYNC110  # the timer is its own
                await asyncio.sleep(0.001)
        assert costly.source.recent < 0.001

    asyncio.run(scenario())


def test_work_of_a_task_waits_for_its_turn_and_its_error_is_its_own() -> None:
    async def scenario() -> None:
        room = Room()
        flood = room.asker("flood", "10.9.9.9", 3, SLICE_SECONDS)
        room.turns.line_up(flood)
        caller = room.asker("caller", "10.0.0.1", 0, 0)

        def fail() -> int:
            raise ValueError("mine")

        results = await asyncio.gather(
            room.turns.in_turn(caller, lambda: 7), room.turns.in_turn(caller, fail), return_exceptions=True
        )
        assert results[0] == 7
        assert isinstance(results[1], ValueError)
        while room.turns.busy:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0)
        assert flood.left == 0

    asyncio.run(scenario())
