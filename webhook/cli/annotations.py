"""
What `check` finds, at the file and line where it stands: SARIF for code scanning, and GitHub's workflow commands.

SARIF 2.1.0: https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html. Workflow commands:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#setting-a-warning-message
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

import webhook
from webhook.cli.manifests import Manifests, Subject
from webhook.rules.decision import ADVICE, OUTCOMES, Decision, Mode, Outcome, Reason, one_line, shown
from webhook.running.findings import fingerprint

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
MESSAGE_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class _Found:
    file: str
    line: int
    subject: Subject
    decision: Decision
    level: str
    """error: lost; warning: lost, but only audited; note: the header, or an exception."""


def _found(manifests: Manifests, rows: Iterable[tuple[Subject, Decision]]) -> Iterator[_Found]:
    """Yield what is to be said: what is preserved, and what nobody asked about, is not."""
    decisions = {id(subject): decision for subject, decision in rows}
    for document, subjects in manifests.documents:
        for subject in subjects:
            decision = decisions[id(subject)]
            level = _level(decision)
            if level:
                line = document.problem("", "").line
                yield _Found(document.file, max(line, 1), subject, decision, level)


def _level(decision: Decision) -> str:
    if decision.outcome is Outcome.LOST:
        return "error" if decision.mode is Mode.ENFORCE else "warning"
    return "note" if decision.outcome in {Outcome.HEADER, Outcome.WAIVED} or decision.warnings else ""


def as_sarif(manifests: Manifests, rows: Sequence[tuple[Subject, Decision]]) -> bytes:
    """Return a SARIF log: a rule for each Reason, a result for each object that is not preserved."""
    found = list(_found(manifests, rows))
    used = sorted({each.decision.reason for each in found})
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "client-ip",
                        "semanticVersion": webhook.__version__,
                        "rules": [_rule(reason) for reason in used],
                    }
                },
                "results": [_result(each, used.index(each.decision.reason)) for each in found],
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=2) + b"\n"


def _rule(reason: Reason) -> Mapping[str, Any]:
    return {
        "id": reason.value,
        "shortDescription": {"text": f"{reason} ({OUTCOMES[reason]})"},
        "help": {"text": ADVICE[reason]},
    }


def _result(found: _Found, rule: int) -> Mapping[str, Any]:
    subject, decision = found.subject, found.decision
    mark = fingerprint(subject.namespace, subject.kind, subject.name, decision.reason)
    location = {
        "artifactLocation": {"uri": quote(os.fsencode(found.file.removeprefix("./")))},
        "region": {"startLine": found.line},
    }
    return {
        "ruleId": decision.reason.value,
        "ruleIndex": rule,
        "level": found.level,
        "message": {"text": _message(found)},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"clientIP/v1": mark},
    }


def _message(found: _Found) -> str:
    return one_line(f"{found.subject.title}: {found.decision.reason}: {found.decision.message}", MESSAGE_LIMIT)


_COMMANDS: Final = {"error": "error", "warning": "warning", "note": "notice"}


def as_github(manifests: Manifests, rows: Sequence[tuple[Subject, Decision]]) -> str:
    """Return workflow commands, which GitHub shows at the lines of a pull request."""
    return "".join(
        f"::{_COMMANDS[each.level]} file={_property(each.file.removeprefix('./'))},line={each.line},"
        f"title={_property(f'client IP: {each.decision.reason}')}::{_data(_message(each))}\n"
        for each in _found(manifests, rows)
    )


def _data(text: str) -> str:
    """Return *text* so that it can't end its command and begin another."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(shown(text)).replace(":", "%3A").replace(",", "%2C")
