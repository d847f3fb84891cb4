"""
What the policy `final-state` finds, on a real API server: pods as Istio's injector leaves them, and gateways.

First without a webhook, where everything that came out unpreserved is found; then behind ours, which marks what it left
alone on purpose. Istio's own injector is asked in the proof suite.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import Deployed, eventually, namespace_of, pod, render
from tests.apiserver.injector import injecting
from tests.parts.api import Api, ApiError, Reply
from tests.parts.kube import ControlPlane
from webhook.facts.collect import Collector

POLICY: Final = "final-state.client-ip.dev"
LATE: Final = "late-annotation.client-ip.dev"
MODE: Final = "sidecar.istio.io/interceptionMode"
MARK: Final = "client-ip.dev/reason"
METRIC: Final = "apiserver_validating_admission_policy_check_total"
VERSION: Final = "admissionregistration.k8s.io/v1"


def proxy(*modes: str, role: str = "sidecar", **env: str) -> dict[str, Any]:
    """Return the proxy's container as Istio's templates have it."""
    variables = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode} for mode in modes]
    variables += [{"name": name, "value": value} for name, value in env.items()]
    return {"name": "istio-proxy", "image": "proxyv2", "args": ["proxy", role, "--domain", "x"], "env": variables}


def init(mode: str, *, ports: str = "*", name: str = "istio-init") -> dict[str, Any]:
    args = [
        "istio-iptables",
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1337",
        "-m",
        mode,
        "-i",
        "*",
        "-b",
        ports,
        "-d",
        "15090",
    ]
    return {"name": name, "image": "proxyv2", "args": args}


def injected(
    sidecar: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
    *,
    native: bool = False,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a pod with a sidecar: a container, or an init container that restarts."""
    document = pod("a")
    inits = [*([dict(rules)] if rules else []), *([{**sidecar, "restartPolicy": "Always"}] if native else [])]
    document["spec"]["initContainers"] = inits
    document["spec"]["containers"] += [] if native else [dict(sidecar)]
    status = {"sidecar.istio.io/status": "{}"}
    document["metadata"] |= {"annotations": {**status, **(annotations or {})}, "labels": dict(labels or {})}
    return document


REDIRECT: Final = (proxy("REDIRECT"), init("REDIRECT"))
TPROXY: Final = (proxy("TPROXY"), init("TPROXY"))
ASKED: Final = {MODE: "TPROXY"}
PODS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "a sidecar that redirects": (injected(*REDIRECT), "not-preserved"),
    "a native sidecar that redirects": (injected(*REDIRECT, native=True), "not-preserved"),
    "a sidecar that redirects by istio-cni": (
        injected(proxy("REDIRECT"), init("REDIRECT", name="istio-validation")),
        "not-preserved",
    ),
    "no init container": (injected(proxy("REDIRECT")), "not-preserved"),
    "TPROXY": (injected(*TPROXY, annotations=ASKED), ""),
    "TPROXY in a native sidecar": (injected(*TPROXY, native=True, annotations=ASKED), ""),
    "TPROXY of the mesh": (injected(*TPROXY), ""),
    "TPROXY in the environment alone": (injected(proxy("TPROXY"), init("REDIRECT")), "not-preserved"),
    "TPROXY in the rules alone": (injected(proxy("REDIRECT"), init("TPROXY")), "not-preserved"),
    "an environment that says it twice": (injected(proxy("TPROXY", "REDIRECT"), init("TPROXY")), "not-preserved"),
    "an annotation that came late": (injected(*REDIRECT, annotations=ASKED), "annotated-too-late"),
    "an annotation that came late to a native sidecar": (
        injected(*REDIRECT, native=True, annotations=ASKED),
        "annotated-too-late",
    ),
    "a late annotation, whatever its mark": (
        injected(*REDIRECT, annotations={**ASKED, MARK: "mixed-nodes"}),
        "annotated-too-late",
    ),
    "its owner's choice": (injected(*REDIRECT, annotations={MODE: "REDIRECT"}), ""),
    "its owner's choice in a ProxyConfig": (
        injected(*REDIRECT, annotations={"proxy.istio.io/config": "interceptionMode: REDIRECT"}),
        "",
    ),
    "a ProxyConfig of other things": (
        injected(*REDIRECT, annotations={"proxy.istio.io/config": "concurrency: 2"}),
        "not-preserved",
    ),
    "mode NONE": (injected(proxy("NONE")), ""),
    "mode NONE in a native sidecar": (injected(proxy("NONE"), native=True), ""),
    "no inbound port by annotation": (
        injected(*REDIRECT, annotations={"traffic.sidecar.istio.io/includeInboundPorts": ""}),
        "",
    ),
    "no inbound port by the mesh": (injected(proxy("REDIRECT"), init("REDIRECT", ports="")), ""),
    "a router": (injected(proxy("REDIRECT", role="router")), ""),
    "a waypoint": (injected(proxy("REDIRECT", role="waypoint")), ""),
    "a gRPC agent": (injected(proxy("REDIRECT", ISTIO_META_GENERATOR="grpc")), ""),
    "an agent without Envoy": (injected(proxy("REDIRECT", DISABLE_ENVOY="true")), ""),
    "a container that only customises the proxy": (injected(proxy()), ""),
    "no proxy": (pod("a"), ""),
    "what we left alone": (injected(*REDIRECT, annotations={MARK: "mixed-nodes"}), ""),
    "the fallback": (injected(*REDIRECT, labels={"client-ip.dev/method": "x-forwarded-for"}), ""),
    "a pod that opted out": (injected(*REDIRECT, labels={"client-ip.dev/preserve": "disabled"}), ""),
    "a pod that asked for audit": (injected(*REDIRECT, labels={"client-ip.dev/preserve": "audit"}), ""),
}


def service(labels: Mapping[str, str], annotations: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "gw", "labels": dict(labels), "annotations": dict(annotations or {})}
    whole = {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": whole}


CLASSIC: Final = {"istio": "ingressgateway"}
CLASS: Final = "gateway.networking.k8s.io/gateway-class-name"
SERVICES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "a gateway": (service(CLASSIC), "not-local"),
    "a gateway by NodePort": (service(CLASSIC, type="NodePort"), "not-local"),
    "a gateway by externalIPs": (service(CLASSIC, type="ClusterIP", externalIPs=["203.0.113.1"]), "not-local"),
    "a gateway by the Gateway API": (service({CLASS: "istio"}), "not-local"),
    "what we once made Local": (service({"client-ip.dev/method": "local"}), "not-local"),
    "a gateway that is Local": (service(CLASSIC, externalTrafficPolicy="Local"), ""),
    "a gateway inside": (service(CLASSIC, type="ClusterIP"), ""),
    "a waypoint": (service({CLASS: "istio-waypoint"}), ""),
    "an east-west gateway": (service({"istio": "eastwestgateway"}), ""),
    "no gateway": (service({"app": "web"}), ""),
    "a gateway that we left alone": (service(CLASSIC, {MARK: "eni-backend"}), ""),
    "a gateway that opted out": (service({**CLASSIC, "client-ip.dev/preserve": "disabled"}), ""),
}


class Found:
    """A control plane with the policies, and what it found."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = plane.client()
        self._applied: list[dict[str, Any]] = []
        self.namespaces = {
            preserve: namespace_of(self.api, f"{preserve or 'plain'}-{secrets.token_hex(3)}", **labels)
            for preserve, labels in {"enabled": {"preserve": "enabled"}, "audit": {"preserve": "audit"}, "": {}}.items()
        }

    def use(self, *options: str) -> None:
        """Put the policies up as `render` prints them."""
        self.take_away()
        self._applied = render("final-state", *options)
        for document in self._applied:
            self.api.apply(document)

    def take_away(self) -> None:
        for document in self._applied:
            self.api.delete(VERSION, document["kind"], document["metadata"]["name"])
        self._applied = []

    def reason(self, made: Reply) -> str:
        found: str = self.plane.audited(made.audit_id).get("annotations", {}).get(f"{POLICY}/reason", "")
        return found

    def until_found(self) -> None:
        """A policy takes effect a moment after it is stored; so does each of its bindings."""
        of_namespace = injected(*REDIRECT)
        of_object = injected(*REDIRECT, labels={"client-ip.dev/preserve": "enabled"})
        eventually(lambda: self.reason(self.create(of_namespace)) == "not-preserved", seconds=60)
        eventually(lambda: self.reason(self.create(of_object, "")) == "not-preserved", seconds=60)

    def create(self, document: Mapping[str, Any], preserve: str = "enabled") -> Reply:
        return self.api.create(document, namespace=self.namespaces[preserve], dry_run=True)


@pytest.fixture(scope="module")
def found(control_plane: ControlPlane) -> Iterator[Found]:
    made = Found(control_plane)
    made.use()
    made.until_found()
    yield made
    made.take_away()


@pytest.mark.parametrize(
    "case", [*PODS.values(), *SERVICES.values()], ids=[*PODS, *(f"Service: {key}" for key in SERVICES)]
)
def test_what_came_out_otherwise_is_found(found: Found, case: tuple[dict[str, Any], str]) -> None:
    document, want = case
    made = found.create(document)
    assert found.reason(made) == want
    assert not [warning for warning in made.warnings if POLICY in warning]


@pytest.mark.parametrize("preserve", ["audit", ""])
def test_only_what_opted_in_is_looked_at(found: Found, preserve: str) -> None:
    assert found.reason(found.create(PODS["a sidecar that redirects"][0], preserve)) == ""
    assert found.reason(found.create(SERVICES["a gateway"][0], preserve)) == ""


def test_an_object_that_opted_in_by_itself_is_looked_at(found: Found) -> None:
    labels = {"client-ip.dev/preserve": "enabled"}
    assert found.reason(found.create(injected(*REDIRECT, labels=labels), "")) == "not-preserved"
    assert found.reason(found.create(service({**CLASSIC, **labels}), "audit")) == "not-local"


def test_a_gateway_that_is_changed_to_cluster_is_found(found: Found) -> None:
    namespace = found.namespaces["enabled"]
    found.api.create(service(CLASSIC, externalTrafficPolicy="Local"), namespace=namespace)
    changed = found.api.patch(
        "v1", "Service", "gw", {"spec": {"externalTrafficPolicy": "Cluster"}}, namespace=namespace
    )
    assert found.reason(changed) == "not-local"
    found.api.delete("v1", "Service", "gw", namespace=namespace)


def test_the_api_server_counts(found: Found) -> None:
    before = found.plane.metric(METRIC, policy=POLICY, enforcement_action="audit")
    found.create(PODS["a sidecar that redirects"][0])
    found.create(PODS["TPROXY"][0])
    assert found.plane.metric(METRIC, policy=POLICY, enforcement_action="audit") == before + 1


def test_who_wants_warnings_gets_short_ones(found: Found) -> None:
    found.use("--mode", "Warn")
    try:
        redirecting = PODS["a sidecar that redirects"][0]
        eventually(lambda: found.create(redirecting).warnings, seconds=60)
        (warning,) = found.create(redirecting).warnings
        assert warning.endswith("the application sees 127.0.0.6, not its client; run client-ip explain")
        assert len(warning) <= 256
    finally:
        found.use()
        found.until_found()


OWN: Final[Sequence[tuple[dict[str, str], str, bool]]] = (
    ({"role": "entry", "app": "gateway"}, "edge", True),
    ({"role": "entry"}, "edge", False),
    ({"role": "entry", "app": "gateway"}, "enabled", False),
    ({"example.com/entry": ""}, "edge", True),
    ({"example.com/entry": "", "example.com/internal": ""}, "edge", False),
    ({"example.com/entry": "", "stage": "canary"}, "edge", False),
    ({"example.com/entry": "", "stage": "live"}, "edge", True),
    ({CLASS: "our-istio"}, "edge", False),
    ({CLASS: "istio"}, "edge", True),
    ({"istio": "aks-istio-ingressgateway-internal"}, "enabled", True),
    ({}, "edge", False),
)


def test_gateways_are_told_as_the_webhook_tells_them(found: Found) -> None:
    """Policies' own selectors, in the namespaces that they select: what decides admission says the same."""
    found.namespaces["edge"] = namespace_of(found.api, f"edge-{secrets.token_hex(3)}", preserve="enabled")
    labels = {"team": "edge", "tier": "1"}
    found.api.patch("v1", "Namespace", found.namespaces["edge"], {"metadata": {"labels": labels}})
    documents = list(yaml.safe_load_all(Path("tests/deploy/policies.yaml").read_text()))
    collector = Collector(from_files=True)
    for each in documents:
        collector.put(each["apiVersion"], each["kind"], each)
    in_force = collector.snapshot().policies
    found.use("--policy", "tests/deploy/policies.yaml")
    try:
        first, place, _ = OWN[0]
        eventually(lambda: found.reason(found.create(service(first), place)) == "not-local", seconds=60)
        for own, where, want in OWN:
            around = found.api.get("v1", "Namespace", found.namespaces[where])["metadata"]["labels"]
            policy = in_force.for_service(around, own)
            assert (policy is not None and policy.is_gateway(own)) == want, own
            assert found.reason(found.create(service(own), where)) == ("not-local" if want else ""), (own, where)
    finally:
        found.use()
        found.until_found()


def test_only_a_late_annotation_is_ever_refused(found: Found) -> None:
    found.use("--deny-late-annotation")
    late, _ = PODS["an annotation that came late"]
    try:
        eventually(lambda: refused(found, late), seconds=60)
        wanted = {name for name, (_, reason) in PODS.items() if reason == "annotated-too-late"}
        assert {name for name, (document, _) in PODS.items() if refused(found, document)} == wanted
        assert not refused(found, late, "audit")
        assert not [name for name, (document, _) in SERVICES.items() if refused(found, document)]
    finally:
        found.use()
        found.until_found()


def refused(found: Found, document: Mapping[str, Any], preserve: str = "enabled") -> bool:
    try:
        found.create(document, preserve)
    except ApiError as error:
        return LATE in error.message
    return False


# --- Behind our webhook: what it left alone on purpose is not counted.

NODES: Final = {"ubuntu-f": ("general", "Ubuntu 22.04.4 LTS"), "centos-f": ("legacy", "CentOS Linux 7 (Core)")}


@pytest.fixture(scope="module")
def webhook(control_plane: ControlPlane, found: Found, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Ours, marking, in front of the stand-in of Istio's injector."""
    for name, (pool, image) in NODES.items():
        control_plane.add_node(name, labels={"pool": pool}, os_image=image)
    with injecting() as injector:
        control_plane.client().apply(injector.configuration())
        deployed = Deployed(control_plane, tmp_path_factory.mktemp("webhook"), options=("--mark-reasons",))
        try:
            yield deployed
        finally:
            deployed.close()
            deployed.api.delete(VERSION, "MutatingWebhookConfiguration", "istio-sidecar-injector")
            for name in NODES:
                deployed.api.delete("v1", "Node", name)


@pytest.fixture(scope="module")
def shop(webhook: Deployed) -> str:
    name = namespace_of(webhook.api, f"shop-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")
    eventually(lambda: MODE in annotations(create(webhook.api, name, pool="general")))
    return name


def create(api: Api, namespace: str, *, pool: str, **metadata: Any) -> Reply:
    document = pod("a", nodeSelector={"pool": pool})
    document["metadata"] |= metadata
    return api.create(document, namespace=namespace, dry_run=True)


def annotations(made: Mapping[str, Any]) -> dict[str, str]:
    return made["metadata"].get("annotations") or {}


def policy(webhook: Deployed, name: str, namespace: str, **spec: Any) -> None:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    document = {"apiVersion": "client-ip.dev/v1alpha1", "kind": "ClientIPPolicy", "metadata": {"name": name}}
    webhook.api.create({**document, "spec": {"mode": "Enforce", "priority": 9, "namespaceSelector": selector, **spec}})


def test_what_is_patched_bears_no_mark(found: Found, webhook: Deployed, shop: str) -> None:
    made = create(webhook.api, shop, pool="general")
    assert MARK not in annotations(made)
    assert found.reason(made) == ""


def test_what_is_left_alone_says_why_and_is_not_counted(found: Found, webhook: Deployed, shop: str) -> None:
    made = create(webhook.api, shop, pool="legacy")
    assert annotations(made)[MARK] == "incompatible-nodes"
    assert MODE not in annotations(made)
    assert found.reason(made) == ""


def test_a_mark_that_somebody_wrote_is_overwritten(webhook: Deployed, shop: str) -> None:
    made = create(webhook.api, shop, pool="legacy", annotations={MARK: "forged"})
    assert annotations(made)[MARK] == "incompatible-nodes"


SPECS: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("audit", {"mode": "Audit"}),
    ("policy-disabled", {"mode": "Disabled"}),
    (
        "excepted",
        {
            "exceptions": [
                {
                    "name": "old",
                    "owner": "team",
                    "reason": "old",
                    "expires": "2099-01-01T00:00:00Z",
                    "namespaceSelector": {},
                    "selector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]},
                }
            ]
        },
    ),
)


@pytest.mark.parametrize(("mark", "spec"), SPECS, ids=[mark for mark, _ in SPECS])
def test_where_the_policy_says_so_the_mark_alone_is_written(
    found: Found, webhook: Deployed, mark: str, spec: dict[str, Any]
) -> None:
    namespace = namespace_of(webhook.api, f"{mark}-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")
    policy(webhook, f"{mark}-{secrets.token_hex(3)}", namespace, **spec)
    eventually(lambda: annotations(create(webhook.api, namespace, pool="general")).get(MARK) == mark)
    made = create(webhook.api, namespace, pool="general")
    assert MODE not in annotations(made)
    assert found.reason(made) == ""


def test_in_a_namespace_that_only_audits_nothing_is_written(found: Found, webhook: Deployed, shop: str) -> None:
    namespace = namespace_of(webhook.api, f"audit-{secrets.token_hex(3)}", preserve="audit", injection="enabled")
    made = create(webhook.api, namespace, pool="general")
    assert MARK not in annotations(made)
    assert found.reason(made) == ""


def test_gateways_that_are_left_alone_say_why(found: Found, webhook: Deployed, shop: str) -> None:
    eni = {"service.beta.kubernetes.io/backend-type": "eni"}
    made = webhook.api.create(service(CLASSIC, eni), namespace=shop, dry_run=True)
    assert annotations(made)[MARK] == "eni-backend"
    assert found.reason(made) == ""
    local = webhook.api.create(service(CLASSIC), namespace=shop, dry_run=True)
    assert local["spec"]["externalTrafficPolicy"] == "Local"
    other = webhook.api.create(service({"app": "web"}), namespace=shop, dry_run=True)
    assert MARK not in annotations(local) | annotations(other)


def test_while_the_webhook_is_down_everything_is_found(found: Found, webhook: Deployed, shop: str) -> None:
    webhook.server.stop()
    try:
        assert found.reason(create(webhook.api, shop, pool="general")) == "not-preserved"
        made = webhook.api.create(service(CLASSIC), namespace=shop, dry_run=True)
        assert found.reason(made) == "not-local"
    finally:
        webhook.start()
