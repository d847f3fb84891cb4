"""
A scan as JUnit XML: a suite for each namespace, a case for each workload, a failure where the IP is lost.

Exceptions and opt-outs of namespaces that are to be looked at are suites of skipped cases: they fail nothing.
"""

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from webhook.rules.decision import shown
from webhook.running.findings import Change, Row, Scan, to_look_at
from webhook.running.grouping import GroupBy, grouped
from webhook.running.words import exception_said, notes, opt_out_said


def as_junit(scan: Scan, *, new_only: bool = False) -> str:
    """
    Return the scan as JUnit XML.

    Args:
        scan: What was found.
        new_only: Only what the baseline has not is a failure.

    """
    root = ET.Element("testsuites", {"name": "client-ip scan"})
    failures = 0
    for group in grouped(scan.rows, GroupBy.NAMESPACE):
        failed = [row for row in group.rows if _fails(row, new_only=new_only)]
        failures += len(failed)
        suite = _element(
            root,
            "testsuite",
            name=group.title,
            tests=str(len(group.rows)),
            failures=str(len(failed)),
            errors="0",
            skipped="0",
            timestamp=scan.time.strftime("%Y-%m-%dT%H:%M:%S"),
        )
        for row in group.rows:
            _case(suite, row, failed=row in failed)
    for what, why in scan.scope.unreadable.items():
        suite = _element(root, "testsuite", name=what, tests="1", failures="0", errors="1", skipped="0")
        case = _element(suite, "testcase", classname=what, name="readable")
        _element(case, "error", type="unreadable", message=why)
    ends = _ends(root, scan)
    root.set("tests", str(len(scan.rows) + len(scan.scope.unreadable) + ends))
    root.set("failures", str(failures))
    root.set("errors", str(len(scan.scope.unreadable)))
    root.set("skipped", str(ends))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _ends(root: ET.Element, scan: Scan) -> int:
    """Add what ends, has ended or covers nothing, and return how many they are."""
    uses, outs = to_look_at(scan)
    exceptions = [
        (f"policy {use.exception.policy}", use.exception.name, use.state.value, exception_said(use)) for use in uses
    ]
    namespaces = [(out.namespace, "opt-out", out.state.value, opt_out_said(out)) for out in outs]
    for name, cases in (("exceptions", exceptions), ("opt-outs of namespaces", namespaces)):
        if not cases:
            continue
        count = str(len(cases))
        suite = _element(root, "testsuite", name=name, tests=count, failures="0", errors="0", skipped=count)
        for classname, called, state, said in cases:
            case = _element(suite, "testcase", classname=classname, name=called)
            _element(case, "skipped", message=f"{state}: {said}")
    return len(exceptions) + len(namespaces)


def _fails(row: Row, *, new_only: bool) -> bool:
    return row.is_lost and (not new_only or row.change is Change.NEW)


def _case(suite: ET.Element, row: Row, *, failed: bool) -> None:
    case = _element(suite, "testcase", classname=row.namespace, name=f"{row.called} [{row.fingerprint}]")
    said: Sequence[str] = list(notes(row))
    if failed:
        failure = _element(case, "failure", type=row.reason.value, message=row.fix)
        failure.text = _lines(f"{row.advice}: {row.reason}", *said, f"owner: {row.owner or 'none'}")
    elif said:
        _element(case, "system-out").text = _lines(*said)


def _element(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    cleaned: Mapping[str, str] = {key: shown(value) for key, value in attributes.items()}
    return ET.SubElement(parent, tag, dict(cleaned))


def _lines(*texts: str) -> str:
    """Return *texts* without what XML 1.0 can't hold, not even escaped, or what a terminal would obey; a line each."""
    return "\n".join(map(shown, texts))
