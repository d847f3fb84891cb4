"""An explanation as text for people and as JSON for machines: of manifests, and of what runs."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from webhook.cli.manifests import Subject
from webhook.cli.report import COLOURS, as_json, remarks
from webhook.rules.decide import Explained, decide, explain
from webhook.rules.decision import ADVICE, Decision
from webhook.rules.snapshot import Snapshot


def explained_json(subject: Subject, snapshot: Snapshot, now: datetime) -> dict[str, Any]:
    """Return the decision with its questions, for machines."""
    decision = decide(subject.request, snapshot, now=now)
    questions = explain(subject.request, snapshot, now=now)
    return {
        **as_json(subject, decision),
        "questions": [
            {
                "question": each.question,
                "answer": each.answer.reason.value if each.answer is not None else None,
                "fact": each.fact,
            }
            for each in questions
        ],
    }


def explained_text(subject: Subject, snapshot: Snapshot, now: datetime) -> str:
    """Return the decision with its questions, for people."""
    decision = decide(subject.request, snapshot, now=now)
    questions = explain(subject.request, snapshot, now=now)
    return "\n".join(_lines(subject, decision, questions))


def _lines(subject: Subject, decision: Decision, questions: tuple[Explained, ...]) -> Iterator[str]:
    yield click.style(f"{subject.kind} {subject.namespace}/{subject.name}", bold=True)
    decided = False
    for number, each in enumerate(questions, start=1):
        if each.answer is None:
            mark, text = click.style("✓", fg="green"), each.fact
        elif decided:
            mark, text = click.style("·", fg="bright_black"), f"(would be {each.answer.reason}) {each.fact}"
        else:
            decided = True
            colour = COLOURS[decision.outcome]
            mark = click.style("→", fg=colour)
            text = f"{click.style(each.answer.reason.value, fg=colour, bold=True)}: {each.fact}"
        wrapped = textwrap.wrap(text, 100) or [""]
        yield f"  {mark} {number}. {each.question}"
        yield from (f"       {line}" for line in wrapped)
    yield f"  {decision.reason} ({decision.outcome}, mode {decision.mode}): {ADVICE[decision.reason]}"
    for operation in decision.patch or decision.would_patch:
        word = "patch" if decision.patch else "would patch"
        yield f"  {word}: add {operation.path} = {operation.as_json()['value']}"
    for remark in (*decision.warnings, *remarks(subject, decision)):
        yield f"  ! {remark}"
    yield ""
