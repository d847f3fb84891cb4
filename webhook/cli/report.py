"""How decisions are shown: a table for people, JSON for machines."""

import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import click

from webhook.cli.manifests import Subject
from webhook.rules.decision import ADVICE, Decision, Mode, Outcome

COLOURS: Final = {
    Outcome.PRESERVED: "green",
    Outcome.HEADER: "cyan",
    Outcome.LOST: "red",
    Outcome.WAIVED: "yellow",
    Outcome.NOT_ASKED: "bright_black",
}


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
        "message": decision.message,
        "patch": patch,
    }
    if decision.mode is Mode.AUDIT:
        element["wouldPatch"] = [operation.as_json() for operation in decision.would_patch]
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


def table(rows: Sequence[tuple[Subject, Decision]]) -> str:
    """Return the decisions as a table: object, decision, reason, and what to do."""
    width = max(shutil.get_terminal_size((120, 40)).columns, 80)
    named = [(f"{subject.namespace}/{subject.kind}/{subject.name}", subject, decision) for subject, decision in rows]
    first = max([len(name) for name, _, _ in named] + [len("OBJECT")])
    first = min(first, width // 3)
    head = f"{'OBJECT':<{first}}  {'DECISION':<8}  {'REASON':<20}  WHAT IT MEANS"
    lines = [click.style(head, bold=True)]
    rest = max(width - first - 34, 30)
    for name, subject, decision in named:
        word = "patch" if decision.patch else "audit" if decision.mode is Mode.AUDIT else "skip"
        texts = [decision.cause, f"→ {ADVICE[decision.reason]}"]
        texts += [f"! {warning}" for warning in decision.warnings[1 if decision.outcome is Outcome.LOST else 0 :]]
        texts += [f"! {remark}" for remark in remarks(subject, decision)]
        wrapped = [line for text in texts for line in textwrap.wrap(text, rest)]
        names = textwrap.wrap(name, first)
        reason = click.style(f"{decision.reason:<20}", fg=COLOURS[decision.outcome])
        for number in range(max(len(wrapped), len(names))):
            label = names[number] if number < len(names) else ""
            middle = f"{word:<8}  {reason}" if number == 0 else " " * 30
            text = wrapped[number] if number < len(wrapped) else ""
            lines.append(f"{label:<{first}}  {middle}  {text}".rstrip())
    return "\n".join(lines)
