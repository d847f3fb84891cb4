"""Makes the document of a scan from what was folded: rows in order, counts, the comparison, the sentence."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

import webhook
from webhook.running.baseline import compare, compared_sentence
from webhook.running.findings import Row, Scan, Scope, count, ordered, sentence
from webhook.running.fold import Fold
from webhook.running.verdicts import Advice


def scan_of(fold: Fold, scope: Scope, *, at: datetime, baseline: Scan | None = None, preserved: bool = False) -> Scan:
    """
    Return what was found.

    Args:
        fold: What was read.
        scope: What was looked at.
        at: The time of the scan, timezone-aware.
        baseline: A former scan to compare with.
        preserved: List the preserved workloads too, beside counting them.

    """
    rows: Sequence[Row] = list(fold.rows())
    counts = count(rows, not_asked=fold.not_asked, pods=fold.pods, at=at)
    shown = ordered(row for row in rows if preserved or row.advice is not Advice.PRESERVED or _notable(row))
    compared, resolved = "", list[Row]()
    if baseline is not None:
        shown, resolved = compare(shown, scope, baseline, at=at)
        compared = compared_sentence(shown, resolved, baseline)
    else:
        shown = [msgspec.structs.replace(row, since=at) for row in shown]
    complete = scope.namespaces is None and not scope.unreadable
    return Scan(
        version=webhook.__version__,
        time=at,
        scope=scope,
        counts=counts,
        rows=shown,
        resolved=resolved,
        exceptions=fold.exceptions(complete=complete),
        namespace_opt_outs=[
            each for each in fold.namespace_opt_outs() if scope.namespaces is None or each.namespace in scope.namespaces
        ],
        sentence=sentence(counts),
        compared=compared,
    )


def _notable(row: Row) -> bool:
    """Preserved, and yet there is something to say: pods that disagree, a gateway that Local is not safe for."""
    return row.disagreeing is not None or bool(row.gateway is not None and row.gateway.warnings)
