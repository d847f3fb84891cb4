"""The reviews and clusters that the benchmarks use: made here, the same at every run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

OS_IMAGES: Final = (
    ("Ubuntu 22.04.4 LTS", "5.15.0-91-generic"),
    ("Alibaba Cloud Linux 3 (Soaring Falcon)", "5.10.134-15.al8.x86_64"),
    ("Container-Optimized OS from Google", "6.1.85+"),
)
CENTOS: Final = ("CentOS Linux 7 (Core)", "3.10.0-1160.24.1.el7.x86_64")


def node(number: int) -> dict[str, Any]:
    """Return a node as a cloud's kubelet describes it; each tenth runs CentOS in a pool of its own."""
    legacy = number % 10 == 0
    os_image, kernel = CENTOS if legacy else OS_IMAGES[number % 3]
    name = f"node-{number:05}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "resourceVersion": str(100_000 + number),
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64" if number % 4 else "arm64",
                "topology.kubernetes.io/region": "cn-hangzhou",
                "topology.kubernetes.io/zone": f"cn-hangzhou-{'abcdef'[number % 6]}",
                "node.kubernetes.io/instance-type": f"ecs.g7.{(number % 5) * 2 + 2}xlarge",
                "pool": "legacy" if legacy else "general",
                "cpu-generation": str(number % 8),
            },
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {"taints": [{"key": "gpu", "value": "a100", "effect": "NoSchedule"}]} if number % 25 == 1 else {},
        "status": {
            "nodeInfo": {
                "osImage": os_image,
                "kernelVersion": kernel,
                "operatingSystem": "linux",
                "architecture": "amd64",
                "containerRuntimeVersion": "containerd://1.7.20",
                "kubeletVersion": "v1.33.4",
            },
            "addresses": [{"type": "InternalIP", "address": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"}],
        },
    }


def cluster(nodes: int) -> dict[str, Any]:
    """Return the objects of a cluster with *nodes* nodes, Istio, and a namespace that opted in."""
    injector = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector"}},
        "webhooks": [
            {
                "name": "namespace.sidecar-injector.istio.io",
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
                "objectSelector": {
                    "matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}],
                },
            },
        ],
    }
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plain", "labels": {}}},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": [*namespaces, injector, *map(node, range(nodes))]}


def write_cluster(folder: Path, nodes: int) -> Path:
    """Write the cluster's objects as one JSON file and return its path."""
    path = folder / f"cluster-{nodes}.json"
    path.write_text(json.dumps(cluster(nodes), separators=(",", ":")))
    return path


def _review(reviewed: Mapping[str, Any], kind: str, namespace: str) -> bytes:
    resource = kind.lower() + "s"
    gvk = {"group": "", "version": "v1", "kind": kind}
    gvr = {"group": "", "version": "v1", "resource": resource}
    review = {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "0b4f9a38-6f3b-4f0b-9d0c-2f1f5f1f7a11",
            "kind": gvk,
            "resource": gvr,
            "requestKind": gvk,
            "requestResource": gvr,
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "1d0d6b6e-8ef8-4f0c-8f6d-55b7b2f62a01",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": reviewed,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }
    return json.dumps(review, separators=(",", ":")).encode()


def _pod(containers: int, variables: int, *, constrained: bool, namespace: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "generateName": "reviews-v1-545db77b95-",
        "namespace": namespace,
        "labels": {"app": "reviews", "version": "v1", "pod-template-hash": "545db77b95"},
        "annotations": {"prometheus.io/scrape": "true", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015"},
        "creationTimestamp": None,
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "reviews-v1-545db77b95",
                "uid": "8c6f6a0e-4f3c-4b52-9d6d-0e6a0f0c7a22",
                "controller": True,
                "blockOwnerDeletion": True,
            },
        ],
    }
    if constrained:
        metadata["managedFields"] = [
            {
                "manager": "kube-controller-manager",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-11-01T10:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {
                        "f:annotations": {".": {}, "f:checksum/config": {}, "f:prometheus.io/scrape": {}},
                        "f:generateName": {},
                        "f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}, "f:version": {}},
                        "f:ownerReferences": {".": {}, 'k:{"uid":"8c6f6a0e-4f3c-4b52-9d6d-0e6a0f0c7a22"}': {}},
                    },
                    "f:spec": {
                        f"f:{field}": {}
                        for field in (
                            "affinity",
                            "containers",
                            "dnsPolicy",
                            "enableServiceLinks",
                            "nodeSelector",
                            "restartPolicy",
                            "schedulerName",
                            "securityContext",
                            "serviceAccount",
                            "serviceAccountName",
                            "terminationGracePeriodSeconds",
                            "tolerations",
                            "volumes",
                        )
                    },
                },
            },
        ]
    token = {
        "name": "kube-api-access-xk2vn",
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    spec: dict[str, Any] = {
        "volumes": [
            {
                "name": "kube-api-access-xk2vn",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ],
                    "defaultMode": 420,
                },
            },
        ],
        "containers": [
            {
                "name": f"reviews-{number}",
                "image": "docker.io/istio/examples-bookinfo-reviews-v1:1.20.2",
                "ports": [{"containerPort": 9080, "protocol": "TCP"}],
                "env": [
                    {"name": f"VARIABLE_{each:03}", "value": f"value-{each:03}-of-some-length"}
                    for each in range(variables)
                ],
                "resources": {
                    "limits": {"cpu": "1", "memory": "512Mi"},
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                },
                "volumeMounts": [token],
                **(
                    {
                        probe: {
                            "httpGet": {"path": "/health", "port": 9080, "scheme": "HTTP"},
                            "timeoutSeconds": 1,
                            "periodSeconds": 10,
                            "successThreshold": 1,
                            "failureThreshold": 3,
                        }
                        for probe in ("livenessProbe", "readinessProbe")
                    }
                    if constrained
                    else {}
                ),
                "terminationMessagePath": "/dev/termination-log",
                "imagePullPolicy": "IfNotPresent",
            }
            for number in range(containers)
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "reviews",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
        "priority": 0,
        "enableServiceLinks": True,
    }
    spec["nodeSelector"] = {"pool": "general"}
    if constrained:
        spec["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                                {
                                    "key": "topology.kubernetes.io/zone",
                                    "operator": "NotIn",
                                    "values": ["cn-hangzhou-f"],
                                },
                            ],
                        },
                    ],
                },
            },
        }
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": {}}


def bodies() -> dict[str, bytes]:
    """Return the AdmissionReviews by name."""
    service = {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": "istio-ingressgateway", "namespace": "shop", "labels": {"istio": "ingressgateway"}},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Cluster",
            "selector": {"istio": "ingressgateway"},
            "ports": [{"name": "http2", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    }
    return {
        "small": _review(_pod(1, 0, constrained=False, namespace="shop"), "Pod", "shop"),
        "typical": _review(_pod(2, 14, constrained=True, namespace="shop"), "Pod", "shop"),
        "large": _review(_pod(12, 60, constrained=True, namespace="shop"), "Pod", "shop"),
        "service": _review(service, "Service", "shop"),
        "skipped": _review(_pod(2, 14, constrained=True, namespace="plain"), "Pod", "plain"),
    }
