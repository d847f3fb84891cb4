"""Whether a pod's inbound traffic is captured, and in which mode: for every pod one function."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

from tests.cases.case import ISTIO, load
from webhook.facts.collect import Collector, decode
from webhook.rules.interception import Interception, as_it_runs, interception
from webhook.rules.objects import Pod
from webhook.rules.sidecar import Mesh

LOGS: Final = Path(__file__).parents[1] / "accesslogs"
ENABLED: Final = {"istio-injection": "enabled"}
STATUS: Final = "sidecar.istio.io/status"
MODE: Final = "sidecar.istio.io/interceptionMode"
PORTS: Final = "traffic.sidecar.istio.io/includeInboundPorts"


def mesh(*more: dict[str, Any]) -> Mesh:
    """Return Istio's own injector, with ConfigMaps."""
    collector = Collector()
    for each in (*load(ISTIO), *more):
        collector.put(each["apiVersion"], each["kind"], each)
    return collector.snapshot().mesh


def config_map(name: str, namespace: str = "istio-system", **data: str) -> dict[str, Any]:
    """Return a ConfigMap."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(
    annotations: Mapping[str, str] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    init: str | None = None,
    told: tuple[str, ...] = (),
    environment: tuple[tuple[str, str], ...] | None = None,
    arguments: tuple[str, ...] = ("proxy", "sidecar"),
    native: bool = False,
) -> Pod:
    """Return a pod; with *environment* a proxy stands in it, with *init* a container of that name and its arguments."""
    containers: list[dict[str, Any]] = [{"name": "app"}]
    first: list[dict[str, Any]] = []
    if init is not None:
        first.append({"name": init, "args": list(told)})
    if environment is not None:
        proxy = {
            "name": "istio-proxy",
            "args": list(arguments),
            "env": [{"name": name, "value": value} for name, value in environment],
        }
        (first if native else containers).append(proxy)
    document = {
        "metadata": {"name": "a", "annotations": dict(annotations or {}), "labels": dict(labels or {})},
        "spec": {"initContainers": first, "containers": containers},
    }
    made: Pod = decode(document, Pod)
    return made


def said(found: Interception) -> tuple[bool, str, bool, bool]:
    """Return what matters: captured, the mode, whether the pod agrees with itself, and what follows."""
    return found.captured, found.mode, found.agreed, found.preserved


def env(*modes: str) -> tuple[tuple[str, str], ...]:
    return tuple(("ISTIO_META_INTERCEPTION_MODE", mode) for mode in modes)


INIT: Final = ("istio-iptables", "-p", "15001", "-m", "TPROXY", "-b", "*")
REDIRECT: Final = ("istio-iptables", "-m", "REDIRECT", "-b", "*")
CNI: Final = {STATUS: "{}", MODE: "TPROXY", PORTS: "*"}

INJECTED: Final[dict[str, tuple[Pod, tuple[bool, str, bool, bool]]]] = {
    "iptables": (
        pod({STATUS: "{}"}, init="istio-init", told=INIT, environment=env("TPROXY")),
        (True, "TPROXY", True, True),
    ),
    "iptables, native": (
        pod({STATUS: "{}"}, init="istio-init", told=INIT, environment=env("TPROXY"), native=True),
        (True, "TPROXY", True, True),
    ),
    "istio-cni": (
        pod(CNI, init="istio-validation", told=INIT, environment=env("TPROXY")),
        (True, "TPROXY", True, True),
    ),
    "istio-cni without the annotation that it reads": (
        pod({STATUS: "{}"}, init="istio-validation", told=INIT, environment=env("TPROXY")),
        (True, "TPROXY", False, False),
    ),
    "a late annotation": (
        pod({STATUS: "{}", MODE: "TPROXY"}, init="istio-init", told=REDIRECT, environment=env("REDIRECT")),
        (True, "REDIRECT", False, False),
    ),
    "an annotation that came to say REDIRECT": (
        pod({STATUS: "{}", MODE: "REDIRECT"}, init="istio-init", told=INIT, environment=env("TPROXY")),
        (True, "TPROXY", False, False),
    ),
    "rules and Envoy differ": (
        pod({STATUS: "{}"}, init="istio-init", told=REDIRECT, environment=env("TPROXY")),
        (True, "TPROXY", False, False),
    ),
    "twice in the environment, the last differs": (
        pod({STATUS: "{}"}, init="istio-init", told=INIT, environment=env("TPROXY", "REDIRECT")),
        (True, "REDIRECT", False, False),
    ),
    "no status": (
        pod(init="istio-init", told=INIT, environment=env("TPROXY")),
        (True, "TPROXY", False, False),
    ),
    "no rules": (pod({STATUS: "{}"}, environment=env("TPROXY")), (True, "TPROXY", False, False)),
    "rules that name no mode": (
        pod({STATUS: "{}"}, init="istio-init", told=("istio-iptables",), environment=env("TPROXY")),
        (True, "TPROXY", False, False),
    ),
    "REDIRECT": (
        pod({STATUS: "{}"}, init="istio-init", told=REDIRECT, environment=env("REDIRECT")),
        (True, "REDIRECT", True, False),
    ),
    "NONE": (pod({STATUS: "{}"}, environment=env("NONE")), (False, "NONE", True, True)),
    "NONE to Envoy alone": (
        pod({STATUS: "{}"}, init="istio-init", told=REDIRECT, environment=env("REDIRECT", "NONE")),
        (True, "NONE", False, False),
    ),
    "NONE without a status": (pod(environment=env("NONE")), (True, "NONE", False, False)),
    "no inbound ports, iptables": (
        pod({STATUS: "{}"}, init="istio-init", told=("-m", "REDIRECT", "-b", ""), environment=env("REDIRECT")),
        (False, "REDIRECT", True, True),
    ),
    "no inbound ports, istio-cni": (
        pod(
            {STATUS: "{}", PORTS: "", MODE: "REDIRECT"},
            init="istio-validation",
            told=("-m", "REDIRECT", "-b", ""),
            environment=env("REDIRECT"),
        ),
        (False, "REDIRECT", True, True),
    ),
    "no inbound ports for the validation alone": (
        pod(
            {STATUS: "{}", MODE: "REDIRECT"},
            init="istio-validation",
            told=("-m", "REDIRECT", "-b", ""),
            environment=env("REDIRECT"),
        ),
        (True, "REDIRECT", True, False),
    ),
    "no inbound ports for the annotation alone": (
        pod({STATUS: "{}", PORTS: ""}, init="istio-init", told=REDIRECT, environment=env("REDIRECT")),
        (True, "REDIRECT", True, False),
    ),
    "a gateway": (
        pod({STATUS: "{}"}, environment=env("REDIRECT"), arguments=("proxy", "router", "--domain", "a")),
        (False, "", True, True),
    ),
    "a waypoint": (
        pod(labels={"sidecar.istio.io/inject": "false"}, environment=env("REDIRECT"), arguments=("proxy", "waypoint")),
        (False, "", True, True),
    ),
    "a gRPC agent": (pod({STATUS: "{}"}, environment=(("DISABLE_ENVOY", "true"),)), (False, "", True, True)),
    "an agent, and rules that lead to nobody": (
        pod({STATUS: "{}"}, init="istio-init", told=REDIRECT, environment=(("DISABLE_ENVOY", "true"),)),
        (False, "", True, True),
    ),
    "an agent without a status, which an injector would make a sidecar of": (
        pod(environment=(("DISABLE_ENVOY", "true"), *env("REDIRECT"))),
        (True, "REDIRECT", False, False),
    ),
    "a status, and a proxy that says nothing": (pod({STATUS: "{}"}, environment=()), (True, "REDIRECT", False, False)),
}


@pytest.mark.parametrize("name", INJECTED)
def test_what_stands_in_a_pod_counts(name: str) -> None:
    """Status, rules and environment must agree, or TPROXY is not believed."""
    given, want = INJECTED[name]
    found = interception(given, "shop", ENABLED, mesh())
    assert said(found) == want, found.fact
    assert found.injected


@pytest.mark.parametrize("name", ["app-redirect", "app-tproxy"])
def test_pods_of_a_real_cluster_are_read_as_they_run(name: str) -> None:
    """Their access logs stand beside them, and say the same."""
    mode = name.removeprefix("app-")
    document = yaml.safe_load((LOGS / f"{mode}.pod.yaml").read_text())
    found = as_it_runs(decode({**document, "kind": "Pod"}, Pod))
    assert found is not None
    assert said(found) == (True, mode.upper(), True, mode == "tproxy")


def test_a_gateway_that_an_injector_would_make_a_sidecar_is_none_yet() -> None:
    """Nobody is called for istiod's own; a user's container of that name is merged."""
    given = pod(environment=env("REDIRECT"), arguments=("proxy", "router"))
    assert said(interception(given, "shop", ENABLED, mesh())) == (True, "REDIRECT", False, False)
    assert said(interception(given, "edge", {}, mesh())) == (False, "", True, True)


TPROXY_MESH: Final = config_map("istio", mesh="defaultConfig: {interceptionMode: TPROXY}")
ASKED: Final[dict[str, tuple[Pod, tuple[dict[str, Any], ...], tuple[bool, str, bool, bool]]]] = {
    "nobody asks": (pod(), (), (True, "REDIRECT", True, False)),
    "the mesh": (pod(), (TPROXY_MESH,), (True, "TPROXY", True, True)),
    "the mesh, in Protobuf's other spelling": (
        pod(),
        (config_map("istio", mesh="defaultConfig: {interception_mode: 2}"),),
        (False, "NONE", True, True),
    ),
    "another namespace's ConfigMap of that name": (
        pod(),
        (config_map("istio", "shop", mesh="defaultConfig: {interceptionMode: TPROXY}"),),
        (True, "REDIRECT", True, False),
    ),
    "the proxy's configuration beats the mesh": (
        pod({"proxy.istio.io/config": "interceptionMode: NONE"}),
        (TPROXY_MESH,),
        (False, "NONE", True, True),
    ),
    "but not with REDIRECT, the zero of its enum": (
        pod({"proxy.istio.io/config": "interceptionMode: REDIRECT"}),
        (TPROXY_MESH,),
        (True, "TPROXY", True, True),
    ),
    "a configuration that speaks of something else does not": (
        pod({"proxy.istio.io/config": "concurrency: 2"}),
        (TPROXY_MESH,),
        (True, "TPROXY", True, True),
    ),
    "the annotation beats both": (
        pod({"proxy.istio.io/config": "interceptionMode: REDIRECT", MODE: "TPROXY"}),
        (config_map("istio", mesh="defaultConfig: {interceptionMode: NONE}"),),
        (True, "TPROXY", True, True),
    ),
    "the proxy's metadata contradicts the mesh": (
        pod({"proxy.istio.io/config": "proxyMetadata: {ISTIO_META_INTERCEPTION_MODE: REDIRECT}"}),
        (TPROXY_MESH,),
        (True, "TPROXY", False, False),
    ),
    "the mesh's metadata contradicts the annotation": (
        pod({MODE: "TPROXY"}),
        (config_map("istio", mesh="defaultConfig: {proxyMetadata: {ISTIO_META_INTERCEPTION_MODE: REDIRECT}}"),),
        (True, "TPROXY", False, False),
    ),
    "the user's own container does not change it": (
        pod(environment=()),
        (TPROXY_MESH,),
        (True, "TPROXY", True, True),
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_counts_where_nothing_stands_yet(name: str) -> None:
    """The annotation, else the proxy's configuration, else the mesh, else REDIRECT."""
    given, facts, want = ASKED[name]
    found = interception(given, "shop", ENABLED, mesh(*facts))
    assert said(found) == want, found.fact
    assert not found.injected


def external(name: str = "istio-sidecar-injector-external-istiod", **annotations: str) -> dict[str, Any]:
    """Return the injector of a remote cluster: its control plane is called by URL."""
    (document,) = load(ISTIO)
    webhooks = [
        {**each, "clientConfig": {"url": "https://istiod.example.com:15017/inject"}} for each in document["webhooks"]
    ]
    metadata = {**document["metadata"], "name": name, "annotations": annotations}
    return {**document, "metadata": metadata, "webhooks": webhooks}


def injected_by(*facts: dict[str, Any]) -> str:
    collector = Collector()
    for each in facts:
        collector.put(each["apiVersion"], each["kind"], each)
    found = interception(pod(), "shop", ENABLED, collector.snapshot().mesh)
    return found.fact if not found.captured else "captured"


DISABLED: Final = {"config": "policy: disabled"}


@pytest.mark.parametrize(
    ("facts", "want"),
    [
        ((external(), config_map("istio-sidecar-injector", "external-istiod", **DISABLED)), "disabled"),
        ((external("mine"), config_map("istio-sidecar-injector", "anywhere", **DISABLED)), "disabled"),
        (
            (
                external("mine", **{"meta.helm.sh/release-namespace": "mesh"}),
                config_map("istio-sidecar-injector", "mesh", **DISABLED),
                config_map("istio-sidecar-injector", "a-tenant", config="policy: enabled"),
            ),
            "disabled",
        ),
        ((external(), config_map("istio-sidecar-injector-canary", "external-istiod", **DISABLED)), "captured"),
        ((*load(ISTIO), config_map("istio-sidecar-injector", "external-istiod", **DISABLED)), "captured"),
    ],
)
def test_an_injector_without_a_service_has_its_revisions_config_map(
    facts: tuple[dict[str, Any], ...], want: str
) -> None:
    """Beside its release, else wherever there is one; an injector with a Service has it there and nowhere else."""
    assert want in injected_by(*facts)


def test_of_several_config_maps_it_is_said_which_one_counts() -> None:
    both = [config_map("istio-sidecar-injector", each, config="policy: enabled") for each in ("b", "a")]
    found = injected_by(external("mine"), *both)
    assert found == "captured"
    collector = Collector()
    for each in (external("mine"), *both):
        collector.put(each["apiVersion"], each["kind"], each)
    injector = collector.snapshot().mesh.injector_of(ENABLED, {})
    assert injector is not None
    assert "of 2 ConfigMaps istio-sidecar-injector, the one in a is used" in injector.cause


@pytest.mark.parametrize("raw", [b"[1]", b"{}", b'"x"', b"[" * 600 + b"]" * 600, b'["-m"', b'["\xff"]'])
def test_what_no_api_server_takes_is_never_preserved(raw: bytes) -> None:
    """Environment or arguments of another shape."""
    given = pod({STATUS: "{}"}, init="istio-init", told=INIT, environment=env("TPROXY"))
    containers = given.spec.containers or []
    broken = [*containers[:-1], msgspec.structs.replace(containers[-1], env=msgspec.Raw(raw))]
    found = as_it_runs(msgspec.structs.replace(given, spec=msgspec.structs.replace(given.spec, containers=broken)))
    assert found is not None
    assert not found.preserved
    first = given.spec.init_containers or []
    rules = [msgspec.structs.replace(first[0], args=msgspec.Raw(raw))]
    found = as_it_runs(msgspec.structs.replace(given, spec=msgspec.structs.replace(given.spec, init_containers=rules)))
    assert found is not None
    assert not found.preserved
