"""What our ServiceAccount can't do with the rights that it has, nor whoever steals its token, on a real API server."""

import copy
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.deployed import OWN_NAMESPACE, eventually, render
from tests.parts.api import Api, ApiError
from tests.parts.kube import ControlPlane
from tests.serve.server import Server

ACCOUNT: Final = "client-ip-webhook"
SECRET: Final = "client-ip-webhook-tls"
VERSION: Final = "admissionregistration.k8s.io/v1"
CONFIGURATION: Final = (VERSION, "MutatingWebhookConfiguration", ACCOUNT)
OURS: Final = "configuration.least-power.client-ip.dev"
RBAC: Final = "rbac.authorization.k8s.io/v1"
OTHER: Final = {"name": "other.example.com", "failurePolicy": "Ignore"}

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """A cluster that has what `render` prints."""
    api = control_plane.client()
    for namespace in (OWN_NAMESPACE, "istio-system"):
        if api.find("v1", "Namespace", namespace) is None:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    documents = [*render("crd", "rbac", "--tls-secret", SECRET), *render("configuration")]
    for document in documents:
        api.apply(document)
    yield api
    for document in documents:
        if document["apiVersion"] == VERSION:
            api.delete(VERSION, document["kind"], document["metadata"]["name"])
    if api.find("v1", "Secret", SECRET, namespace=OWN_NAMESPACE):
        api.delete("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)


@pytest.fixture(scope="module")
def ours(control_plane: ControlPlane, admin: Api) -> Api:
    """The ServiceAccount, once the policies hold."""
    api = control_plane.client(token=control_plane.service_account_token(OWN_NAMESPACE, ACCOUNT))
    abuse = [{"op": "add", "path": "/metadata/labels/probe", "value": "x"}]
    eventually(lambda: refused(lambda: api.patch(*CONFIGURATION, abuse, dry_run=True)), seconds=60)
    eventually(lambda: refused(lambda: api.create(a_secret("probe"), dry_run=True)), seconds=60)
    return api


@pytest.fixture
def all_rights(control_plane: ControlPlane, admin: Api) -> Iterator[Api]:
    """The same with every right on webhook configurations and Secrets, as somebody's careless binding may give."""
    name = f"careless-{secrets.token_hex(3)}"
    resources = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations", "secrets"]
    rules = [{"apiGroups": ["admissionregistration.k8s.io", ""], "resources": resources, "verbs": ["*"]}]
    metadata = {"name": name}
    admin.create({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": OWN_NAMESPACE}
    binding = {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": metadata}
    admin.create({**binding, "roleRef": role, "subjects": [subject]})
    yield control_plane.client(token=control_plane.service_account_token(OWN_NAMESPACE, ACCOUNT))
    admin.delete(RBAC, "ClusterRoleBinding", name)
    admin.delete(RBAC, "ClusterRole", name)


def refused(attempt: Callable[[], object]) -> str:
    """Return what a policy of ours says against *attempt*; nothing where it is let through, or refused by others."""
    try:
        attempt()
    except ApiError as error:
        return error.message if "least-power.client-ip.dev" in error.message else ""
    return ""


def a_secret(name: str, *, namespace: str = OWN_NAMESPACE, kind: str = "kubernetes.io/tls") -> dict[str, Any]:
    data = {"tls.crt": "", "tls.key": ""}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}


def _webhook(**fields: Any) -> Change:
    def change(configuration: dict[str, Any]) -> None:
        configuration["webhooks"][1].update(fields)

    return change


def _service(**fields: Any) -> Change:
    def change(configuration: dict[str, Any]) -> None:
        configuration["webhooks"][0]["clientConfig"]["service"].update(fields)

    return change


def _metadata(**fields: Any) -> Change:
    def change(configuration: dict[str, Any]) -> None:
        configuration["metadata"].update(fields)

    return change


def _by_url(configuration: dict[str, Any]) -> None:
    configuration["webhooks"][0]["clientConfig"] = {"url": "https://attacker.example.com/mutate"}


def _appended(configuration: dict[str, Any]) -> None:
    configuration["webhooks"].append({**copy.deepcopy(configuration["webhooks"][0]), **OTHER})


def _removed(configuration: dict[str, Any]) -> None:
    del configuration["webhooks"][-1]


def _emptied(configuration: dict[str, Any]) -> None:
    configuration["webhooks"] = []


def _swapped(configuration: dict[str, Any]) -> None:
    configuration["webhooks"][0], configuration["webhooks"][1] = configuration["webhooks"][1::-1]


def _swapped_and_trusting(configuration: dict[str, Any]) -> None:
    configuration["webhooks"][0]["clientConfig"]["caBundle"] = "Q0E="
    _swapped(configuration)


def _without(field: str) -> Change:
    def change(configuration: dict[str, Any]) -> None:
        for webhook in configuration["webhooks"]:
            del webhook[field]

    return change


OWNER: Final = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "name": "default",
    "uid": "00000000-0000-0000-0000-000000000000",
}
EVERYTHING: Final = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*"}
ABUSES: Final[dict[str, Change]] = {
    "failurePolicy": _webhook(failurePolicy="Fail"),
    "rules": _webhook(rules=[EVERYTHING]),
    "namespaceSelector": _webhook(namespaceSelector={}),
    "no namespaceSelector": _without("namespaceSelector"),
    "objectSelector": _webhook(objectSelector={"matchLabels": {"a": "b"}}),
    "matchConditions": _webhook(matchConditions=[]),
    "no matchConditions": _without("matchConditions"),
    "matchPolicy": _webhook(matchPolicy="Exact"),
    "reinvocationPolicy": _webhook(reinvocationPolicy="IfNeeded"),
    "sideEffects": _webhook(sideEffects="NoneOnDryRun"),
    "timeoutSeconds": _webhook(timeoutSeconds=30),
    "admissionReviewVersions": _webhook(admissionReviewVersions=["v1", "v1beta1"]),
    "a webhook's name": _webhook(name="renamed.client-ip.dev"),
    "a URL for the Service": _by_url,
    "another Service": _service(name="other"),
    "another namespace's Service": _service(namespace="default"),
    "another path": _service(path="/elsewhere"),
    "another port": _service(port=8443),
    "a webhook more": _appended,
    "a webhook less": _removed,
    "no webhook": _emptied,
    "another order": _swapped,
    "labels": _metadata(labels={}),
    "an annotation": _metadata(annotations={"cert-manager.io/inject-ca-from": "default/mine"}),
    "a finalizer": _metadata(finalizers=["example.com/never"]),
    "an owner": _metadata(ownerReferences=[OWNER]),
    "caBundle and more": _swapped_and_trusting,
}


@pytest.mark.parametrize("change", ABUSES.values(), ids=ABUSES.keys())
def test_nothing_but_the_ca_bundle_may_be_changed(admin: Api, ours: Api, change: Change) -> None:
    """The same change is taken from an administrator: it is the policy that refuses, not the API."""
    before = admin.get(*CONFIGURATION)
    changed = copy.deepcopy(dict(before))
    change(changed)
    admin.replace(changed, dry_run=True)
    patch = [
        {"op": "replace", "path": "/webhooks", "value": changed["webhooks"]},
        {"op": "replace", "path": "/metadata", "value": changed["metadata"]},
    ]
    assert OURS in refused(lambda: ours.patch(*CONFIGURATION, patch, dry_run=True))
    assert admin.get(*CONFIGURATION) == before


def test_fields_of_webhooks_are_all_compared(admin: Api, ours: Api) -> None:
    """Whatever the API server stores for a webhook of ours is in the list of abuses above."""
    stored = {key for webhook in admin.get(*CONFIGURATION)["webhooks"] for key in webhook}
    tried = {*ABUSES, "name", "clientConfig"}
    assert stored <= tried, stored - tried


@pytest.mark.parametrize("value", ["Q0E=", ""], ids=["another", "none"])
def test_the_ca_bundle_may_be_changed(ours: Api, value: str) -> None:
    patch = [{"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": value} for index in range(5)]
    ours.patch(*CONFIGURATION, patch, dry_run=True)


def test_rights_that_somebody_gives_by_mistake_are_no_use(admin: Api, all_rights: Api) -> None:
    mine = {
        "apiVersion": VERSION,
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "z-mine"},
        "webhooks": [],
    }
    admin.create(mine)
    label = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    kinds = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    attempts: dict[str, Callable[[], object]] = {
        "delete ours": lambda: all_rights.delete(*CONFIGURATION),
        "change another": lambda: all_rights.patch(VERSION, "MutatingWebhookConfiguration", "z-mine", label),
        "delete another": lambda: all_rights.delete(VERSION, "MutatingWebhookConfiguration", "z-mine"),
        **{f"create a {kind}": partial(all_rights.create, {**mine, "kind": kind}) for kind in kinds},
    }
    try:
        eventually(lambda: "Forbidden" not in _said(attempts["delete another"]), seconds=20)
        for what, attempt in attempts.items():
            assert OURS in refused(attempt), what
    finally:
        admin.delete(VERSION, "MutatingWebhookConfiguration", "z-mine")


def _said(attempt: Callable[[], object]) -> str:
    """Return RBAC's own refusal as Forbidden; a binding takes effect a moment after it is stored."""
    try:
        attempt()
    except ApiError as error:
        return "Forbidden" if "is forbidden: User" in error.message else error.message
    return ""


WRONG_SECRETS: Final[dict[str, dict[str, Any]]] = {
    "another name": a_secret("other"),
    "a token of another ServiceAccount": {
        **a_secret("token", kind="kubernetes.io/service-account-token"),
        "metadata": {
            "name": SECRET,
            "namespace": OWN_NAMESPACE,
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
    },
    "another type": a_secret(SECRET, kind="Opaque"),
    "a generated name": {
        **a_secret(""),
        "metadata": {"generateName": SECRET, "namespace": OWN_NAMESPACE},
    },
}


@pytest.mark.parametrize("secret", WRONG_SECRETS.values(), ids=WRONG_SECRETS.keys())
def test_no_other_secret_may_be_created(admin: Api, ours: Api, secret: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refusal:
        ours.create(secret, dry_run=True)
    assert "secret.least-power.client-ip.dev" in refusal.value.message


def test_not_in_another_namespace_either(all_rights: Api) -> None:
    elsewhere = a_secret(SECRET, namespace="default")
    eventually(lambda: "Forbidden" not in _said(lambda: all_rights.create(elsewhere, dry_run=True)), seconds=20)
    assert "secret.least-power.client-ip.dev" in refused(lambda: all_rights.create(elsewhere, dry_run=True))


def test_the_one_secret_may_be_created(ours: Api) -> None:
    ours.create(a_secret(SECRET), dry_run=True)


def test_others_are_not_judged(control_plane: ControlPlane, admin: Api) -> None:
    """Cert-manager's ca-injector writes annotations of its own beside the caBundle; so does whoever else may."""
    metadata = {"name": "cainjector", "namespace": "default"}
    admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    rules = [
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"], "verbs": ["*"]}
    ]
    admin.apply({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "cainjector"}, "rules": rules})
    admin.apply(
        {
            "apiVersion": RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "cainjector"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cainjector"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        }
    )
    injector = control_plane.client(token=control_plane.service_account_token("default", "cainjector"))
    patch: list[dict[str, Any]] = [
        {"op": "add", "path": "/metadata/annotations", "value": {"cert-manager.io/inject-ca-from": "a/b"}},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "Q0E="},
    ]
    eventually(
        lambda: "Forbidden" not in _said(lambda: injector.patch(*CONFIGURATION, patch, dry_run=True)), seconds=20
    )
    injector.patch(*CONFIGURATION, patch, dry_run=True)


def test_the_webhook_itself_makes_its_secret_and_heals_its_bundle(
    control_plane: ControlPlane, admin: Api, ours: Api, tmp_path: Path
) -> None:
    kubeconfig = control_plane.service_account_kubeconfig(OWN_NAMESPACE, ACCOUNT)
    options = ("--kubeconfig", str(kubeconfig), "--tls-secret", SECRET, "--drain-seconds", "0")
    with Server(tmp_path, *options, self_signed=False) as running:

        def bundles() -> set[str]:
            return {each["clientConfig"].get("caBundle", "") for each in admin.get(*CONFIGURATION)["webhooks"]}

        eventually(lambda: len(bundles()) == 1 and bundles() != {""}, running.log.read_text, seconds=60)
        filled = bundles()
        admin.patch(*CONFIGURATION, [{"op": "remove", "path": "/webhooks/2/clientConfig/caBundle"}])
        eventually(lambda: bundles() == filled, running.log.read_text, seconds=60)
        secret = admin.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)
        assert secret["type"] == "kubernetes.io/tls"
        admin.delete("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)
        eventually(
            lambda: admin.find("v1", "Secret", SECRET, namespace=OWN_NAMESPACE), running.log.read_text, seconds=60
        )
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
