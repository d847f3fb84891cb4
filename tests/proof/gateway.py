"""
Ingress gateways: the classic one (a pod of Istio's gateway injection template, a Gateway and a VirtualService), and
one by the Gateway API (Istio makes its Deployment and Service). Each takes HTTP and HTTPS.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from certs.authority import issue_ca, issue_leaf
from tests.parts.api import Api, Reply
from tests.proof.network import LOAD_BALANCER

HOST: Final = "shop.example.com"
SECRET: Final = "shop"
HTTP_NODE_PORT: Final = 30080
HTTPS_NODE_PORT: Final = 30443
LABELS: Final = {"istio": "ingressgateway", "app": "istio-ingressgateway"}
NETWORKING: Final = "networking.istio.io/v1"
GATEWAY_API: Final = "gateway.networking.k8s.io/v1"


def install(api: Api, namespace: str, routes: Mapping[str, str]) -> Reply:
    """
    Make a gateway's Service, Gateway, VirtualService and certificate; return the Service as stored.

    Args:
        api: The cluster.
        namespace: Where the gateway lives.
        routes: Service (NAME.NAMESPACE) by path prefix.

    """
    _certificate(api, namespace)
    service = api.create(classic_service(namespace))
    set_address(api, namespace, service["metadata"]["name"], LOAD_BALANCER)
    servers = [
        {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
        {
            "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
            "hosts": ["*"],
            "tls": {"mode": "SIMPLE", "credentialName": SECRET},
        },
    ]
    metadata = {"name": "shop", "namespace": namespace}
    spec: dict[str, Any] = {"selector": {"istio": "ingressgateway"}, "servers": servers}
    api.create({"apiVersion": NETWORKING, "kind": "Gateway", "metadata": metadata, "spec": spec})
    rules = [
        {
            "match": [{"uri": {"prefix": prefix}}],
            "route": [{"destination": {"host": f"{service}.svc.cluster.local", "port": {"number": 80}}}],
        }
        for prefix, service in routes.items()
    ]
    spec = {"hosts": ["*"], "gateways": ["shop"], "http": rules}
    api.create({"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": metadata, "spec": spec})
    return service


def classic_service(namespace: str, *, service_type: str = "LoadBalancer") -> dict[str, Any]:
    """Return the Service that Istio's ingress chart makes, without an opinion on externalTrafficPolicy."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "istio-ingressgateway", "namespace": namespace, "labels": LABELS},
        "spec": {
            "type": service_type,
            "selector": {"istio": "ingressgateway"},
            "ports": [
                {"name": "http2", "port": 80, "targetPort": 8080, "nodePort": HTTP_NODE_PORT},
                {"name": "https", "port": 443, "targetPort": 8443, "nodePort": HTTPS_NODE_PORT},
            ],
        },
    }


def pod(namespace: str, name: str) -> dict[str, Any]:
    """Return a gateway's pod, whose proxy Istio's `gateway` template fills in; it runs on node-1."""
    labels = {**LABELS, "sidecar.istio.io/inject": "true"}
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {"inject.istio.io/templates": "gateway"},
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": "node-1"},
        "serviceAccountName": "istio-ingressgateway",
        "containers": [{"name": "istio-proxy", "image": "auto"}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def account(api: Api, namespace: str, name: str = "istio-ingressgateway") -> None:
    """Make a gateway's ServiceAccount; istiod gives it certificates only if it may read Secrets."""
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    metadata = {"name": name, "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]
    api.create({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    api.create(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    )


def set_address(api: Api, namespace: str, service: str, address: str) -> None:
    """Write a load balancer's address into a Service's status, as a cloud's controller does."""
    api.patch_status("v1", "Service", service, {"loadBalancer": {"ingress": [{"ip": address}]}}, namespace=namespace)


def gateway_api(api: Api, namespace: str, name: str, backend: str, *, backend_namespace: str) -> None:
    """
    Make a Gateway of the Gateway API with an HTTPRoute to a Service; istiod makes Deployment and Service of it.

    Its certificate is the classic gateway's, if that is in the same namespace.
    """
    allowed = {"namespaces": {"from": "All"}}
    tls = {"mode": "Terminate", "certificateRefs": [{"name": SECRET}]}
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": allowed},
        {"name": "https", "port": 443, "protocol": "HTTPS", "allowedRoutes": allowed, "tls": tls},
    ]
    metadata = {"name": name, "namespace": namespace}
    spec: dict[str, Any] = {"gatewayClassName": "istio", "listeners": listeners}
    api.create({"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": metadata, "spec": spec})
    metadata = {"name": name, "namespace": backend_namespace}
    spec = {
        "parentRefs": [{"name": name, "namespace": namespace}],
        "rules": [{"backendRefs": [{"name": backend, "port": 80}]}],
    }
    api.create({"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec})


def _certificate(api: Api, namespace: str) -> None:
    now, life = datetime.now(tz=UTC), timedelta(days=1)
    leaf = issue_leaf(issue_ca(organization="shop", now=now, life=life), names=[HOST], now=now, life=life)
    data = {"tls.crt": leaf.certificate_pem, "tls.key": leaf.key_pem}
    encoded = {name: base64.b64encode(content).decode() for name, content in data.items()}
    metadata = {"name": SECRET, "namespace": namespace}
    api.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": encoded}
    )
