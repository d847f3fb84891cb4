"""The workload that the scan's benchmark makes: Deployments, and their pods as Istio's injector leaves them."""

import json
from collections.abc import Mapping
from typing import Any, Final

DEPLOYMENTS: Final = 50
PODS_EACH: Final = 10
HASH: Final = "545db77b95"


def deployment(number: int) -> dict[str, Any]:
    """Return a Deployment; each tenth may land on any node."""
    name = f"web-{number:03}"
    labels = {"app": name}
    spec: dict[str, Any] = {
        "containers": [_application(name)],
        "nodeSelector": {"pool": "general"} if number % 10 else {},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {**labels, "team": f"team-{number % 7}"}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def injected_pod(made: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return pod *number* of a Deployment: every other one runs in TPROXY mode."""
    name = made["metadata"]["name"]
    labels = {"app": name, "pod-template-hash": HASH, "security.istio.io/tlsMode": "istio"}
    mode = "TPROXY" if number % 2 else "REDIRECT"
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{name}-{HASH}",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }
    mounts = [{"name": each, "mountPath": f"/var/run/{each}"} for each in ("socket", "credentials", "workload-certs")]
    init = {
        "name": "istio-init",
        "image": "docker.io/istio/proxyv2:1.31.0",
        "args": ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", mode, "-i", "*", "-b", "*"],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}, "runAsUser": 0},
    }
    proxy = {
        "name": "istio-proxy",
        "image": "docker.io/istio/proxyv2:1.31.0",
        "args": [
            "proxy",
            "sidecar",
            "--domain",
            "$(POD_NAMESPACE).svc.cluster.local",
            "--log_output_level=default:info",
        ],
        "env": [
            {"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode},
            {"name": "PROXY_CONFIG", "value": json.dumps({"discoveryAddress": "istiod.istio-system.svc:15012"})},
            *(
                {"name": f"ISTIO_META_{each:02}", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                for each in range(24)
            ),
        ],
        "volumeMounts": mounts,
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 15},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{HASH}-{number:05}",
            "labels": labels,
            "annotations": {
                "sidecar.istio.io/status": json.dumps({"initContainers": ["istio-init"], "revision": "default"}),
                "prometheus.io/scrape": "true",
                "checksum/config": "9f86d081884c7d659a2feaa0c55ad015" * 2,
            },
            "ownerReferences": [owner],
        },
        "spec": {
            "nodeName": f"node-{number * 3 + 1:05}",
            "initContainers": [init],
            "containers": [_application(name), proxy],
            "volumes": [{"name": each["name"], "emptyDir": {}} for each in mounts],
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for each in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [_running(each) for each in ("app", "istio-proxy")],
        },
    }


def _running(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example.com/app:1",
        "imageID": "registry.example.com/app@sha256:" + "0" * 64,
        "containerID": "containerd://" + "1" * 64,
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }


def _application(name: str) -> dict[str, Any]:
    return {
        "name": "app",
        "image": f"registry.example.com/{name}:1",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": f"SETTING_{each}", "value": f"value-{each}"} for each in range(10)],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
    }
