"""
Stands for Istio's sidecar injector in front of a real API server: a webhook over TLS that adds `istio-proxy`.

Only what our decisions look at is like Istio's: the webhooks' selectors, the mode rendered into istio-init and the
proxy's environment at injection, and the status annotation. The real injector is asked in the proof suite.
"""

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml

from certs.authority import issue_ca, issue_leaf
from certs.serving import ServingCertificate
from tests.serve.conftest import CLUSTER

MODE: Final = "sidecar.istio.io/interceptionMode"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        patch = _inject(request["object"])
        response = {
            "uid": request["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        }
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


def _inject(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    metadata = pod["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    if "sidecar.istio.io/status" in annotations:
        return []
    mode = annotations.get(MODE, "REDIRECT")
    annotations["sidecar.istio.io/status"] = json.dumps({"containers": ["istio-proxy"], "revision": "default"})
    proxy = {
        "name": "istio-proxy",
        "image": "docker.io/istio/proxyv2:1.31.0",
        "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode}],
    }
    rules = {
        "name": "istio-init",
        "image": "docker.io/istio/proxyv2:1.31.0",
        "args": ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", mode, "-b", "*"],
    }
    return [
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
        {"op": "add", "path": "/spec/initContainers", "value": [*(pod["spec"].get("initContainers") or ()), rules]},
        {"op": "add", "path": "/spec/containers/-", "value": proxy},
    ]


class Injector:
    """The stand-in's server; `configuration` is what to register."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        life = timedelta(days=1)
        self._ca = issue_ca(organization="injector", now=now, life=life)
        leaf = issue_leaf(self._ca, names=["127.0.0.1"], now=now, life=life)
        certificate = ServingCertificate()
        certificate.replace(leaf.certificate_pem, leaf.key_pem, now=now)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.socket = _wrapped(self._server.socket, certificate.context)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def configuration(self, name: str = "istio-sidecar-injector") -> dict[str, Any]:
        """Return the MutatingWebhookConfiguration: Istio's own selectors, calling this server."""
        text = (CLUSTER / "istio.yaml").read_text()
        document: dict[str, Any] = yaml.safe_load(text)
        document["metadata"]["name"] = name
        bundle = base64.b64encode(self._ca.certificate_pem).decode()
        url = f"https://127.0.0.1:{self._server.server_address[1]}/inject"
        for webhook in document["webhooks"]:
            webhook["clientConfig"] = {"url": url, "caBundle": bundle}
            webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail"}
        return document

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _wrapped(plain: Any, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)


@contextmanager
def injecting() -> Iterator[Injector]:
    """Run the stand-in."""
    injector = Injector()
    try:
        yield injector
    finally:
        injector.stop()
