"""
A scan as one HTML file to forward: it works without network and without script, in the dark, on a phone, on paper.

Nothing from the cluster can inject markup: every text goes through `_text`, and a content security policy lets run
what this module wrote alone.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from webhook.rules.decision import ADVICE, OUTCOMES, Reason, one_line
from webhook.rules.ends import End
from webhook.running.findings import ExceptionState, Row, Scan
from webhook.running.grouping import MEANINGS, TITLES, Group, GroupBy, grouped
from webhook.running.restart import block
from webhook.running.verdicts import Advice, Verdict
from webhook.running.words import exception_said, notes, opt_out_said

ROWS: Final = 5_000
"""Rows in a file; what is left out is said. A browser takes more, a reader does not."""
MANY: Final = 500
"""Rows from which on notes are cut shorter, so that 2,000 rows stay below 1 MB."""
NOTE: Final = 400
SHORT_NOTE: Final = 120
NAME: Final = 260
"""Characters of a name: Kubernetes' own limit is 253."""
HEADS: Final = ("Namespace", "Workload", "Pods lost", "Now", "After a restart", "Owner", "Since", "Notes")
_PICTURE: Final = 1000
"""Units that the picture is wide."""


def as_html(scan: Scan, by: GroupBy = GroupBy.ADVICE, *, docs_url: str = "") -> str:
    """
    Return the scan as a page.

    Args:
        scan: What was found.
        by: How its rows are grouped where no script runs.
        docs_url: Where the documentation is published (an http or https address); Reasons link to it where given.

    """
    return "".join(_page(scan, by, docs_url))


@cache
def _asset(name: str) -> str:
    return (files("webhook.running") / name).read_text()


def _hash(text: str) -> str:
    """Return the source expression that allows exactly *text* (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _policy() -> str:
    return (
        f"default-src 'none'; style-src {_hash(_asset('report.css'))}; script-src {_hash(_asset('report.js'))}; "
        "base-uri 'none'; form-action 'none'"
    )


def _text(text: str, limit: int = NOTE) -> str:
    """Return *text*, which anybody may have written, as HTML: one line, no control or direction characters."""
    return escape(one_line(text, limit), quote=True)


def _page(scan: Scan, by: GroupBy, docs_url: str) -> Iterator[str]:
    shown = scan.rows[:ROWS]
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>Client IP report, {scan.time:%Y-%m-%d}</title><style>{_asset('report.css')}</style></head>\n<body>"
    )
    yield f'<header><h1>Client IP report</h1><p class="sentence">{_text(scan.sentence)}</p>'
    yield from _figure(scan)
    if scan.compared:
        yield f"<p>{_text(scan.compared)}</p>"
    yield from _about(scan)
    yield "</header>\n<main>"
    yield from _unreadable(scan)
    yield from _restart(shown)
    yield (
        '<form id="tools" hidden><label>Filter <input id="filter" type="search" autocomplete="off" '
        'placeholder="namespace, workload, owner, reason"></label>'
        '<label>Group by <select id="by"><option value="">as printed</option><option value="namespace">namespace'
        '</option><option value="owner">owner</option><option value="reason">reason</option></select></label>'
        '<p id="found" role="status"></p></form>\n<div id="groups">'
    )
    limit = NOTE if len(shown) <= MANY else SHORT_NOTE
    for group in grouped(shown, by):
        yield from _group(group, limit)
    yield "</div>"
    if len(scan.rows) > ROWS:
        yield f"<p>and {len(scan.rows) - ROWS} more rows: -o csv and -o json have them all</p>"
    yield from _resolved(scan)
    yield from _exceptions(scan)
    yield from _opt_outs(scan)
    yield from _glossary(shown, docs_url)
    yield (
        f"</main>\n<footer><p class=soft>client-ip {_text(scan.version)} scan, {scan.time:%Y-%m-%d %H:%M} UTC</p>"
        f"</footer>\n<script>{_asset('report.js')}</script></body></html>\n"
    )


def _shares(scan: Scan) -> list[tuple[Advice, int]]:
    counts = scan.counts
    numbers = {
        Advice.AT_RISK: counts.at_risk,
        Advice.RESTART: counts.restart,
        Advice.CHANGE: counts.change,
        Advice.HEADER: counts.header,
        Advice.EXCEPTED: counts.excepted,
        Advice.OPTED_OUT: counts.opted_out,
        Advice.PRESERVED: counts.preserved,
    }
    return [(advice, number) for advice, number in numbers.items() if number]


def _figure(scan: Scan) -> Iterator[str]:
    """Yield the counts as a bar: each part as wide as its share, with a gap that tells neighbours apart."""
    shares = _shares(scan)
    total = sum(number for _, number in shares)
    if not total:
        return
    yield (
        f'<figure><svg viewBox="0 0 {_PICTURE} 36" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(scan.sentence)}">'
    )
    at = 0.0
    for advice, number in shares:
        width = _PICTURE * number / total
        gap = 3 if width > 6 else 0
        yield f'<rect class="{advice}" x="{at:.1f}" y="0" width="{max(width - gap, 1):.1f}" height="36" rx="3"/>'
        at += width
    yield '</svg><figcaption><ul class="legend">'
    for advice, number in shares:
        yield (
            f'<li><span class="key {advice}"></span><b>{number}</b> {TITLES[advice].lower()}: {MEANINGS[advice]}</li>'
        )
    yield "</ul></figcaption></figure>"


def _about(scan: Scan) -> Iterator[str]:
    scope = scan.scope
    namespaces = "all namespaces" if scope.namespaces is None else ", ".join(scope.namespaces[:20])
    left = len(scope.namespaces or ()) - 20
    more = f" and {left} more" if left > 0 else ""
    by = scope.user or ("somebody" if scope.context else "")
    about = {
        "Scanned": f"{scan.time:%Y-%m-%d %H:%M} UTC",
        "By": f"{by}, context {scope.context}" if scope.context else by,
        "Source": scope.source,
        "Cluster": scope.cluster,
        "Scope": f"{namespaces}{more}, {scan.counts.pods} pods",
        "Made with": f"client-ip {scan.version}, by the code that decides admission",
    }
    yield '<dl class="about">'
    yield from (f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in about.items() if value)
    yield "</dl>"


def _unreadable(scan: Scan) -> Iterator[str]:
    unreadable = scan.scope.unreadable
    if unreadable:
        yield f'<section class="alarm"><h2>Not read ({len(unreadable)})</h2>'
        yield "<p>This report does not cover these:</p><ul>"
        yield from (f"<li><b>{_text(what)}</b>: {_text(why)}</li>" for what, why in unreadable.items())
        yield "</ul></section>"


def _restart(rows: Sequence[Row]) -> Iterator[str]:
    lines = list(block(rows))
    if lines:
        yield (
            "<section><h2>Restart these</h2><p>These workloads lose the client's IP now, and keep it after a restart. "
            "Review the commands before you run them:</p>"
            '<button type="button" data-copy="commands" hidden>Copy the commands</button>'
            '<pre id="commands" tabindex="0">'
        )
        yield "\n".join(_text(line, 1000) for line in lines)
        yield "</pre></section>"


def _group(group: Group, limit: int) -> Iterator[str]:
    meaning = f"<p>{_text(group.meaning)}</p>" if group.meaning else ""
    yield (
        f'<details class="group" open><summary><h2>{_text(group.title)}</h2><span>{len(group.rows)}</span></summary>'
        f"{meaning}"
    )
    if group.advice is Advice.CHANGE:
        for part in grouped(group.rows, GroupBy.REASON):
            yield from _table(part, f"{part.title}: {part.meaning}", limit)
    else:
        yield from _table(group, group.title, limit, hidden=True)
    yield "</details>\n"


def _table(group: Group, caption: str, limit: int, *, hidden: bool = False) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{head}' for head in HEADS)
    heard = ' class="heard"' if hidden else ""
    yield f"<table><caption{heard}>{_text(caption)}</caption><thead><tr>{heads}</thead><tbody>"
    yield from (_row(row, limit) for row in group.rows)
    yield "</tbody></table>"


def _row(row: Row, limit: int) -> str:
    """Return a table's row; HTML lets cells and rows end by themselves, which saves a tenth of the file."""
    pods = f"{row.pods.lost}/{row.pods.all}" if row.now is not None and row.kind != "Service" else ""
    change = f' <span class="new">{row.change}</span>' if row.change is not None else ""
    since = f"{row.since:%Y-%m-%d}" if row.since is not None else ""
    said = _text("; ".join(notes(row)), limit)
    return (
        f"<tr><td>{_text(row.namespace, NAME)}<td><b>{_text(row.called, NAME)}</b>{change}<td>{pods}"
        f"<td>{_verdict(row.now)}<td>{_verdict(row.after)}<td>{_text(row.owner)}<td>{since}<td>{said}\n"
    )


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "no pods"
    return f'<span class="{verdict.outcome}">{verdict.outcome}</span> <a href="#{verdict.reason}">{verdict.reason}</a>'


def _resolved(scan: Scan) -> Iterator[str]:
    if scan.resolved:
        yield f"<section><h2>Resolved, or not comparable ({len(scan.resolved)})</h2><ul>"
        for row in scan.resolved[:ROWS]:
            yield f"<li>{row.change}: {_text(row.namespace, NAME)} {_text(row.called, NAME)}, {row.reason}</li>"
        yield "</ul></section>"


def _exceptions(scan: Scan) -> Iterator[str]:
    if scan.exceptions:
        yield f"<section><h2>Exceptions ({len(scan.exceptions)})</h2><ul>"
        for use in scan.exceptions[:ROWS]:
            mark = "" if use.state is ExceptionState.LIVE else f"<b>{use.state}</b>: "
            name = f"{_text(use.exception.name)} of policy {_text(use.exception.policy)}"
            yield f"<li>{mark}{name}: {_text(exception_said(use))}; {_text(use.exception.reason)}</li>"
        yield "</ul></section>"


def _opt_outs(scan: Scan) -> Iterator[str]:
    if scan.namespace_opt_outs:
        yield f"<section><h2>Opt-outs of namespaces ({len(scan.namespace_opt_outs)})</h2><ul>"
        for each in scan.namespace_opt_outs[:ROWS]:
            mark = "" if each.state is End.LIVE else f"<b>{each.state}</b>: "
            yield f"<li>{mark}{_text(each.namespace, NAME)}: {_text(opt_out_said(each))}</li>"
        yield "</ul></section>"


def _glossary(rows: Sequence[Row], docs_url: str) -> Iterator[str]:
    used = {row.after.reason for row in rows} | {row.now.reason for row in rows if row.now is not None}
    if not used:
        return
    base = docs_url.rstrip("/") if docs_url.startswith(("https://", "http://")) else ""
    yield '<section class="glossary"><h2>Reasons</h2><dl>'
    for reason in Reason:
        if reason in used:
            page = f' <a href="{escape(base, quote=True)}/decisions.md">more</a>' if base else ""
            yield f'<dt id="{reason}">{reason} ({OUTCOMES[reason]})</dt><dd>{_text(ADVICE[reason])}{page}</dd>'
    yield "</dl></section>"
