"""
Explains something that runs in a cluster: why does my pod still see 127.0.0.6?

Its controller's template is decided as it would be now, and set beside what its running pods got when they were made.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
import msgspec

from certs.kube import NotFoundError
from webhook.cli.explained import explained_json, print_explained
from webhook.cli.manifests import Subject, kind_of
from webhook.cli.printing import console, progress
from webhook.facts.cluster import Cluster
from webhook.facts.collect import Collector, decode, decode_reviewed
from webhook.rules import wellknown
from webhook.rules.decide import pod_of
from webhook.rules.interception import as_it_runs
from webhook.rules.objects import GROUPS, Pod, Reviewed, Service
from webhook.rules.snapshot import Request
from webhook.rules.templates import pod_templates

MAX_OWNERS: Final = 4
"""CronJob, Job, Pod: nothing is made in more steps."""


async def explain_running(
    cluster: Cluster, names: Sequence[str], namespace: str | None, *, now: datetime, output: str
) -> None:
    """
    Print the explanation of each KIND/NAME.

    Raises:
        click.UsageError: There is nothing of that name.
        ClusterUnreadable: Nodes, namespaces or injectors can't be read.
        KubeError: The API server did not grant something else.

    """
    with progress("reading the cluster"):
        collector = await cluster.collect()
    around = namespace or cluster.namespace
    elements = [await _explain(cluster, name, around, collector, now, output) for name in names]
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(elements), indent=2).decode())


async def _explain(
    cluster: Cluster, name: str, namespace: str, collector: Collector, now: datetime, output: str
) -> Mapping[str, Any]:
    written, _, called = name.partition("/")
    kind = kind_of(written) or ""  # the caller has looked
    try:
        document = await _get(cluster, kind, namespace, called)
    except NotFoundError as error:
        raise click.UsageError(f"no {kind} {called} in namespace {namespace}") from error
    controller = await _controller(cluster, document, namespace)
    subject = _subject(controller, namespace)
    snapshot = collector.snapshot()
    pods = [] if kind == "Service" else await _pods(cluster, document, namespace)
    if output == "json":
        return {**explained_json(subject, snapshot, now), "pods": [_as_is(pod) for pod in pods]}
    if controller is not document:
        click.echo(f"{kind} {namespace}/{called} is created by {controller['kind']} {controller['metadata']['name']}:")
    print_explained(console(), subject, snapshot, now)
    for pod in pods:
        as_is = _as_is(pod)
        click.echo(f"  running: {as_is['name']} on {as_is['node'] or 'no node yet'}: {as_is['fact']}")
    if pods:
        click.echo("  A pod's mode is fixed when it is created: use kubectl rollout restart to replace pods.\n")
    return {}


async def _get(cluster: Cluster, kind: str, namespace: str, called: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(await cluster.get(_path(kind, namespace, called)))
    return {"apiVersion": f"{GROUPS[kind]}/v1".lstrip("/"), "kind": kind, **found}


def _path(kind: str, namespace: str, name: str = "") -> str:
    group = GROUPS[kind]
    prefix = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{prefix}/namespaces/{namespace}/{kind.lower()}s" + (f"/{name}" if name else "")


async def _controller(cluster: Cluster, document: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Return what made the object, as far up as we decide templates."""
    for _ in range(MAX_OWNERS):
        owners = document["metadata"].get("ownerReferences") or ()
        owner = next((each for each in owners if each.get("controller") and each["kind"] in GROUPS), None)
        if owner is None:
            break
        try:
            document = await _get(cluster, owner["kind"], namespace, owner["name"])
        except NotFoundError:
            break
    return document


def _subject(document: dict[str, Any], namespace: str) -> Subject:
    reviewed, excess = decode_reviewed(document)
    kind, name = document["kind"], document["metadata"]["name"]
    thing = reviewed if isinstance(reviewed, Pod | Service) else pod_of(reviewed)
    template = None if isinstance(reviewed, Pod | Service) else next(iter(pod_templates(document)), None)
    return Subject(
        api_version=document["apiVersion"],
        kind=kind,
        namespace=namespace,
        name=name,
        manifest=template.as_pod() if template else document,
        request=Request(object=thing, operation="CREATE", namespace=namespace, name=name, kind=kind, excess=excess),
        template=template.path if template else "",
    )


async def _pods(cluster: Cluster, document: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """Return the pods that the object made, or the one that it is."""
    if document["kind"] == "Pod":
        return [dict(document)]
    selector = document["spec"].get("selector", {}).get("matchLabels", {})
    if not selector:
        return []
    query = {"labelSelector": ",".join(f"{key}={value}" for key, value in selector.items())}
    return [
        {"kind": "Pod", **item}
        async for page in cluster.pages(_path("Pod", namespace), query)
        for item in msgspec.json.decode(page)["items"]
    ]


def _as_is(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a running pod got when it was made."""
    pod: Pod = decode({**document, "kind": "Pod"}, Reviewed)
    found = as_it_runs(pod)
    method = (pod.metadata.labels or {}).get(wellknown.METHOD, "")
    if found is None:
        fact, mode = "the pod has no sidecar: the application sees its callers", ""
    elif not found.captured:
        fact, mode = f"{found.fact}: the application sees its callers", found.mode
    elif found.preserved or found.agreed:
        sees = "the application sees its callers" if found.preserved else "the application sees 127.0.0.6"
        fact, mode = f"its proxy runs in {found.mode} mode: {sees}", found.mode
    else:
        fact, mode = f"{found.fact}: it is not known what the application sees", found.mode
    return {
        "name": pod.metadata.name,
        "node": pod.spec.node_name,
        "mode": mode,
        "method": method,
        "fact": fact + (f" (decided: {method})" if method else " (not decided by this webhook)"),
    }
