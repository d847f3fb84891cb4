"""What of Istio the decisions rest on, and what of it changes their meaning."""

from typing import Final

import msgspec

from webhook.checks.check import Check, Finding, Group, error, ok, skipped, warning
from webhook.checks.evidence import Evidence, few, metadata, name_of
from webhook.rules import wellknown

CONTROLLERS: Final = frozenset(
    {
        "istio.io/gateway-controller",
        "openshift.io/gateway-controller/v1",
        "istio.aks.azure.com/gateway-controller",
    }
)
"""Controllers whose gateways are Istio's."""
USE_WAYPOINT: Final = "istio.io/use-waypoint"
CNI: Final = "istio-cni-node"


def _injectors(evidence: Evidence) -> Finding:
    mesh = evidence.snapshot.mesh
    if not mesh.injectors:
        return error(
            "there is no sidecar injector",
            "No MutatingWebhookConfiguration is labelled app=sidecar-injector or calls *.sidecar-injector.istio.io. "
            "Check that Istio is installed. Without sidecars, no client's IP is lost.",
        )
    revisions = {
        revision
        for each in evidence.all("configurations")
        for key in (wellknown.ISTIO_REV, wellknown.ISTIO_TAG)
        if (revision := (metadata(each).get("labels") or {}).get(key))
    }
    unknown = sorted(
        f"{name} ({labels[wellknown.ISTIO_REV]})"
        for name, labels in evidence.opted_in()
        if wellknown.ISTIO_INJECTION not in labels
        and wellknown.ISTIO_REV in labels
        and labels[wellknown.ISTIO_REV] not in revisions
    )
    if unknown:
        return warning(
            f"namespaces use a revision without an injector: {few(unknown)}",
            "Their pods get no sidecar. To list revisions: kubectl get mutatingwebhookconfigurations -l istio.io/rev",
        )
    names = sorted({each.configuration for each in mesh.injectors})
    configs = [str(metadata(each).get("name", "")) for each in evidence.all("istio-config-maps")]
    if not any(name.startswith(wellknown.INJECTOR_CONFIGMAP) for name in configs):
        return warning(
            f"{few(names)}: the injector's ConfigMap is not known",
            "Istio's defaults are assumed. The webhook reads istio-sidecar-injector[-<revision>] in the chart's "
            "istio.namespace, for the revisions in istio.revisions.",
        )
    return ok(f"{few(names)}")


def _cni(evidence: Evidence) -> Finding:
    found = next((each for each in evidence.all("daemon-sets") if metadata(each).get("name") == CNI), None)
    native = [
        name_of(each)
        for each in evidence.all("istio-config-maps")
        if str(metadata(each).get("name", "")).startswith(wellknown.INJECTOR_CONFIGMAP) and _is_native(each)
    ]
    said = [f"istio-cni runs ({name_of(found)})" if found is not None else "istio-init sets up the pods"]
    if native:
        old = [
            name_of(each)
            for each in evidence.all("nodes")
            if _kernel((each.get("status") or {}).get("nodeInfo") or {}) < (5, 13)
        ]
        said.append("native nftables")
        if old:
            return warning(
                f"native nftables on nodes whose kernel is older than 5.13: {few(old)}",
                "Sidecars may fail to start there: see Istio's platform requirements.",
            )
    if found is not None:
        said.append("do not add the annotation to running pods: after injection, it breaks a pod's inbound traffic")
    return ok("; ".join(said))


def _is_native(config_map: object) -> bool:
    data = config_map.get("data") or {} if isinstance(config_map, dict) else {}
    try:
        values = msgspec.json.decode(str(data.get("values", "{}")))
    except msgspec.DecodeError:
        return False
    return isinstance(values, dict) and bool((values.get("global") or {}).get("nativeNftables"))


def _kernel(info: object) -> tuple[int, int]:
    text = str(info.get("kernelVersion", "")) if isinstance(info, dict) else ""
    numbers = text.split(".", 2)
    if len(numbers) < 2 or not numbers[0].isdecimal() or not numbers[1].isdecimal():
        return 9999, 0
    return int(numbers[0]), int(numbers[1])


def _waypoints(evidence: Evidence) -> Finding:
    opted_in = dict(evidence.opted_in())
    used = [f"namespace {name}" for name, labels in opted_in.items() if labels.get(USE_WAYPOINT, "none") != "none"]
    used += [
        f"Service {name_of(each)}"
        for each in evidence.all("services")
        if metadata(each).get("namespace") in opted_in
        and (metadata(each).get("labels") or {}).get(USE_WAYPOINT, "none") != "none"
    ]
    if used:
        return warning(
            f"opted in, but behind a waypoint: {few(used)}",
            "An application behind a waypoint sees the waypoint, not its caller, whatever the sidecar does.",
        )
    return ok("no opted-in namespace or Service is behind a waypoint")


def _gateway_classes(evidence: Evidence) -> Finding:
    if "gateway.networking.k8s.io/v1" not in evidence.groups:
        return skipped("the Gateway API is not installed")
    policy = evidence.snapshot.policies.default
    missing = []
    for each in evidence.all("gateway-classes"):
        name = str(metadata(each).get("name", ""))
        ours = (each.get("spec") or {}).get("controllerName") in CONTROLLERS
        if ours and "waypoint" not in name and "east-west" not in name and "remote" not in name:
            labels = {wellknown.GATEWAY_CLASS: name}
            if not policy.is_gateway(labels):
                missing.append(name)
    if missing:
        return warning(
            f"gateways of the classes {few(missing)} are not selected by the default policy",
            "Add to services.selectors: {matchExpressions: [{key: " + wellknown.GATEWAY_CLASS + ", operator: In, "
            f"values: [{', '.join(missing)}]}}]}}",
        )
    return ok("the default policy selects the gateways of all of Istio's GatewayClasses")


GROUP: Final = Group(
    "mesh",
    (
        Check(
            id="injectors-found",
            description="sidecar injectors and their settings are known",
            ask=_injectors,
            reads=("configurations", "namespaces", "istio-config-maps"),
        ),
        Check(
            id="cni-and-mode",
            description="how sidecars capture traffic is known and supported",
            ask=_cni,
            reads=("daemon-sets", "istio-config-maps", "nodes"),
        ),
        Check(
            id="waypoints",
            description="no waypoint hides callers from opted-in applications",
            ask=_waypoints,
            reads=("namespaces", "services"),
        ),
        Check(
            id="gateway-classes",
            description="the default policy selects all of Istio's GatewayClasses",
            ask=_gateway_classes,
            reads=("gateway-classes", "policies"),
        ),
    ),
)
