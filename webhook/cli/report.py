"""How decisions are shown: a table and a line of counts for people, JSON for machines."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from webhook.cli.manifests import Subject
from webhook.cli.printing import Cell, print_table, styled
from webhook.rules.decision import ADVICE, Decision, Mode, Outcome, Reason, shown

Rows = Sequence[tuple[Subject, Decision]]

COLOURS: Final = {
    Outcome.PRESERVED: "green",
    Outcome.HEADER: "cyan",
    Outcome.LOST: "red",
    Outcome.WAIVED: "yellow",
    Outcome.NOT_ASKED: "bright_black",
}
OFFLINE: Final = {
    Reason.NODES_UNKNOWN: "no node is known: add the cluster's nodes to --state",
    Reason.NAMESPACE_UNKNOWN: "the namespace is not known: add it to --state, or to the manifests",
}
"""What to do where files are read in place of a cluster: what they lack may be there all the same."""


def advice(subject: Subject, decision: Decision) -> str:
    """Return what the decision's reason means for who asked, or what to do about it."""
    said = OFFLINE.get(decision.reason) if subject.offline else None
    return said or ADVICE[decision.reason]


def message(subject: Subject, decision: Decision) -> str:
    """Return the cause and what to do about it."""
    return f"{decision.cause}; {advice(subject, decision)}"


def as_json(subject: Subject, decision: Decision) -> dict[str, Any]:
    """Return one element of `-o json`."""
    patch = [operation.as_json() for operation in decision.patch]
    element: dict[str, Any] = {
        "apiVersion": subject.api_version,
        "kind": subject.kind,
        "namespace": subject.namespace,
        "name": subject.name,
        "decision": "patch" if patch else "skip",
        "mode": decision.mode.value,
        "reason": decision.reason.value,
        "outcome": decision.outcome.value,
        "cause": decision.cause,
        "message": message(subject, decision),
        "patch": patch,
    }
    if decision.mode is Mode.AUDIT:
        element["wouldPatch"] = [operation.as_json() for operation in decision.would_patch]
    if subject.template:
        element["template"] = subject.template
    notes = [*decision.warnings[1 if decision.outcome is Outcome.LOST else 0 :], *remarks(subject, decision)]
    if notes:
        element["notes"] = notes
    return element


def remarks(subject: Subject, decision: Decision) -> list[str]:
    """Return what else a person should know."""
    found = list(subject.notes)
    if decision.invalid_preserve:
        found.append(decision.invalid_preserve)
    return found


def print_decisions(out: Console, rows: Rows) -> None:
    """Print the decisions as a table: object, decision, reason, and what to do."""
    print_table(out, ("OBJECT", "DECISION", "REASON", "WHAT IT MEANS"), [_cells(*row) for row in rows])


def _cells(subject: Subject, decision: Decision) -> tuple[Cell, ...]:
    reason = styled(decision.reason, COLOURS[decision.outcome])
    return subject.title, _word(decision), reason, _meaning(subject, decision)


def _word(decision: Decision) -> str:
    return "patch" if decision.patch else "audit" if decision.mode is Mode.AUDIT else "skip"


def _meaning(subject: Subject, decision: Decision) -> Cell:
    lines = [decision.cause, f"→ {advice(subject, decision)}"]
    lines += [f"! {warning}" for warning in decision.warnings[1 if decision.outcome is Outcome.LOST else 0 :]]
    lines += [f"! {remark}" for remark in remarks(subject, decision)]
    return Text("\n".join(map(shown, lines)))


def is_lost(decision: Decision) -> bool:
    """Return whether an opted-in object would lose the client's IP, by a policy that enforces."""
    return decision.outcome is Outcome.LOST and decision.mode is Mode.ENFORCE


def counts(rows: Rows) -> str:
    """Return one line that counts every decision once."""
    found: dict[str, int] = {}
    for _, decision in rows:
        word = _counted(decision)
        found[word] = found.get(word, 0) + 1
    objects = f"{len(rows)} object{'' if len(rows) == 1 else 's'}"
    return f"{objects}: " + ", ".join(f"{found[word]} {word}" for word in _COUNTED if word in found)


_COUNTED: Final = (
    "patched",
    "would be patched (audit)",
    "preserved without a change",
    "by X-Forwarded-For",
    "by PROXY protocol",
    "would lose the client's IP",
    "would lose the client's IP (audit)",
    "waived",
    "not applicable",
)
"""In the order of the line."""


def _counted(decision: Decision) -> str:
    if decision.patch:
        return _COUNTED[0]
    if decision.would_patch:
        return _COUNTED[1]
    match decision.outcome:
        case Outcome.PRESERVED:
            return _COUNTED[2]
        case Outcome.HEADER:
            return _COUNTED[4 if decision.reason is Reason.PROXY_PROTOCOL else 3]
        case Outcome.LOST:
            return _COUNTED[5] if decision.mode is Mode.ENFORCE else _COUNTED[6]
        case Outcome.WAIVED:
            return _COUNTED[7]
        case Outcome.NOT_ASKED:
            return _COUNTED[8]


def lost(rows: Rows) -> Iterator[tuple[Subject, Decision]]:
    """Yield what would lose the client's IP."""
    return ((subject, decision) for subject, decision in rows if is_lost(decision))
