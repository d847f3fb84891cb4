"""
Many tolerations as few: what a pod tolerates of one taint key, however many of its tolerations say it.

Knows no nodes. A toleration is a permission, so of many the widest counts: the least bound of `Gt`, the greatest of
`Lt`, any `Exists`, and all values of `Equal` together (selectors.tolerates says what one alone means).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from webhook.rules.selectors import Toleration, parse_canonical


@dataclass(slots=True)
class Tolerated:
    """What is tolerated of a key's taints of one effect (empty: of every effect)."""

    all: bool = False
    values: set[str] = field(default_factory=set)
    above: int | None = None
    """Integers greater than this."""
    below: int | None = None
    """Integers less than this."""


def by_key_and_effect(tolerations: Iterable[Toleration]) -> dict[tuple[str, str], Tolerated]:
    """Return what *tolerations* allow together, by key and effect; empty ones stand for all keys, or all effects."""
    found: dict[tuple[str, str], Tolerated] = {}
    for each in tolerations:
        tolerated = found.get((each.key, each.effect))
        if tolerated is None:
            tolerated = found[each.key, each.effect] = Tolerated()
        match each.operator:
            case "Exists":
                tolerated.all = True
            case "" | "Equal":
                tolerated.values.add(each.value)
            case "Gt" | "Lt" as operator:
                bound = parse_canonical(each.value)
                if bound is None:
                    continue
                if operator == "Gt":
                    tolerated.above = bound if tolerated.above is None else min(bound, tolerated.above)
                else:
                    tolerated.below = bound if tolerated.below is None else max(bound, tolerated.below)
            case _:
                pass
    return found
