"""
What a ClientIPPolicy's status says: whether it is in force, and which of its exceptions end or have ended.

Pure: a condition is a function of the policy and the time, so that replicas write the same. It is written only where it
differs from what is stored, and keeps its lastTransitionTime while its status stays.
https://github.com/kubernetes/community/blob/8a99192b/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from webhook.rules.ends import NOTICE, End, end_state, moment
from webhook.rules.policy import Policy, PolicyException

ACCEPTED: Final = "Accepted"
EXCEPTIONS_ENDING: Final = "ExceptionsEnding"
MESSAGE_LIMIT: Final = 32_768
"""What the CRD's schema takes."""
NAMED: Final = 3
"""Exceptions that a message names; of more it says how many there are."""
_OWNER_LIMIT: Final = 80

Condition = dict[str, Any]


def conditions(policy: Policy, error: str, generation: int, *, now: datetime) -> list[Condition]:
    """Return what is to be stored of *policy*, without times; *error* says what makes it unusable."""
    found = [
        _condition(ACCEPTED, "Invalid" if error else "Valid", error or "in force", status=not error),
        _exceptions_ending(policy, now=now),
    ]
    return [{**each, "observedGeneration": generation} for each in found]


def due(wanted: Sequence[Condition], stored: Iterable[object], *, now: datetime) -> list[Condition] | None:
    """Return *wanted* with its times, to be applied whole; None where all of it is stored already."""
    known = {each.get("type"): each for each in stored if isinstance(each, Mapping)}
    if all(known.get(each["type"], {}).get(key) == value for each in wanted for key, value in each.items()):
        return None
    return [_timed(each, known.get(each["type"], {}), now) for each in wanted]


def next_change(exceptions: Iterable[PolicyException], *, now: datetime) -> timedelta | None:
    """Return how long it is until one of *exceptions* is about to end, or ends; None where none of that lies ahead."""
    moments = (at for each in exceptions for at in (each.expires - NOTICE, each.expires) if at > now)
    return min((at - now for at in moments), default=None)


def _exceptions_ending(policy: Policy, *, now: datetime) -> Condition:
    states = {each.name: end_state(each.expires, now=now) for each in policy.exceptions}
    told = [each for each in policy.exceptions if states[each.name] is not End.LIVE]
    if not told:
        none = f"no exception ends within {NOTICE.days} days"
        return _condition(EXCEPTIONS_ENDING, "NoneEnding", none, status=False)
    told.sort(key=lambda each: (each.expires, each.name))
    reason = "Ended" if any(states[each.name] is End.ENDED for each in told) else "Ending"
    # What is still ahead is what somebody can do something about.
    told.sort(key=lambda each: states[each.name] is End.ENDED)
    texts = [_told(each, states[each.name]) for each in told[:NAMED]]
    more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
    return _condition(EXCEPTIONS_ENDING, reason, "; ".join([*texts, *more]), status=True)


def _told(exception: PolicyException, state: End) -> str:
    verb = "ended" if state is End.ENDED else "ends"
    return f"{exception.name} {verb} {moment(exception.expires)} ({exception.owner[:_OWNER_LIMIT]})"


def _condition(kind: str, reason: str, message: str, *, status: bool) -> Condition:
    return {
        "type": kind,
        "status": "True" if status else "False",
        "reason": reason,
        "message": message[:MESSAGE_LIMIT],
    }


def _timed(condition: Condition, stored: Mapping[str, Any], now: datetime) -> Condition:
    unchanged = stored.get("status") == condition["status"]
    time = stored.get("lastTransitionTime") if unchanged else None
    return {**condition, "lastTransitionTime": time or now.strftime("%Y-%m-%dT%H:%M:%SZ")}
