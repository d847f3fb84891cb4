"""Kinds of others that the webhook follows or is told of: CloneSets, RuntimeClasses and GatewayClasses, live."""

import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest

from tests.apiserver.deployed import Deployed, crd, eventually, namespace_of, pod
from tests.apiserver.injector import injecting
from tests.parts.api import Api
from tests.parts.kube import ControlPlane

CRDS: Final = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
CLASS: Final = ("gateway.networking.k8s.io/v1", "GatewayClass")
KINDS: Final = (
    crd("apps.kruise.io", "CloneSet", "clonesets", "v1alpha1", scope="Namespaced"),
    crd("example.com", "Fleet", "fleets", "v1", scope="Namespaced"),
    crd("gateway.networking.k8s.io", "GatewayClass", "gatewayclasses"),
)
NODES: Final = {"kinds-ubuntu": ("general", "Ubuntu 22.04.4 LTS"), "kinds-centos": ("legacy", "CentOS Linux 7 (Core)")}


@pytest.fixture(scope="module")
def webhook(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Ours, told of CloneSets, in front of the stand-in of Istio's injector; the CRDs are there before it."""
    api = control_plane.client()
    for document in KINDS:
        api.apply(document)
    for name, (pool, image) in NODES.items():
        control_plane.add_node(name, labels={"pool": pool}, os_image=image)
    for spec in (each["spec"] for each in KINDS):
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        control_plane.wait_until(partial(api.request, "GET", path), what=path, seconds=60)
    with injecting() as injector:
        api.apply(injector.configuration())
        told = ("--workload", "apps.kruise.io/v1alpha1/clonesets")
        deployed = Deployed(control_plane, tmp_path_factory.mktemp("webhook"), configured=told)
        try:
            yield deployed
        finally:
            deployed.close()
            api.delete("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "istio-sidecar-injector")
            for document in KINDS:
                api.delete(*CRDS, document["metadata"]["name"])
            for name in NODES:
                api.delete("v1", "Node", name)


@pytest.fixture(scope="module")
def shop(webhook: Deployed) -> str:
    name = namespace_of(webhook.api, f"kinds-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")
    eventually(lambda: reason(webhook.api, name, deployment(pool="legacy")) == "incompatible-nodes", seconds=60)
    return name


def template(pool: str | None, **spec: Any) -> dict[str, Any]:
    selector = {"nodeSelector": {"pool": pool}} if pool is not None else {}
    return {"metadata": {"labels": {"app": "a"}}, "spec": pod("a", **selector, **spec)["spec"]}


def deployment(*, pool: str | None = "general", **spec: Any) -> dict[str, Any]:
    return made_of("apps/v1", "Deployment", template(pool, **spec))


def made_of(api_version: str, kind: str, of: dict[str, Any]) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": of}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}


def reason(api: Api, namespace: str, document: dict[str, Any]) -> str:
    """Return the Reason of whose loss the API server's answer warns; nothing where it does not warn."""
    warnings = api.create(document, namespace=namespace, dry_run=True).warnings
    lost = [each for each in warnings if each.startswith("client IP lost (")]
    assert len(lost) <= 1, warnings
    return lost[0].partition("(")[2].partition(")")[0] if lost else ""


def test_the_webhook_warns_for_kinds_that_it_is_told_of(webhook: Deployed, shop: str) -> None:
    """A CloneSet with pods that will lose it is stored as it is, with a warning; a kind that nobody named is not."""
    api = webhook.api
    lost = made_of("apps.kruise.io/v1alpha1", "CloneSet", template("legacy"))
    made = api.create(lost, namespace=shop)
    (warning,) = made.warnings
    assert warning.startswith("client IP lost (incompatible-nodes)")
    assert made["spec"] == lost["spec"]
    assert "labels" not in made["metadata"]
    fine = {"spec": {"template": template("general")}}
    assert api.patch("apps.kruise.io/v1alpha1", "CloneSet", "a", fine, namespace=shop).warnings == ()
    assert reason(api, shop, {**lost, "metadata": {"name": "b"}}) == "incompatible-nodes"
    assert reason(api, shop, made_of("example.com/v1", "Fleet", template("legacy"))) == ""


def test_runtime_classes_that_come_change_and_go_change_the_next_decision(webhook: Deployed, shop: str) -> None:
    """
    A handler says that a pod runs in a sandbox; `scheduling` says where: the API server merges it into pods alone, so
    for templates it has to be followed.
    """
    api = webhook.api
    sandbox, pinned = f"a-{secrets.token_hex(3)}", f"b-{secrets.token_hex(3)}"

    def becomes(want: str, document: dict[str, Any]) -> None:
        eventually(lambda: reason(api, shop, document) == want, lambda: reason(api, shop, document), seconds=60)

    def runtime_class(name: str, handler: str, **more: Any) -> None:
        api.create(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": name},
                "handler": handler,
                **more,
            }
        )

    assert reason(api, shop, deployment(runtimeClassName=sandbox)) == ""
    runtime_class(sandbox, "runsc")
    becomes("sandboxed", deployment(runtimeClassName=sandbox))
    becomes("sandboxed", pod("a", nodeSelector={"pool": "general"}, runtimeClassName=sandbox))

    anywhere = deployment(pool=None, runtimeClassName=pinned)
    assert reason(api, shop, anywhere) == "mixed-nodes"
    runtime_class(pinned, "runc", scheduling={"nodeSelector": {"pool": "general"}})
    becomes("", anywhere)
    api.patch("node.k8s.io/v1", "RuntimeClass", pinned, {"scheduling": {"nodeSelector": {"pool": "legacy"}}})
    becomes("incompatible-nodes", anywhere)
    for name in (sandbox, pinned):
        api.delete("node.k8s.io/v1", "RuntimeClass", name)
    becomes("mixed-nodes", anywhere)
    becomes("", deployment(runtimeClassName=sandbox))


def test_gateway_classes_that_come_change_and_go_change_the_next_decision(webhook: Deployed, shop: str) -> None:
    api = webhook.api
    name = f"edge-{secrets.token_hex(3)}"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "labels": {"gateway.networking.k8s.io/gateway-class-name": name}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }

    def policy() -> str:
        made: str = api.create(service, namespace=shop, dry_run=True)["spec"]["externalTrafficPolicy"]
        return made

    def becomes(want: str) -> None:
        eventually(lambda: policy() == want, policy, seconds=60)

    def controlled_by(controller: str) -> None:
        api.apply(
            {
                "apiVersion": CLASS[0],
                "kind": CLASS[1],
                "metadata": {"name": name},
                "spec": {"controllerName": controller},
            }
        )

    assert policy() == "Cluster"
    for controller, want in (
        ("istio.io/gateway-controller", "Local"),
        ("example.com/other", "Cluster"),
        ("openshift.io/gateway-controller/v1", "Local"),
    ):
        controlled_by(controller)
        becomes(want)
    api.delete(*CLASS, name)
    becomes("Cluster")
