"""
The pods of something that runs in a cluster, and the logs of their sidecars, through the API server.

Which pods: those that the workload's own selector selects, as `kubectl logs` takes them. Needs `get` of what is named,
`list` of pods and `get` of pods/log.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from webhook.facts.cluster import Cluster
from webhook.rules import wellknown
from webhook.rules.objects import GROUPS
from webhook.rules.selectors import LabelSelectorSpec

MAX_PODS: Final = 1000
"""Replicas whose logs are read; one after the other, so that more only take longer."""
MAX_FOLLOWED: Final = 50
"""Logs that are followed at a time: each keeps a connection of the API server and one of a kubelet open."""


class NoPods(LookupError):  # noqa: N818  # an error's noun
    """There is nothing whose log could be read; the message says why."""


def path_of(kind: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """Return where the API server serves an object of a reviewed kind, or all of them in *namespace*."""
    prefix = f"/apis/{GROUPS[kind]}/v1" if GROUPS[kind] else "/api/v1"
    parts = [prefix, "namespaces", namespace, f"{kind.lower()}s", *(each for each in (name, subresource) if each)]
    return "/".join([parts[0], *(quote(part, safe="") for part in parts[1:])])


async def pods_of(cluster: Cluster, kind: str, namespace: str, name: str) -> list[dict[str, Any]]:
    """
    Return the pods of *name*: itself, or those that its selector selects, by name.

    Raises:
        NoPods: It selects none, or it has too many.
        KubeError: The API server did not grant it; NotFound where there is no such object.

    """
    found: dict[str, Any] = msgspec.json.decode(await cluster.get(path_of(kind, namespace, name)))
    if kind == "Pod":
        return [found]
    selectors = [_selector(kind, found)]
    if kind == "CronJob":
        selectors = [_selector("Job", each) async for each in _jobs_of(cluster, namespace, found)]
    pods: dict[str, dict[str, Any]] = {}
    for selector in selectors:
        if not selector:
            raise NoPods(f"{kind} {name} has no selector, so it has no pods")
        async for page in cluster.pages(path_of("Pod", namespace), {"labelSelector": selector}):
            pods.update({each["metadata"]["name"]: _slim(each) for each in msgspec.json.decode(page)["items"]})
            if len(pods) > MAX_PODS:
                raise NoPods(f"{kind} {name} has more than {MAX_PODS} pods: name some of them, as pod/NAME")
    if not pods:
        raise NoPods(f"{kind} {name} in namespace {namespace} has no pods now")
    return [pods[each] for each in sorted(pods)]


def _slim(pod: dict[str, Any]) -> dict[str, Any]:
    """Return *pod* without its largest part, who wrote which field: a thousand of them are held at a time."""
    pod["metadata"].pop("managedFields", None)
    return pod


async def _jobs_of(cluster: Cluster, namespace: str, cron_job: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    uid = cron_job["metadata"]["uid"]
    async for page in cluster.pages(path_of("Job", namespace)):
        for job in msgspec.json.decode(page)["items"]:
            if any(each["uid"] == uid for each in job["metadata"].get("ownerReferences") or ()):
                yield job


def _selector(kind: str, found: Mapping[str, Any]) -> str:
    selector = found["spec"].get("selector") or {}
    if kind == "Service":
        return selector_query(LabelSelectorSpec(match_labels=selector))
    return selector_query(msgspec.convert(selector, LabelSelectorSpec))


def selector_query(spec: LabelSelectorSpec) -> str:
    """
    Return a LabelSelector as the query parameter `labelSelector` takes it; empty where it selects everything.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
    """
    parts = [f"{key}={value}" for key, value in (spec.match_labels or {}).items()]
    for each in spec.match_expressions or ():
        values = ",".join(each.values or ())
        match each.operator:
            case "In":
                parts.append(f"{each.key} in ({values})")
            case "NotIn":
                parts.append(f"{each.key} notin ({values})")
            case "Exists":
                parts.append(each.key)
            case _:
                parts.append(f"!{each.key}")
    return ",".join(parts)


def why_no_log(pod: Mapping[str, Any]) -> str | None:
    """Return why a pod's sidecar has no log, or None: it may have one."""
    spec, status = pod["spec"], pod.get("status") or {}
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    if all(each["name"] != wellknown.PROXY_CONTAINER for each in containers):
        return f"it has no container {wellknown.PROXY_CONTAINER}"
    states = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    state = next((each for each in states if each["name"] == wellknown.PROXY_CONTAINER), None)
    waiting = (state or {}).get("state", {}).get("waiting")
    if status.get("phase") == "Pending" and (state is None or waiting is not None):
        reason = (waiting or {}).get("reason") or "Pending"
        return f"its {wellknown.PROXY_CONTAINER} has not started ({reason})"
    return None


def proxy_log(
    cluster: Cluster, pod: Mapping[str, Any], *, since_seconds: int | None = None, follow: bool = False
) -> AsyncGenerator[bytes, None]:
    """
    Yield the log of a pod's `istio-proxy`, a container or a native sidecar, as the kubelet has it.

    Raises:
        KubeError: The API server did not grant it, or the kubelet did not answer it.

    """
    query = {"container": wellknown.PROXY_CONTAINER}
    if since_seconds is not None:
        query["sinceSeconds"] = str(since_seconds)
    if follow:
        query["follow"] = "true"
    path = path_of("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"], "log")
    return cluster.stream(path, query, follow=follow)
