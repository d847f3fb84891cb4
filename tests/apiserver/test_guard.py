"""Who may opt out: the table of `guard/cases.yaml`, on real API servers of two minors."""

import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import eventually, render
from tests.parts.api import Api, ApiError, Reply
from tests.parts.cache import ROOT
from tests.parts.kube import ControlPlane

CASES: Final[list[dict[str, Any]]] = yaml.safe_load((Path(__file__).parent / "guard" / "cases.yaml").read_text())
POLICY: Final = "opt-out.client-ip.dev"
VERSION: Final = "admissionregistration.k8s.io/v1"
RBAC: Final = "rbac.authorization.k8s.io"
ROLLOUTS: Final = "system:serviceaccounts:argo-rollouts"
ACCOUNTS: Final = {
    "pipeline": ("argocd", "argocd"),
    "replicaset": ("kube-system", "replicaset-controller"),
    "rollouts": ("argo-rollouts", "argo-rollouts"),
}
KEYS: Final = {"name", "as", "kind", "namespace", "before", "after", "via", "guard", "want", "says"}
PRESERVE: Final = "client-ip.dev/preserve"
ANNOTATIONS: Final = {
    "owner": "client-ip.dev/opt-out-owner",
    "until": "client-ip.dev/opt-out-until",
    "mode": "sidecar.istio.io/interceptionMode",
    "config": "proxy.istio.io/config",
}
API_VERSIONS: Final = {
    **dict.fromkeys(("Namespace", "Pod", "Service", "ReplicationController"), "v1"),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), "apps/v1"),
    **dict.fromkeys(("Job", "CronJob"), "batch/v1"),
}


class Guarded:
    """A control plane with the guard, and everybody who writes to it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.admin = plane.client()
        self._strict: bool | None = None
        for namespace in ("argocd", "argo-rollouts"):
            self._make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for name, account in ACCOUNTS.values():
            self._make({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": name}})
        resources = ["*"]
        rules = [{"apiGroups": ["", "apps", "batch"], "resources": resources, "verbs": ["*"]}]
        self._make({"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "tenant"}, "rules": rules})
        users = [{"kind": "User", "name": name, "apiGroup": RBAC} for name in ("tenant", "person")]
        accounts = [
            {"kind": "ServiceAccount", "namespace": namespace, "name": name} for namespace, name in ACCOUNTS.values()
        ]
        kcm = {"kind": "User", "name": "system:kube-controller-manager", "apiGroup": RBAC}
        self._bind("tenant", [*users, *accounts, kcm])
        self.use(strict=False)
        self._bind("client-ip-opt-out", [users[1]])
        self._bind("cluster-admin", [accounts[0]])
        self.clients: dict[str, Api] = {
            **{name: plane.client(user=name) for name in ("tenant", "person")},
            "kcm": plane.client(user="system:kube-controller-manager"),
            **{name: plane.client(token=plane.service_account_token(*account)) for name, account in ACCOUNTS.items()},
        }

    def use(self, *, strict: bool) -> None:
        """Put the guard up as `render` prints it, and return when it holds."""
        if strict is self._strict:
            return
        self._strict = strict
        options = ("--mode", "Deny", "--controller", ROLLOUTS, *(["--redirect"] if strict else []))
        for document in render("guard", *options):
            self._make(document)
        name = f"probe-{secrets.token_hex(3)}"
        labels = {PRESERVE: "enabled"}
        self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        tenant = self.plane.client(user="tenant")
        redirected = written("Deployment", {"mode": "REDIRECT"}, "probe", name)
        out = written("Deployment", {"label": "disabled"}, "probe", name)

        def holds() -> bool:
            return is_refused(tenant, out) and is_refused(tenant, redirected) is strict

        eventually(holds, seconds=60)

    def take_away(self) -> None:
        for document in render("guard"):
            self.admin.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])

    def _make(self, document: Mapping[str, Any]) -> None:
        self.admin.apply(document)

    def _bind(self, role: str, subjects: list[dict[str, str]]) -> None:
        reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
        binding = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"guarded-{role}"}}
        self._make({**binding, "roleRef": reference, "subjects": subjects})


def is_refused(api: Api, document: Mapping[str, Any]) -> bool:
    try:
        api.create(document, dry_run=True)
    except ApiError as error:
        return POLICY in error.message
    return False


@pytest.fixture(scope="module")
def guarded(control_plane: ControlPlane) -> Iterator[Guarded]:
    made = Guarded(control_plane)
    yield made
    made.take_away()


def moment(text: str, now: datetime) -> str:
    """Return the time that a case means: from *now* on, or as it stands."""
    units = {"d": "days", "h": "hours"}
    if text[0] not in "+-" or text[-1] not in units:
        return text
    return (now + timedelta(**{units[text[-1]]: int(text[:-1])})).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata_of(said: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the labels and annotations that a case means."""
    labels = {"app": "web"}
    if "label" in said:
        labels[PRESERVE] = said["label"]
    if "team" in said:
        labels["team"] = said["team"]
    annotations = {ANNOTATIONS[key]: str(value) for key, value in said.items() if key in ANNOTATIONS}
    for key, value in annotations.items():
        annotations[key] = moment(value, now) if key == ANNOTATIONS["until"] else value
        if value.partition(" ")[0].isdigit() and key == ANNOTATIONS["owner"]:
            annotations[key] = value.split()[1] * int(value.split()[0])
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def written(
    kind: str, said: Mapping[str, Any], name: str, namespace: str, now: datetime | None = None
) -> dict[str, Any]:
    """Return the object that a case means."""
    metadata = metadata_of(said, now or datetime.now(UTC))
    place = {"name": name} if kind == "Namespace" else {"name": name, "namespace": namespace}
    document: dict[str, Any] = {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": {**place}}
    spec: dict[str, Any] = {"containers": [{"name": "app", "image": "app:1"}]}
    if kind in {"Job", "CronJob"}:
        spec["restartPolicy"] = "Never"
    template = {"metadata": metadata, "spec": spec}
    match kind:
        case "Namespace":
            return {**document, "metadata": {**metadata, **place}}
        case "Pod":
            return {**document, "metadata": {**metadata, **place}, "spec": spec}
        case "Service":
            return {**document, "metadata": {**metadata, **place}, "spec": {"ports": [{"port": 80}]}}
        case "ReplicationController":
            return {**document, "spec": {"selector": {"app": "web"}, "template": template}}
        case "Job":
            return {**document, "spec": {"template": template}}
        case "CronJob":
            return {**document, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}}
        case "StatefulSet":
            return {
                **document,
                "spec": {"serviceName": name, "selector": {"matchLabels": {"app": "web"}}, "template": template},
            }
    replicas = {} if kind == "DaemonSet" else {"replicas": said.get("replicas", 1)}
    return {**document, "spec": {**replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}}


def forged(document: Mapping[str, Any], times: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return managedFields of managers that never were; an empty one has the API server forget all of them."""
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:forged": {}}}}
    entry = {"operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields, "apiVersion": document["apiVersion"]}
    return [{**entry, "manager": f"forged-{number}", **each} if each else {} for number, each in enumerate(times)]


def write(api: Api, document: dict[str, Any], stored: Reply | None, via: Any) -> Reply:
    if isinstance(via, list):
        entries = forged(document, via)
        kept = stored["metadata"].get("managedFields", []) if stored is not None and entries != [{}] else []
        document["metadata"]["managedFields"] = [*kept, *entries]
    if via == "apply":
        return api.apply(document, field_manager="somebody")
    if stored is None:
        return api.create(document)
    document["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
    for field in ("clusterIP", "clusterIPs"):
        if field in stored.get("spec", {}):
            document["spec"][field] = stored["spec"][field]
    return api.replace(document, subresource="status" if via == "status" else "")


@pytest.mark.parametrize("case", CASES, ids=[each["name"] for each in CASES])
def test_case(guarded: Guarded, case: dict[str, Any]) -> None:
    assert case.keys() <= KEYS, case.keys() - KEYS
    guarded.use(strict=case.get("guard") == "strict")
    kind, api = case.get("kind", "Namespace"), guarded.clients[case["as"]]
    name = f"case-{secrets.token_hex(4)}"
    if kind != "Namespace":
        labels = {PRESERVE: case["namespace"]} if "namespace" in case else {}
        around = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        guarded.admin.create(around)
    now = datetime.now(UTC)
    stored = None
    if "before" in case:
        document = written(kind, case["before"], name, name, now)
        if "stamped" in case["before"]:
            document["metadata"]["managedFields"] = forged(document, [{"time": case["before"]["stamped"]}])
        stored = guarded.admin.create(document)
    if "until" in case.get("before", {}):
        # managedFields' times are seconds: of two equal writes of one manager in one second nothing tells the second.
        time.sleep(1.1)
    document = written(kind, case["after"], name, name, now)
    if case["want"] == "allowed":
        audit_id = write(api, document, stored, case.get("via")).audit_id
    else:
        with pytest.raises(ApiError) as refusal:
            write(api, document, stored, case.get("via"))
        assert POLICY in refusal.value.message
        assert case["want"] in refusal.value.message
        audit_id = refusal.value.audit_id
    if "says" in case:
        told = guarded.plane.audited(audit_id).get("annotations", {}).get(f"{POLICY}/opt-out", "")
        people = {"pipeline": "system:serviceaccount:argocd:argocd"}
        assert told.startswith(case["says"].replace(case["as"], people.get(case["as"], case["as"]))), told
        assert bool(told) is bool(case["says"])


def test_a_dry_run_is_judged(guarded: Guarded) -> None:
    assert is_refused(guarded.clients["tenant"], written("Namespace", {"label": "disabled"}, "x", "x"))


def test_excluded_namespaces_are_nobodys_business(guarded: Guarded) -> None:
    tenant = guarded.clients["tenant"]
    tenant.create(written("Deployment", {"label": "disabled"}, "x", "kube-system"), dry_run=True)


def test_audit_refuses_nothing_and_is_counted(guarded: Guarded) -> None:
    """What Deny would refuse is counted by the API server and stands in its audit log."""
    name = f"audited-{secrets.token_hex(3)}"
    binding = next(each for each in render("guard") if each["kind"] == "ValidatingAdmissionPolicyBinding")
    guarded.admin.apply(binding)
    metric = "apiserver_validating_admission_policy_check_total"
    try:
        tenant = guarded.clients["tenant"]
        eventually(lambda: not is_refused(tenant, written("Namespace", {"label": "disabled"}, name, name)), seconds=60)
        before = guarded.plane.metric(metric, policy=POLICY, enforcement_action="audit")
        made = tenant.create(written("Namespace", {"label": "disabled"}, name, name))
        assert made.warnings == ()
        assert guarded.plane.metric(metric, policy=POLICY, enforcement_action="audit") == before + 1
        annotations = guarded.plane.audited(made.audit_id)["annotations"]
        assert annotations[f"{POLICY}/opt-out"] == "none -> disabled by tenant owner= until="
        assert POLICY in annotations["validation.policy.admission.k8s.io/validation_failure"]
    finally:
        guarded._strict = None
        guarded.use(strict=False)


def test_the_example_s_roles_let_the_policy_team_opt_out_and_nobody_else(guarded: Guarded) -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples" / "roles.yaml").read_text()))
    for document in documents:
        assert guarded.admin.apply(document).warnings == ()

    def allowed(group: str, verb: str, name: str) -> bool:
        resource = {"group": "client-ip.dev", "resource": "clientippolicies", "verb": verb, "name": name}
        spec = {"user": "alice", "groups": [group], "resourceAttributes": resource}
        asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {"name": ""}}
        review = guarded.admin.request(
            "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body={**asked, "spec": spec}
        )
        return bool(review["status"]["allowed"])

    eventually(lambda: allowed("policy-team", "opt-out", "default"))
    assert not allowed("policy-team", "opt-out", "other")
    assert not allowed("tenants", "opt-out", "default")
    for document in documents:
        guarded.admin.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])
