"""`client-ip explain`: every question of a decision in order, each with its answer and the fact it rests on."""

from datetime import datetime
from pathlib import Path

import click
import msgspec

from webhook.cli.check import CONTEXT, KUBECONFIG, NAMESPACE, NOW, POLICY, STATE
from webhook.cli.explained import explained_json, print_explained
from webhook.cli.manifests import kind_of, now_or, read_manifests
from webhook.cli.printing import console, say
from webhook.cli.streams import write_document


@click.command(
    "explain",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip explain --state examples/cluster examples/apps/sleep.yaml
  client-ip explain deployment/reviews -n shop        (in the kubeconfig's cluster; or: deploy/reviews)
  kubectl client-ip explain pod/reviews-7d4b9-x2x4z -n shop""",
)
@click.argument("subjects", nargs=-1, required=True, metavar="FILE...|KIND/NAME...")
@STATE
@POLICY
@NAMESPACE
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    subjects: tuple[str, ...],
    states: tuple[str, ...],
    policy: str | None,
    namespace: str | None,
    output: str,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> None:
    """
    Show every step of a decision, with the facts behind it.

    FILE is a manifest, as for `client-ip check`. KIND/NAME is an object in the cluster: the command decides its
    controller's template, and compares the result with the running pods.
    """
    moment = now_or(now)
    named = [each for each in subjects if _is_name(each)]
    if named and (len(named) != len(subjects) or states):
        raise click.UsageError("use either files, or KIND/NAME in a cluster without --state")
    if named:
        from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`
        from webhook.cli.running import explain_running  # noqa: PLC0415

        ask(
            kubeconfig,
            context,
            lambda cluster: explain_running(cluster, named, namespace, now=moment, output=output),
        )
        return
    manifests = read_manifests(
        subjects, states=states, policy=policy, namespace=namespace, kubeconfig=kubeconfig, context=context
    )
    if not manifests.subjects:
        raise click.UsageError("nothing to explain: no Pod, Service or workload in the input")
    if output == "json":
        elements = [explained_json(subject, manifests.snapshot, moment) for subject in manifests.subjects]
        write_document(msgspec.json.format(msgspec.json.encode(elements), indent=2) + b"\n")
        return
    for subject in manifests.subjects:
        print_explained(console(), subject, manifests.snapshot, moment)
    for line in (*manifests.undecided, *manifests.lacking):
        say(console(stderr=True), line)


def _is_name(text: str) -> bool:
    """A file of that name comes first."""
    kind, slash, name = text.partition("/")
    return bool(slash) and bool(name) and kind_of(kind) is not None and not Path(text).exists()
