"""A scan as tables for people: the sentence, then group by group, then what to copy and paste."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from webhook.cli.printing import Cell, print_table, say, styled
from webhook.rules.decision import ADVICE, Outcome
from webhook.running.findings import ExceptionUse, NamespaceOptOut, Row, Scan, to_look_at
from webhook.running.grouping import Group, GroupBy, grouped
from webhook.running.restart import block
from webhook.running.verdicts import Advice, Verdict
from webhook.running.words import exception_said, notes, opt_out_said

STYLES: Final = {
    Outcome.PRESERVED: "green",
    Outcome.HEADER: "cyan",
    Outcome.LOST: "red",
    Outcome.WAIVED: "yellow",
    Outcome.NOT_ASKED: "bright_black",
}


def print_scan(out: Console, scan: Scan, by: GroupBy) -> None:
    """Print the scan."""
    say(out, styled(scan.sentence, "bold"))
    if scan.compared:
        say(out, scan.compared)
    for what, why in scan.scope.unreadable.items():
        say(out, styled(f"not read: {what}: {why}", "yellow"))
    for group in grouped(scan.rows, by):
        say(out)
        _print_group(out, scan, group)
        if group.advice is Advice.RESTART:
            _print_block(out, group.rows)
    if by is not GroupBy.ADVICE:
        _print_block(out, scan.rows)
    if scan.resolved:
        say(out)
        say(out, styled(f"Resolved, or not comparable ({len(scan.resolved)})", "bold"))
        for row in scan.resolved:
            say(out, f"  {row.change}: {row.namespace} {row.called}: {row.reason}")
    uses, outs = to_look_at(scan)
    _print_exceptions(out, uses)
    _print_opt_outs(out, outs)


def _print_group(out: Console, scan: Scan, group: Group) -> None:
    meaning = f": {group.meaning}" if group.meaning else ""
    say(out, styled(f"{group.title} ({len(group.rows)})", "bold"), meaning)
    if group.advice is Advice.CHANGE:
        for part in grouped(group.rows, GroupBy.REASON):
            say(out, styled(part.title, "red"), f": {ADVICE[part.rows[0].reason]}")
            _print_rows(out, scan, part.rows)
        return
    _print_rows(out, scan, group.rows)


def _print_rows(out: Console, scan: Scan, rows: Sequence[Row]) -> None:
    owned = any(row.owner for row in rows)
    heads = ["NAMESPACE", "WORKLOAD", "PODS", "NOW", "AFTER RESTART", *(["OWNER"] if owned else [])]
    heads += ["SINCE"] if scan.compared else []
    cells = []
    for row in rows:
        line: list[Cell] = [row.namespace, row.called, pods_said(row), _verdict(row.now), _verdict(row.after)]
        line += [row.owner or "-"] if owned else []
        line += [since_said(row)] if scan.compared else []
        cells.append([*line, "\n".join(notes(row))])
    print_table(out, [*heads, "NOTES"], cells)


def pods_said(row: Row) -> str:
    """Return how many of a workload's pods have lost it, of how many."""
    return f"{row.pods.lost}/{row.pods.all}" if row.now is not None and row.kind != "Service" else "-"


def since_said(row: Row) -> str:
    """Return since when a row is known, and whether it is new."""
    since = row.since.strftime("%Y-%m-%d") if row.since is not None else ""
    return f"{row.change} {since}" if row.change is not None else since


def _verdict(verdict: Verdict | None) -> Text:
    if verdict is None:
        return styled("no pods", "bright_black")
    return styled(f"{verdict.outcome} ({verdict.reason})", STYLES[verdict.outcome])


def _print_block(out: Console, rows: Sequence[Row]) -> None:
    lines = list(block(rows))
    if lines:
        say(out)
        say(out, "To restart them:")
        say(out)
        for line in lines:
            # Whole on a terminal too: it is there to be copied.
            out.print(styled(f"    {line}", ""), soft_wrap=True)


def _print_exceptions(out: Console, noted: Sequence[ExceptionUse]) -> None:
    if noted:
        say(out)
        say(out, styled(f"Exceptions that need attention ({len(noted)})", "bold"))
        for line in _lines(noted):
            say(out, line)


def _print_opt_outs(out: Console, noted: Sequence[NamespaceOptOut]) -> None:
    if noted:
        say(out)
        say(out, styled(f"Opt-outs of namespaces that need attention ({len(noted)})", "bold"))
        for each in noted:
            say(out, f"  {each.state}: {each.namespace}: {opt_out_said(each)}")


def _lines(uses: Sequence[ExceptionUse]) -> Iterator[str]:
    yield from (
        f"  {use.state}: {use.exception.name} of policy {use.exception.policy}: {exception_said(use)}" for use in uses
    )
