"""A scan as a table for people."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

import click

from webhook.cli.report import COLOURS
from webhook.rules.decision import ADVICE, Mode, Outcome, one_line
from webhook.running.findings import ExceptionState, ExceptionUse, Row, Scan
from webhook.running.grouping import Group, GroupBy, grouped
from webhook.running.restart import block
from webhook.running.verdicts import Advice, Verdict

HEAD: Final = ("NAMESPACE", "WORKLOAD", "PODS", "NOW", "AFTER RESTART", "OWNER", "SINCE")
WIDEST: Final = 44
WIDTH: Final = 110


def scan_table(scan: Scan, by: GroupBy, *, colour: bool = True) -> str:
    """Return the scan as text: the sentence, then group by group."""
    text = "\n".join(_lines(scan, by)) + "\n"
    return text if colour else click.unstyle(text)


def _lines(scan: Scan, by: GroupBy) -> Iterator[str]:
    yield click.style(scan.sentence, bold=True)
    if scan.compared:
        yield scan.compared
    for what, why in scan.scope.unreadable.items():
        yield click.style(f"not read: {what}: {one_line(why)}", fg="yellow")
    for group in grouped(scan.rows, by):
        yield ""
        yield from _group(group, by)
        if group.advice is Advice.RESTART:
            yield from _block(group.rows)
    if by is not GroupBy.ADVICE:
        yield from _block(scan.rows)
    if scan.resolved:
        yield ""
        yield click.style(f"No more, or not comparable ({len(scan.resolved)})", bold=True)
        for row in scan.resolved:
            yield f"  {row.change}: {row.namespace} {row.called}: {row.reason}"
    yield from _exceptions(scan.exceptions)


def _group(group: Group, by: GroupBy) -> Iterator[str]:
    meaning = f": {group.meaning}" if group.meaning else ""
    yield click.style(f"{group.title} ({len(group.rows)})", bold=True) + meaning
    if by is GroupBy.ADVICE and group.advice is Advice.CHANGE:
        for part in grouped(group.rows, GroupBy.REASON):
            yield click.style(f"  {part.title}", fg="red") + f": {ADVICE[part.rows[0].reason]}"
            yield from _rows(part.rows)
        return
    yield from _rows(group.rows)


def _rows(rows: Sequence[Row]) -> Iterator[str]:
    cells = [HEAD, *map(_cells, rows)]
    widths = [min(max(len(line[column]) for line in cells), WIDEST) for column in range(len(HEAD))]
    yield click.style("  " + _joined(HEAD, widths), fg="bright_black")
    for row, line in zip(rows, cells[1:], strict=True):
        outcome = row.now.outcome if row.now is not None else row.after.outcome
        plain = _joined(line, widths)
        yield "  " + click.style(plain, fg=COLOURS[Outcome.LOST]) if outcome is Outcome.LOST else "  " + plain
        yield from (f"      {part}" for note in _notes(row) for part in textwrap.wrap(note, WIDTH))


def _joined(line: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    pods = f"{row.pods.lost}/{row.pods.all}" if row.kind != "Service" else "-"
    change = f"{row.change} " if row.change is not None else ""
    since = row.since.strftime("%Y-%m-%d") if row.since is not None else ""
    return (
        one_line(row.namespace),
        one_line(row.called),
        pods,
        _verdict(row.now),
        _verdict(row.after),
        row.owner or "-",
        f"{change}{since}",
    )


def _verdict(verdict: Verdict | None) -> str:
    return "no pods" if verdict is None else f"{verdict.outcome} ({verdict.reason})"


def _notes(row: Row) -> Iterator[str]:
    """What a row says beside its cells."""
    if row.advice in {Advice.AT_RISK, Advice.CHANGE}:
        yield row.after.cause
        if row.advice is Advice.AT_RISK:
            yield f"→ {row.fix}"
    if row.exception is not None:
        waived = row.exception
        ticket = f", {one_line(waived.ticket)}" if waived.ticket else ""
        until = waived.expires.strftime("%Y-%m-%d")
        yield f"until {until}: {one_line(waived.reason)} ({one_line(waived.owner)}{ticket})"
    if row.ended is not None:
        yield f"! exception {row.ended.name} of {one_line(row.ended.owner)} ended on {row.ended.expires:%Y-%m-%d}"
    if row.mode is Mode.AUDIT:
        yield "in audit: nothing is patched"
    if row.disagreeing is not None:
        names = ", ".join(row.disagreeing.names)
        yield f"! {row.disagreeing.count} pods whose annotation and proxy disagree: {names}"
    if row.stranded is not None:
        names = ", ".join(row.stranded.names)
        yield f"! {row.stranded.count} pods in TPROXY mode on nodes that don't support it: {names}"
    if row.gateway is not None:
        yield from (f"! {warning}" for warning in row.gateway.warnings)


def _block(rows: Sequence[Row]) -> Iterator[str]:
    lines = list(block(rows))
    if lines:
        yield ""
        yield "  To restart them:"
        yield ""
        yield from (f"    {line}" for line in lines)


def _exceptions(uses: Sequence[ExceptionUse]) -> Iterator[str]:
    noted = [use for use in uses if use.state is not ExceptionState.LIVE]
    if not noted:
        return
    yield ""
    yield click.style(f"Exceptions ({len(noted)} to look at)", bold=True)
    for use in noted:
        yield f"  {use.state}: {use.exception.name} of policy {use.exception.policy}: {said(use)}"


def said(use: ExceptionUse) -> str:
    """Return what there is to say of an exception."""
    end = use.exception.expires.strftime("%Y-%m-%d %H:%M UTC")
    owner = one_line(use.exception.owner)
    match use.state:
        case ExceptionState.ENDED:
            return f"ended {end}, {owner}; it covered {use.covers}"
        case ExceptionState.UNUSED:
            return f"matches nothing; ends {end}, {owner}"
        case _:
            return f"ends {end}, {owner}; it covers {use.covers}"
