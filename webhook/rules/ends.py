"""When a waiver ends, and what is said of it before and after: of a policy's exceptions and of opt-outs alike."""

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

NOTICE: Final = timedelta(days=7)
"""How long before the end of a waiver there are warnings when a covered object is applied."""
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)",  # Python 3.14 reads 24:00 too
    re.ASCII,
)


class End(StrEnum):
    """Where a waiver stands."""

    LIVE = "live"
    ENDING = "ending"
    """Within `NOTICE` of its end."""
    ENDED = "ended"


def end_state(end: datetime, *, now: datetime) -> End:
    """Return where a waiver that ends at *end* stands at *now*."""
    if end <= now:
        return End.ENDED
    return End.ENDING if end - now <= NOTICE else End.LIVE


def state_changes(end: datetime) -> tuple[datetime, datetime]:
    """Return the times from which on `end_state` says something else of *end*, in order."""
    first = datetime.min.replace(tzinfo=end.tzinfo)  # nothing is before it
    return (end - NOTICE if end - first > NOTICE else first), end


def read_time(text: str) -> datetime:
    """
    Return the RFC 3339 time that *text* writes, as the API server takes it.

    Raises:
        ValueError: It is none.

    """
    try:
        if _RFC3339.fullmatch(text) is None:
            raise ValueError(text)
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2027-03-31T00:00:00Z") from error


def moment(time: datetime) -> str:
    """Return *time* as people write it: to the second, `Z` for UTC."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
