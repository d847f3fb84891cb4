"""`client-ip certs`: the certificates in the Secret that the replicas share."""

from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from certs.authority import service_names
from certs.injector import trust_of
from certs.kube import NotFoundError
from certs.lifecycle import Keep, Request, Settings, decide
from certs.rotator import Location, Rotator, request
from certs.secret import read_secret
from certs.serving import ServingCertificate
from webhook.cli.cluster_options import CONTEXT, KUBECONFIG
from webhook.cli.opened import ask as ask_cluster
from webhook.cli.printing import Cell, console, print_table, styled
from webhook.cli.streams import write_document
from webhook.facts.cluster import Cluster
from webhook.facts.kube import KubeClient
from webhook.rules import wellknown
from webhook.server.tls import ORGANIZATION

SECRET: Final = "client-ip-webhook-tls"  # noqa: S105  # a name

NAMESPACE: Final = click.option(
    "--namespace", default=wellknown.OWN_NAMESPACE, show_default=True, help="The namespace of the webhook."
)
SECRET_OPTION: Final = click.option("--tls-secret", default=SECRET, show_default=True, help="The name of the Secret.")
SERVICE: Final = click.option(
    "--service", default=wellknown.CONFIGURATION, show_default=True, help="The name of the Service."
)


@click.group(
    "certs",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip certs status
  client-ip certs rotate              (a new CA and serving certificate, without failed calls)
  client-ip certs rotate --drop-old   (the same, and the old CA is removed early, for example after a leak)""",
)
def command() -> None:
    """Show, rotate or create the webhook's certificates."""


@command.command(
    epilog="""\b
Examples:
  client-ip certs status
  client-ip certs status -o json

\b
Exit status: 0 the certificates work; 1 they are missing, damaged, expired or not trusted.""",
)
@NAMESPACE
@SECRET_OPTION
@SERVICE
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
@KUBECONFIG
@CONTEXT
def status(
    namespace: str, tls_secret: str, service: str, output: str, kubeconfig: str | None, context: str | None
) -> int:
    """Show the certificates in the Secret: expiry, trust, and the next action."""

    async def read(cluster: Cluster) -> dict[str, Any]:
        return await _status(cluster.client, namespace, tls_secret, service)

    found = ask_cluster(kubeconfig, context, read)
    if output == "json":
        write_document(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    else:
        _print_status(found)
    return 0 if found["good"] else 1


def _print_status(found: dict[str, Any]) -> None:
    rows: list[tuple[Cell, Cell]] = []
    for key, value in found.items():
        texts = value if isinstance(value, list) else ["yes" if value else "no"] if key == "good" else [str(value)]
        colour = {"good": "green" if value else "red", "problems": "yellow"}.get(key, "")
        rows += [(key if number == 0 else "", styled(text, colour)) for number, text in enumerate(texts)]
    print_table(console(), ("FIELD", "VALUE"), rows)


async def _status(client: KubeClient, namespace: str, secret: str, service: str) -> dict[str, Any]:
    names = service_names(service, namespace)
    try:
        stored = await client.get_secret(namespace, secret)
    except NotFoundError:
        stored = None
    try:
        configurations = [await client.get_mutating_webhook_configuration(wellknown.CONFIGURATION)]
    except NotFoundError:
        configurations = []
    reading = read_secret(stored, organization=ORGANIZATION)
    trust = trust_of(configurations, names)
    leaf = reading.state.leaf
    now = datetime.now(UTC)
    action = decide(reading.state, now=now, settings=Settings(names=names, organization=ORGANIZATION))
    trusted = leaf is not None and trust.vouches_for(leaf.certificate)
    valid = leaf is not None and leaf.not_before <= now < leaf.not_after
    due = "nothing" if isinstance(action, Keep) else type(action).__name__
    return {
        "good": trusted and valid and not reading.problems,
        "secret": f"{namespace}/{secret}" + ("" if stored is not None else " (absent)"),
        "leaf": f"{leaf.fingerprint[:16]} until {leaf.not_after.isoformat()}" if leaf is not None else "none",
        "authorities": [
            f"until {authority.certificate.not_valid_after_utc.isoformat()}" for authority in reading.state.authorities
        ],
        "trusted": f"by {trust.callers} webhooks" if trusted else f"no ({trust.callers} webhooks use this Service)",
        "due": f"{due}: {action.reason}",
        "problems": [*reading.problems, *reading.remarks],
    }


@command.command(
    epilog="""\b
Examples:
  client-ip certs rotate               (the old CA stays trusted until its last serving certificate expires)
  client-ip certs rotate --leaf        (only a new serving certificate)
  client-ip certs rotate --drop-old    (after a leak: remove the old CA once every replica has a new certificate)""",
)
@click.option("--leaf", is_flag=True, help="Renew only the serving certificate.")
@click.option("--drop-old", is_flag=True, help="Also remove old CAs, once every replica serves a new certificate.")
@NAMESPACE
@SECRET_OPTION
@KUBECONFIG
@CONTEXT
def rotate(
    *, leaf: bool, drop_old: bool, namespace: str, tls_secret: str, kubeconfig: str | None, context: str | None
) -> None:
    """Ask the running replicas to create a new CA and serving certificate, without failed calls."""
    asked = {Request.LEAF if leaf else Request.CA} | ({Request.DROP_OLD} if drop_old else set())
    location = Location(namespace=namespace, secret=tls_secret, configurations=(wellknown.CONFIGURATION,))

    async def ask(cluster: Cluster) -> None:
        await request(cluster.client, location, frozenset(asked))

    ask_cluster(kubeconfig, context, ask)
    click.echo(f"requested: {', '.join(sorted(asked))}; client-ip certs status shows when it is done")


@command.command(
    epilog="""\b
Examples:
  client-ip certs bootstrap        (before the first replica starts; optional, because replicas do the same)""",
)
@NAMESPACE
@SECRET_OPTION
@SERVICE
@KUBECONFIG
@CONTEXT
def bootstrap(namespace: str, tls_secret: str, service: str, kubeconfig: str | None, context: str | None) -> None:
    """Create the Secret and set the caBundle, as a replica does when it starts."""

    async def make(cluster: Cluster) -> str:
        location = Location(namespace=namespace, secret=tls_secret, configurations=(wellknown.CONFIGURATION,))
        settings = Settings(names=service_names(service, namespace), organization=ORGANIZATION)
        done = await Rotator(cluster.client, ServingCertificate(), location=location, settings=settings).reconcile()
        return f"certificate until {done.leaf_not_after}, CA until {done.ca_not_after}; {done.reason}"

    click.echo(ask_cluster(kubeconfig, context, make))
