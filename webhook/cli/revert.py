"""`client-ip revert`: what undoes the webhook's work in a cluster, printed, or done."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import click
import msgspec

from certs.kube import KubeError, NotFoundError
from webhook.cli.cluster_options import CONTEXT, KUBECONFIG
from webhook.cli.opened import ask as ask_cluster
from webhook.facts.cluster import Cluster
from webhook.rules.decision import shown
from webhook.rules.objects import Namespace
from webhook.running.objects import RunningPod, RunningService
from webhook.running.undoing import PODS_OF_OURS, SERVICES_OF_OURS, LocalService, Undoing

MERGE_PATCH: Final = "application/merge-patch+json"


class _Services(msgspec.Struct, frozen=True):
    items: list[RunningService] = msgspec.field(default_factory=list)


class _Pods(msgspec.Struct, frozen=True):
    items: list[RunningPod] = msgspec.field(default_factory=list)


class _Namespaces(msgspec.Struct, frozen=True):
    items: list[Namespace] = msgspec.field(default_factory=list)


@click.command(
    "revert",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip revert                           (print the commands for the whole cluster)
  client-ip revert -n istio-ingress          (only for one namespace)
  client-ip revert --apply --dry-run         (send the changes as a dry run)
  client-ip revert --apply                   (set Services back to Cluster)
  client-ip revert --apply --opt-out         (include Services that are opted in, and opt them out)

\b
Exit status: 0 all was reverted, or printed; 1 a Service is still opted in, or the API server rejected a change.""",
)
@click.option("-n", "--namespace", "namespaces", multiple=True, help="Only this namespace. Repeatable.")
@click.option("--apply", is_flag=True, help="Set the Services back to Cluster. Without it, nothing is changed.")
@click.option("--dry-run", is_flag=True, help="Change nothing. With --apply, send the changes as a dry run.")
@click.option("--opt-out", is_flag=True, help="Set client-ip.dev/preserve=disabled on Services that are opted in.")
@KUBECONFIG
@CONTEXT
def command(
    *,
    namespaces: tuple[str, ...],
    apply: bool,
    dry_run: bool,
    opt_out: bool,
    kubeconfig: str | None,
    context: str | None,
) -> int:
    """
    Print or apply the changes that revert the webhook's patches.

    Opting out and uninstalling do not revert earlier patches. Services with the label client-ip.dev/method=local that
    are still Local are set back to Cluster, and the label is removed. A Service that is still opted in would become
    Local again at its next update: opt it or its namespace out first, or use --opt-out. Pods keep their mode until they
    are recreated: run the printed restart commands after you have opted out.
    """
    return ask_cluster(
        kubeconfig,
        context,
        lambda cluster: _revert(cluster, namespaces, apply=apply, dry_run=dry_run, opt_out=opt_out),
    )


async def _revert(cluster: Cluster, namespaces: Sequence[str], *, apply: bool, dry_run: bool, opt_out: bool) -> int:
    found = await _read(cluster, namespaces)
    if not found.services and not found.pods:
        click.echo("No object has the label client-ip.dev/method: there is nothing to revert.")
        return 0
    code = 0
    if found.services:
        click.echo("# Services that the webhook set to Local:")
    for service in found.services:
        if service.opted_in and not opt_out:
            click.echo(
                f"# {service.namespace}/{service.name} is opted in, and would be Local again at its next update: "
                "opt it out first, or say --opt-out"
            )
            code = 1
        elif not apply:
            click.echo(service.command(opt_out=opt_out and service.opted_in))
        else:
            code = max(code, await _set_back(cluster, service, opt_out=opt_out, dry_run=dry_run))
    if found.pods:
        click.echo("# Pods keep their mode until they are recreated. After you have opted out, run:")
        for line in found.restarts():
            click.echo(line)
    return code


async def _set_back(cluster: Cluster, service: LocalService, *, opt_out: bool, dry_run: bool) -> int:
    query = {"fieldManager": "client-ip-revert", **({"dryRun": "All"} if dry_run else {})}
    path = f"{_place('services', service.namespace)}/{quote(service.name, safe='')}"
    body = service.patch(opt_out=opt_out and service.opted_in)
    called = f"service/{service.name} -n {service.namespace}"
    try:
        answer = await cluster.client.request("PATCH", path, query=query, body=body, content_type=MERGE_PATCH)
    except NotFoundError:
        click.echo(f"{called}: not found")
        return 0
    except KubeError as error:
        click.echo(shown(f"{called}: {error}"), err=True)
        return 1
    is_now = msgspec.json.decode(answer, type=RunningService).spec.external_traffic_policy
    if is_now != "Cluster":
        click.echo(shown(f"{called}: another client sets it to {is_now} again"), err=True)
        return 1
    click.echo(f"{called}: {'would be' if dry_run else 'is'} Cluster")
    return 0


async def _read(cluster: Cluster, namespaces: Sequence[str]) -> Undoing:
    labels: dict[str, dict[str, str]] = {}
    if namespaces:
        for name in namespaces:
            one = msgspec.json.decode(await cluster.get(f"/api/v1/namespaces/{quote(name, safe='')}"), type=Namespace)
            labels[name] = one.metadata.labels or {}
    else:
        async for page in cluster.pages("/api/v1/namespaces"):
            for each in msgspec.json.decode(page, type=_Namespaces).items:
                labels[each.metadata.name] = each.metadata.labels or {}
    found = Undoing(labels)
    for place in namespaces or (None,):
        async for page in cluster.pages(_place("services", place), {"labelSelector": SERVICES_OF_OURS}):
            for service in msgspec.json.decode(page, type=_Services).items:
                found.take_service(service)
        async for page in cluster.pages(_place("pods", place), {"labelSelector": PODS_OF_OURS}):
            for pod in msgspec.json.decode(page, type=_Pods).items:
                found.take_pod(pod)
    return found


def _place(resource: str, namespace: str | None) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}" if namespace else f"/api/v1/{resource}"
