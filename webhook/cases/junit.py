"""Results of cases as JUnit XML: a suite for each file."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from webhook.cases.running import Tested
from webhook.rules.decision import shown


def as_junit(results: Sequence[Tested]) -> str:
    """Return the results as JUnit XML."""
    failed = sum(bool(each.differences) for each in results)
    totals = {"tests": str(len(results)), "failures": str(failed), "errors": "0"}
    root = ET.Element("testsuites", {"name": "client-ip test", **totals})
    files: dict[str, list[Tested]] = {}
    for each in results:
        files.setdefault(each.read.file, []).append(each)
    for file, within in files.items():
        failures = sum(bool(each.differences) for each in within)
        counts = {"tests": str(len(within)), "failures": str(failures), "errors": "0", "skipped": "0"}
        suite = ET.SubElement(root, "testsuite", {"name": shown(file), **counts})
        for each in within:
            line = str(each.read.document.line_of(""))
            attributes = {
                "classname": shown(file),
                "name": shown(each.read.case.name),
                "file": shown(file),
                "line": line,
            }
            case = ET.SubElement(suite, "testcase", attributes)
            if each.differences:
                message = {"type": each.decision.reason.value, "message": shown(each.differences[0])}
                ET.SubElement(case, "failure", message).text = "\n".join(map(shown, each.differences))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
