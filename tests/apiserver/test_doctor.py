"""
Each check of `client-ip doctor` says so when the very thing that it looks at is broken, on a real API server.

A healthy installation is built once. Each row of `BREAKS` breaks one thing, names what must be said by which check, and
puts it back; every other check must say what it said before, but for those that are declared to follow.
"""

import base64
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

from certs.authority import issue_ca, issue_leaf
from certs.lifecycle import Authority, State
from certs.secret import write_secret
from tests.apiserver.deployed import OWN_NAMESPACE, crd, eventually, namespace_of, pod, render
from tests.apiserver.injector import Injector, injecting
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.serve.server import Server
from webhook.cli.doctor import command

SECRET: Final = "client-ip-webhook-tls"
OURS: Final = "client-ip-webhook"
ADMISSION: Final = "admissionregistration.k8s.io/v1"
CONFIGURATION: Final = (ADMISSION, "MutatingWebhookConfiguration", OURS)
SHOP: Final = "shop"
EDGE: Final = "edge"
ERROR, WARNING, SKIPPED, SUCCESS = "error", "warning", "skipped", "success"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The healthy installation."""

    plane: ControlPlane
    api: Api
    server: Server
    injector: Injector

    def doctor(self, *options: str) -> dict[str, dict[str, Any]]:
        """Return what each check found, by id."""
        done = CliRunner().invoke(command, [*options, "-o", "json", "--kubeconfig", str(self.plane.kubeconfig)])
        assert done.exception is None, done.output
        printed = json.loads(done.stdout)
        return {check["id"]: check for category in printed["categories"] for check in category["checks"]}


def endpoints(*, ready: bool = True) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{OURS}-1",
            "namespace": OWN_NAMESPACE,
            "labels": {"kubernetes.io/service-name": OURS},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 8443}],
        "endpoints": [
            {"addresses": [f"10.0.0.{number}"], "nodeName": f"node-{number}", "conditions": {"ready": ready}}
            for number in (1, 2)
        ],
    }


def on_node(name: str, node: str, labels: Mapping[str, str]) -> dict[str, Any]:
    document = pod(name, nodeName=node)
    document["metadata"]["labels"] = dict(labels)
    return document


def gateway() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": EDGE, "labels": {"istio": "ingressgateway"}},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"istio": "ingressgateway"},
            "ports": [{"port": 80}],
        },
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("doctor")
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane("1.37", folder / "kube"))
        api = plane.client()
        for name in (OWN_NAMESPACE, "istio-system"):
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for document in render("crd", "rbac", "--tls-secret", SECRET):
            api.apply(document)
        for number in (1, 2):
            plane.add_node(f"node-{number}", labels={"kubernetes.io/hostname": f"node-{number}"})
        namespace_of(api, SHOP, preserve="enabled", injection="enabled")
        namespace_of(api, EDGE, preserve="enabled")
        injector = stack.enter_context(injecting())
        api.apply(injector.configuration())
        api.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
                "data": {"config": "policy: enabled\n", "values": "{}"},
            }
        )
        for number in (1, 2):
            api.create(on_node(f"gateway-{number}", f"node-{number}", {"istio": "ingressgateway"}), namespace=EDGE)
        _install(api)
        server = stack.enter_context(_serving(plane, folder / "server"))
        eventually(lambda: reviewed(api), server.log.read_text)
        assert api.create(gateway())["spec"]["externalTrafficPolicy"] == "Local"
        yield Cluster(plane, api, server, injector)


def _install(api: Api) -> None:
    """What the chart's Deployment and Service, their controllers and kubelets would have made."""
    labels = {"app.kubernetes.io/name": OURS}
    template = {"metadata": {"labels": labels}, "spec": pod("x")["spec"]}
    api.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OURS, "namespace": OWN_NAMESPACE},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    ready = {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
    api.patch_status("apps/v1", "Deployment", OURS, ready, namespace=OWN_NAMESPACE)
    for number in (1, 2):
        api.create(on_node(f"{OURS}-{number}", f"node-{number}", labels), namespace=OWN_NAMESPACE)
        _image(api, number, "sha256:aa")
    api.create(endpoints())


def _image(api: Api, number: int, digest: str) -> None:
    status = {
        "name": "app",
        "image": "app:1",
        "imageID": f"app@{digest}",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {}},
    }
    api.patch_status("v1", "Pod", f"{OURS}-{number}", {"containerStatuses": [status]}, namespace=OWN_NAMESPACE)


@contextmanager
def _serving(plane: ControlPlane, folder: Path) -> Iterator[Server]:
    kubeconfig = plane.service_account_kubeconfig(OWN_NAMESPACE, OURS)
    options = [
        *("--kubeconfig", str(kubeconfig), "--tls-secret", SECRET),
        *("--tls-host", "127.0.0.1", "--tls-host", f"{OURS}.{OWN_NAMESPACE}.svc"),
    ]
    with Server(folder, *options, "--drain-seconds", "0", self_signed=False) as running:
        host, port = running.address
        (configuration,) = render("configuration", "--url", f"https://{host}:{port}/mutate")
        plane.client().apply(configuration)
        eventually(lambda: running.probe("/readyz").status == 200, running.log.read_text)
        yield running


def reviewed(api: Api) -> bool:
    made = api.create(pod("looked"), namespace=SHOP, dry_run=True)
    return (made["metadata"].get("labels") or {}).get("client-ip.dev/method") == "tproxy"


def test_a_healthy_installation_is_healthy(cluster: Cluster) -> None:
    found = cluster.doctor()
    wrong = {name: check for name, check in found.items() if check["result"] in {ERROR, WARNING}}
    assert not wrong, [(name, check.get("error") or check.get("message")) for name, check in wrong.items()]
    assert found["end-to-end"]["message"].startswith("a pod created in shop (dry run) gets the annotation")


# --- What is broken


@contextmanager
def changed(
    api: Api, reference: tuple[str, str, str], patch: Any, undo: Any, namespace: str | None = None
) -> Iterator[None]:
    """Patch an object and patch it back."""
    api.patch(*reference, patch, namespace=namespace)
    try:
        yield
    finally:
        api.patch(*reference, undo, namespace=namespace)


@contextmanager
def gone(api: Api, reference: tuple[str, str, str], namespace: str | None = None) -> Iterator[None]:
    """Delete an object and make it again."""
    stored = dict(api.get(*reference, namespace=namespace))
    api.delete(*reference, namespace=namespace, grace_seconds=0)
    eventually(lambda: api.find(*reference, namespace=namespace) is None)
    try:
        yield
    finally:
        kept = {"name", "namespace", "labels", "annotations"}
        metadata = {key: value for key, value in stored["metadata"].items() if key in kept}
        stored.pop("status", None)
        api.create({**stored, "metadata": metadata}, namespace=namespace)


@contextmanager
def there(api: Api, document: Mapping[str, Any], namespace: str | None = None) -> Iterator[None]:
    """Create an object and delete it."""
    api.create(document, namespace=namespace)
    try:
        yield
    finally:
        reference = (document["apiVersion"], document["kind"], document["metadata"]["name"])
        api.delete(*reference, namespace=namespace, grace_seconds=0)
        eventually(lambda: api.find(*reference, namespace=namespace) is None)


@contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    """Stop the webhook's process in mid-step: its port takes connections and nobody answers."""
    os.kill(cluster.server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(cluster.server.process.pid, signal.SIGCONT)


@contextmanager
def healed(cluster: Cluster) -> Iterator[None]:
    """Wait at the end until the webhook has put its certificates right again."""
    yield
    eventually(lambda: reviewed(cluster.api), cluster.server.log.read_text, 60)


def no_configuration(cluster: Cluster) -> AbstractContextManager[None]:
    return _after(gone(cluster.api, CONFIGURATION), lambda: eventually(lambda: reviewed(cluster.api), seconds=60))


@contextmanager
def _after(broken: AbstractContextManager[None], then: Callable[[], None]) -> Iterator[None]:
    with broken:
        yield
    then()


def edited_configuration(cluster: Cluster) -> AbstractContextManager[None]:
    conditions = cluster.api.get(*CONFIGURATION)["webhooks"][2]["matchConditions"]
    path = "/webhooks/2/matchConditions"
    return changed(
        cluster.api,
        CONFIGURATION,
        [{"op": "remove", "path": path}],
        [{"op": "add", "path": path, "value": conditions}],
    )


def deployment_status(ready: int) -> Callable[[Cluster], AbstractContextManager[None]]:
    @contextmanager
    def broken(cluster: Cluster) -> Iterator[None]:
        for count in (ready, 2):
            cluster.api.patch_status("apps/v1", "Deployment", OURS, {"readyReplicas": count}, namespace=OWN_NAMESPACE)
            if count == ready:
                yield

    return broken


@contextmanager
def no_endpoints(cluster: Cluster) -> Iterator[None]:
    cluster.api.apply(endpoints(ready=False))
    try:
        yield
    finally:
        cluster.api.apply(endpoints())


@contextmanager
def two_images(cluster: Cluster) -> Iterator[None]:
    _image(cluster.api, 2, "sha256:bb")
    try:
        yield
    finally:
        _image(cluster.api, 2, "sha256:aa")


@contextmanager
def foreign_bundle(cluster: Cluster) -> Iterator[None]:
    foreign = issue_ca(organization="somebody", now=datetime.now(UTC), life=timedelta(days=9))
    bundle = base64.b64encode(foreign.certificate_pem).decode()
    with healed(cluster), stopped(cluster):
        webhooks = cluster.api.get(*CONFIGURATION)["webhooks"]
        cluster.api.patch(
            *CONFIGURATION,
            [
                {"op": "replace", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": bundle}
                for number in range(len(webhooks))
            ],
        )
        yield


def ageing(*, ca_left: timedelta, leaf_left: timedelta) -> Callable[[Cluster], AbstractContextManager[None]]:
    """A Secret whose CA and leaf have this long to live, trusted by every caBundle."""

    @contextmanager
    def broken(cluster: Cluster) -> Iterator[None]:
        now = datetime.now(UTC)
        ca_life, leaf_life = timedelta(days=365), timedelta(days=90)
        ca = issue_ca(organization="client-ip-webhook", now=now + ca_left - ca_life, life=ca_life)
        names = ["127.0.0.1", f"{OURS}.{OWN_NAMESPACE}.svc"]
        leaf = issue_leaf(ca, names=names, now=now + leaf_left - leaf_life, life=leaf_life)
        authority = Authority(certificate=ca.certificate, last_leaf_expires=now + leaf_left)
        state = State(authorities=(authority,), ca_key_pem=ca.key_pem, leaf=leaf)
        bundle = base64.b64encode(ca.certificate_pem).decode()
        with healed(cluster), stopped(cluster):
            stored = cluster.api.get("v1", "Secret", SECRET, namespace=OWN_NAMESPACE)
            cluster.api.replace(write_secret(stored, state, namespace=OWN_NAMESPACE, name=SECRET, organization=OURS))
            count = len(cluster.api.get(*CONFIGURATION)["webhooks"])
            path = "/webhooks/{}/clientConfig/caBundle"
            cluster.api.patch(
                *CONFIGURATION,
                [{"op": "replace", "path": path.format(number), "value": bundle} for number in range(count)],
            )
            yield

    return broken


def after_the_injector(cluster: Cluster) -> AbstractContextManager[None]:
    """An injector whose name sorts before ours, in place of the one whose name does not."""

    @contextmanager
    def broken() -> Iterator[None]:
        with (
            gone(cluster.api, (ADMISSION, "MutatingWebhookConfiguration", "istio-sidecar-injector")),
            there(cluster.api, cluster.injector.configuration("aaa-injector")),
        ):
            eventually(lambda: not reviewed(cluster.api))
            yield
        eventually(lambda: reviewed(cluster.api))

    return broken()


@contextmanager
def no_injector(cluster: Cluster) -> Iterator[None]:
    with gone(cluster.api, (ADMISSION, "MutatingWebhookConfiguration", "istio-sidecar-injector")):
        eventually(lambda: not reviewed(cluster.api))
        yield
    eventually(lambda: reviewed(cluster.api))


def other_mutator(cluster: Cluster) -> AbstractContextManager[None]:
    webhook = {
        "name": "tolerations.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 1,
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"nobody": "matches"}},
    }
    document = {
        "apiVersion": ADMISSION,
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "zz-tolerations"},
        "webhooks": [webhook],
    }
    return there(cluster.api, document)


def labelled(
    kind: str, name: str, labels: Mapping[str, str], namespace: str | None = None
) -> Callable[[Cluster], AbstractContextManager[None]]:
    def broken(cluster: Cluster) -> AbstractContextManager[None]:
        return changed(
            cluster.api,
            ("v1", kind, name),
            {"metadata": {"labels": dict(labels)}},
            {"metadata": {"labels": dict.fromkeys(labels)}},
            namespace,
        )

    return broken


@contextmanager
def lost_revision(cluster: Cluster) -> Iterator[None]:
    labels = {"client-ip.dev/preserve": "enabled", "istio.io/rev": "canary"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "canary", "labels": labels}}
    if cluster.api.find("v1", "Namespace", "canary") is None:
        cluster.api.create(document)
    try:
        yield
    finally:
        cluster.api.patch("v1", "Namespace", "canary", {"metadata": {"labels": {"client-ip.dev/preserve": None}}})


@contextmanager
def native_nftables(cluster: Cluster) -> Iterator[None]:
    reference = ("v1", "ConfigMap", "istio-sidecar-injector")
    values = json.dumps({"global": {"nativeNftables": True}})
    kernels = [{"status": {"nodeInfo": {"kernelVersion": kernel}}} for kernel in ("4.18.0", "6.12.48+deb13-amd64")]
    with changed(cluster.api, reference, {"data": {"values": values}}, {"data": {"values": "{}"}}, "istio-system"):
        cluster.api.patch_status("v1", "Node", "node-2", kernels[0]["status"])
        yield
        cluster.api.patch_status("v1", "Node", "node-2", kernels[1]["status"])


@contextmanager
def unknown_class(cluster: Cluster) -> Iterator[None]:
    definition = crd("gateway.networking.k8s.io", "GatewayClass", "gatewayclasses")
    with there(cluster.api, definition):
        document = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "edge-class"},
            "spec": {"controllerName": "istio.io/gateway-controller"},
        }
        path = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"

        def made() -> bool:
            answer = cluster.api.request("POST", path, body=document)
            return answer.status == 201

        eventually(lambda: _quietly(made))
        yield


def _quietly(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except Exception:  # noqa: BLE001  # a CRD's storage answers 404 and 429 for a moment
        return False


@contextmanager
def only_centos(cluster: Cluster) -> Iterator[None]:
    for image in ("CentOS Linux 7 (Core)", "Debian GNU/Linux 13 (trixie)"):
        for number in (1, 2):
            cluster.api.patch_status("v1", "Node", f"node-{number}", {"nodeInfo": {"osImage": image}})
        if image.startswith("CentOS"):
            yield
    eventually(lambda: reviewed(cluster.api))


def one_gateway_pod(cluster: Cluster) -> AbstractContextManager[None]:
    return gone(cluster.api, ("v1", "Pod", "gateway-2"), EDGE)


@contextmanager
def somebody_writes(cluster: Cluster) -> Iterator[None]:
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": EDGE},
        "spec": {"externalTrafficPolicy": "Cluster"},
    }
    cluster.api.apply(document, field_manager="argocd-controller")
    yield
    stored = cluster.api.get("v1", "Service", "gateway", namespace=EDGE)
    cluster.api.delete("v1", "Service", "gateway", namespace=EDGE)
    assert stored["spec"]["externalTrafficPolicy"] == "Local"
    cluster.api.create(gateway())


def ended_exception(cluster: Cluster) -> AbstractContextManager[None]:
    exception = {
        "name": "ledger",
        "selector": {"matchLabels": {"app": "ledger"}},
        "owner": "team-ledger@example.com",
        "reason": "reads the PROXY header instead",
        "expires": "2020-01-01T00:00:00Z",
    }
    document = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "ledger"},
        "spec": {"mode": "Enforce", "exceptions": [exception]},
    }
    return there(cluster.api, document)


@contextmanager
def no_admission_policies(cluster: Cluster) -> Iterator[None]:
    shipped = [
        each for each in render("rbac", "--tls-secret", SECRET) if each["kind"].startswith("ValidatingAdmissionPolicy")
    ]
    for each in shipped:
        cluster.api.delete(each["apiVersion"], each["kind"], each["metadata"]["name"])
    yield
    for each in shipped:
        cluster.api.apply(each)


def closed_network(cluster: Cluster) -> AbstractContextManager[None]:
    document = yaml.safe_load(
        """
        apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: closed}
        spec:
          podSelector: {matchLabels: {app.kubernetes.io/name: client-ip-webhook}}
          policyTypes: [Ingress]
          ingress: [{from: [{podSelector: {}}], ports: [{port: 8443}]}]
        """
    )
    return there(cluster.api, document, OWN_NAMESPACE)


def without_permission_for_the_level(cluster: Cluster) -> AbstractContextManager[None]:
    definition = crd("security.openshift.io", "SecurityContextConstraints", "securitycontextconstraints")
    definition["metadata"].pop("annotations")
    return there(cluster.api, definition)


def reports_served(cluster: Cluster) -> AbstractContextManager[None]:
    definition = crd("openreports.io", "Report", "reports", "v1alpha1", scope="Namespaced")
    definition["metadata"].pop("annotations")
    return there(cluster.api, definition)


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that is broken."""

    name: str
    check: str
    level: str
    says: str
    broken: Callable[[Cluster], AbstractContextManager[None]]
    follows: frozenset[str] = frozenset()
    """Other checks that say something else meanwhile, because of the same thing."""


INSTALLATION: Final = frozenset(
    {
        "replicas-ready",
        "service-endpoints",
        "versions-agree",
        "ca-bundle-trusts-leaf",
        "leaf-not-ending",
        "ca-not-ending",
    }
)
REACH: Final = frozenset({"end-to-end"})
BREAKS: Final = (
    Break("no configuration", "configuration-present", ERROR, "there is no", no_configuration, INSTALLATION | REACH),
    Break("an edited configuration", "configuration-present", WARNING, "matchConditions", edited_configuration),
    Break("no replica ready", "replicas-ready", ERROR, "none of 2", deployment_status(0)),
    Break("one replica ready", "replicas-ready", WARNING, "1 of 2", deployment_status(1)),
    Break("no endpoint", "service-endpoints", ERROR, "no ready endpoint", no_endpoints),
    Break("two images", "versions-agree", WARNING, "2 different images", two_images),
    Break("a foreign caBundle", "ca-bundle-trusts-leaf", ERROR, "does not verify", foreign_bundle, REACH),
    Break(
        "a leaf of 90 days that has 10 left",
        "leaf-not-ending",
        WARNING,
        "the serving certificate expires",
        ageing(ca_left=timedelta(days=200), leaf_left=timedelta(days=10)),
        REACH,
    ),
    Break(
        "a CA that has 30 days left",
        "ca-not-ending",
        WARNING,
        "the CA expires",
        ageing(ca_left=timedelta(days=30), leaf_left=timedelta(days=60)),
        REACH | {"leaf-not-ending"},
    ),
    Break("the webhook hangs", "end-to-end", ERROR, "did not mark", stopped),
    Break("a NetworkPolicy", "network-policy", WARNING, "closed do not allow", closed_network),
    Break("an injector that sorts first", "before-injectors", ERROR, "aaa-injector", after_the_injector, REACH),
    Break("another mutator", "other-mutators", WARNING, "zz-tolerations", other_mutator),
    Break(
        "an excluded namespace that is opted in",
        "opted-in-but-excluded",
        WARNING,
        "kube-system",
        labelled("Namespace", "kube-system", {"client-ip.dev/preserve": "enabled"}),
    ),
    Break("no injector", "injectors-found", ERROR, "no sidecar injector", no_injector, REACH | {"before-injectors"}),
    Break("a revision that is gone", "injectors-found", WARNING, "canary (canary)", lost_revision),
    Break("native nftables on an old kernel", "cni-and-mode", WARNING, "node-2", native_nftables),
    Break(
        "a waypoint",
        "waypoints",
        WARNING,
        "namespace edge",
        labelled("Namespace", EDGE, {"istio.io/use-waypoint": "waypoint"}),
    ),
    Break("an unknown class of gateways", "gateway-classes", WARNING, "edge-class", unknown_class),
    Break("nodes that can't", "nodes", WARNING, "none of 2 nodes", only_centos, REACH),
    Break(
        "PodSecurity",
        "pod-security",
        WARNING,
        "edge (baseline)",
        labelled("Namespace", EDGE, {"pod-security.kubernetes.io/enforce": "baseline"}),
    ),
    Break("a gateway on one node", "local-covers-nodes", WARNING, "all pods on one node", one_gateway_pod),
    Break("a second writer", "drift", WARNING, "argocd-controller", somebody_writes),
    Break("an exception that has ended", "policies-accepted", WARNING, "ledger/ledger", ended_exception),
    Break("no admission policy", "in-process", WARNING, "are not installed", no_admission_policies),
    Break("OpenShift", "openshift", WARNING, "SecurityContextConstraints", without_permission_for_the_level),
    Break("OpenReports", "reports-api", SUCCESS, "OpenReports", reports_served),
)


@pytest.mark.parametrize("case", BREAKS, ids=lambda case: case.name)
@pytest.mark.slow
def test_what_is_broken_is_said_by_its_check_and_by_no_other(cluster: Cluster, case: Break) -> None:
    before = cluster.doctor()
    with case.broken(cluster):
        found: dict[str, dict[str, Any]] = {}

        def said() -> bool:
            found.clear()
            found.update(cluster.doctor())
            return bool(found[case.check]["result"] == case.level)

        eventually(said, lambda: found.get(case.check), 20)
        check = found[case.check]
        assert case.says in check.get("error", "") + check.get("message", ""), check
        if case.level in {ERROR, WARNING}:
            assert check["hint"]
            assert check["documentation"] == f"docs/doctor.md#{case.check}"
        others = {name for name in found if found[name]["result"] != before[name]["result"]} - {case.check}
        assert others <= case.follows, {name: found[name] for name in others - case.follows}
    eventually(
        lambda: {k: v["result"] for k, v in cluster.doctor().items()} == {k: v["result"] for k, v in before.items()}
    )


@pytest.mark.slow
def test_a_hanging_webhook_is_told_from_one_that_refuses(cluster: Cluster) -> None:
    with stopped(cluster):
        assert "as long as the timeout" in cluster.doctor()["end-to-end"]["hint"]
    with healed(cluster):
        port = {"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "https://127.0.0.1:1/mutate"}
        url = cluster.api.get(*CONFIGURATION)["webhooks"][0]["clientConfig"]["url"]
        with changed(cluster.api, CONFIGURATION, [port], [{**port, "value": url}]):
            eventually(lambda: not reviewed(cluster.api))
            assert "the call was refused" in cluster.doctor()["end-to-end"]["hint"]


def test_a_pod_that_somebody_else_refuses_is_no_fault_of_ours(cluster: Cluster) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    with there(cluster.api, quota, SHOP):
        check = cluster.doctor("-n", SHOP)["end-to-end"]
    assert check["result"] in {SKIPPED, SUCCESS}


def test_without_permission_a_check_is_skipped_with_the_verb_that_is_missing(cluster: Cluster) -> None:
    kubeconfig = cluster.plane.service_account_kubeconfig(OWN_NAMESPACE, OURS)
    done = CliRunner().invoke(command, ["-o", "json", "--kubeconfig", str(kubeconfig)])
    assert done.exit_code == 0 if not isinstance(done.exception, SystemExit) else done.exception.code == 0, done.output
    checks = {check["id"]: check for group in json.loads(done.stdout)["categories"] for check in group["checks"]}
    assert checks["network-policy"]["result"] == SKIPPED
    assert "list networkpolicies.networking.k8s.io in namespace client-ip-system" in checks["network-policy"]["message"]
    assert checks["permissions"]["result"] == WARNING


def test_a_bundle_says_the_same_and_holds_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    live = cluster.doctor("--bundle", str(tmp_path / "doctor.tgz"))
    done = CliRunner().invoke(command, ["-o", "json", "--state", str(tmp_path / "doctor.tgz")])
    read = {check["id"]: check for group in json.loads(done.stdout)["categories"] for check in group["checks"]}
    assert read == live
