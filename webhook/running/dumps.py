"""Reads what runs from files: dumps as `kubectl get -A -o yaml` or `-o json` writes them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from webhook.facts.collect import FactError, decode_counted
from webhook.facts.files import Found
from webhook.facts.problem import Problem
from webhook.running.fold import Fold
from webhook.running.objects import LISTED, WORKLOADS, RunningNamespace, RunningPod, RunningService


def read_files(found: Iterable[Found], fold: Fold, namespaces: Sequence[str] | None, problems: list[Problem]) -> None:
    """Read objects of files into *fold*; mistakes are added to *problems*."""
    objects = [each for each in found if each.api_version in _API_VERSIONS]
    replica_sets = []
    for kind in ("Namespace", *LISTED, "ReplicaSet", "Service", "Pod"):
        for each in objects:
            if each.kind != kind or not _within(each, namespaces):
                continue
            try:
                taken, excess = decode_counted(_placed(each.value, kind), _TYPES[kind])
            except FactError as error:
                problems.append(each.problem(error.field, error.message))
                continue
            if kind == "ReplicaSet":
                replica_sets.append((taken, excess))
            if kind == "Namespace":
                fold.take_namespace(taken)
            elif kind == "Service":
                fold.take_service(taken, excess)
            elif kind == "Pod":
                fold.take_pod(taken, excess)
            else:
                fold.take_workload(kind, taken, excess)
    wanted = set(fold.unresolved())
    for taken, excess in replica_sets:
        if (taken.metadata.namespace, "ReplicaSet", taken.metadata.name) in wanted:
            fold.resolve(taken, excess)


_API_VERSIONS: Final = frozenset({"v1", "apps/v1", "batch/v1"})
_TYPES: Final[Mapping[str, Any]] = {
    **WORKLOADS,
    "Namespace": RunningNamespace,
    "Service": RunningService,
    "Pod": RunningPod,
}


def _placed(value: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What a manifest leaves out, kubectl would fill in."""
    metadata = value.get("metadata")
    if kind == "Namespace" or not isinstance(metadata, Mapping) or metadata.get("namespace"):
        return value
    return {**value, "metadata": {**metadata, "namespace": "default"}}


def _within(found: Found, namespaces: Sequence[str] | None) -> bool:
    if namespaces is None or found.kind == "Namespace":
        return True
    metadata = found.value.get("metadata")
    named = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    return (named or "default") in namespaces
