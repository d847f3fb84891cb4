"""
Who asked for it: the label `client-ip.dev/preserve` on the object, else on its namespace.

A label of the object's own that opts out, or only asks for audit, may have an end and an owner beside it. Once the end
has passed the label counts as absent, and the namespace's word holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from webhook.rules import wellknown
from webhook.rules.ends import moment, read_time
from webhook.rules.limits import END_LIMIT, OWNER_LIMIT


class Preserve(StrEnum):
    """The label's values; any other counts as absent."""

    ENABLED = "enabled"
    AUDIT = "audit"
    DISABLED = "disabled"


_VALUES = {str(each): each for each in Preserve}
FINE: Final = frozenset({None, *_VALUES})
"""What the label may be, or may not be there."""


def preserve(labels: Mapping[str, str] | None) -> Preserve | None:
    """Return what *labels* ask for; None where the label is absent or invalid."""
    return _VALUES.get(labels.get(wellknown.PRESERVE, "")) if labels else None


def invalid_value(labels: Mapping[str, str] | None) -> str | None:
    """Return the label's value where it is there but none of the three."""
    value = labels.get(wellknown.PRESERVE) if labels else None
    return value if value is not None and value not in _VALUES else None


@dataclass(frozen=True, slots=True)
class OptOut:
    """Until when an object's own label holds, and who answers for it; without an end where none can be read."""

    until: datetime | None
    owner: str
    written: str
    """What the annotation says."""

    def __str__(self) -> str:
        until = (
            f"until {moment(self.until)}"
            if self.until is not None
            else f"until {self.written!r}, which is not a valid time"
        )
        return f"{until}, {self.owner or 'without an owner'}"


def opt_out(annotations: Mapping[str, str] | None) -> OptOut | None:
    """Return what *annotations* say of an end; None where they say nothing."""
    written = annotations.get(wellknown.OPT_OUT_UNTIL) if annotations else None
    if annotations is None or written is None:
        return None
    try:
        until = read_time(written) if len(written) <= END_LIMIT else None
    except ValueError:
        until = None
    owner = annotations.get(wellknown.OPT_OUT_OWNER, "")
    return OptOut(until, _cut(owner, OWNER_LIMIT), _cut(written, END_LIMIT))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
