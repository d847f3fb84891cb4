"""What a check is, what it finds, and how a group of them is run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from webhook.checks.evidence import Evidence


class Level(StrEnum):
    """What a check found; the words of `linkerd check -o json`, and one for what was not looked at."""

    OK = "success"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says: one line, and below what is wrong a hint of one or more lines."""

    level: Level
    says: str
    hint: str = ""


def ok(says: str) -> Finding:
    """Return that all is well, and what was seen."""
    return Finding(Level.OK, says)


def warning(says: str, hint: str) -> Finding:
    """Return what should be looked at, and how."""
    return Finding(Level.WARNING, says, hint)


def error(says: str, hint: str) -> Finding:
    """Return what is wrong, and what to do about it."""
    return Finding(Level.ERROR, says, hint)


def skipped(says: str) -> Finding:
    """Return why nothing was looked at."""
    return Finding(Level.SKIPPED, says)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row: its id is its anchor in docs/doctor.md."""

    id: str
    description: str
    ask: Callable[[Evidence], Finding]
    reads: tuple[str, ...] = ()
    """Names of `webhook.checks.evidence.READS`: where one was not granted, the check is skipped and names it."""
    fatal: bool = False
    """Where it fails, the rest of its group is not looked at: it would only repeat it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that belong together, in order."""

    name: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A check and what it found."""

    check: Check
    finding: Finding


@dataclass(frozen=True, slots=True)
class CheckedGroup:
    """A group and what its checks found."""

    name: str
    checked: tuple[Checked, ...]


DOCS: Final = "docs/doctor.md"


def anchor(check: Check) -> str:
    """Return where the documentation speaks of *check*."""
    return f"{DOCS}#{check.id}"


def run(groups: Iterable[Group], evidence: Evidence) -> list[CheckedGroup]:
    """Run all checks in order; the same evidence gives the same findings."""
    return [CheckedGroup(group.name, tuple(_run(group.checks, evidence))) for group in groups]


def _run(checks: Sequence[Check], evidence: Evidence) -> Iterable[Checked]:
    failed = ""
    for check in checks:
        finding = skipped(f"not checked, because {failed} failed") if failed else _asked(check, evidence)
        if check.fatal and finding.level is Level.ERROR:
            failed = check.id
        yield Checked(check, finding)


def _asked(check: Check, evidence: Evidence) -> Finding:
    for name in check.reads:
        why = evidence.unread.get(name)
        if why is not None:
            return skipped(why)
    return check.ask(evidence)


def worst(groups: Iterable[CheckedGroup]) -> Level:
    """Return the worst level that was found; SKIPPED counts as OK."""
    levels = {checked.finding.level for group in groups for checked in group.checked}
    return next((level for level in (Level.ERROR, Level.WARNING) if level in levels), Level.OK)


def as_json(groups: Sequence[CheckedGroup]) -> Mapping[str, object]:
    """Return the findings in the shape of `linkerd check -o json`, with each check's id."""
    return {
        "success": worst(groups) is not Level.ERROR,
        "categories": [
            {
                "categoryName": group.name,
                "checks": [
                    {
                        "id": checked.check.id,
                        "description": checked.check.description,
                        "result": checked.finding.level.value,
                        **({} if checked.finding.level is Level.ERROR else {"message": checked.finding.says}),
                        **({"error": checked.finding.says} if checked.finding.level is Level.ERROR else {}),
                        **(
                            {"hint": checked.finding.hint, "documentation": anchor(checked.check)}
                            if checked.finding.hint
                            else {}
                        ),
                    }
                    for checked in group.checked
                ],
            }
            for group in groups
        ],
    }
