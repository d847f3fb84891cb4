"""
Every case of `tests/cases/` behind a real API server: it calls us, or not, stores what we patched, and logs why.

The facts of a case are made to be the cluster's: nodes, policies, injectors' configurations and ConfigMaps that it does
not name go away before it.
"""

import copy
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import Deployed, eventually
from tests.cases.case import Case, Expected, cases, cluster_of, identifier, patch_of
from tests.cli.command import call
from tests.parts.api import ApiError, Reply
from tests.parts.kube import ControlPlane
from tests.parts.process import ProcessError, wait_until
from webhook.rules.decision import Mode, Outcome, Reason

VARIANTS_ARE_SLOW: Final = True

MODE: Final = "sidecar.istio.io/interceptionMode"
METHOD: Final = "client-ip.dev/method"
PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "Node": ("",),
    "ClientIPPolicy": ("",),
    "MutatingWebhookConfiguration": ("",),
    "ConfigMap": ("istio-system", "kube-system"),
    "DaemonSet": ("kube-system",),
    "RuntimeClass": ("",),
    "GatewayClass": ("",),
}
"""Where facts are, by kind."""
GATEWAY_CLASSES: Final = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "gatewayclasses.gateway.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test's own"},
    },
    "spec": {
        "group": "gateway.networking.k8s.io",
        "names": {"kind": "GatewayClass", "listKind": "GatewayClassList", "plural": "gatewayclasses"},
        "scope": "Cluster",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""The part of the Gateway API that a decision reads."""
OURS: Final = "client-ip-webhook"
NOT_OF_A_CASE: Final = frozenset({OURS, "kube-root-ca.crt", "extension-apiserver-authentication"})
"""What is there whatever the case: our configuration, and the API server's own."""


class Cluster:
    """A control plane whose facts are those of one case at a time."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.api = deployed.api
        self._facts: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._terway = False
        for kind, places in PLACES.items():
            for place in places:
                for found in self.api.list(_version(kind), kind, namespace=place or None):
                    if found["metadata"]["name"] not in NOT_OF_A_CASE:
                        self.api.delete(_version(kind), kind, found["metadata"]["name"], namespace=place or None)

    def become(self, facts: list[dict[str, Any]]) -> None:
        """Make *facts* the cluster's."""
        wanted = {}
        for document in map(_called_nowhere, facts):
            metadata = document["metadata"]
            wanted[document["kind"], metadata.get("namespace", ""), metadata["name"]] = document
        for key in [key for key, document in self._facts.items() if wanted.get(key) != document]:
            kind, namespace, name = key
            self.api.delete(_version(kind), kind, name, namespace=namespace or None)
            del self._facts[key]
        for key, document in wanted.items():
            if key not in self._facts:
                self._make(document)
                self._facts[key] = document
        terway = any(namespace == "kube-system" for _, namespace, _ in wanted)
        if terway or self._terway:
            self._start_anew()  # Terway is looked for at the start; it does not come and go
        self._terway = terway

    def _make(self, document: dict[str, Any]) -> None:
        match document["kind"]:
            case "Node":
                self._make_node(document)
            case "DaemonSet":
                labels = {"app": "terway"}
                template = {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "terway", "image": "registry.example.com/terway:1"}]},
                }
                self.api.create({**document, "spec": {"selector": {"matchLabels": labels}, "template": template}})
            case _:
                self.api.create(document)

    def _make_node(self, document: dict[str, Any]) -> None:
        """The API server's admission taints new nodes; a kubelet's first words take it away."""
        metadata, spec = document["metadata"], document.get("spec", {})
        self.api.create({**document, "status": {}})
        if "status" in document:
            self.api.patch_status("v1", "Node", metadata["name"], document["status"])
        self.api.patch("v1", "Node", metadata["name"], {"spec": {"taints": spec.get("taints", [])}})

    def _start_anew(self) -> None:
        self.deployed.server.stop()
        self.deployed.server = self.deployed.start()

    def namespace(self, case: Case) -> str:
        """Make the case's namespace with its labels, and return its name."""
        name = case.in_namespace or f"{case.namespace_name}-{secrets.token_hex(3)}"
        document = case.namespace_document()
        if document is None:
            return name
        document["metadata"]["name"] = name
        if case.in_namespace and self.api.find("v1", "Namespace", name) is not None:
            self.api.patch("v1", "Namespace", name, {"metadata": {"labels": document["metadata"]["labels"]}})
        else:
            self.api.create(document)
        return name

    def said(self, audit_id: str) -> dict[str, str]:
        """Return our audit annotations of a request; none where the API server did not call us."""
        annotations = self.deployed.plane.audited(audit_id).get("annotations", {})
        assert not [key for key in annotations if key.startswith("failed-open.") and "client-ip" in annotations[key]]
        found = {}
        for key, value in annotations.items():
            webhook, _, field = key.partition("/")
            if webhook.endswith(".client-ip.dev"):
                found[field] = value
        return found


def _version(kind: str) -> str:
    return {
        "ClientIPPolicy": "client-ip.dev/v1alpha1",
        "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
        "DaemonSet": "apps/v1",
        "RuntimeClass": "node.k8s.io/v1",
        "GatewayClass": "gateway.networking.k8s.io/v1",
    }.get(kind, "v1")


def _called_nowhere(document: dict[str, Any]) -> dict[str, Any]:
    """Nobody serves Istio's injector here, and pods must not wait for it; its selectors are what counts."""
    if document["kind"] != "MutatingWebhookConfiguration":
        return document
    more = {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "timeoutSeconds": 1}
    webhooks = [{**webhook, **more} for webhook in document["webhooks"]]
    return {**document, "webhooks": webhooks}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    control_plane.kubectl("apply", "-f", "-", text=json.dumps(GATEWAY_CLASSES))
    control_plane.kubectl("wait", "--for=condition=established", "crd/gatewayclasses.gateway.networking.k8s.io")
    wait_until(
        lambda: control_plane.kubectl("get", "gatewayclasses") or "none", what="its store", passing=(ProcessError,)
    )
    deployed = Deployed(control_plane, tmp_path_factory.mktemp("cases"))
    try:
        running = Cluster(deployed)
        yield running
        running.become([])
    finally:
        deployed.close()


@pytest.mark.parametrize("case", tuple(cases()), ids=identifier)
def test_a_case_behind_the_api_server(cluster: Cluster, case: Case) -> None:
    special = case.api_server
    refused = special.refuses if special is not None else ""
    if refused in {"ClientIPPolicy", "Namespace"}:
        with pytest.raises(ApiError, match="422 Invalid"):
            _prepare(cluster, case)
        return
    namespace = _prepare(cluster, case)
    if refused:
        with pytest.raises(ApiError) as error:
            _ask(cluster, namespace, case)
        assert cluster.said(error.value.audit_id) == {}
    elif special is not None and not special.called:
        assert cluster.said(_ask(cluster, namespace, case).audit_id) == {}
    else:
        want = special.expect if special is not None and special.expect is not None else case.expect
        _assert_decided(cluster, namespace, case, want)


def _prepare(cluster: Cluster, case: Case) -> str:
    cluster.become(cluster_of(case))
    return cluster.namespace(case)


def _assert_decided(cluster: Cluster, namespace: str, case: Case, want: Expected) -> None:
    heard: list[tuple[dict[str, str], tuple[str, ...]]] = []

    def as_expected() -> bool:
        """A fact reaches the webhook a moment after the API server; until then it is asked again."""
        made = _ask(cluster, namespace, case, dry_run=True)
        said = cluster.said(made.audit_id)
        heard.append((said, made.warnings))
        return _agrees(made, said, case, want)

    eventually(as_expected, lambda: heard[-1])
    made = _ask(cluster, namespace, case, dry_run=case.dry_run)
    assert _agrees(made, cluster.said(made.audit_id), case, want)
    kind, name = case.object["kind"], made["metadata"]["name"]
    stored = cluster.api.find(case.object["apiVersion"], kind, name, namespace=namespace)
    assert (stored is None) == case.dry_run
    if stored is not None and kind in {"Pod", "Service"}:
        assert _fields(stored) == _fields(made)
    if case.operation == "CREATE" and not case.sub_resource:
        _assert_checked(cluster, namespace, case, made)


def _assert_checked(cluster: Cluster, namespace: str, case: Case, made: Reply) -> None:
    """`check` says what the webhook said of what the API server made of it, and prints what is stored."""
    options = ("--kubeconfig", str(cluster.deployed.plane.kubeconfig), "-n", namespace)
    given = json.dumps(case.object)
    (element,) = json.loads(call("check", *options, "-o", "json", "-", given=given))
    said = cluster.said(made.audit_id)
    if said:  # where it is not called nobody asked for it
        if case.api_server is not None and case.api_server.expect is not None:
            # The webhook's role shows it less than the kubeconfig shows `check`.
            assert element["reason"] in {said["reason"], case.expect.reason.value}
            return
        assert (element["reason"], element["outcome"]) == (said["reason"], said["outcome"])
        if element["reason"] != Reason.TOO_LARGE:  # which counts the tolerations that the API server adds
            assert element["cause"] == said["cause"]
    if case.object["kind"] in {"Pod", "Service"}:
        (printed,) = yaml.load_all(call("check", *options, "-o", "yaml", "-", given=given), Loader=yaml.CSafeLoader)
        mode, method, policy = _fields(printed)
        assert (mode, method) == _fields(made)[:2]
        assert policy in {_fields(made)[2], None}


def _ask(cluster: Cluster, namespace: str, case: Case, *, dry_run: bool = False) -> Reply:
    """Do what the case does, and return the API server's answer."""
    api, made = cluster.api, case.object
    version, kind, name = made["apiVersion"], made["kind"], made["metadata"].get("name", "")
    if case.operation == "CREATE":
        return api.create(made, namespace=namespace, dry_run=dry_run)
    if api.find(version, kind, name, namespace=namespace) is None:
        api.create(case.old_object or made, namespace=namespace)
    if case.operation == "DELETE":
        return api.delete(version, kind, name, namespace=namespace)
    if made["metadata"].get("deletionTimestamp"):
        api.delete(version, kind, name, namespace=namespace)
    for _ in range(20):
        stored = api.get(version, kind, name, namespace=namespace)
        try:
            changed = _changed(stored, case)
            return api.replace(changed, namespace=namespace, dry_run=dry_run, subresource=case.sub_resource)
        except ApiError as error:
            if error.status != 409:
                raise
    raise AssertionError("somebody else always wrote first")


def _changed(stored: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """Return what is stored with the case's changes in it."""
    made = case.object
    changed: dict[str, Any] = copy.deepcopy(dict(stored))
    given = {key: value for key, value in made["metadata"].items() if key != "deletionTimestamp"}
    assert ("deletionTimestamp" in made["metadata"]) == ("deletionTimestamp" in changed["metadata"])
    changed["metadata"] = {**changed["metadata"], **given}
    if case.sub_resource == "ephemeralcontainers":
        changed["spec"]["ephemeralContainers"] = made["spec"]["ephemeralContainers"]
    elif case.sub_resource == "status":
        changed["status"] = {**changed.get("status", {}), **made.get("status", {})}
    elif made["kind"] != "Pod":
        changed["spec"] = {**changed["spec"], **made["spec"]}
    if made["kind"] == "Service" and made["spec"]["type"] == "ClusterIP":
        for field in ("externalTrafficPolicy", "healthCheckNodePort", "allocateLoadBalancerNodePorts"):
            changed["spec"].pop(field, None)
    return changed


def _fields(document: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return everything that we may set."""
    metadata, spec = document["metadata"], document["spec"]
    return (
        (metadata.get("annotations") or {}).get(MODE) or None,  # a null is stored as an empty text
        (metadata.get("labels") or {}).get(METHOD),
        spec.get("externalTrafficPolicy"),
    )


def _agrees(made: Reply, said: Mapping[str, str], case: Case, want: Expected) -> bool:
    """Return whether the audit log, the warnings and the object are as the case has it."""
    if (said.get("reason"), said.get("outcome")) != (want.reason, want.outcome):
        return False
    if want.outcome is not Outcome.NOT_ASKED and said["mode"] != want.mode:
        return False
    losses = [warning for warning in made.warnings if warning.startswith("client IP lost (")]
    warned = len(losses) == (want.outcome is Outcome.LOST and want.mode is Mode.ENFORCE)
    told = all(any(part in warning for warning in made.warnings) for part in want.warnings)
    if not warned or not told or want.cause not in said["cause"]:
        return False
    return case.object["kind"] not in {"Pod", "Service"} or _fields(made) == _expected_fields(made, case, want)


def _expected_fields(made: Reply, case: Case, want: Expected) -> tuple[str | None, ...]:
    mode, method, policy = _fields(case.object)
    for path, value in patch_of(want.patch).items():
        if path == "/spec/externalTrafficPolicy":
            policy = value
        elif "annotations" in path:
            mode = value if isinstance(value, str) else value[MODE]
        else:
            method = value if isinstance(value, str) else value[METHOD]
    if case.object["kind"] == "Service" and policy is None:
        # The API server's default, for Services that are reachable from outside.
        policy = "Cluster" if made["spec"].get("externalTrafficPolicy") == "Cluster" else None
    return mode, method, policy
