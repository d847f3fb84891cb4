"""`client-ip check`: the webhook's own evaluator over manifests, for people and for CI."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from webhook.cli import cluster_options
from webhook.cli.annotations import as_github, as_sarif
from webhook.cli.manifests import Manifests, Subject, TimeType, now_or, read_manifests
from webhook.cli.patching import PatchFails, patched
from webhook.cli.printing import console, progress, say
from webhook.cli.report import Rows, as_json, counts, is_lost, message, print_decisions
from webhook.cli.streams import write_document
from webhook.cli.yamls_out import yaml_stream
from webhook.facts.files import Found
from webhook.rules.decide import decide
from webhook.rules.decision import Decision, Outcome, shown

FILES: Final = click.argument("files", nargs=-1, required=True, metavar="FILE...")
STATE: Final = click.option(
    "--state",
    "states",
    multiple=True,
    envvar="CLIENT_IP_STATE",
    metavar="PATH",
    help=(
        "A file, folder or dump (.tgz) with the cluster's objects, or - for standard input. Repeatable. "
        "[default: the kubeconfig's cluster]"
    ),
)
POLICY: Final = click.option("--policy", metavar="FILE", help="A file with a ClientIPPolicy, in addition to the state.")
NAMESPACE: Final = click.option(
    "-n", "--namespace", help="Namespace of objects that name none. [default: the kubeconfig context's, else default]"
)
KUBECONFIG: Final = cluster_options.KUBECONFIG
CONTEXT: Final = cluster_options.CONTEXT
NOW: Final = click.option("--now", type=TimeType(), help="Decide as of this time, RFC 3339. [default: now]")


@click.command(
    "check",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip check --state examples/cluster examples/apps
  client-ip check --state cluster/ -o json --strict deploy.yaml
  client-ip check --state cluster/ -o sarif deploy/ > results.sarif
  kustomize build . | client-ip check --state cluster/ -o yaml - | kubectl apply -f -
  kubectl get ns,nodes,mutatingwebhookconfigurations -o json | client-ip check --state - deploy.yaml
  client-ip check --state must-gather.tgz deploy.yaml
  kubectl client-ip check deploy.yaml        (with the kubeconfig's cluster)

\b
Exit status: 0 success; 1 with --strict, an opted-in object would lose the client's IP;
2 invalid input: the error names the file, document, line and field.""",
)
@FILES
@STATE
@POLICY
@NAMESPACE
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "sarif", "github"]),
    default="table",
    show_default=True,
    help="Format. json: one array; yaml: the patched objects; sarif, github: findings with file and line.",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if an opted-in object would lose the client's IP.")
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    files: tuple[str, ...],
    states: tuple[str, ...],
    policy: str | None,
    namespace: str | None,
    output: str,
    strict: bool,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> int:
    """
    Decide manifests as the webhook would, and print the result for each.

    FILE is a file or folder with YAML or JSON, which may be compressed or in an archive, or - for standard input. The
    command decides Pods, Services, and every kind that has pod templates (Deployments, CronJobs, Rollouts, CloneSets,
    Knative Services, …). It lists the objects that it does not decide. Namespaces, Nodes, policies and webhook
    configurations in FILE are added to the state.
    """
    manifests = read_manifests(
        files, states=states, policy=policy, namespace=namespace, kubeconfig=kubeconfig, context=context
    )
    moment = now_or(now)
    rows = decided(manifests, moment)
    for subject, decision in rows:
        _prove(subject, decision)
    if output == "json":
        elements = [as_json(subject, decision) for subject, decision in rows]
        write_document(msgspec.json.format(msgspec.json.encode(elements), indent=2) + b"\n")
    elif output == "yaml":
        _print_yaml(manifests, rows)
    elif output == "sarif":
        write_document(as_sarif(manifests, rows))
    elif output == "github":
        click.echo(as_github(manifests, rows), nl=False)
    elif rows:
        print_decisions(console(), rows)
    _say_rest(manifests, rows, output)
    return 1 if strict and any(is_lost(decision) for _, decision in rows) else 0


def decided(manifests: Manifests, now: datetime) -> Rows:
    """Return each subject with its decision."""
    with progress("deciding", total=len(manifests.subjects), unit="objects") as bar:
        rows = []
        for subject in manifests.subjects:
            rows.append((subject, decide(subject.request, manifests.snapshot, now=now)))
            bar.advance()
    return rows


def _prove(subject: Subject, decision: Decision) -> None:
    """Apply what the webhook would send, as the API server would: one that fails is a bug, and it is seen here."""
    try:
        patched(subject.manifest, decision.patch or decision.would_patch)
    except PatchFails as error:
        raise click.ClickException(f"{subject.title}: {error}") from error


def _say_rest(manifests: Manifests, rows: Rows, output: str) -> None:
    err = console(stderr=True)
    if output == "yaml":
        for subject, decision in rows:
            if decision.outcome is Outcome.LOST:
                say(err, shown(f"{subject.title}: {message(subject, decision)}"))
    for line in (*manifests.undecided, *manifests.lacking):
        say(err, shown(line))
    if not rows:
        say(err, "nothing to decide: no Pod, Service or pod template in the input")
    else:
        say(console(stderr=output != "table"), counts(rows))


def _print_yaml(manifests: Manifests, rows: Rows) -> None:
    decisions = {id(subject): decision for subject, decision in rows}
    with progress("writing", total=len(manifests.documents), unit="objects") as bar:
        for text in yaml_stream(_patched(found, subjects, decisions) for found, subjects in manifests.documents):
            write_document(text.encode())
            bar.advance()


def _patched(found: Found, subjects: Sequence[Subject], decisions: Mapping[int, Decision]) -> Mapping[str, Any]:
    """Return an object as the webhook lets it through: a workload's pods are patched when they are made."""
    whole = [each for each in subjects if not each.template]
    return patched(found.value, decisions[id(whole[0])].patch) if whole else found.value
