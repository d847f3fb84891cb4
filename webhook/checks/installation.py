"""What the chart installs, as it stands: the configuration, replicas, endpoints and certificates."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from webhook.checks.check import Check, Finding, Group, error, ok, skipped, warning
from webhook.checks.evidence import Document, Evidence, few, metadata
from webhook.rules import wellknown

OURS: Final = "client-ip-webhook"
"""The name of the Deployment and the Service."""
LEAF_LEFT: Final = timedelta(days=20)
CA_LEFT: Final = timedelta(days=60)
_COMPARED: Final = (
    "failurePolicy",
    "matchConditions",
    "matchPolicy",
    "namespaceSelector",
    "objectSelector",
    "reinvocationPolicy",
    "rules",
    "sideEffects",
)


def _configuration(evidence: Evidence) -> Finding:
    found = evidence.configuration
    if found is None:
        return error(
            f"there is no MutatingWebhookConfiguration {wellknown.CONFIGURATION}",
            "No object is patched. Install the chart, or apply deploy/install.yaml again.",
        )
    differences = list(_differences(found, evidence.expected))
    if differences:
        return warning(
            f"the configuration differs from the one that this version renders: {few(differences)}",
            f"Last written by {_writers(found)}. Compare with: client-ip render configuration",
        )
    return ok(f"MutatingWebhookConfiguration {wellknown.CONFIGURATION}, {len(found.get('webhooks') or ())} entries")


def _differences(found: Document, expected: Document) -> Iterator[str]:
    if not expected:
        return
    by_name = {each.get("name"): each for each in found.get("webhooks") or ()}
    for wanted in expected.get("webhooks") or ():
        there = by_name.pop(wanted["name"], None)
        if there is None:
            yield f"{wanted['name']} is missing"
            continue
        for name in _COMPARED:
            if (_bare(there.get(name)) or None) != (_bare(wanted.get(name)) or None):
                yield f"{wanted['name']}: {name}"
    yield from (f"{name} was added" for name in by_name if name)


def _bare(value: Any) -> Any:
    """Return *value* without what the API server adds by default and with lists of selector values in order."""
    if isinstance(value, Mapping):
        return {key: _bare(each) for key, each in value.items() if each not in (None, {}, [])}
    if isinstance(value, list):
        bare = [_bare(each) for each in value]
        # Namespaces that are excluded by value stand in the same list as the system ones.
        return sorted(bare) if all(isinstance(each, str) for each in bare) else bare
    return value


def _writers(document: Document) -> str:
    fields = metadata(document).get("managedFields") or ()
    latest = sorted(fields, key=lambda each: str(each.get("time", "")), reverse=True)
    return few([f"{each.get('manager', '?')} ({each.get('time', '?')})" for each in latest], 2) or "an unknown writer"


def _replicas(evidence: Evidence) -> Finding:
    deployment = evidence.named("own-deployment", OURS)
    if deployment is None:
        return error(
            f"there is no Deployment {OURS} in namespace {evidence.own_namespace}",
            "Install the chart, or set --own-namespace to the webhook's namespace.",
        )
    wanted = (deployment.get("spec") or {}).get("replicas", 1)
    ready = (deployment.get("status") or {}).get("readyReplicas", 0)
    waiting = [text for pod in evidence.all("own-pods") for text in _waiting(pod)]
    hint = "\n".join(waiting[:3]) or f"kubectl describe pods -n {evidence.own_namespace}"
    if not ready:
        return error(f"none of {wanted} replicas is ready", hint)
    if ready < wanted:
        return warning(f"{ready} of {wanted} replicas are ready", hint)
    if ready < 2:
        return warning(
            "there is only one replica", "While its pod is moved, objects are admitted unpatched. Set replicas: 2."
        )
    return ok(f"{ready} of {wanted} replicas are ready")


def _waiting(pod: Document) -> Iterator[str]:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting")
        if waiting:
            said = str(waiting.get("message", ""))[:200]
            yield f"{metadata(pod).get('name')}: {waiting.get('reason', 'waiting')}: {said}"
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{metadata(pod).get('name')}: not scheduled: {str(condition.get('message'))[:200]}"


def _endpoints(evidence: Evidence) -> Finding:
    slices = [
        each
        for each in evidence.all("own-endpoints")
        if (metadata(each).get("labels") or {}).get("kubernetes.io/service-name") == OURS
    ]
    ready = [
        endpoint
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
    ]
    if not ready:
        return error(
            f"the Service {evidence.own_namespace}/{OURS} has no ready endpoint",
            f"kubectl get endpointslices -n {evidence.own_namespace} -l kubernetes.io/service-name={OURS}\n"
            "Every call fails, and objects are admitted unpatched.",
        )
    nodes = {endpoint.get("nodeName") for endpoint in ready if endpoint.get("nodeName")}
    if len(ready) > 1 and len(nodes) == 1:
        return warning(
            f"all {len(ready)} endpoints are on node {next(iter(nodes))}",
            "If this node fails, the webhook fails. The chart spreads replicas if the cluster has several nodes.",
        )
    return ok(f"{len(ready)} ready endpoints on {max(len(nodes), 1)} nodes")


def _versions(evidence: Evidence) -> Finding:
    images = {
        status.get("imageID") or status.get("image", "")
        for pod in evidence.all("own-pods")
        if (metadata(pod).get("labels") or {}).get("app.kubernetes.io/name") == OURS
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    } - {""}
    if len(images) > 1:
        return warning(
            f"replicas run {len(images)} different images",
            "A rollout is in progress, or is stuck:\n" + few(sorted(images)),
        )
    return ok("every replica runs the same image") if images else skipped("no container has started")


def _trusted(evidence: Evidence) -> Finding:
    held = evidence.certificates
    if held is None:
        return skipped("the webhook does not manage its certificates (certificates.mode)")
    if held.problem:
        return error(f"the Secret cannot be used: {held.problem}", "client-ip certs status")
    distrusting = sorted(name for name, good in held.trusted_by.items() if not good)
    if distrusting:
        writer = _writers(evidence.configuration or {})
        return error(
            f"the caBundle of {few(distrusting)} does not verify the certificate",
            f"Every call fails with an x509 error. The configuration was last written by {writer}.\n"
            "client-ip certs status",
        )
    service = f"{OURS}.{evidence.own_namespace}.svc"
    if service not in held.names:
        return error(f"the certificate is not for {service}", "To create one that is: client-ip certs rotate --leaf")
    return ok(f"every caBundle verifies the certificate for {service}")


def _leaf_ends(evidence: Evidence) -> Finding:
    held = evidence.certificates
    if held is None or held.leaf_not_after is None or held.leaf_not_before is None:
        return skipped("the webhook's certificate cannot be read")
    if held.leaf_not_before > evidence.at:
        return error(
            f"the certificate is valid from {held.leaf_not_before.isoformat()}, which is in the future",
            "It was created by a replica whose clock was ahead. To renew it: client-ip certs rotate --leaf",
        )
    left, life = held.leaf_not_after - evidence.at, held.leaf_not_after - held.leaf_not_before
    says = f"the serving certificate expires at {held.leaf_not_after.isoformat()}"
    if left <= timedelta(0):
        return error(says, "Every call fails. client-ip certs status shows why it was not renewed.")
    # A shorter life is renewed later than twenty days before its end.
    if left < min(LEAF_LEFT, life / 4):
        return warning(says, "It should have been renewed. client-ip certs status shows why it was not.")
    return ok(says)


def _ca_ends(evidence: Evidence) -> Finding:
    held = evidence.certificates
    if held is None or held.ca_not_after is None:
        return skipped("the webhook's CA cannot be read")
    left = held.ca_not_after - evidence.at
    life = timedelta(days=365)
    says = f"the CA expires at {held.ca_not_after.isoformat()}"
    if left < min(CA_LEFT, life / 4) and left < CA_LEFT:
        return warning(says, "It should have been replaced. client-ip certs status shows why it was not.")
    return ok(says)


GROUP: Final = Group(
    "installation",
    (
        Check(
            id="configuration-present",
            description="the webhook is registered as this version renders it",
            ask=_configuration,
            reads=("configurations",),
            fatal=True,
        ),
        Check(
            id="replicas-ready",
            description="every replica is ready",
            ask=_replicas,
            reads=("own-deployment", "own-pods"),
        ),
        Check(
            id="service-endpoints",
            description="the Service has ready endpoints on several nodes",
            ask=_endpoints,
            reads=("own-endpoints",),
        ),
        Check(id="versions-agree", description="replicas run one version", ask=_versions, reads=("own-pods",)),
        Check(
            id="ca-bundle-trusts-leaf",
            description="the API server trusts the certificate",
            ask=_trusted,
            reads=("configurations", "own-secret"),
        ),
        Check(
            id="leaf-not-ending",
            description="the serving certificate is being renewed",
            ask=_leaf_ends,
            reads=("own-secret",),
        ),
        Check(id="ca-not-ending", description="the CA is being replaced", ask=_ca_ends, reads=("own-secret",)),
    ),
)
