"""What a policy's status says, as time goes by."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhook.facts.conditions import MESSAGE_LIMIT, NAMED, conditions, due, next_change
from webhook.rules.ends import NOTICE
from webhook.rules.policy import Policy, PolicyException

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def policy(*ends: tuple[str, timedelta]) -> Policy:
    exceptions = tuple(
        PolicyException(name=name, owner=f"team-{name}", reason="old", expires=NOW + ahead) for name, ahead in ends
    )
    return Policy(name="shop", exceptions=exceptions)


def ending(*ends: tuple[str, timedelta], now: datetime = NOW) -> tuple[str, str, str]:
    (_, condition) = conditions(policy(*ends), "", 3, now=now)
    assert (condition["type"], condition["observedGeneration"]) == ("ExceptionsEnding", 3)
    return condition["status"], condition["reason"], condition["message"]


NONE = ("False", "NoneEnding", "no exception ends within 7 days")


@pytest.mark.parametrize(
    ("ends", "want"),
    [
        ((), NONE),
        ((("a", NOTICE + SECOND),), NONE),
        ((("a", NOTICE),), ("True", "Ending", "a ends 2026-12-02T12:00:00Z (team-a)")),
        ((("a", timedelta()),), ("True", "Ended", "a ended 2026-11-25T12:00:00Z (team-a)")),
        (
            (("old", -SECOND), ("soon", SECOND), ("far", 9 * NOTICE)),
            ("True", "Ended", "soon ends 2026-11-25T12:00:01Z (team-soon); old ended 2026-11-25T11:59:59Z (team-old)"),
        ),
    ],
    ids=["none at all", "ALMOST within a week", "JUST within a week", "the end itself", "what lies ahead comes first"],
)
def test_the_condition_follows_the_time(ends: tuple[tuple[str, timedelta], ...], want: tuple[str, str, str]) -> None:
    assert ending(*ends) == want


def test_of_many_a_few_are_named() -> None:
    many = [(f"e{number:03}", number * SECOND) for number in range(200)]
    _, _, message = ending(*many)
    assert message.count("(team-") == NAMED
    assert message.endswith("; and 197 more")


def test_a_long_error_and_a_long_owner_are_cut() -> None:
    whole = Policy(name="shop", exceptions=(PolicyException(name="a", owner="o" * 99_999, reason="", expires=NOW),))
    accepted, told = conditions(whole, "x" * 99_999, 1, now=NOW)
    assert len(accepted["message"]) == MESSAGE_LIMIT
    assert len(told["message"]) < 200


def stored(now: datetime = NOW) -> list[dict[str, Any]]:
    found = due(conditions(policy(("a", SECOND)), "", 3, now=NOW), [], now=now)
    assert found is not None
    return found


def test_nothing_is_written_where_all_is_stored() -> None:
    wanted = conditions(policy(("a", SECOND)), "", 3, now=NOW)
    assert due(wanted, stored(), now=NOW + 5 * SECOND) is None
    assert due(wanted, [], now=NOW) is not None


def test_the_time_of_the_transition_is_kept_while_the_status_stays() -> None:
    first = stored()
    later = NOW + 60 * SECOND
    wanted = conditions(policy(("a", SECOND)), "spec.mode: required", 4, now=later)
    changed = due(wanted, first, now=later)
    assert changed is not None
    assert [(each["status"], each["reason"], each["lastTransitionTime"]) for each in changed] == [
        ("False", "Invalid", "2026-11-25T12:01:00Z"),
        ("True", "Ended", "2026-11-25T12:00:00Z"),
    ]


def test_the_next_change_is_a_week_before_an_end_or_the_end() -> None:
    assert next_change((), now=NOW) is None
    assert next_change(policy(("a", -SECOND)).exceptions, now=NOW) is None
    assert next_change(policy(("a", NOTICE + SECOND)).exceptions, now=NOW) == SECOND
    assert next_change(policy(("a", 9 * SECOND), ("b", 2 * NOTICE)).exceptions, now=NOW) == 9 * SECOND
