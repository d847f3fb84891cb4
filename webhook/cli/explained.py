"""An explanation as a tree for people and as JSON for machines: of manifests, and of what runs."""

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from webhook.cli.manifests import Subject
from webhook.cli.patching import difference, patched
from webhook.cli.printing import Branch, print_tree, styled
from webhook.cli.report import COLOURS, advice, as_json, remarks
from webhook.rules.decide import Explained, decide, explain
from webhook.rules.decision import Decision, shown
from webhook.rules.snapshot import Snapshot


def explained_json(subject: Subject, snapshot: Snapshot, now: datetime) -> dict[str, Any]:
    """Return the decision with its questions, for machines: those that were asked, the last of which answered."""
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
            if each.asked
        ],
    }


def print_explained(out: Console, subject: Subject, snapshot: Snapshot, now: datetime) -> None:
    """Print the decision with its questions, for people."""
    decision = decide(subject.request, snapshot, now=now)
    root = Branch(styled(f"{subject.kind} {subject.namespace}/{subject.name}{subject.part}", "bold"))
    for number, each in enumerate(explain(subject.request, snapshot, now=now), start=1):
        _add_question(root, number, each, decision)
    colour = COLOURS[decision.outcome]
    verdict = Text.assemble((decision.reason.value, f"bold {colour}"), f" ({decision.outcome}, mode {decision.mode})")
    end = root.add(verdict.append(shown(f": {advice(subject, decision)}")))
    patch = decision.patch or decision.would_patch
    if patch:
        it = "its pods are" if subject.template else "it is"
        would = "its pods would be" if subject.template else "it would be"
        changes = end.add(f"{it} stored as:" if decision.patch else f"without audit mode, {would} stored as:")
        for line in difference(subject.manifest, patched(subject.manifest, patch)):
            changes.add(styled(line, "green" if line.startswith("+") else "red" if line.startswith("-") else ""))
    for remark in (*decision.warnings, *remarks(subject, decision)):
        end.add(styled(f"! {remark}", "yellow"))
    print_tree(out, root)
    out.print()


def _add_question(root: Branch, number: int, each: Explained, decision: Decision) -> None:
    if not each.asked:
        root.add(styled(f"· {number}. {each.question} (not evaluated: already decided)", "bright_black"))
    elif each.answer is None:
        root.add(Text.assemble(("✓", "green"), f" {number}. {each.question}")).add(each.fact)
    else:
        colour = COLOURS[decision.outcome]
        asked = root.add(Text.assemble(("→", colour), f" {number}. {each.question}"))
        asked.add(Text.assemble((each.answer.reason.value, f"bold {colour}"), shown(f": {each.fact}")))
