"""`client-ip test`: one's own policies by cases: what is asked, by which facts, and what must come out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec
import yaml

from webhook.cases.junit import as_junit
from webhook.cases.running import Facts, Tested, decided, read_cases, record
from webhook.cli.check import CONTEXT, KUBECONFIG, NAMESPACE, NOW, POLICY
from webhook.cli.manifests import Subject, now_or, read_manifests
from webhook.cli.printing import console, say, styled
from webhook.facts.collect import FactError
from webhook.facts.problem import Problem
from webhook.rules.decide import decide
from webhook.rules.snapshot import Snapshot

NOTHING: Final = "the input has no case: a case is a document with the fields case, object and expect (docs/testing.md)"


@click.command(
    "test",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip test cases/
  client-ip test --state cluster/ --policy policy.yaml cases/ -o junit > results.xml
  client-ip test --record --state cluster/ deploy.yaml > cases/deploy.yaml

\b
Exit status: 0 all cases pass; 1 a case fails; 2 there is no case, or invalid input: the error names the file,
document, line and field.""",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--state",
    "states",
    multiple=True,
    envvar="CLIENT_IP_STATE",
    metavar="PATH",
    help="Objects for all cases, in addition to the nearest cluster.yaml of each file. Repeatable.",
)
@POLICY
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "junit"]),
    default="text",
    show_default=True,
    help="Format.",
)
@click.option("--record", "recording", is_flag=True, help="Print cases that expect the present decisions on manifests.")
@NAMESPACE
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    paths: tuple[str, ...],
    states: tuple[str, ...],
    policy: str | None,
    output: str,
    recording: bool,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> int:
    """
    Test your policies: decide cases as the webhook would, and compare the results with what they expect.

    PATH is a file or folder with YAML; each document is one case. With --record, PATH is manifests, and the command
    prints a case for each, to be reviewed.
    """
    moment = now_or(now)
    if recording:
        manifests = read_manifests(
            paths, states=states, policy=policy, namespace=namespace, kubeconfig=kubeconfig, context=context
        )
        if not manifests.subjects:
            raise click.UsageError("nothing to record: no Pod, Service or workload in the input")
        cases = [_recorded(subject, manifests.snapshot, moment) for subject in manifests.subjects]
        click.echo(yaml.safe_dump_all(cases, sort_keys=False, allow_unicode=True, default_flow_style=False), nl=False)
        return 0
    results = _results([*paths], [*states, *([policy] if policy else [])], moment)
    failed = [each for each in results if each.differences]
    match output:
        case "json":
            elements = [_as_json(each) for each in results]
            click.echo(msgspec.json.format(msgspec.json.encode(elements), indent=2).decode())
        case "junit":
            click.echo(as_junit(results), nl=False)
        case _:
            _print(results, failed)
    return 1 if failed else 0


def _results(paths: Sequence[str], states: Sequence[str], now: datetime) -> list[Tested]:
    problems: list[Problem] = []
    cases = read_cases(paths, problems)
    facts = Facts(states, problems)
    results = []
    for each in cases:
        collector = facts.of(each)
        try:
            results.append(decided(each, collector, now=now))
        except FactError as error:
            field = f"object.{error.field}" if error.field else "object"
            problems.append(each.problem(field, error.message))
    if problems:
        raise click.UsageError("invalid input:\n" + "\n".join(map(str, dict.fromkeys(map(str, problems)))))
    if not results:
        raise click.UsageError(NOTHING)
    return results


def _print(results: Sequence[Tested], failed: Sequence[Tested]) -> None:
    out = console()
    for each in failed:
        say(out, styled("FAIL", "bold red"), f" {each.read}")
        for difference in each.differences:
            say(out, f"    {difference}")
        for number, question in enumerate(each.questions, start=1):
            mark = "→" if question.answer is not None else "✓"
            answer = f"{question.answer.reason}: " if question.answer is not None else ""
            say(out, f"      {mark} {number}. {question.question} {answer}{question.fact}")
            if question.answer is not None:
                break
    unused = _unused(results)
    if unused:
        say(out, styled(f"no case was decided by: {', '.join(unused)}", "yellow"))
    style = "bold red" if failed else "bold green"
    noun = "case" if len(results) == 1 else "cases"
    say(out, styled(f"{len(results)} {noun}: {len(results) - len(failed)} passed, {len(failed)} failed", style))


def _unused(results: Sequence[Tested]) -> list[str]:
    """Return the policies in cases' facts that decided nothing, not even where they stand: they test nothing."""
    stated = {
        fact["metadata"]["name"]
        for each in results
        for fact in each.read.case.facts
        if fact["kind"] == "ClientIPPolicy" and fact["metadata"]["name"] != "default"
    }
    return sorted(stated - {each.decision.policy for each in results})


def _as_json(tested: Tested) -> dict[str, Any]:
    read = tested.read
    return {
        "case": read.case.name,
        "file": read.file,
        "document": read.document.number,
        "line": read.document.line_of(""),
        "passed": not tested.differences,
        "differences": list(tested.differences),
        "got": record(tested.decision),
    }


def _recorded(subject: Subject, snapshot: Snapshot, now: datetime) -> dict[str, Any]:
    """Return the case that expects what is decided now."""
    decision = decide(subject.request, snapshot, now=now)
    labels = snapshot.namespaces.get(subject.namespace)
    kept = {key: value for key, value in (labels or {}).items() if key != "kubernetes.io/metadata.name"}
    return {
        "case": f"{subject.kind} {subject.namespace}/{subject.name}",
        "version": 1,
        "inNamespace": subject.namespace,
        "namespace": kept if labels is not None else None,
        "now": now.isoformat(),
        "object": subject.manifest,
        "expect": record(decision),
    }
