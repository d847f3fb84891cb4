"""A small cluster that runs: facts, workloads and their pods, as a scan takes them in."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from webhook.facts.collect import Collector, decode_counted
from webhook.running.findings import OWNER_KEYS, Row
from webhook.running.fold import Fold
from webhook.running.objects import WORKLOADS, RunningNamespace, RunningPod, RunningService

NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLUSTER: Final = Path(__file__).parents[3] / "examples" / "cluster"
GENERAL: Final[Mapping[str, Any]] = {"nodeSelector": {"pool": "general"}}
LEGACY: Final[Mapping[str, Any]] = {"nodeSelector": {"pool": "legacy"}}
APIS: Final = {"Job": "batch/v1", "CronJob": "batch/v1"}


def facts() -> list[dict[str, Any]]:
    """Return the example cluster's nodes, namespaces and injectors."""
    found: list[dict[str, Any]] = []
    for path in sorted(CLUSTER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found += document["items"] if document["kind"] == "List" else [document]
    return found


def fold(*more: Mapping[str, Any], owner_keys: Sequence[str] = OWNER_KEYS) -> Fold:
    """Return a Fold of the example cluster; *more* are other facts, policies among them."""
    collector = Collector()
    for document in sorted([*facts(), *more], key=lambda each: each["kind"] != "ClientIPPolicy"):
        collector.put(document["apiVersion"], document["kind"], document)
    made = Fold(collector.snapshot(), now=NOW, owner_keys=owner_keys)
    for document in (*facts(), *more):
        if document["kind"] == "Namespace":
            made.take_namespace(msgspec.convert(document, RunningNamespace))
    return made


def take(made: Fold, documents: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """Give *documents* to the Fold, and return its rows by namespace and name."""
    for document in documents:
        match document["kind"]:
            case "Pod":
                made.take_pod(*decode_counted(document, RunningPod))
            case "Service":
                made.take_service(*decode_counted(document, RunningService))
            case kind:
                made.take_workload(kind, *decode_counted(document, WORKLOADS[kind]))
    return by_name(made)


def by_name(made: Fold) -> dict[str, Row]:
    """Return the Fold's rows by namespace and name."""
    return {f"{row.namespace}/{row.called}": row for row in made.rows()}


def workload(
    name: str, spec: Mapping[str, Any] = GENERAL, *, kind: str = "Deployment", namespace: str = "shop", **metadata: Any
) -> dict[str, Any]:
    """Return a workload; *metadata* is its own, its template's labels are those of `pod`."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app"}], **spec}}
    inner: dict[str, Any] = {"template": template}
    if kind == "CronJob":
        inner = {"jobTemplate": {"spec": inner}}
    return {
        "apiVersion": APIS.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", **metadata},
        "spec": inner,
    }


def pod(
    name: str,
    mode: str | None = "REDIRECT",
    *,
    owner: tuple[str, str] | None = None,
    namespace: str = "shop",
    labels: Mapping[str, str] = {},
    annotations: Mapping[str, str] = {},
    node: str = "alinux-1",
    native: bool = False,
    phase: str = "Running",
    spec: Mapping[str, Any] = GENERAL,
) -> dict[str, Any]:
    """
    Return a pod as it runs.

    Args:
        name: Its name.
        mode: Its proxy's; None: it has no sidecar.
        owner: Kind and name of its controller.
        namespace: Its namespace.
        labels: Its labels.
        annotations: Its own annotations.
        node: Where it runs.
        native: Its proxy is an init container.
        phase: Its phase.
        spec: More of its spec.

    """
    proxy = {"name": "istio-proxy", "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode}]}
    proxies = [proxy] if mode is not None else []
    status = {"sidecar.istio.io/status": "{}"} if mode is not None else {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "labels": dict(labels),
        "annotations": {**status, **annotations},
    }
    if owner is not None:
        kind, called = owner
        metadata["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": kind, "name": called, "uid": f"uid-{called}", "controller": True}
        ]
    containers = [{"name": "app"}, *([] if native else proxies)]
    rules = [{"name": "istio-init", "args": ["istio-iptables", "-m", mode, "-b", "*"]}] if mode is not None else []
    init = [*rules, *proxies] if native else rules
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "containers": containers, "initContainers": init, **spec},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def of_deployment(name: str, number: int, mode: str | None = "REDIRECT", **more: Any) -> dict[str, Any]:
    """Return a pod of a Deployment's ReplicaSet."""
    labels = {"app": name, "pod-template-hash": "7d4b9c", **more.pop("labels", {})}
    return pod(f"{name}-7d4b9c-{number}", mode, owner=("ReplicaSet", f"{name}-7d4b9c"), labels=labels, **more)
