"""The chart on a real API server: taken in whole, allowed to run as it is, and gone in the right order."""

import secrets
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.manifests import CHART, INSTALL, NAMESPACE, RELEASE, documents, helm, only, render
from tests.parts.api import Api
from tests.parts.kube import ControlPlane

CONFIGURATION: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", RELEASE)
CRD: Final = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "clientippolicies.client-ip.dev")


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    api = control_plane.client()
    if api.find("v1", "Namespace", "istio-system") is None:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})
    return api


def take_away(api: Api) -> None:
    """Remove what other tests installed of ours, and pods where ours would be."""
    for document in documents(INSTALL.read_text()):
        version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
        if kind != "Namespace" and api.find(version, kind, metadata["name"], namespace=metadata.get("namespace")):
            api.delete(version, kind, metadata["name"], namespace=metadata.get("namespace"))
    for pod in api.list("v1", "Pod", namespace=NAMESPACE):
        api.delete("v1", "Pod", pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)


def needed(api: Api, objects: list[dict[str, Any]]) -> None:
    """Make the namespaces that a dry run can't."""
    for name in {each["metadata"].get("namespace", "default") for each in objects}:
        if api.find("v1", "Namespace", name) is None:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def test_install_yaml_is_taken_in_whole(control_plane: ControlPlane, api: Api) -> None:
    """By server-side apply, as its head says; nothing in it is unknown to the API server, or deprecated."""
    objects = documents(INSTALL.read_text())
    needed(api, objects)
    take_away(api)
    for document in objects:
        # PodSecurity's own look at the pods that were taken away comes a moment after they are gone.
        control_plane.wait_until(
            partial(_is_taken_silently, api, document), what=f"{document['kind']} without a warning"
        )


def _is_taken_silently(api: Api, document: dict[str, Any]) -> bool:
    return api.apply(document, dry_run=True).warnings == ()


@pytest.mark.parametrize("mode", ["secret", "manual"])
def test_pods_of_the_deployment_are_allowed_where_restricted_is_enforced(api: Api, mode: str) -> None:
    manual = {"certificates": {"mode": "manual", "manual": {"secretName": "mine", "caBundle": "Q0E="}}}
    objects = render(manual if mode == "manual" else {})
    name = f"ours-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    template = only(objects, "Deployment")["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": template["metadata"]["labels"]}}
    made = api.create({**pod, "spec": spec}, namespace=name, dry_run=True)
    assert made.warnings == ()
    assert made["spec"]["priority"] == 2_000_000_000


def test_helm_installs_upgrades_and_takes_the_configuration_away_first(
    control_plane: ControlPlane, api: Api, tmp_path: Path
) -> None:
    """The real helm against the real API server; the audit log tells the order."""
    kubeconfig, namespace = Path(control_plane.kubeconfig), f"ours-{secrets.token_hex(3)}"
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"replicas": 3}))
    base: tuple[str | Path, ...] = ("--namespace", namespace)
    take_away(api)
    control_plane.wait_until(lambda: api.find(*CRD) is None, what="the CRD to be gone")
    said = helm("install", RELEASE, CHART, *base, "--create-namespace", kubeconfig=kubeconfig)
    assert "kubectl label namespace NAME client-ip.dev/preserve=audit" in said
    assert len(api.get(*CONFIGURATION)["webhooks"]) == 5
    assert api.find("apps/v1", "Deployment", RELEASE, namespace=namespace) is not None

    # What the webhook writes itself survives an upgrade.
    bundle = "Q0E="
    api.patch(*CONFIGURATION, [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}])
    helm("upgrade", RELEASE, CHART, *base, "--values", tmp_path / "values.yaml", kubeconfig=kubeconfig)
    assert api.get("apps/v1", "Deployment", RELEASE, namespace=namespace)["spec"]["replicas"] == 3
    assert api.get(*CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"] == bundle

    before = len(control_plane.audit_events(verb="delete"))
    helm("uninstall", RELEASE, *base, kubeconfig=kubeconfig)
    control_plane.wait_until(lambda: len(control_plane.audit_events(verb="delete")) > before + 8, what="the deletes")
    deleted = [event["objectRef"] for event in control_plane.audit_events(verb="delete")[before:]]
    resources = [each["resource"] for each in deleted]
    assert resources[0] == "mutatingwebhookconfigurations", resources
    assert {"deployments", "services", "clusterroles", "serviceaccounts"} <= set(resources)
    assert api.find(*CONFIGURATION) is None
    assert api.find("apps/v1", "Deployment", RELEASE, namespace=namespace) is None
    assert api.find(*CRD) is not None, "policies are the users': their CRD stays"


@pytest.mark.slow
def test_a_release_of_helm_3_is_upgraded_by_helm_4(control_plane: ControlPlane, api: Api) -> None:
    """Helm 3 wrote as a client, Helm 4 may have the API server merge: neither owns what the webhook writes."""
    namespace = f"ours-{secrets.token_hex(3)}"
    kubeconfig, base = Path(control_plane.kubeconfig), ("--namespace", namespace)
    take_away(api)
    control_plane.wait_until(lambda: api.find(*CRD) is None, what="the CRD to be gone")
    helm("install", RELEASE, CHART, *base, "--create-namespace", kubeconfig=kubeconfig, version="3")
    bundle = "Q0E="
    api.patch(*CONFIGURATION, [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}])
    for replicas, options in ((3, ()), (4, ("--server-side=true", "--force-conflicts"))):
        values = ("--set", f"replicas={replicas}")
        helm("upgrade", RELEASE, CHART, *base, *values, *options, kubeconfig=kubeconfig, version="4")
        assert api.get("apps/v1", "Deployment", RELEASE, namespace=namespace)["spec"]["replicas"] == replicas
        assert api.get(*CONFIGURATION)["webhooks"][0]["clientConfig"]["caBundle"] == bundle
    helm("uninstall", RELEASE, *base, kubeconfig=kubeconfig, version="4")
    assert api.find(*CONFIGURATION) is None
