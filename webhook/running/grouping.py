"""How rows are put together for people: by advice, or by namespace, owner or Reason."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from webhook.rules.decision import ADVICE
from webhook.running.findings import Row
from webhook.running.verdicts import Advice

NO_OWNER: Final = "no owner"


class GroupBy(StrEnum):
    """What rows are grouped by."""

    ADVICE = "advice"
    NAMESPACE = "namespace"
    OWNER = "owner"
    REASON = "reason"


TITLES: Final = {
    Advice.AT_RISK: "At risk",
    Advice.RESTART: "Restart these",
    Advice.CHANGE: "Change these first",
    Advice.HEADER: "Header only",
    Advice.EXCEPTED: "Excepted",
    Advice.OPTED_OUT: "Opted out",
    Advice.PRESERVED: "Preserved",
}
MEANINGS: Final = {
    Advice.AT_RISK: "preserved now, lost after a restart",
    Advice.RESTART: "lost now, preserved after a restart",
    Advice.CHANGE: "lost now and after a restart",
    Advice.HEADER: "the client's IP is in a header: X-Forwarded-For, or the PROXY header at a gateway",
    Advice.EXCEPTED: "covered by an exception; the earliest end first",
    Advice.OPTED_OUT: "opted out by a label",
    Advice.PRESERVED: "the application sees its caller's IP",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows with a title."""

    title: str
    meaning: str
    rows: Sequence[Row]
    advice: Advice | None = None
    """Where the group is by advice."""


def grouped(rows: Iterable[Row], by: GroupBy) -> list[Group]:
    """Return *rows*, which are in their order, in groups."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(_key(row, by), []).append(row)
    if by is GroupBy.ADVICE:
        return [Group(TITLES[advice], MEANINGS[advice], found[advice], advice) for advice in Advice if advice in found]
    names = sorted(found, key=lambda name: (name == NO_OWNER, name))
    return [Group(name, ADVICE[found[name][0].reason] if by is GroupBy.REASON else "", found[name]) for name in names]


def _key(row: Row, by: GroupBy) -> str:
    match by:
        case GroupBy.ADVICE:
            return row.advice
        case GroupBy.NAMESPACE:
            return row.namespace
        case GroupBy.OWNER:
            return row.owner or NO_OWNER
        case GroupBy.REASON:
            return row.reason
