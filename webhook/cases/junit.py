"""Results of cases as JUnit XML: a suite for each file."""

import re
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as ET

from webhook.cases.running import Tested

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, not even escaped: https://www.w3.org/TR/xml/#charsets."""


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
        suite = ET.SubElement(root, "testsuite", {"name": _xml(file), **counts})
        for each in within:
            line = str(each.read.document.line_of(""))
            attributes = {"classname": _xml(file), "name": _xml(each.read.case.name), "file": _xml(file), "line": line}
            case = ET.SubElement(suite, "testcase", attributes)
            if each.differences:
                message = {"type": each.decision.reason.value, "message": _xml(each.differences[0])}
                ET.SubElement(case, "failure", message).text = _xml("\n".join(each.differences))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
