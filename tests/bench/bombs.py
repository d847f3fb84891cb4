"""
The worst objects that are known, one of each kind, in the worst cluster that is promised.

`make gate` holds each to its budget of instructions, tests/property/test_limits.py what is answered, and
tests/unit/server/test_peers.py what is kept. A new kind of cost (a text, a list, a fact that is read) gets one here.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench.bodies import cluster

Document = dict[str, Any]

OBJECT_BYTES: Final = 3 * 2**20
"""What the API server takes as an object: https://github.com/kubernetes/apiserver/blob/v0.37.2/pkg/server/config.go."""
TAINT_VALUES: Final = 50
INDEX: Final = "example.com/index"
DEDICATED: Final = "example.com/dedicated"
RUNTIME_CLASS: Final = "runc-dedicated"


def write_hostile_cluster(folder: Path, nodes: int) -> Path:
    """
    Write a cluster whose nodes have an integer each as a label, and taints of fifty values; return its path.

    Its RuntimeClass adds tolerations to its pods.
    """
    document = cluster(nodes)
    number = 0
    for each in document["items"]:
        if each["kind"] == "Node":
            each["metadata"]["labels"][INDEX] = str(number)
            taint = {"key": DEDICATED, "value": str(number % TAINT_VALUES), "effect": "NoSchedule"}
            other = {"key": f"{DEDICATED}-{number % 7}", "value": str(number // 7), "effect": "NoExecute"}
            each["spec"] = {"taints": [taint, other]}
            number += 1
    tolerations = [{"key": f"{DEDICATED}-{number}", "operator": "Exists"} for number in range(100)]
    document["items"].append(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": RUNTIME_CLASS},
            "handler": "runc",
            "scheduling": {"tolerations": tolerations},
        }
    )
    path = folder / f"hostile-{nodes}.json"
    path.write_text(json.dumps(document, separators=(",", ":")))
    return path


def review(document: Document, operation: str = "CREATE") -> bytes:
    """Return the AdmissionReview of *document* in the namespace that opted in."""
    group, _, version = document["apiVersion"].rpartition("/")
    request = {
        "uid": "0b4f9a38-6f3b-4f0b-9d0c-2f1f5f1f7a11",
        "kind": {"group": group, "version": version, "kind": document["kind"]},
        "namespace": "shop",
        "operation": operation,
        "object": document,
        "oldObject": None if operation == "CREATE" else document,
    }
    whole = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()


def pod(annotations: Document | None = None, **spec: Any) -> Document:
    """Return a Pod."""
    metadata = {"name": "a", **({"annotations": annotations} if annotations is not None else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "app"}], **spec}}


def labelled(labels: Document) -> Document:
    """Return a Pod with *labels*."""
    return {**pod(), "metadata": {"name": "a", "labels": labels}}


def service(annotations: Document | None = None, labels: Document | None = None, **spec: Any) -> Document:
    """Return a gateway's Service."""
    metadata = {"name": "a", "labels": labels or {"istio": "ingressgateway"}, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"type": "LoadBalancer", **spec}}


def deployment(of: Document) -> Document:
    """Return a Deployment of the pod *of*."""
    template = {"metadata": of["metadata"], "spec": of["spec"]}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": template}}


def required(terms: list[Document]) -> Document:
    """Return the affinity that requires one of *terms*."""
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def proxy(env: list[Document], **more: Any) -> Document:
    """Return Istio's container."""
    return {"name": "istio-proxy", "env": env, **more}


def _bounds(number: int, *, same: bool = False) -> list[Document]:
    return [
        {"matchExpressions": [{"key": INDEX, "operator": "Gt", "values": ["0" if same else str(each)]}]}
        for each in range(number)
    ]


def _yaml(value: str) -> Document:
    """Return a pod whose ProxyConfig has *value* beside the mode, cut to what is read."""
    return pod({"proxy.istio.io/config": f"interceptionMode: TPROXY\nx: {value}"[:READ]})


_KEYS: Final = ",".join(f"k{n}" for n in range(60))


def _bounded(number: int) -> list[Document]:
    operators = ("Gt", "Lt", "Equal", "")
    return [
        {"key": DEDICATED if n % 2 else f"{DEDICATED}-{n % 7}", "operator": operators[n % 4], "value": str(n % 60)}
        for n in range(number)
    ]


def _nowhere(number: int) -> list[Document]:
    """Terms that are held against the nodes one by one, and that none of them fulfils."""
    nowhere = {"key": "absent", "operator": "Exists"}
    return [
        {"matchExpressions": [{"key": INDEX, "operator": "Gt", "values": [str(n)]}, nowhere]} for n in range(number)
    ]


def injected(config: int, containers: int, env: int, **spec: Any) -> Document:
    """Return a pod that says of itself that it was injected for TPROXY, with *config* characters of YAML."""
    variables = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"}, *[{"name": "other"}] * env]
    annotations = {
        "sidecar.istio.io/status": "{}",
        "sidecar.istio.io/interceptionMode": "TPROXY",
        "proxy.istio.io/config": "interceptionMode: TPROXY\nx: [" + "a," * 1_980 + "#" * (config - 4_000) + "\n]",
    }
    init = [{"name": "istio-init", "args": ["-m", "TPROXY", "-b", "*"]}]
    return pod(annotations, containers=[proxy(variables)] * containers, initContainers=init, **spec)


def shaped(spec: Document) -> Document:
    """Return an object of a kind that is known by its shape alone."""
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": spec}


READ: Final = 16_384
"""Characters of the longest text that is read."""
WHOLE: Final = OBJECT_BYTES - 1_000
TOLERATE: Final = [{"operator": "Exists"}]

BOMBS: Final[Mapping[str, Callable[[], Document]]] = {
    # --- One text, as long as is read, and as long as can be.
    "a number that is none": lambda: pod({"proxy.istio.io/config": "interceptionMode: " + "1" * (READ - 19) + "x"}),
    "a number that is none, whole": lambda: pod({"proxy.istio.io/config": "interceptionMode: " + "1" * WHOLE + "x"}),
    # As many values as are read (limits.CONFIG_NODES), and as many as the text holds.
    "YAML of mappings to merge": lambda: _yaml("{<<: [" + ",".join(f"{{a{n}: 1}}" for n in range(640)) + "]}"),
    "YAML of merges in merges": lambda: _yaml("{<<: " * 30 + "{" + _KEYS + "}" + "}" * 30),
    "YAML of a list": lambda: _yaml("[" + "a," * 1_980 + "]"),
    "YAML of aliases": lambda: _yaml("[&a [1,1,1,1,1,1,1,1,1,1]" + ",*a" * 180 + "]"),
    "YAML of mappings": lambda: _yaml("\n" + "- {a: {b: {c: {d: {e: {f: {g: 1}}}}}}}\n" * 120),
    "YAML of small mappings": lambda: _yaml("[" + "a: ," * 650 + "]"),
    "YAML of anchors": lambda: _yaml("[" + "&a ," * 1_980 + "]"),
    "YAML of a list, whole": lambda: _yaml("[" + "a," * 8_150 + "]"),
    "YAML of merges in merges, whole": lambda: _yaml(
        "{<<: " * 190 + "{" + ",".join(f"{n:x}" for n in range(3_000)) + "}" + "}" * 190
    ),
    "templates' names": lambda: pod({"inject.istio.io/templates": "," * READ}),
    "templates' names, each another": lambda: pod(
        {"inject.istio.io/templates": ",".join(f"{n:x}" for n in range(3_700))}
    ),
    "templates' names, whole": lambda: pod({"inject.istio.io/templates": "," * WHOLE}),
    "a mode": lambda: pod({"sidecar.istio.io/interceptionMode": "\u202e" * (WHOLE // 3)}),
    "a node's name": lambda: pod(nodeName="x" * WHOLE),
    "a label": lambda: labelled({"client-ip.dev/preserve": "\u202e" * (WHOLE // 3)}),
    "an environment variable": lambda: pod(
        containers=[proxy([{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "x" * WHOLE}])]
    ),
    # --- Lists, as long as is read, and as long as can be.
    "tolerations by bounds": lambda: pod(
        tolerations=[{"key": DEDICATED, "operator": "Gt", "value": str(n % 60)} for n in range(4_000)]
    ),
    "tolerations without a key": lambda: pod(
        tolerations=[{"operator": "Equal", "value": str(n), "effect": "NoExecute"} for n in range(4_000)]
    ),
    "tolerations beside a RuntimeClass's": lambda: pod(
        runtimeClassName=RUNTIME_CLASS, tolerations=[{"key": f"k{n}"} for n in range(24_000)]
    ),
    "tolerations, empty": lambda: pod(tolerations=[{}] * (WHOLE // 3)),
    "terms by bounds": lambda: pod(affinity=required(_bounds(4_000)), tolerations=TOLERATE),
    "terms by bounds, equal": lambda: pod(affinity=required(_bounds(4_000, same=True)), tolerations=TOLERATE),
    "terms by bounds, whole": lambda: pod(affinity=required(_bounds(40_000, same=True)), tolerations=TOLERATE),
    "terms, empty": lambda: pod(affinity=required([{}] * (WHOLE // 3)), tolerations=TOLERATE),
    "requirements of one term": lambda: pod(
        affinity=required(
            [{"matchExpressions": [{"key": INDEX, "operator": "NotIn", "values": [str(n)]} for n in range(4_000)]}]
        ),
        tolerations=TOLERATE,
    ),
    "values": lambda: pod(
        affinity=required(
            [{"matchExpressions": [{"key": INDEX, "operator": "In", "values": [str(n) for n in range(10_000)]}]}]
        ),
        tolerations=TOLERATE,
    ),
    "values, whole": lambda: pod(
        affinity=required([{"matchExpressions": [{"key": INDEX, "operator": "In", "values": [""] * (WHOLE // 3)}]}])
    ),
    # Each fails at its last character, so that all of it is read.
    "keys that are none": lambda: pod(
        affinity=required(
            [{"matchExpressions": [{"key": "a." * 126 + f"-/x{n}", "operator": "Exists"}]} for n in range(4_000)]
        ),
        tolerations=TOLERATE,
    ),
    "a nodeSelector": lambda: pod(nodeSelector={f"k{n}": "" for n in range(9_000)}, tolerations=TOLERATE),
    "a nodeSelector, whole": lambda: pod(nodeSelector={f"k{n:x}": "" for n in range(250_000)}),
    "labels": lambda: labelled({f"k{n}": "" for n in range(9_000)}),
    "labels, whole": lambda: labelled({f"k{n:x}": "" for n in range(250_000)}),
    "annotations, whole": lambda: pod({f"k{n:x}": "" for n in range(250_000)}),
    "containers": lambda: pod(containers=[{}] * (WHOLE // 3)),
    "containers called istio-proxy": lambda: pod(containers=[proxy([])] * 4_000),
    "environments of istio-proxy": lambda: pod(containers=[proxy([{}] * 21)] * 3_900),
    "an environment of istio-proxy": lambda: pod(containers=[proxy([{}] * 87_000)]),
    "an environment of istio-proxy, whole": lambda: pod(containers=[proxy([{}] * (WHOLE // 3))]),
    # --- Several at once, as much as is read of them together (limits.SHARES), and asked about more than once.
    "terms that no node fulfils": lambda: pod(affinity=required(_nowhere(2_000)), tolerations=TOLERATE),
    "TPROXY by hand that no node fulfils": lambda: pod(
        {"sidecar.istio.io/interceptionMode": "TPROXY"}, affinity=required(_nowhere(1_400)), tolerations=_bounded(2_600)
    ),
    "all that is asked of an injected pod": lambda: injected(
        6_000, containers=1, env=200, affinity=required(_nowhere(1_000)), tolerations=_bounded(2_000)
    ),
    "the environment of an injected pod": lambda: injected(7_500, containers=1, env=11_900),
    "the proxies of an injected pod": lambda: injected(7_500, containers=1_700, env=1),
    "everything, each within its limit": lambda: injected(
        16_000,
        containers=2_500,
        env=2,
        affinity=required(_nowhere(2_000)),
        tolerations=_bounded(4_000),
        nodeSelector={f"k{n}": "" for n in range(9_000)},
    ),
    # --- The same of what makes pods, and of Services.
    "a Deployment's terms": lambda: deployment(pod(affinity=required(_bounds(4_000)), tolerations=TOLERATE)),
    "a Deployment's tolerations": lambda: deployment(pod(tolerations=[{}] * (WHOLE // 3))),
    "a Service's annotation": lambda: service({"service.beta.kubernetes.io/backend-type": "x" * WHOLE}),
    "a Service's annotations": lambda: service({f"k{n:x}": "" for n in range(250_000)}),
    "a Service's labels": lambda: service(labels={f"k{n:x}": "" for n in range(250_000)}),
    "a Service's addresses": lambda: service(externalIPs=[""] * (WHOLE // 3), type="ClusterIP"),
    "a Service's ports": lambda: service(ports=[{}] * (WHOLE // 3)),
    # --- What its shape says, of a kind that nobody knows.
    "a long key above many": lambda: shaped({"k" * 200_000: [[0]] * 12_000}),
    "many lists": lambda: shaped({"list": [[0]] * 60_000}),
    "many templates": lambda: shaped(
        {
            f"{n}template": {
                "metadata": {"annotations": {"proxy.istio.io/config": "interceptionMode: TPROXY\nx: [" + "a," * 1_980}},
                "spec": {"containers": [{"name": "a"}], "tolerations": TOLERATE},
            }
            for n in range(32)
        }
    ),
    # --- What nobody reads.
    "what is not read": lambda: pod(volumes=[{}] * (WHOLE // 3)),
}
"""By what they are made of."""
