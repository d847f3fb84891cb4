"""
A scan as CSV: one line for each row, always the same columns.

Exceptions and opt-outs of namespaces that are to be looked at come last: their kind is the object that they stand in.
"""

import csv
import io
from collections.abc import Iterator
from typing import Final

from webhook.rules.decision import shown
from webhook.running.findings import Row, Scan, to_look_at
from webhook.running.words import exception_said, notes, opt_out_said

HEAD: Final = (
    "fingerprint",
    "namespace",
    "kind",
    "name",
    "advice",
    "reason",
    "mode",
    "now",
    "after",
    "pods",
    "lost",
    "owner",
    "policy",
    "since",
    "change",
    "exception",
    "expires",
    "fix",
    "notes",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""
What makes a spreadsheet take a cell for a formula: an owner is what a tenant writes.

https://owasp.org/www-community/attacks/CSV_Injection
"""


def as_csv(scan: Scan) -> str:
    """Return the scan as CSV (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(HEAD)
    writer.writerows([_safe(cell) for cell in _cells(row)] for row in (*scan.rows, *scan.resolved))
    writer.writerows([_safe(cells.get(head, "")) for head in HEAD] for cells in _ends(scan))
    return text.getvalue()


def _ends(scan: Scan) -> Iterator[dict[str, str]]:
    uses, outs = to_look_at(scan)
    for use in uses:
        yield {
            "kind": "ClientIPPolicy",
            "name": use.exception.policy,
            "advice": f"exception-{use.state}",
            "owner": use.exception.owner,
            "exception": use.exception.name,
            "expires": use.exception.expires.isoformat(),
            "notes": exception_said(use),
        }
    for out in outs:
        yield {
            "namespace": out.namespace,
            "kind": "Namespace",
            "name": out.namespace,
            "advice": f"opt-out-{out.state}",
            "owner": out.owner,
            "expires": out.until.isoformat(),
            "notes": opt_out_said(out),
        }


def _cells(row: Row) -> tuple[str, ...]:
    waived = row.exception or row.ended
    return (
        row.fingerprint,
        row.namespace,
        row.kind,
        row.name,
        row.advice,
        row.reason,
        row.mode,
        row.now.outcome if row.now is not None else "",
        row.after.outcome,
        str(row.pods.all),
        str(row.pods.lost),
        row.owner,
        row.policy,
        row.since.isoformat() if row.since is not None else "",
        row.change or "",
        waived.name if waived is not None else "",
        waived.expires.isoformat() if waived is not None else "",
        row.fix,
        "; ".join(notes(row)),
    )


def _safe(text: str) -> str:
    cell = shown(text)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
