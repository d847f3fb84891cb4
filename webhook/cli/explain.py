"""`client-ip explain`: every question of a decision in order, each with its answer and the fact it rests on."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from webhook.cli.check import CONTEXT, KUBECONFIG, NAMESPACE, NOW, POLICY, STATE
from webhook.cli.manifests import Manifests, Subject, now_or, read_manifests
from webhook.cli.report import COLOURS, as_json, remarks
from webhook.rules.decide import Explained, decide, explain
from webhook.rules.decision import ADVICE, Decision

KINDS: Final = "pod, service, deployment, statefulset, daemonset, replicaset, job, cronjob"


@click.command(
    "explain",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip explain --state examples/cluster examples/apps/sleep.yaml
  client-ip explain deployment/reviews -n shop        (the kubeconfig's cluster)
  kubectl client-ip explain pod/reviews-7d4b9-x2x4z -n shop""",
)
@click.argument("subjects", nargs=-1, required=True, metavar="FILE...|KIND/NAME...")
@STATE
@POLICY
@NAMESPACE
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    subjects: tuple[str, ...],
    states: tuple[str, ...],
    policy: str | None,
    namespace: str,
    output: str,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> None:
    """
    Answer each question of a decision in order, with the fact that the answer rests on.

    Of FILEs, or of something in a cluster, named as KIND/NAME: there its controller's template is decided and set
    beside what its running pods got.
    """
    moment = now_or(now)
    named = [each for each in subjects if _is_name(each)]
    if named and (len(named) != len(subjects) or states):
        raise click.UsageError("name either files, or KIND/NAME in a cluster (then without --state)")
    if named:
        from webhook.cli.running import explain_running  # noqa: PLC0415  # files never pay for `kubernetes`

        explain_running(named, namespace, kubeconfig, context, now=moment, output=output)
        return
    manifests = read_manifests(
        subjects, states=states, policy=policy, namespace=namespace, kubeconfig=kubeconfig, context=context
    )
    if not manifests.subjects:
        raise click.UsageError("nothing to explain: no Pod, Service or workload in the input")
    if output == "json":
        elements = [explained_json(subject, manifests, moment) for subject in manifests.subjects]
        click.echo(msgspec.json.format(msgspec.json.encode(elements), indent=2).decode())
        return
    for subject in manifests.subjects:
        click.echo(explained_text(subject, manifests, moment))


def _is_name(text: str) -> bool:
    kind, slash, name = text.partition("/")
    return bool(slash) and bool(name) and kind.lower().rstrip("s") in {each.strip() for each in KINDS.split(",")}


def explained_json(subject: Subject, manifests: Manifests, now: datetime) -> dict[str, Any]:
    """Return the decision with its questions, for machines."""
    decision = decide(subject.request, manifests.snapshot, now=now)
    questions = explain(subject.request, manifests.snapshot, now=now)
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


def explained_text(subject: Subject, manifests: Manifests, now: datetime) -> str:
    """Return the decision with its questions, for people."""
    decision = decide(subject.request, manifests.snapshot, now=now)
    questions = explain(subject.request, manifests.snapshot, now=now)
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
