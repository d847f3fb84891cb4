"""What is new since a former scan: each row beside the baseline's, by its fingerprint."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from webhook.running.findings import FORMAT, Change, Row, Scan, Scope
from webhook.running.verdicts import Advice

SETTLED: Final = frozenset({Advice.PRESERVED})
"""Advice that is no finding: nothing that may be new or resolved."""


class BaselineInvalid(ValueError):  # noqa: N818  # an error's noun
    """A file that is no former scan."""


class _Head(msgspec.Struct, frozen=True):
    format: str = ""


def read_baseline(text: bytes) -> Scan:
    """
    Return the scan that `-o json` once printed.

    Raises:
        BaselineInvalid: It is no such document; the message names the field.

    """
    try:
        head = msgspec.json.decode(text, type=_Head)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BaselineInvalid(f"not the output of client-ip scan -o json: {error}") from error
    if head.format != FORMAT:
        said = f"format {head.format!r}" if head.format else "no format"
        raise BaselineInvalid(f"format: must be {FORMAT}, as in the output of client-ip scan -o json ({said})")
    try:
        return msgspec.json.decode(text, type=Scan)
    except (msgspec.MsgspecError, UnicodeError) as error:
        message, _, where = str(error).partition(" - at `$")
        raise BaselineInvalid(f"{where.rstrip('`').lstrip('.') or 'document'}: {message}") from error


def compare(rows: Iterable[Row], scope: Scope, baseline: Scan, *, at: datetime) -> tuple[list[Row], list[Row]]:
    """
    Return *rows* with what they are beside the baseline, and the baseline's that are no more.

    A namespace that one of the two scans did not look at can't be compared, nor can two clusters.

    Args:
        rows: What was found.
        scope: What was looked at.
        baseline: The former scan.
        at: When this scan was made: a new row is known since then.

    """
    same = not (scope.cluster and baseline.scope.cluster) or scope.cluster == baseline.scope.cluster
    before: Mapping[str, Row] = {row.fingerprint: row for row in baseline.rows if row.advice not in SETTLED}
    compared = []
    for row in rows:
        if row.advice in SETTLED:
            compared.append(row)
            continue
        former = before.get(row.fingerprint)
        comparable = same and baseline.scope.covers(row.namespace)
        change = Change.NOT_COMPARABLE if not comparable else Change.UNCHANGED if former is not None else Change.NEW
        since = former.since or baseline.time if comparable and former is not None else at
        compared.append(msgspec.structs.replace(row, change=change, since=since))
    found = {row.fingerprint for row in compared if row.advice not in SETTLED}
    gone = []
    for mark, former in before.items():
        if mark not in found:
            comparable = same and scope.covers(former.namespace)
            change = Change.RESOLVED if comparable else Change.NOT_COMPARABLE
            gone.append(msgspec.structs.replace(former, change=change))
    return compared, gone


def compared_sentence(rows: Iterable[Row], gone: Iterable[Row], baseline: Scan) -> str:
    """Return what the comparison says, in one sentence."""
    found: dict[Change, int] = {}
    for row in (*rows, *gone):
        if row.change is not None:
            found[row.change] = found.get(row.change, 0) + 1
    parts = [f"{found.get(change, 0)} {change.value.replace('-', ' ')}" for change in Change if found.get(change)]
    when = baseline.time.strftime("%Y-%m-%d %H:%M UTC")
    return f"since {when}: {', '.join(parts) or 'nothing to compare'}"
