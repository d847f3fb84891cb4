"""What is made of many measurements: medians, quartiles, and ratios of those that were taken together."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the quartiles of *values*, of which there is at least one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def as_json(self) -> dict[str, float]:
        """Return the three by name."""
        return {"q1": self.low, "median": self.median, "q3": self.high}


def paired_ratios(rounds: Sequence[Mapping[str, float]], name: str, reference: str) -> Spread:
    """Return *name*'s figure over *reference*'s, round by round: what slows a machine down slows both."""
    return Spread.of([each[name] / each[reference] for each in rounds])


def by_name(rounds: Sequence[Mapping[str, float]], name: str) -> Spread:
    """Return the spread of *name*'s figures."""
    return Spread.of([each[name] for each in rounds])
