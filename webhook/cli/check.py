"""`client-ip check`: the webhook's own evaluator over manifests, for people and for CI."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec
import yaml

from webhook.cli.manifests import Manifests, Subject, TimeType, now_or, read_manifests
from webhook.cli.report import as_json, table
from webhook.rules.decide import decide
from webhook.rules.decision import Decision, Mode, Outcome
from webhook.rules.patch import Patch

FILES: Final = click.argument("files", nargs=-1, required=True, metavar="FILE...")
STATE: Final = click.option(
    "--state",
    "states",
    multiple=True,
    envvar="CLIENT_IP_STATE",
    metavar="PATH",
    help="A file or folder with the cluster's objects. Repeatable. Without it, the kubeconfig's cluster is read.",
)
POLICY: Final = click.option("--policy", metavar="FILE", help="A ClientIPPolicy that joins the state.")
NAMESPACE: Final = click.option(
    "-n", "--namespace", default="default", show_default=True, help="Of objects that name none."
)
KUBECONFIG: Final = click.option("--kubeconfig", metavar="FILE", help="The kubeconfig of the cluster to read.")
CONTEXT: Final = click.option("--context", metavar="NAME", help="The kubeconfig's context, if not its current one.")
NOW: Final = click.option("--now", type=TimeType(), help="Decide as of this time (exceptions expire). [default: now]")


@click.command(
    "check",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip check --state examples/cluster examples/apps
  client-ip check --state cluster/ -o json --strict deploy.yaml
  kustomize build . | client-ip check --state cluster/ -o yaml - | kubectl apply -f -
  kubectl client-ip check deploy.yaml        (the kubeconfig's cluster)

\b
Exit status: 0 decided; 1 with --strict, when an opted-in object would lose the client's IP;
2 bad input, with file, document, line and field.""",
)
@FILES
@STATE
@POLICY
@NAMESPACE
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="json: one array; yaml: the patched objects.",
)
@click.option("--strict", is_flag=True, help="Exit 1 when an opted-in object would lose the client's IP.")
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    files: tuple[str, ...],
    states: tuple[str, ...],
    policy: str | None,
    namespace: str,
    output: str,
    strict: bool,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> int:
    """
    Decide manifests as the webhook would and print what would happen to each.

    FILE is a file or folder of YAML or JSON, or - for standard input: Pods, Services, Deployments, StatefulSets,
    DaemonSets, ReplicaSets, Jobs and CronJobs are decided; Namespaces, Nodes, policies and webhook configurations
    join the state.
    """
    manifests = read_manifests(
        files, states=states, policy=policy, namespace=namespace, kubeconfig=kubeconfig, context=context
    )
    moment = now_or(now)
    rows = [(subject, decide(subject.request, manifests.snapshot, now=moment)) for subject in manifests.subjects]
    if output == "json":
        elements = [as_json(subject, decision) for subject, decision in rows]
        click.echo(msgspec.json.format(msgspec.json.encode(elements), indent=2).decode())
    elif output == "yaml":
        _print_yaml(manifests, dict(zip(map(id, manifests.subjects), (decision for _, decision in rows), strict=True)))
    elif rows:
        click.echo(table(rows))
    _say_rest(manifests, rows, output)
    lost = [subject for subject, decision in rows if decision.outcome is Outcome.LOST and decision.mode is Mode.ENFORCE]
    return 1 if strict and lost else 0


def _say_rest(manifests: Manifests, rows: Sequence[tuple[Subject, Decision]], output: str) -> None:
    if manifests.others:
        click.echo(f"{manifests.others} other objects are not decided", err=True)
    if not rows:
        click.echo("nothing to decide: no Pod, Service or workload in the input", err=True)
    if output == "yaml":
        for subject, decision in rows:
            if decision.outcome is Outcome.LOST:
                click.echo(f"{subject.namespace}/{subject.kind}/{subject.name}: {decision.message}", err=True)


def _print_yaml(manifests: Manifests, decisions: dict[int, Decision]) -> None:
    printed = []
    for found, subject in manifests.documents:
        manifest: Any = msgspec.to_builtins(found.value)
        if subject is not None and subject.kind in {"Pod", "Service"}:
            manifest = patched(manifest, decisions[id(subject)].patch)
        printed.append(manifest)
    yaml.dump_all(printed, sys.stdout, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True)


def patched(manifest: dict[str, Any], patch: Patch) -> dict[str, Any]:
    """Return *manifest* with our own operations applied: `add` below mappings, whose parents exist."""
    result: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(manifest))
    for operation in patch:
        *parents, last = [
            token.replace("~1", "/").replace("~0", "~") for token in operation.path.removeprefix("/").split("/")
        ]
        target = result
        for token in parents:
            if target.get(token) is None:
                target[token] = {}
            target = target[token]
        target[last] = operation.as_json()["value"]
    return result


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 readers would take for something else than a string."""


_AMBIGUOUS: Final = frozenset({"y", "n"})


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else '"' if value.lower() in _AMBIGUOUS else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
