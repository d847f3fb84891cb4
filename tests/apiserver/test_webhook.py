"""The webhook behind a real API server, of the newest and the oldest supported minor."""

import concurrent.futures
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.deployed import Deployed, eventually, namespace_of, pod
from tests.apiserver.injector import Injector, injecting
from tests.parts.api import ApiError, Reply
from tests.parts.kube import ControlPlane

MODE = "sidecar.istio.io/interceptionMode"
METHOD = "client-ip.dev/method"
CENTOS = "CentOS Linux 7 (Core)"
CONFIGURATION = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")


@pytest.fixture(scope="module")
def injector(control_plane: ControlPlane) -> Iterator[Injector]:
    with injecting() as running:
        control_plane.client().apply(running.configuration())
        yield running
        control_plane.client().delete(*CONFIGURATION, "istio-sidecar-injector")


@pytest.fixture(scope="module")
def webhook(
    control_plane: ControlPlane,
    injector: Injector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    control_plane.add_node("ubuntu-1", labels={"pool": "general"}, os_image="Ubuntu 22.04.4 LTS")
    control_plane.add_node("centos-1", labels={"pool": "legacy"}, os_image=CENTOS)
    deployed = Deployed(control_plane, tmp_path_factory.mktemp("webhook"))
    try:
        namespace_of(deployed.api, "warm-up", preserve="enabled", injection="enabled")
        _until_called(deployed)
        yield deployed
    finally:
        deployed.close()
        for name in ("ubuntu-1", "centos-1"):
            deployed.api.delete("v1", "Node", name)


def _until_called(deployed: Deployed) -> None:
    """A configuration takes effect a moment after it is stored."""

    def called() -> bool:
        made = pod("probe", nodeSelector={"pool": "general"})
        return MODE in annotations(deployed.api.create(made, namespace="warm-up", dry_run=True))

    eventually(called, deployed.server.log.read_text)


@pytest.fixture
def shop(webhook: Deployed) -> str:
    """A namespace that opted in and whose pods get sidecars, seen by the webhook."""
    name = namespace_of(webhook.api, f"shop-{secrets.token_hex(3)}", preserve="enabled", injection="enabled")
    _until_seen(webhook, name)
    return name


def _until_seen(webhook: Deployed, namespace: str) -> None:
    def seen() -> bool:
        made = webhook.api.create(pod("probe"), namespace=namespace, dry_run=True)
        return not any("namespace-unknown" in warning for warning in made.warnings)

    eventually(seen)


def annotations(made: Reply | dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = made["metadata"].get("annotations", {})
    return found


def injected_mode(made: Reply) -> str:
    proxy = next(each for each in made["spec"]["containers"] if each["name"] == "istio-proxy")
    mode: str = proxy["env"][0]["value"]
    return mode


def test_a_pod_on_compatible_nodes_is_injected_in_tproxy_mode(webhook: Deployed, shop: str) -> None:
    made = webhook.api.create(pod("a", nodeSelector={"pool": "general"}), namespace=shop)
    assert annotations(made)[MODE] == "TPROXY"
    assert made["metadata"]["labels"][METHOD] == "tproxy"
    assert injected_mode(made) == "TPROXY"
    assert made.warnings == ()


def test_a_pod_that_may_land_on_centos_stays_as_it_is_and_warns(webhook: Deployed, shop: str) -> None:
    made = webhook.api.create(pod("a"), namespace=shop)
    assert MODE not in annotations(made)
    assert injected_mode(made) == "REDIRECT"
    (warning,) = made.warnings
    assert warning.startswith("client IP lost (mixed-nodes): 1 of ")


def test_the_reason_stands_in_the_audit_log(webhook: Deployed, shop: str) -> None:
    webhook.api.create(pod("audited", nodeSelector={"pool": "legacy"}), namespace=shop)

    def event() -> dict[str, Any]:
        found = webhook.plane.audit_events(verb="create", objectRef__namespace=shop, objectRef__name="audited")
        return next((each for each in found if "subresource" not in each["objectRef"]), {})

    eventually(event)
    recorded = event()["annotations"]
    assert recorded.get("pods.namespace.client-ip.dev/reason") == "incompatible-nodes", recorded
    assert recorded["pods.namespace.client-ip.dev/mode"] == "enforce"
    assert recorded["pods.namespace.client-ip.dev/outcome"] == "lost"


def test_a_namespace_that_did_not_ask_is_left_alone(webhook: Deployed) -> None:
    name = namespace_of(webhook.api, f"plain-{secrets.token_hex(3)}", injection="enabled")
    made = webhook.api.create(pod("a", nodeSelector={"pool": "general"}), namespace=name)
    assert MODE not in annotations(made)
    opted = pod("b", nodeSelector={"pool": "general"})
    opted["metadata"]["labels"] = {"client-ip.dev/preserve": "enabled"}
    eventually(lambda: MODE in annotations(webhook.api.create(opted, namespace=name, dry_run=True)))


def test_a_label_on_the_pod_opts_out(webhook: Deployed, shop: str) -> None:
    out = pod("a", nodeSelector={"pool": "general"})
    out["metadata"]["labels"] = {"client-ip.dev/preserve": "disabled"}
    assert MODE not in annotations(webhook.api.create(out, namespace=shop))


def test_audit_decides_and_patches_nothing(webhook: Deployed) -> None:
    name = namespace_of(webhook.api, f"audit-{secrets.token_hex(3)}", preserve="audit", injection="enabled")
    _until_seen(webhook, name)
    made = webhook.api.create(pod("quiet", nodeSelector={"pool": "general"}), namespace=name)
    assert MODE not in annotations(made)
    assert made.warnings == ()
    webhook.api.create(pod("loud", nodeSelector={"pool": "legacy"}), namespace=name)

    def modes() -> set[str]:
        events = webhook.plane.audit_events(verb="create", objectRef__namespace=name, objectRef__resource="pods")
        pods = [event for event in events if "subresource" not in event["objectRef"]]  # the scheduler makes bindings
        return {event["annotations"].get("pods.namespace.client-ip.dev/mode", "") for event in pods}

    eventually(lambda: modes() == {"audit"}, modes)


def test_a_restricted_namespace_keeps_its_pods(webhook: Deployed) -> None:
    name = namespace_of(
        webhook.api, f"bank-{secrets.token_hex(3)}", preserve="enabled", injection="enabled", enforce="restricted"
    )
    _until_seen_or_refused(webhook, name)


def _until_seen_or_refused(webhook: Deployed, name: str) -> None:
    secure = pod("a", nodeSelector={"pool": "general"}, securityContext={"runAsNonRoot": True})
    secure["spec"]["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}
    secure["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    # Not injected: the stand-in's proxy is no restricted container; what counts is our answer.
    secure["metadata"]["labels"] = {"istio.io/rev": "default"}

    def warned() -> str:
        try:
            made = webhook.api.create(secure, namespace=name, dry_run=True)
        except ApiError as error:  # PodSecurity refuses the stand-in's container; our warning comes with it
            return " ".join(error.warnings)
        return " ".join(made.warnings)

    eventually(lambda: "pod-security" in warned(), warned)


def test_nodes_that_come_change_and_go_change_the_next_decision(webhook: Deployed, shop: str) -> None:
    plane, api = webhook.plane, webhook.api

    def reason(wanted: str) -> None:
        made = pod("a", nodeSelector={"zone": "z"})

        def decided() -> str:
            answer = api.create(made, namespace=shop, dry_run=True)
            return "tproxy" if MODE in annotations(answer) else " ".join(answer.warnings)

        eventually(lambda: wanted in decided(), decided)

    reason("no-feasible-node")
    plane.add_node("z-1", labels={"zone": "z"}, os_image="Ubuntu 24.04 LTS")
    reason("tproxy")
    plane.add_node("z-2", labels={"zone": "z"}, os_image=CENTOS)
    reason("mixed-nodes")
    api.patch("v1", "Node", "z-2", {"spec": {"taints": [{"key": "old", "effect": "NoSchedule"}]}})
    reason("tproxy")
    api.patch("v1", "Node", "z-2", {"spec": {"taints": None}})
    reason("mixed-nodes")
    api.patch("v1", "Node", "z-2", {"metadata": {"labels": {"zone": None}}})
    reason("tproxy")
    api.delete("v1", "Node", "z-1")
    reason("no-feasible-node")
    api.delete("v1", "Node", "z-2")


def test_a_deployment_applied_by_a_person_is_warned_of_and_not_changed(webhook: Deployed, shop: str) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod("a")["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    made = webhook.api.create(deployment, namespace=shop)
    (warning,) = made.warnings
    assert warning.startswith("client IP lost (mixed-nodes)")
    assert "annotations" not in made["spec"]["template"]["metadata"]
    assert METHOD not in made["metadata"].get("labels", {})


def gateway(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"istio": "ingressgateway"}},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}], **spec},
    }


def test_a_gateway_service_becomes_local_and_gets_its_health_check_port(webhook: Deployed, shop: str) -> None:
    made = webhook.api.create(gateway("gw"), namespace=shop)
    assert made["spec"]["externalTrafficPolicy"] == "Local"
    assert made["spec"]["healthCheckNodePort"] > 0
    assert made["metadata"]["labels"][METHOD] == "local"
    back = webhook.api.patch("v1", "Service", "gw", {"spec": {"externalTrafficPolicy": "Cluster"}}, namespace=shop)
    assert back["spec"]["externalTrafficPolicy"] == "Local"
    assert "stays Local" in back.warnings[0]
    inside = webhook.api.patch(
        "v1", "Service", "gw", {"spec": {"type": "ClusterIP", "externalTrafficPolicy": None}}, namespace=shop
    )
    assert inside["spec"]["type"] == "ClusterIP"
    assert "externalTrafficPolicy" not in inside["spec"]
    out = {"metadata": {"labels": {"client-ip.dev/preserve": "disabled"}}, "spec": {"type": "LoadBalancer"}}
    assert webhook.api.patch("v1", "Service", "gw", out, namespace=shop)["spec"]["externalTrafficPolicy"] == "Cluster"


def test_a_dry_run_is_decided_and_stores_nothing(webhook: Deployed, shop: str) -> None:
    made = webhook.api.create(gateway("dry"), namespace=shop, dry_run=True)
    assert made["spec"]["externalTrafficPolicy"] == "Local"
    assert webhook.api.find("v1", "Service", "dry", namespace=shop) is None


def test_services_that_are_no_external_gateways_are_left_alone(webhook: Deployed, shop: str) -> None:
    inside = webhook.api.create(gateway("inside", type="ClusterIP"), namespace=shop)
    assert "externalTrafficPolicy" not in inside["spec"]
    other = gateway("other")
    other["metadata"]["labels"] = {"istio": "eastwestgateway"}
    assert webhook.api.create(other, namespace=shop)["spec"]["externalTrafficPolicy"] == "Cluster"


def test_sorting_after_the_injector_is_seen_and_breaks_nothing(webhook: Deployed, shop: str) -> None:
    webhook.api.delete(*CONFIGURATION, "client-ip-webhook")
    webhook.register("zz-client-ip-webhook")
    try:

        def late() -> Reply:
            return webhook.api.create(pod("a", nodeSelector={"pool": "general"}), namespace=shop, dry_run=True)

        eventually(lambda: "already-injected" in " ".join(late().warnings), late)
        assert MODE not in annotations(late())
    finally:
        webhook.api.delete(*CONFIGURATION, "zz-client-ip-webhook")
        webhook.register()
        _until_called(webhook)


def test_a_policy_takes_effect_and_tells_that_it_was_accepted(webhook: Deployed, shop: str) -> None:
    policy = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": shop},
        "spec": {
            "mode": "Enforce",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop}},
            "pods": {"fallback": "XForwardedFor"},
        },
    }
    webhook.api.create(policy)

    def labels() -> dict[str, str]:
        made = webhook.api.create(pod("a"), namespace=shop, dry_run=True)
        found: dict[str, str] = made["metadata"].get("labels", {})
        return found

    eventually(lambda: labels().get(METHOD) == "x-forwarded-for", labels)

    def accepted() -> list[tuple[str, str]]:
        found = webhook.api.get("client-ip.dev/v1alpha1", "ClientIPPolicy", shop)
        return [(each["type"], each["status"]) for each in found.get("status", {}).get("conditions", ())]

    eventually(lambda: ("Accepted", "True") in accepted(), accepted)
    webhook.api.delete("client-ip.dev/v1alpha1", "ClientIPPolicy", shop)
    eventually(lambda: METHOD not in labels())


@pytest.mark.slow
def test_a_thousand_pods_at_once_are_all_decided(webhook: Deployed, shop: str) -> None:
    def create(number: int) -> bool:
        made = webhook.api.create(pod(f"p-{number}", nodeSelector={"pool": "general"}), namespace=shop)
        return annotations(made).get(MODE) == "TPROXY"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(create, range(1000))) == [True] * 1000
    stored = webhook.api.list("v1", "Pod", namespace=shop, label_selector=f"{METHOD}=tproxy")
    assert len(stored) == 1000


def test_a_dead_process_breaks_nothing_and_a_new_one_is_right_again(webhook: Deployed, shop: str) -> None:
    webhook.server.process.kill()
    webhook.server.process.wait()
    started = time.monotonic()
    made = webhook.api.create(pod("meanwhile", nodeSelector={"pool": "general"}), namespace=shop)
    assert time.monotonic() - started < 5
    assert MODE not in annotations(made)
    webhook.start()
    _until_called(webhook)
    made = webhook.api.create(pod("after", nodeSelector={"pool": "general"}), namespace=shop)
    assert injected_mode(made) == "TPROXY"


@pytest.mark.slow
def test_the_scheduler_binds_only_to_nodes_that_we_called_feasible(
    webhook: Deployed, shop: str, scheduler: ControlPlane
) -> None:
    api, plane = webhook.api, scheduler
    labels = {"pool": "bound"}
    plane.add_node("bound-1", labels=labels)
    plane.add_node("bound-2", labels=labels, os_image=CENTOS, taints=[{"key": "old", "effect": "NoSchedule"}])
    plane.add_node("bound-3", labels=labels, os_image=CENTOS, unschedulable=True)

    def decided() -> bool:
        return MODE in annotations(api.create(pod("probe", nodeSelector=labels), namespace=shop, dry_run=True))

    eventually(decided)
    for number in range(6):
        assert MODE in annotations(api.create(pod(f"bound-{number}", nodeSelector=labels), namespace=shop))

    def nodes() -> list[str]:
        pods = api.list("v1", "Pod", namespace=shop)
        return [each["spec"].get("nodeName", "") for each in pods]

    eventually(lambda: all(nodes()), nodes, seconds=60)
    assert set(nodes()) == {"bound-1"}
    for name in ("bound-1", "bound-2", "bound-3"):
        api.delete("v1", "Node", name)
