"""The webhook as it is deployed: its own process, a ServiceAccount's token, and the rendered RBAC and configuration."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cli.command import call
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.serve.conftest import CLUSTER
from tests.serve.server import Server

INJECTOR: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "istio-sidecar-injector")
OWN_NAMESPACE: Final = "client-ip-system"
READY_SECONDS: Final = 30.0


def render(*arguments: str) -> list[dict[str, Any]]:
    """Return what `client-ip render` prints."""
    printed = call("render", *arguments)
    return list(yaml.load_all(printed, Loader=yaml.CSafeLoader))


class Deployed:
    """The server process against a control plane, registered with it."""

    def __init__(
        self, plane: ControlPlane, folder: Path, *, options: Sequence[str] = (), configured: Sequence[str] = ()
    ) -> None:
        """
        Start it.

        Args:
            plane: Where it is registered.
            folder: Its files.
            options: Of `serve`.
            configured: Of `render configuration`.

        """
        self.plane = plane
        self._configured = tuple(configured)
        self._options = tuple(options)
        self._folder = folder
        self._starts = 0
        self.api = plane.client()
        for namespace in (OWN_NAMESPACE, "istio-system"):
            if self.api.find("v1", "Namespace", namespace) is None:
                self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for document in render("crd", "rbac"):
            self.api.apply(document)
        self.kubeconfig = plane.service_account_kubeconfig(OWN_NAMESPACE, "client-ip-webhook")
        self.server = self.start()

    def start(self) -> Server:
        """Start the process, register it, and return when it is ready and the API server calls it."""
        self._starts += 1
        folder = self._folder / f"run-{self._starts}"
        self.server = Server(folder, "--kubeconfig", str(self.kubeconfig), "--drain-seconds", "0.2", *self._options)
        self.wait_ready()
        self.register()
        return self.server

    def wait_ready(self) -> None:
        """Wait until the server says that it is ready."""
        eventually(lambda: self.server.probe("/readyz").status == 200, self.server.log.read_text)

    def register(self, name: str = "client-ip-webhook") -> None:
        """Apply the rendered configuration, and wait until the API server calls us."""
        host, port = self.server.address
        url = f"https://{host}:{port}/mutate"
        (configuration,) = render("configuration", "--url", url, "--ca-file", str(self.server.ca), *self._configured)
        configuration["metadata"]["name"] = name
        self.api.apply(configuration)

    def close(self) -> None:
        """Stop the process and take its registration away."""
        if self.api.find("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "client-ip-webhook"):
            self.api.delete("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "client-ip-webhook")
        code = self.server.stop()
        log = self.server.log.read_text()
        assert code == 0, log
        assert "Traceback" not in log, log


def eventually(reached: Callable[[], object], said: Callable[[], object] = str, seconds: float = READY_SECONDS) -> None:
    """Wait until *reached* returns something true; *said* tells what is to be seen where it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {said()}")


@contextmanager
def facts_of(control_plane: ControlPlane, prefix: str, pools: tuple[str, str]) -> Iterator[Api]:
    """
    Put a cluster's facts there, and take them away: two nodes, Istio's injector (which nobody serves), and the CRD.

    Args:
        control_plane: Where they are put.
        prefix: Of the nodes' names, PREFIX-ubuntu and PREFIX-centos.
        pools: The label `pool` of these two nodes.

    """
    api = control_plane.client()
    for document in render("crd"):
        api.apply(document)
    document = yaml.safe_load((CLUSTER / "istio.yaml").read_text())
    for webhook in document["webhooks"]:
        webhook["clientConfig"] = {"url": "https://127.0.0.1:1/inject"}
        webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore"}
    api.apply(document)
    systems = {f"{prefix}-ubuntu": "Ubuntu 22.04.4 LTS", f"{prefix}-centos": "CentOS Linux 7 (Core)"}
    for (name, system), pool in zip(systems.items(), pools, strict=True):
        control_plane.add_node(name, labels={"pool": pool}, os_image=system)
    yield api
    api.delete(*INJECTOR)
    for name in systems:
        api.delete("v1", "Node", name)


def namespace_of(api: Api, name: str, **labels: str) -> str:
    """Create a namespace with *labels* (two underscores are a slash, one a dash or dot as our labels need)."""
    named = {_LABELS[key]: value for key, value in labels.items()}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": named}})
    return name


def crd(group: str, kind: str, plural: str, version: str = "v1", *, scope: str = "Cluster") -> dict[str, Any]:
    """Return the CRD of a kind, of which everything is kept."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


_LABELS: Final = {
    "preserve": "client-ip.dev/preserve",
    "injection": "istio-injection",
    "enforce": "pod-security.kubernetes.io/enforce",
}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """Return a pod of one container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "app", "image": "registry.example.com/app:1"}], **spec},
    }
