"""Whole clusters that hypothesis makes (namespaces, nodes, policies, a mesh), and what is reviewed in them."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import strategies as st

from tests.property import documents as made
from tests.property.documents import Document, optional
from webhook.facts.collect import Collector
from webhook.rules.decide import decide
from webhook.rules.decision import Decision
from webhook.rules.objects import GROUPS
from webhook.rules.snapshot import Request, Snapshot
from webhook.server import review

NOW: Final = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRESERVE: Final = "client-ip.dev/preserve"
METHOD: Final = "client-ip.dev/method"
MODE: Final = "sidecar.istio.io/interceptionMode"

NAMESPACES: Final[Mapping[str, Mapping[str, str]]] = {
    "shop": {PRESERVE: "enabled", "istio-injection": "enabled"},
    "canary": {PRESERVE: "enabled", "istio.io/rev": "canary"},
    "trial": {PRESERVE: "audit", "istio-injection": "enabled"},
    "restricted": {
        PRESERVE: "enabled",
        "istio-injection": "enabled",
        "pod-security.kubernetes.io/enforce": "restricted",
    },
    "edge": {PRESERVE: "enabled"},
    "ambient": {PRESERVE: "enabled", "istio.io/dataplane-mode": "ambient"},
    "behind": {PRESERVE: "enabled", "istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"},
    "out": {PRESERVE: "disabled", "istio-injection": "enabled"},
    "typo": {PRESERVE: "Enabled", "istio-injection": "enabled"},
    "plain": {"istio-injection": "enabled"},
    "kube-system": {PRESERVE: "enabled", "istio-injection": "enabled"},
    "client-ip-system": {PRESERVE: "enabled", "istio-injection": "enabled"},
}
NEVER_TOUCHED: Final = frozenset({"kube-system", "kube-public", "kube-node-lease", "client-ip-system"})


def _webhook(name: str, namespaces: list[Document], pods: list[Document]) -> Document:
    return {
        "name": f"{name}.sidecar-injector.istio.io",
        "clientConfig": {"service": {"namespace": "istio-system", "name": "istiod"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": pods},
    }


def expression(key: str, operator: str, *values: str) -> Document:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


NOT_REFUSED: Final = expression("sidecar.istio.io/inject", "NotIn", "false")
INJECTOR: Final[Document] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector", "istio.io/rev": "default"}},
    "webhooks": [
        _webhook("namespace", [expression("istio-injection", "In", "enabled")], [NOT_REFUSED]),
        _webhook(
            "object",
            [expression("istio-injection", "DoesNotExist"), expression("istio.io/rev", "DoesNotExist")],
            [expression("sidecar.istio.io/inject", "In", "true"), expression("istio.io/rev", "DoesNotExist")],
        ),
    ],
}
CANARY: Final[Document] = {
    **INJECTOR,
    "metadata": {
        "name": "istio-sidecar-injector-canary",
        "labels": {"app": "sidecar-injector", "istio.io/rev": "canary"},
    },
    "webhooks": [
        _webhook(
            "rev.namespace",
            [expression("istio.io/rev", "In", "canary"), expression("istio-injection", "DoesNotExist")],
            [NOT_REFUSED],
        ),
    ],
}
EARLY: Final[Document] = {**INJECTOR, "metadata": {"name": "asm-injector", "labels": {"app": "sidecar-injector"}}}
"""Comes before us."""
NEVER: Final[Document] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
    "data": {"config": "policy: enabled\nneverInjectSelector:\n- matchLabels: {app: never}\n"},
}
TPROXY_MESH: Final[Document] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "istio", "namespace": "istio-system"},
    "data": {"mesh": "defaultConfig: {interceptionMode: TPROXY}"},
}
TERWAY: Final[Document] = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "terway-eniip", "namespace": "kube-system"},
}

UBUNTU, CENTOS, WINDOWS = made.MACHINES[0], made.MACHINES[3], made.MACHINES[6]
NODES: Final = tuple(
    made.node(
        f"n{number}",
        labels,
        {"taints": [{"key": "dedicated", "value": value, "effect": "NoSchedule"} for value in taints]},
        dict(zip(("osImage", "kernelVersion", "operatingSystem"), machine, strict=True)),
    )
    for number, (machine, labels, taints) in enumerate(
        (
            (UBUNTU, {"zone": "a"}, ()),
            (UBUNTU, {"zone": "b", "rank": "7"}, ()),
            (CENTOS, {"zone": "a"}, ()),
            (UBUNTU, {"zone": "a", "rank": "007"}, ("5",)),
            (CENTOS, {"zone": "b", "type": "b"}, ("5",)),
            (CENTOS, {"zone": "c", "client-ip.dev/tproxy": "supported"}, ()),
            (UBUNTU, {"zone": "c", "type": "virtual-kubelet"}, ("a",)),
            (WINDOWS, {"zone": "a"}, ("a", "b")),
        ),
    )
)
"""Few that differ; `test_nodes` has all the others."""
nodes = st.lists(st.sampled_from(NODES), min_size=1, max_size=4, unique_by=lambda each: each["metadata"]["name"])

exceptions = st.fixed_dictionaries(
    {
        "name": st.just("ledger"),
        "owner": st.just("team-ledger@example.com"),
        "reason": st.just("reads the PROXY header instead"),
        "expires": st.sampled_from(("2020-01-01T00:00:00Z", "2027-03-31T00:00:00+08:00", "9999-12-31T23:59:59-14:00")),
        "selector": st.sampled_from(({}, {"matchLabels": {"app": "ledger"}})),
    },
)
specs = st.fixed_dictionaries(
    {"mode": st.sampled_from((*("Enforce",) * 7, "Audit", "Disabled", "On"))},
    optional={
        "priority": st.integers(-2, 2),
        "pods": optional(
            fallback=st.sampled_from(("None", "XForwardedFor", "XForwardedFor")),
            selector=st.sampled_from(({}, {}, {"matchExpressions": [expression("app", "NotIn", "never")]})),
        ),
        "exceptions": st.lists(exceptions, max_size=1),
    },
)
default_specs = st.builds(
    lambda spec, cloud: {**spec, **cloud},
    specs,
    optional(
        services=optional(backends=st.sampled_from(("Auto", "Node", "ENI"))),
        podSecurity=st.fixed_dictionaries({"defaultLevel": st.sampled_from(("privileged", "privileged", "baseline"))}),
        namespaceSelector=st.sampled_from(({}, {}, {"matchLabels": {"kubernetes.io/metadata.name": "shop"}})),
    ),
)
other_specs = st.builds(
    lambda spec, selector: {**spec, "namespaceSelector": selector},
    specs,
    st.sampled_from(({}, {"matchExpressions": [expression("kubernetes.io/metadata.name", "In", "shop", "edge")]})),
)


def policy(name: str, spec: Document) -> Document:
    """Return a ClientIPPolicy."""
    return {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def snapshot_of(*objects: Document, nodes_synced: bool = True, from_files: bool = False) -> Snapshot:
    """Return the facts that *objects* are, as the API server's JSON."""
    collector = Collector(nodes_synced=nodes_synced, from_files=from_files)
    for name, labels in NAMESPACES.items():
        collector.put("v1", "Namespace", {"metadata": {"name": name, "labels": labels}})
    # Policies first: nodes are classified by them.
    for each in sorted(objects, key=lambda each: each["kind"] != "ClientIPPolicy"):
        collector.put(each["apiVersion"], each["kind"], json.dumps(each).encode())
    return collector.snapshot()


snapshots = st.builds(
    lambda nodes, default, other, extras, synced: snapshot_of(
        *nodes,
        *([policy("default", default)] if default is not None else []),
        *([policy("team", other)] if other is not None else []),
        *(extras or ()),
        nodes_synced=synced,
        from_files=extras is None,
    ),
    nodes,
    st.none() | default_specs,
    st.none() | st.none() | other_specs,
    st.sampled_from(
        (
            *((INJECTOR,), (INJECTOR, CANARY)) * 2,
            (INJECTOR, CANARY, NEVER),
            (INJECTOR, TPROXY_MESH, TERWAY),
            (EARLY,),
            (),
            None,
        ),
    ),
    st.sampled_from((*(True,) * 9, False)),
)

MODES: Final = ("TPROXY", "TPROXY", "REDIRECT", "NONE", "tproxy")
PROXY_CONFIGS: Final = (
    *("interceptionMode: TPROXY", '{"interceptionMode": "REDIRECT"}', "interception_mode: 1", "concurrency: 2"),
    *("interceptionMode: [", "interceptionMode: &a [*a]", "- interceptionMode", "interceptionMode: 7", "\0"),
    "interceptionMode: " + "[" * 500,
)
own_annotations = optional(
    **{
        MODE: st.sampled_from(MODES),
        "proxy.istio.io/config": st.sampled_from(PROXY_CONFIGS),
        "sidecar.istio.io/status": st.just("{}"),
        "sidecar.istio.io/inject": st.sampled_from(("true", "false", "")),
        "inject.istio.io/templates": st.sampled_from(("sidecar", "sidecar,gateway", "grpc-agent", "custom", "")),
        "traffic.sidecar.istio.io/includeInboundPorts": st.sampled_from(("*", "80,8080", "", " ")),
        "kubernetes.io/config.mirror": st.just("a"),
        "a/b~c": st.just("/~1"),
    },
)
speaking = st.one_of(
    st.fixed_dictionaries({MODE: st.sampled_from(MODES)}),
    st.fixed_dictionaries({"proxy.istio.io/config": st.sampled_from(PROXY_CONFIGS)}),
    st.just({"traffic.sidecar.istio.io/includeInboundPorts": ""}),
    st.just({"proxy.istio.io/config": "#" * 20_000}),
)
"""Annotations that decide."""
own_labels = optional(
    **{
        PRESERVE: st.sampled_from(("enabled", "enabled", "audit", "disabled", "yes")),
        METHOD: st.sampled_from(("tproxy", "x-forwarded-for", "local")),
        "app": st.sampled_from(("ledger", "never", "a")),
        "sidecar.istio.io/inject": st.sampled_from(("true", "true", "false", "")),
        "istio.io/rev": st.just("canary"),
    },
)


def mostly_nothing(some: st.SearchStrategy[Document]) -> st.SearchStrategy[Document | None]:
    """Return one of *some* at times, else an empty or a null mapping."""
    return st.one_of(some, some, st.sampled_from(({}, None)))


def sparse(some: st.SearchStrategy[Document]) -> st.SearchStrategy[Document]:
    """Return at most one entry of *some*, so that the questions that follow are asked too."""
    return some.flatmap(lambda all_of: st.sampled_from([{}, *({key: value} for key, value in all_of.items())]))


def metadata(
    labels: st.SearchStrategy[Document],
    annotations: st.SearchStrategy[Document],
) -> st.SearchStrategy[Document]:
    """Return an object's metadata; its maps may be absent, null or empty."""
    return st.fixed_dictionaries(
        {"name": st.just("a")},
        optional={
            "labels": mostly_nothing(labels),
            "annotations": mostly_nothing(annotations),
        },
    )


containers = st.builds(
    lambda name, env, context: {
        "name": name,
        "image": "a",
        **({} if env is None else {"env": env}),
        **({} if context is None else {"securityContext": context}),
    },
    st.sampled_from(("app", "app", "istio-proxy")),
    st.sampled_from(
        (
            None,
            None,
            [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT"}],
            [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"}],
            [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        ),
    ),
    st.sampled_from((None, None, {"runAsNonRoot": True}, {"runAsUser": 0})),
)
pod_specs = st.builds(
    lambda nodes, rest: {**nodes, **rest},
    made.pod_specs,
    st.fixed_dictionaries(
        {"containers": st.lists(containers, min_size=1, max_size=2)},
        optional={
            "initContainers": st.lists(containers, max_size=1),
            "hostNetwork": st.sampled_from((False, False, False, True)),
            "nodeName": st.sampled_from(("", "", *made.NAMES[:3])),
            "runtimeClassName": st.sampled_from(("gvisor", "nvidia", "mine")),
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An object at an operation, as the API server sends it."""

    kind: str
    namespace: str
    operation: str
    document: Document
    old: Document | None = None

    def body(self) -> bytes:
        """Return the AdmissionReview."""
        return json.dumps(
            {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": {
                    "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                    "kind": {"group": GROUPS[self.kind], "version": "v1", "kind": self.kind},
                    "namespace": self.namespace,
                    "operation": self.operation,
                    "object": self.document,
                    "oldObject": self.old,
                },
            },
        ).encode()

    def request(self) -> Request:
        """Return the request as the server reads it."""
        return review.decode(self.body())[1]

    def decided(self, snapshot: Snapshot) -> Decision:
        """Return the decision on it."""
        return decide(self.request(), snapshot, now=NOW)

    def changed(self, document: Document) -> "Reviewed":
        """Return the same review of *document*."""
        return replace(self, document=document)


def patch_of(snapshot: Snapshot, reviewed: Reviewed) -> list[Document]:
    """Return the patch of the server's answer to *reviewed*, from bytes to bytes."""
    uid, request = review.decode(reviewed.body())
    response = json.loads(review.encode(uid, decide(request, snapshot, now=NOW)))["response"]
    assert response["allowed"] is True
    assert response["uid"] == uid
    assert ("patch" in response) == ("patchType" in response)
    patch: list[Document] = json.loads(base64.b64decode(response.get("patch", "W10=")))
    return patch


namespaces = st.sampled_from((*("shop",) * 10, *NAMESPACES, "behind", "unknown"))
pods = st.builds(
    lambda namespace, operation, described, spec: Reviewed(
        "Pod",
        namespace,
        operation,
        {"apiVersion": "v1", "kind": "Pod", "metadata": described, "spec": spec},
    ),
    namespaces,
    st.sampled_from((*("CREATE",) * 9, "UPDATE")),
    metadata(sparse(own_labels), sparse(own_annotations) | speaking) | metadata(own_labels, own_annotations),
    pod_specs,
)
service_specs = optional(
    type=st.sampled_from((*("LoadBalancer", "NodePort") * 2, "ClusterIP", "ExternalName")),
    externalIPs=st.sampled_from(([], ["192.0.2.1"])),
    externalTrafficPolicy=st.sampled_from(("Cluster", "Local", "")),
)
gateway_labels = st.builds(
    lambda gateway, rest: {**gateway, **rest},
    st.sampled_from(
        (
            *({"istio": "ingressgateway"}, {"istio": "ingress"}) * 3,
            {"gateway.networking.k8s.io/gateway-class-name": "istio"},
            {"istio": "eastwestgateway"},
            {},
        ),
    ),
    sparse(own_labels),
)
backend_types = optional(
    **{
        "service.beta.kubernetes.io/backend-type": st.sampled_from(("eni", "ecs", "")),
        "metallb.io/allow-shared-ip": st.just("edge"),
        "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": st.just("*"),
        "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": st.sampled_from(("ip", "instance")),
        "service.cloud.tencent.com/direct-access": st.just("true"),
    },
)
services = st.builds(
    lambda namespace, operation, described, spec, old, deleted: Reviewed(
        "Service",
        namespace,
        operation,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**described, **({"deletionTimestamp": "2026-11-01T00:00:00Z"} if deleted else {})},
            "spec": spec,
        },
        {"metadata": {}, "spec": old} if operation == "UPDATE" else None,
    ),
    namespaces,
    st.sampled_from((*("CREATE", "UPDATE") * 4, "DELETE")),
    metadata(gateway_labels, sparse(backend_types))
    | st.fixed_dictionaries(
        {"name": st.just("a"), "labels": gateway_labels}, optional={"annotations": sparse(backend_types)}
    ),
    service_specs,
    service_specs,
    st.sampled_from((*(False,) * 7, True)),
)


def _workload(kind: str, pod: Reviewed) -> Reviewed:
    template = {part: pod.document[part] for part in ("metadata", "spec")}
    spec: Document = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    version = f"{GROUPS[kind]}/v1"
    document: dict[str, Any] = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    return Reviewed(kind, pod.namespace, pod.operation, document)


workloads = st.builds(
    _workload,
    st.sampled_from(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")),
    pods,
)
reviewed = st.one_of(pods, pods, services, workloads)
