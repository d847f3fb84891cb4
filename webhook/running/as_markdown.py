"""A scan as Markdown that fits a comment on a pull request."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from webhook.rules.decision import shown
from webhook.running.findings import Row, Scan, to_look_at
from webhook.running.grouping import GroupBy, grouped
from webhook.running.restart import block
from webhook.running.verdicts import Advice, Verdict
from webhook.running.words import exception_said, notes, opt_out_said

ROWS: Final = 60
"""Rows in all: GitHub takes comments of 65,536 characters, and nobody reads more."""
LINES: Final = 60
"""Of the block to copy and paste."""
NOTE: Final = 300
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>#|~$&@])")


def as_markdown(scan: Scan, by: GroupBy) -> str:
    """Return the scan as Markdown, cut after 60 rows; what is left out is said."""
    return "\n".join(_lines(scan, by)) + "\n"


def _lines(scan: Scan, by: GroupBy) -> Iterator[str]:
    yield f"**{_text(scan.sentence)}**"
    if scan.compared:
        yield ""
        yield _text(scan.compared)
    if scan.scope.unreadable:
        yield ""
        yield f"Not read: {', '.join(_code(name) for name in scan.scope.unreadable)}"
    left = ROWS
    for group in grouped(scan.rows, by):
        yield ""
        yield f"### {_text(group.title)} ({len(group.rows)})"
        if group.meaning:
            yield ""
            yield _text(group.meaning)
        yield ""
        yield from _table(group.rows[:left])
        if len(group.rows) > left:
            yield ""
            yield f"and {len(group.rows) - left} more"
        left = max(left - len(group.rows), 0)
        if group.advice is Advice.RESTART:
            yield from _block(group.rows)
    if by is not GroupBy.ADVICE:
        yield from _block(scan.rows)
    yield from _ends(scan)


def _ends(scan: Scan) -> Iterator[str]:
    """Yield the exceptions and opt-outs of namespaces that are to be looked at."""
    uses, outs = to_look_at(scan)
    named = [(use, f"{_code(use.exception.name)} of policy {_code(use.exception.policy)}") for use in uses]
    exceptions = [f"{use.state}: {name}: {_text(exception_said(use))}" for use, name in named]
    namespaces = [f"{out.state}: {_code(out.namespace)}: {_text(opt_out_said(out))}" for out in outs]
    for title, lines in (("Exceptions", exceptions), ("Opt-outs of namespaces", namespaces)):
        if lines:
            yield ""
            yield f"### {title} that need attention ({len(lines)})"
            yield ""
            yield from (f"- {line}" for line in lines[:ROWS])
            if len(lines) > ROWS:
                yield f"- and {len(lines) - ROWS} more"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "| namespace | workload | pods | now | after a restart | owner | notes |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        pods = f"{row.pods.lost}/{row.pods.all}" if row.now is not None and row.kind != "Service" else ""
        change = f"**{row.change}** " if row.change is not None else ""
        said = "; ".join(notes(row))
        said = said if len(said) <= NOTE else said[: NOTE - 1] + "…"
        cells = (
            _code(row.namespace),
            change + _code(row.called),
            pods,
            _verdict(row.now),
            _verdict(row.after),
            _code(row.owner),
            _text(said),
        )
        yield f"| {' | '.join(cells)} |"


def _block(rows: Sequence[Row]) -> Iterator[str]:
    lines = list(block(rows))
    if lines:
        yield ""
        yield "```sh"
        yield from (shown(line).replace("```", "'''") for line in lines[:LINES])
        if len(lines) > LINES:
            yield f"# and {len(lines) - LINES} more"
        yield "```"


def _verdict(verdict: Verdict | None) -> str:
    return "no pods" if verdict is None else f"{verdict.outcome} `{verdict.reason}`"


def _code(text: str) -> str:
    """Return *text* as code, in which neither markup nor a mention of somebody is read."""
    plain = shown(" ".join(text.replace("`", "'").replace("|", "/").split()))
    return f"`{plain}`" if plain else ""


def _text(text: str) -> str:
    """Return *text* without a character that Markdown, HTML or GitHub would read."""
    return _SPECIAL.sub(r"\\\1", shown(" ".join(text.split()))).replace("\\@", "@\u200b").replace("\\#", "#\u200b")
