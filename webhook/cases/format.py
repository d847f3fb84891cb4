"""
The format of a case: one YAML document for each decision, version 1. docs/testing.md describes it.

Our own cases (tests/cases) and those of `client-ip test` are the same.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from webhook.rules.decision import Mode, Outcome, Reason

VERSION: Final = 1
API_VERSIONS: Final = {
    **dict.fromkeys(("Pod", "Service", "Namespace", "Node", "ConfigMap"), "v1"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), "apps/v1"),
    **dict.fromkeys(("Job", "CronJob"), "batch/v1"),
    "ClientIPPolicy": "client-ip.dev/v1alpha1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "RuntimeClass": "node.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
}
"""apiVersion by kind, for objects that leave it out."""
USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "tproxy": {
        "/metadata/annotations": {"sidecar.istio.io/interceptionMode": "TPROXY"},
        "/metadata/labels": {"client-ip.dev/method": "tproxy"},
    },
    "annotated": {
        "/metadata/annotations/sidecar.istio.io~1interceptionMode": "TPROXY",
        "/metadata/labels": {"client-ip.dev/method": "tproxy"},
    },
    "x-forwarded-for": {"/metadata/labels": {"client-ip.dev/method": "x-forwarded-for"}},
    "local": {
        "/spec/externalTrafficPolicy": "Local",
        "/metadata/labels/client-ip.dev~1method": "local",
    },
}
"""Patches that most cases have, by name."""
CONTAINER: Final = {"name": "app", "image": "registry.example.com/app:1"}
OPTED_IN: Final = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}


class Expected(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What must come out."""

    reason: Reason
    outcome: Outcome
    mode: Mode = Mode.ENFORCE
    cause: str = ""
    """Part of the cause."""
    policy: str = ""
    """The name of the policy that holds; empty: any."""
    patch: str | dict[str, Any] = {}
    """Value by path, or the name of a usual one."""
    would_patch: str | dict[str, Any] = {}
    warnings: list[str] = []
    """Part of each warning after that of a loss."""
    invalid_preserve: bool = False


class OnTheAPIServer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is different behind a real API server, and why."""

    because: str
    called: bool = True
    """False: it must not call us."""
    refuses: str = ""
    """The kind of the fact, or of the object, that it does not take in."""
    expect: Expected | None = None
    """What comes out instead."""


class Case(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One case."""

    name: str = msgspec.field(name="case")
    version: int = VERSION
    """Of this format."""
    namespace: dict[str, str] | None = msgspec.field(default_factory=lambda: dict(OPTED_IN))
    """The namespace's labels; null: nobody has heard of it."""
    in_namespace: str = ""
    """The namespace's name, where it matters."""
    nodes: list[dict[str, Any]] | None = None
    """In place of those in cluster.yaml."""
    injectors: bool = True
    """False: only files are known, and they hold no injector's configuration."""
    facts: list[dict[str, Any]] = []
    """More objects: policies, injectors' webhook configurations, ConfigMaps."""
    operation: str = "CREATE"
    sub_resource: str = ""
    dry_run: bool = False
    now: datetime | None = None
    """When it is decided: exceptions end."""
    old_object: dict[str, Any] | None = None
    object: dict[str, Any]
    expect: Expected
    api_server: OnTheAPIServer | None = None
    file: str = ""
    number: int = 0

    @property
    def namespace_name(self) -> str:
        """The namespace that the object is in."""
        return self.in_namespace or f"case-{self.file}-{self.number}"

    def namespace_document(self) -> dict[str, Any] | None:
        """Return the Namespace, None where it is unknown."""
        if self.namespace is None:
            return None
        return {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace_name, "labels": dict(self.namespace)},
        }


def patch_of(named: str | dict[str, Any]) -> dict[str, Any]:
    """Return value by path."""
    return dict(USUAL[named]) if isinstance(named, str) else named


def completed(document: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return *document* with what every such object has: a case says only what matters in it.

    Raises:
        KeyError: Of a kind that is not known, or without one.

    """
    kind = document["kind"]
    whole = {"apiVersion": API_VERSIONS[kind], **document}
    whole["metadata"] = {"name": "app", **document.get("metadata", {})}
    if "generateName" in whole["metadata"] and "name" not in document["metadata"]:
        del whole["metadata"]["name"]
    spec = dict(document.get("spec") or {})
    if kind == "Pod":
        whole["spec"] = {"containers": [CONTAINER], **spec}
    elif kind == "Service":
        whole["metadata"] = {"labels": {"istio": "ingressgateway"}, **whole["metadata"]}
        whole["spec"] = {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}], **spec}
    elif kind in TEMPLATED:
        whole["spec"] = _with_template(kind, spec)
    return whole


TEMPLATED: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"})


def _with_template(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's spec, from the pod template alone (`template` in every kind, to keep cases short)."""
    if "jobTemplate" in spec:
        return dict(spec)
    template = spec.get("template", {})
    metadata = template.get("metadata", {})
    runs_once = kind in {"Job", "CronJob"}
    pod_spec = {
        "containers": [CONTAINER],
        **({"restartPolicy": "Never"} if runs_once else {}),
        **template.get("spec", {}),
    }
    whole = {"metadata": {**metadata, "labels": {"app": "app", **metadata.get("labels", {})}}, "spec": pod_spec}
    rest = {key: value for key, value in spec.items() if key != "template"}
    if kind == "CronJob":
        return {"schedule": "0 0 1 1 *", **rest, "jobTemplate": {"spec": {"template": whole}}}
    selector = {} if kind == "Job" else {"selector": {"matchLabels": {"app": "app"}}}
    service = {"serviceName": "app"} if kind == "StatefulSet" else {}
    return {**selector, **service, **rest, "template": whole}
