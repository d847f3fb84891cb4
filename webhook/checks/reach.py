"""Whether the API server's calls arrive: the one question that only the API server itself can answer."""

from collections.abc import Iterator
from typing import Any, Final

from webhook.checks.check import Check, Finding, Group, error, ok, skipped, warning
from webhook.checks.evidence import Evidence, metadata
from webhook.checks.installation import OURS

SLOW_SECONDS: Final = 0.9
"""A create that waits for the timeout takes at least this long; the shortest timeout is one second."""
_DRY_RUN: Final = "does not support dry run"


def _end_to_end(evidence: Evidence) -> Finding:
    probe = evidence.probe
    if probe is None:
        return skipped("not available for a bundle: it needs a cluster")
    if probe.pod is None:
        if probe.status == 0:
            return skipped(probe.message)
        if "client-ip.dev" in probe.message and "failed calling webhook" in probe.message:
            return error(
                f"the API server rejects pods because it cannot call the webhook: {probe.message[:200]}",
                "A failurePolicy is Fail; it must be Ignore. Apply the manifest again.",
            )
        who = "a webhook that does not support dry runs" if _DRY_RUN in probe.message else "another component"
        return skipped(f"the test pod was rejected by {who} ({probe.status}): {probe.message[:200]}")
    if probe.method == "tproxy" and probe.mode == "TPROXY":
        return ok(
            f"a pod created in {probe.namespace} (dry run) gets the annotation, and its proxy runs in TPROXY mode"
        )
    if probe.method and probe.mode:
        return error(
            f"the webhook marked the pod ({probe.method}), but its proxy runs in {probe.mode} mode",
            "Another webhook changes the annotation afterwards. See the check other-mutators.",
        )
    if probe.method:
        return error(
            f"the webhook marked the pod ({probe.method}), but no sidecar was injected",
            "The sidecar injector was not called: see the check injectors-found and istiod's log.",
        )
    return error(
        f"the webhook did not mark a pod in {probe.namespace}"
        + (f", whose proxy runs in {probe.mode} mode" if probe.mode else ""),
        "\n".join(_why_not_reached(evidence)),
    )


def _why_not_reached(evidence: Evidence) -> Iterator[str]:
    probe = evidence.probe
    if probe is None:
        return
    if probe.fail_open == 0:
        yield (
            "The API server counted no failed call: it did not call the webhook, or called it after the injector. "
            "See the checks configuration-present and before-injectors."
        )
        return
    if probe.fail_open is None:
        yield "The API server's metrics cannot be read, so it is not known whether the call failed."
    if probe.seconds >= SLOW_SECONDS:
        yield f"The create took {probe.seconds:.1f} s, as long as the timeout: packets are dropped."
        yield from platform_hints(evidence)
    else:
        yield (
            f"The create took {probe.seconds * 1000:.0f} ms: the call was refused, or the certificate is not trusted. "
            "See the checks service-endpoints and ca-bundle-trusts-leaf."
        )


def platform_hints(evidence: Evidence) -> Iterator[str]:
    """Yield what drops packets on the platform that the nodes show, and the platform's own fix."""
    ids = {str((node.get("spec") or {}).get("providerID", "")).split(":", 1)[0] for node in evidence.all("nodes")}
    port = _port(evidence)
    agents = {metadata(each).get("name") for each in evidence.all("daemon-sets")}
    if "gce" in ids and port not in {443, 10250}:
        yield (
            f"GKE: the control plane of a private cluster reaches nodes only on ports 443 and 10250, not {port}. Set "
            f"the chart's webhook.port: 10250, or allow it: gcloud compute firewall-rules create client-ip-webhook "
            f"--network NETWORK --source-ranges CONTROL_PLANE_CIDR --allow tcp:{port}"
        )
    if "aws" in ids and agents & {"calico-node", "cilium"}:
        yield "EKS with an overlay network: the control plane cannot reach pods. Set the chart's hostNetwork: true."
    elif "aws" in ids:
        yield f"EKS: the nodes' security group must allow the control plane's security group on port {port}."
    if "azure" in ids:
        yield f"AKS: the nodes' network security group must allow the control plane on port {port}."
    if "konnectivity-agent" in agents:
        yield "The control plane reaches pods through konnectivity-agent. Check its pods and logs in kube-system."
    yield (
        "If the API server runs behind HTTP(S)_PROXY, its NO_PROXY must name .svc and the pods' addresses; a "
        "NetworkPolicy must let it in (see the check network-policy)."
    )


def _port(evidence: Evidence) -> int:
    deployment = evidence.named("own-deployment", OURS) or {}
    containers = (((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or ()
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("name") == "webhook":
                return int(port.get("containerPort", 8443))
    return 8443


def _network_policy(evidence: Evidence) -> Finding:
    port = _port(evidence)
    labels = {"app.kubernetes.io/name": OURS}
    selecting = [each for each in evidence.all("own-network-policies") if _selects(each.get("spec") or {}, labels)]
    if not selecting:
        return ok("no NetworkPolicy selects the webhook's pods")
    if any(_lets_in(each.get("spec") or {}, port) for each in selecting):
        return ok(f"the NetworkPolicies allow traffic on port {port}")
    names = ", ".join(str(metadata(each).get("name")) for each in selecting)
    return warning(
        f"the NetworkPolicies {names} do not allow all sources on port {port}",
        "The API server calls from outside the pod network, so a rule without `from` must allow the port.",
    )


def _selects(spec: Any, labels: dict[str, str]) -> bool:
    selector = spec.get("podSelector") or {}
    types = spec.get("policyTypes") or ["Ingress"]
    wanted = selector.get("matchLabels") or {}
    return "Ingress" in types and wanted.items() <= labels.items() and not selector.get("matchExpressions")


def _lets_in(spec: Any, port: int) -> bool:
    for rule in spec.get("ingress") or ():
        ports = rule.get("ports") or ()
        if not rule.get("from") and (not ports or any(each.get("port") in {port, "webhook", None} for each in ports)):
            return True
    return False


GROUP: Final = Group(
    "reach",
    (
        Check(id="end-to-end", description="a new pod is patched and injected", ask=_end_to_end),
        Check(
            id="network-policy",
            description="no NetworkPolicy blocks the API server",
            ask=_network_policy,
            reads=("own-network-policies", "own-deployment"),
        ),
    ),
)
