"""CSV, Markdown and JUnit say the same of a scan: its rows, what was not read, and the ends to be looked at."""

import csv
import io
import re
from datetime import timedelta
from typing import Any, Final
from xml.etree import ElementTree as ET

import msgspec
import pytest

from tests.browser.attacks import attacked
from tests.browser.scans import NOW, scan, waiver
from webhook.rules.decision import ADVICE
from webhook.rules.ends import End
from webhook.running.as_csv import HEAD, as_csv
from webhook.running.as_html import as_html
from webhook.running.as_junit import as_junit
from webhook.running.as_markdown import ROWS, as_markdown
from webhook.running.findings import Change, ExceptionState, ExceptionUse, NamespaceOptOut, Scan
from webhook.running.grouping import GroupBy
from webhook.running.verdicts import Advice
from webhook.running.words import notes

SIZE: Final = 24
CODE: Final = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def out(name: str, state: End, days: int) -> NamespaceOptOut:
    return NamespaceOptOut(namespace=name, state=state, until=NOW + timedelta(days=days), owner=f"team-{name}")


def ends() -> Scan:
    """Return a scan with an exception and a namespace's opt-out of every state."""
    uses = [ExceptionUse(state=state, exception=waiver(3), covers=1) for state in ExceptionState]
    outs = [out("past", End.ENDED, -1), out("soon", End.ENDING, 3), out("later", End.LIVE, 90)]
    return msgspec.structs.replace(scan(SIZE), exceptions=uses, namespace_opt_outs=outs)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_has_a_line_for_each_row_then_for_each_end() -> None:
    found = lines(as_csv(ends()))
    assert list(found[0]) == list(HEAD)
    assert [each["fingerprint"] for each in found[:SIZE]] == [row.fingerprint for row in ends().rows]
    last = [(each["kind"], each["name"], each["advice"], each["owner"]) for each in found[SIZE:]]
    assert last == [
        ("ClientIPPolicy", "default", "exception-ending", "team-pay"),
        ("ClientIPPolicy", "default", "exception-ended", "team-pay"),
        ("ClientIPPolicy", "default", "exception-unused", "team-pay"),
        ("Namespace", "past", "opt-out-ended", "team-past"),
        ("Namespace", "soon", "opt-out-ending", "team-soon"),
    ]
    assert found[-2]["notes"] == "ended 2026-05-31 09:30 UTC, team-past; it is still in effect"
    assert found[-2]["expires"] == "2026-05-31T09:30:00+00:00"


def test_markdown_lists_the_ends() -> None:
    text = as_markdown(ends(), GroupBy.ADVICE)
    assert "### Exceptions that need attention (3)" in text
    assert "- ended: `ledger` of policy `default`: ended 2026-06-04 09:30 UTC, team-pay; it would cover 1\n" in text
    assert "### Opt-outs of namespaces that need attention (2)" in text
    assert "- ended: `past`: ended 2026-05-31 09:30 UTC, team-past; it is still in effect\n" in text
    assert "later" not in text
    assert "need attention" not in as_markdown(msgspec.structs.replace(scan(SIZE), exceptions=[]), GroupBy.ADVICE)


def test_markdown_is_cut_after_so_many_rows_and_says_so() -> None:
    """A comment on a pull request has a limit: so have the rows, and the commands to copy."""
    found = scan(400)
    text = as_markdown(msgspec.structs.replace(found, compared="since 2026-05-01: 3 new"), GroupBy.ADVICE)
    shown = [line for line in text.splitlines() if line.startswith("| `")]
    more = [int(each) for each in re.findall(r"^and (\d+) more$", text, re.MULTILINE)]
    assert len(shown) == ROWS
    assert len(shown) + sum(more) == len(found.rows)
    assert re.search(r"^# and \d+ more$", text, re.MULTILINE), "the block is cut too"
    assert "since 2026-05-01: 3 new" in text
    assert f"Not read: {', '.join(f'`{name}`' for name in found.scope.unreadable)}" in text
    assert len(text) < 65_536


@pytest.mark.parametrize("by", list(GroupBy), ids=str)
def test_markdown_groups_rows_as_asked_and_has_the_commands_once(by: GroupBy) -> None:
    found = scan(SIZE)
    text = as_markdown(found, by)
    wanted: dict[GroupBy, set[str]] = {
        GroupBy.NAMESPACE: {row.namespace for row in found.rows},
        GroupBy.REASON: {str(row.reason) for row in found.rows},
        GroupBy.OWNER: {row.owner for row in found.rows if row.owner},
        GroupBy.ADVICE: set(),
    }
    heads = [line for line in text.splitlines() if line.startswith("### ")]
    assert all(any(title in head.replace("@\u200b", "@") for head in heads) for title in wanted[by])
    assert text.count("```sh") == 1
    reasons = {ADVICE[row.reason] for row in found.rows}
    assert by is not GroupBy.REASON or sum(text.count(each) for each in reasons) >= 1


def test_a_row_says_what_there_is_to_know_of_it() -> None:
    ended = msgspec.structs.replace(scan(1).rows[0], ended=waiver(-3), advice=Advice.CHANGE)
    assert "! exception ledger of team-pay ended on 2026-05-29" in list(notes(ended))


def test_junit_counts_what_it_has_and_ends_fail_nothing() -> None:
    root = ET.fromstring(as_junit(ends()))  # noqa: S314  # our own
    suites = root.findall("testsuite")
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(root.attrib[count]) == len(root.findall(f".//{tag}")), count
        assert all(int(suite.attrib[count]) == len(suite.findall(f".//{tag}")) for suite in suites), count
    assert int(root.attrib["failures"]) == sum(row.is_lost for row in ends().rows)
    (past, soon) = root.findall("testsuite[@name='opt-outs of namespaces']/testcase")
    assert (past.attrib["classname"], soon.attrib["classname"]) == ("past", "soon")
    said = past.find("skipped")
    assert said is not None
    assert said.attrib["message"] == "ended: ended 2026-05-31 09:30 UTC, team-past; it is still in effect"
    assert len(root.findall("testsuite[@name='exceptions']/testcase")) == 3
    (unread,) = root.findall(".//error")
    assert unread.attrib["message"] == "403: pods is forbidden"


def test_junit_fails_only_for_what_is_new_where_that_is_asked() -> None:
    root = ET.fromstring(as_junit(ends(), new_only=True))  # noqa: S314  # our own
    new = sum(row.is_lost and row.change is Change.NEW for row in ends().rows)
    assert 0 < new < sum(row.is_lost for row in ends().rows)
    assert int(root.attrib["failures"]) == new


@pytest.mark.parametrize("place", attacked(), ids=str)
def test_no_text_of_a_cluster_breaks_a_form(place: str) -> None:
    """Each is read back as what it is; a spreadsheet takes no cell for a formula; Markdown has no markup of theirs."""
    found = attacked()[place]
    evil = msgspec.structs.replace(found, namespace_opt_outs=[out("=1+1", End.ENDED, -1)])
    assert len(lines(as_csv(evil))) == len(evil.rows) + len(evil.resolved) + 1 + sum(
        use.state is not ExceptionState.LIVE for use in evil.exceptions
    )
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines(as_csv(evil)) for cell in line.values())
    ET.fromstring(as_junit(evil))  # noqa: S314  # our own
    prose = CODE.sub("", as_markdown(evil, GroupBy.ADVICE))
    assert not re.search(r"(?<!\\)[<>\[\]@](?!\u200b)", prose), "markup is escaped, or in code"
    assert "<script>window" not in as_html(evil)


NASTY: Final = "a\x1b[31m\x9b2J\x07\x00\u202e\u2066\u200f\u2028\r\n::error::b\n```\n=1"
OBEYED: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069]")


def nasty(value: Any) -> Any:
    """Return *value* with texts that a terminal obeys, in place of those that a browser would."""
    if isinstance(value, dict):
        return {nasty(key): nasty(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nasty(each) for each in value]
    return NASTY if isinstance(value, str) and "window.hacked" in value else value


@pytest.mark.parametrize("place", attacked(), ids=str)
def test_no_form_has_a_character_that_a_terminal_obeys(place: str) -> None:
    """Whoever looks at a report in a terminal sees it as it is: no colour, no title, no line that is turned around."""
    evil = msgspec.convert(nasty(msgspec.to_builtins(attacked()[place])), Scan)
    forms = (as_csv(evil).replace("\r\n", "\n"), as_junit(evil), as_html(evil), as_markdown(evil, GroupBy.ADVICE))
    for text in forms:
        assert not OBEYED.search(text), text
        assert not re.search("^::error::", text, re.MULTILINE)


def test_who_made_it_is_in_the_page_where_it_is_known() -> None:
    named = as_html(scan(1))
    assert "<dt>By</dt><dd>alice@example.com, context production</dd>" in named
    assert "<dt>Made with</dt><dd>client-ip 1.0.0, by the code that decides admission</dd>" in named
    scope = msgspec.structs.replace(scan(1).scope, user="", context="", cluster="")
    files = as_html(msgspec.structs.replace(scan(1), scope=scope))
    assert "<dt>By</dt>" not in files
    assert "<dt>Cluster</dt>" not in files
    long = msgspec.structs.replace(scan(1).scope, user="u" * 10_000)
    assert len(as_html(msgspec.structs.replace(scan(1), scope=long))) < len(named) + 500
