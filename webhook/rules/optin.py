"""Who asked for it: the label `client-ip.dev/preserve` on the object, else on its namespace."""

from collections.abc import Mapping
from enum import StrEnum

from webhook.rules import wellknown


class Preserve(StrEnum):
    """The label's values; any other counts as absent."""

    ENABLED = "enabled"
    AUDIT = "audit"
    DISABLED = "disabled"


_VALUES = {str(each): each for each in Preserve}


def preserve(labels: Mapping[str, str] | None) -> Preserve | None:
    """Return what *labels* ask for; None where the label is absent or invalid."""
    return _VALUES.get(labels.get(wellknown.PRESERVE, "")) if labels else None


def invalid_value(labels: Mapping[str, str] | None) -> str | None:
    """Return the label's value where it is there but none of the three."""
    value = labels.get(wellknown.PRESERVE) if labels else None
    return value if value is not None and value not in _VALUES else None
