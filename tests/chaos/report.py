"""One row for each fault: for people (the table at the end) and for machines (`build/chaos.json`)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEAD: Final = ("fault", "calls", "failed", "unpatched", "healed", "not created", "per second", "alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one fault did; README.md in this folder says how each figure is counted."""

    fault: str
    calls: int
    """Pod creations that the API server answered."""
    failed: int
    """Calls of the webhook that failed, by the API server's own metrics."""
    unpatched: int
    """Pods that etcd held without our annotation."""
    healed_seconds: float
    """From the fault until the last failure was over and everything was as it should be."""
    not_created: int
    """Creations without an answer, or refused: the API server or etcd were away."""
    per_second: float
    """Creations asked for per second."""
    alerts: tuple[str, ...] = ()
    """What Prometheus fired, with windows scaled (`prometheus.SCALE`)."""


def table(rows: Sequence[Row]) -> str:
    """Return *rows* as text for a terminal."""
    lines = [
        HEAD,
        *(
            (
                row.fault,
                str(row.calls),
                str(row.failed),
                str(row.unpatched),
                f"{row.healed_seconds:.1f} s",
                str(row.not_created),
                f"{row.per_second:.0f}" if row.per_second else "",
                ", ".join(row.alerts) or "none",
            )
            for row in rows
        ),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in {0, len(HEAD) - 1} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write(rows: Sequence[Row], path: Path) -> None:
    """Write *rows* as JSON."""
    keys = ("fault", "calls", "failed", "unpatched", "healed_seconds", "alerts")
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{key: getattr(row, key) for key in keys} for row in rows]
    path.write_text(json.dumps(found, indent=1) + "\n")
