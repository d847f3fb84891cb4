"""
Pod templates by their shape: where the pods of any kind come from, its own API unread.

A pod template is a mapping with `spec.containers` that stands under a name ending in `template`: `spec.template` of
Rollouts, CloneSets, DeploymentConfigs, ReplicationControllers, Knative Services and old API versions,
`spec.jobTemplate.spec.template`, `spec.workerGroupSpecs[0].template`. Objects inside of objects, such as the resources
of a composition, are none of the outer one's. The search is bounded: what lies beyond its limits is not decided.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from webhook.rules import nulls, wellknown
from webhook.rules.objects import Pod
from webhook.rules.selectors import Toleration

MAX_VISITED: Final = 5_000
"""Mappings and lists of one object that are looked at."""
MAX_DEPTH: Final = 12
MAX_TEMPLATES: Final = 32
"""Of one object; RayClusters and training jobs have a handful."""
_HOLDERS: Final = (dict, list)
_NOT_WITHIN: Final = frozenset({"metadata", "status"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedTemplate:
    """One pod template of an object."""

    path: str
    """Where it stands: `spec.template`."""
    value: Mapping[str, Any]

    def as_pod(self) -> dict[str, Any]:
        """Return the Pod that is made of it, as far as it says."""
        return {"kind": "Pod", "metadata": self.value.get("metadata") or {}, "spec": self.value["spec"]}


def shaped(document: Mapping[str, Any]) -> tuple[tuple[ShapedTemplate, Pod], ...]:
    """
    Return the pod templates in *document*, each with the pod that is made of it: a DaemonSet's as its controller does.

    Raises:
        msgspec.MsgspecError: A template is none that the API server takes, with the field's path below it.

    """
    found = ((each, _pod(msgspec.json.encode(each.as_pod()))) for each in pod_templates(document))
    is_daemon = document.get("kind") == "DaemonSet"
    return tuple((each, as_daemon(pod) if is_daemon else pod) for each, pod in found)


_pod: Final = nulls.decoder(Pod)


DAEMON_TOLERATION: Final = Toleration(key=wellknown.UNSCHEDULABLE_TAINT, operator="Exists", effect="NoSchedule")
"""
What the DaemonSet controller adds to its pods and a decision can see: they run on cordoned nodes too.

https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
"""


def as_daemon(pod: Pod) -> Pod:
    """Return *pod* as a DaemonSet's controller makes it, whoever's DaemonSet it is."""
    tolerations = [*(pod.spec.tolerations or ()), DAEMON_TOLERATION]
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, tolerations=tolerations))


def pod_templates(document: Mapping[str, Any]) -> tuple[ShapedTemplate, ...]:
    """Return the pod templates in *document*, an object of any kind, the outermost first."""
    return tuple(_found(document))


class _Place(NamedTuple):
    """Where a value stands: paths are put together of those alone that are told, since a key may be a megabyte long."""

    above: "_Place | None"
    token: str
    """A key, or the number of an item in brackets."""
    is_template: bool
    """Whether the key, an item's too, ends in `template`."""
    depth: int

    def path(self) -> str:
        """Return it as `spec.workerGroupSpecs[0].template`."""
        tokens = [self.token]
        place = self.above
        while place is not None:
            tokens.append(place.token)
            place = place.above
        return "".join(tokens[::-1]).removeprefix(".")


def _found(document: Mapping[str, Any]) -> Iterator[ShapedTemplate]:
    ahead: deque[tuple[_Place, Any]] = deque(
        (_below(None, name), value)
        for name, value in document.items()
        if name not in _NOT_WITHIN and isinstance(value, _HOLDERS)
    )
    visited = found = 0
    while ahead and visited < MAX_VISITED and found < MAX_TEMPLATES:
        place, value = ahead.popleft()
        visited += 1
        if isinstance(value, dict):
            if place.is_template and _is_template(value):
                found += 1
                yield ShapedTemplate(path=place.path(), value=value)
                continue
            if _is_object(value):
                continue
        if place.depth < MAX_DEPTH:
            ahead.extend(islice(_below_all(place, value), MAX_VISITED - visited))


def _below_all(place: _Place, value: dict[str, Any] | list[Any]) -> Iterator[tuple[_Place, Any]]:
    """Yield the mappings and lists in *value* that hold something."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            if each and isinstance(each, _HOLDERS):
                yield _Place(place, f"[{number}]", place.is_template, place.depth + 1), each
    else:
        for name, each in value.items():
            if each and isinstance(each, _HOLDERS):
                yield _below(place, name), each


def _below(above: _Place | None, name: object) -> _Place:
    key = str(name)
    is_template = key[-len("template") :].lower() == "template"
    return _Place(above, f".{key}", is_template, 1 if above is None else above.depth + 1)


def _is_template(value: Mapping[str, Any]) -> bool:
    spec = value.get("spec")
    containers = spec.get("containers") if isinstance(spec, Mapping) else None
    return (
        isinstance(containers, list)
        and bool(containers)
        # Knative's containers need no name.
        and all(isinstance(each, Mapping) and ("name" in each or "image" in each) for each in containers)
    )


def _is_object(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("apiVersion"), str) and isinstance(value.get("kind"), str)
