"""
What Istio's own injector makes of a pod is decided as the pod was: over every template, mode and way to redirect.

Where the original is preserved without a patch, so is what becomes of it; where it would be patched and was not, what
becomes of it is lost; where it was patched, it runs in TPROXY, and all that stands in it agrees.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import jsonpatch
import pytest

from tests.apiserver.realinjector import Document, RealInjector
from tests.cases.case import ISTIO, load
from tests.parts.kube import ControlPlane
from tests.parts.process import ProcessError
from webhook.facts.collect import Collector, decode
from webhook.rules.decide import decide
from webhook.rules.decision import Decision, Outcome, Reason
from webhook.rules.interception import as_it_runs, interception
from webhook.rules.objects import Pod
from webhook.rules.snapshot import Request, Snapshot

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
MODE: Final = "sidecar.istio.io/interceptionMode"
CONFIG: Final = "proxy.istio.io/config"
TEMPLATES: Final = "inject.istio.io/templates"
PORTS: Final = "traffic.sidecar.istio.io/includeInboundPorts"
NATIVE: Final = "sidecar.istio.io/nativeSidecar"
METADATA: Final = "proxyMetadata: {{ISTIO_META_INTERCEPTION_MODE: {}}}"
CNI: Final = {"pilot": {"cni": {"enabled": True}}}
NO_PORTS: Final = {"global": {"proxy": {"includeInboundPorts": ""}}}
CONFIGURATIONS: Final[dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "istio-init": ({}, {}),
    "istio-cni": (CNI, {}),
    "a mesh of TPROXY, istio-init": ({}, {"interceptionMode": "TPROXY"}),
    "a mesh of TPROXY, istio-cni": (CNI, {"interceptionMode": "TPROXY"}),
    "a mesh of NONE": ({}, {"interceptionMode": "NONE"}),
    "no inbound ports, istio-init": (NO_PORTS, {}),
    "no inbound ports, istio-cni": ({**CNI, **NO_PORTS}, {}),
}
USERS_PROXY: Final[Document] = {"name": "istio-proxy", "image": "auto", "resources": {"requests": {"cpu": "10m"}}}
ANNOTATIONS: Final[tuple[Mapping[str, str], ...]] = (
    {},
    *({MODE: mode} for mode in ("REDIRECT", "TPROXY", "NONE")),
    *({CONFIG: f"interceptionMode: {mode}"} for mode in ("REDIRECT", "TPROXY", "NONE")),
    *({CONFIG: METADATA.format(mode)} for mode in ("REDIRECT", "TPROXY")),
    {CONFIG: "concurrency: 2"},
    {MODE: "TPROXY", CONFIG: "interceptionMode: REDIRECT"},
    {PORTS: ""},
    {PORTS: "8080"},
    {PORTS: "", MODE: "TPROXY"},
    {PORTS: "", MODE: "REDIRECT"},
)
NAMED: Final = (
    *("sidecar", "gateway", "grpc-agent", "grpc-simple"),
    *("sidecar,gateway", "gateway,sidecar", "grpc-simple,sidecar", "sidecar,grpc-simple", "grpc-agent,sidecar"),
)


def pods() -> Iterator[tuple[str, Document]]:
    """Yield pods by what is special about them."""
    for annotations in ANNOTATIONS:
        for native in ("true", "false"):
            yield f"{dict(annotations)}, native {native}", _pod({**annotations, NATIVE: native})
    for templates in NAMED:
        for more in ({}, {MODE: "TPROXY"}):
            yield f"templates {templates} {more}", _pod({TEMPLATES: templates, **more})
    yield "a proxy of the user's", _pod({}, containers=[USERS_PROXY])
    yield "a native proxy of the user's", _pod({}, init_containers=[{**USERS_PROXY, "restartPolicy": "Always"}])
    yield "not injected", _pod({}, labels={"sidecar.istio.io/inject": "false"})


def _pod(
    annotations: Mapping[str, str],
    *,
    labels: Mapping[str, str] | None = None,
    containers: Sequence[Document] = (),
    init_containers: Sequence[Document] = (),
) -> Document:
    app: Document = {"name": "app", "image": "app"}
    spec: Document = {"containers": [app, *containers], "initContainers": list(init_containers)}
    metadata = {"name": "app", "namespace": "shop", "annotations": dict(annotations), "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def injector(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealInjector]:
    running = RealInjector(control_plane, tmp_path_factory.mktemp("istio"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def snapshot_of(config_maps: list[Document], *, early: bool = False) -> Snapshot:
    """Return the facts of a cluster whose injector has these ConfigMaps; *early*: it is called before us."""
    collector = Collector()
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
    collector.put("v1", "Namespace", {"metadata": {"name": "shop", "labels": labels}})
    info = {"osImage": "Ubuntu 24.04.2 LTS", "kernelVersion": "6.8.0-60-generic", "operatingSystem": "linux"}
    collector.put("v1", "Node", {"metadata": {"name": "good"}, "status": {"nodeInfo": info}})
    for each in load(ISTIO):
        name = "asm-sidecar-injector" if early else each["metadata"]["name"]
        collector.put(each["apiVersion"], each["kind"], {**each, "metadata": {**each["metadata"], "name": name}})
    for each in config_maps:
        metadata = each["metadata"]
        if collector.takes("v1", "ConfigMap", metadata.get("namespace", ""), metadata["name"]):
            collector.put("v1", "ConfigMap", each)
    return collector.snapshot()


def decided(pod: Document, snapshot: Snapshot) -> Decision:
    made: Pod = decode(pod, Pod)
    return decide(Request(object=made, namespace="shop", kind="Pod"), snapshot, now=NOW)


def is_called(pod: Document) -> bool:
    """Return whether the API server would call the injector: here it is asked whatever the pod says."""
    return bool(pod["metadata"]["labels"].get("sidecar.istio.io/inject") != "false")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_the_injector_makes_is_decided_as_the_pod_was(injector: RealInjector, name: str) -> None:
    config_maps = injector.become(*CONFIGURATIONS[name])
    snapshot, early = snapshot_of(config_maps), snapshot_of(config_maps, early=True)
    compared = 0
    for what, pod in pods():
        original = decided(pod, snapshot)
        injected = injector.inject(pod, "shop") if is_called(pod) else pod
        twin, late = decided(injected, snapshot), decided(injected, early)
        told = f"{what}: {original.reason} ({original.cause}); injected: {twin.reason} ({twin.cause})"
        assert not twin.patch, told
        if original.patch:
            assert original.reason is Reason.TPROXY, told
            assert (twin.reason, twin.outcome) == (Reason.MODE_ALREADY_SET, Outcome.LOST), told
            assert (late.reason, late.outcome) == (Reason.ALREADY_INJECTED, Outcome.LOST), told
            patched = jsonpatch.apply_patch(pod, [each.as_json() for each in original.patch])
            ours = injector.inject(patched, "shop")
            found = as_it_runs(decode(ours, Pod))
            assert found is not None, told
            assert (found.captured, found.mode, found.agreed) == (True, "TPROXY", True), f"{told}: {found.fact}"
            assert decided(ours, snapshot).outcome is Outcome.PRESERVED, told
        else:
            assert twin.outcome is original.outcome, told
            assert late.outcome is original.outcome, told
        if original.outcome is Outcome.PRESERVED and twin.reason in {Reason.NO_SIDECAR, Reason.INBOUND_NOT_CAPTURED}:
            assert late.reason is twin.reason, f"{told}: {late.reason}"
        expected = interception(decode(pod, Pod), "shop", snapshot.namespaces["shop"], snapshot.mesh)
        runs = as_it_runs(decode(injected, Pod))
        assert (runs is not None and runs.captured) == expected.captured, f"{told}: {expected}, {runs}"
        if runs is not None and runs.captured and expected.agreed:
            assert runs.mode == expected.mode, f"{told}: {expected}, {runs}"
        compared += 1
    assert compared > 40


def test_native_sidecars_follow_the_kubelets(injector: RealInjector, control_plane: ControlPlane) -> None:
    """With an old kubelet in the cluster the proxy is a container, else an init container: read alike."""
    injector.become({}, {})
    client = control_plane.client()
    pod = _pod({MODE: "TPROXY"})
    for version in ("v1.32.4", "v1.33.4"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"kubelet-{version}"}}
        client.create(node)
        client.patch_status("v1", "Node", f"kubelet-{version}", {"nodeInfo": _node_info(version)})
        try:
            _until_native(injector, pod, wanted=version == "v1.33.4")
            found = as_it_runs(decode(injector.inject(pod, "shop"), Pod))
            assert found is not None
            assert (found.captured, found.mode, found.preserved) == (True, "TPROXY", True)
        finally:
            client.delete("v1", "Node", f"kubelet-{version}")


def _until_native(injector: RealInjector, pod: Document, *, wanted: bool) -> None:
    def is_so() -> bool:
        made = injector.inject(pod, "shop")["spec"]
        return any(each["name"] == "istio-proxy" for each in made.get("initContainers", ())) is wanted

    injector.process.wait_until(is_so, what=f"native: {wanted}")


def _node_info(version: str) -> dict[str, str]:
    empty = ("machineID", "systemUUID", "bootID", "containerRuntimeVersion", "kubeProxyVersion")
    known = {"architecture": "amd64", "kernelVersion": "6.8.0", "operatingSystem": "linux", "osImage": "Ubuntu 24.04"}
    return {**dict.fromkeys(empty, ""), **known, "kubeletVersion": version}


def test_a_mode_in_the_proxys_metadata_reaches_envoy_and_not_iptables(injector: RealInjector) -> None:
    """The variable is there twice; rules, capabilities and the annotation for istio-cni know nothing of it."""
    injector.become({}, {})
    made = injector.inject(_pod({CONFIG: METADATA.format("TPROXY"), NATIVE: "false"}), "shop")
    (proxy,) = [each for each in made["spec"]["containers"] if each["name"] == "istio-proxy"]
    modes = [each["value"] for each in proxy["env"] if each["name"] == "ISTIO_META_INTERCEPTION_MODE"]
    (rules,) = [each for each in made["spec"]["initContainers"] if each["name"] == "istio-init"]
    assert modes[-1] == "TPROXY"
    assert rules["args"][rules["args"].index("-m") + 1] == "REDIRECT"
    assert "add" not in proxy["securityContext"]["capabilities"]
    found = as_it_runs(decode(made, Pod))
    assert found is not None
    assert not found.preserved


def test_a_proxy_that_must_not_be_root_keeps_its_word(injector: RealInjector) -> None:
    """Istio sets the uid to 0 and leaves runAsNonRoot: the kubelet would refuse the pod."""
    injector.become({}, {})
    own = {**USERS_PROXY, "securityContext": {"runAsNonRoot": True, "runAsUser": 1337}}
    made = injector.inject(_pod({MODE: "TPROXY", NATIVE: "false"}, containers=[own]), "shop")
    (proxy,) = [each for each in made["spec"]["containers"] if each["name"] == "istio-proxy"]
    assert (proxy["securityContext"]["runAsNonRoot"], proxy["securityContext"]["runAsUser"]) == (True, 0)


def test_a_mode_that_istio_does_not_know_has_the_pod_refused(injector: RealInjector) -> None:
    injector.become({}, {})
    with pytest.raises(ProcessError, match="interceptionMode"):
        injector.inject(_pod({MODE: "tproxy"}), "shop")
