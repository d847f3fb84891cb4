"""
Reads the evidence of a cluster: lists, the certificates' facts, and the probe's dry runs.

What is not granted is named, and its checks are skipped; nothing is written but two dry runs of a pod.
"""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from certs.authority import certified_names
from certs.bundle import parse_bundle
from certs.kube import KubeError, NotFoundError
from certs.secret import read_secret
from webhook.checks.evidence import (
    MAX_OBJECTS,
    READS,
    Certificates,
    Document,
    Evidence,
    Read,
    metadata,
    name_of,
    snapshot_of,
)
from webhook.checks.probe import Probe, pod_document
from webhook.facts.cluster import Cluster
from webhook.facts.collect import decode
from webhook.rules import wellknown
from webhook.rules.decide import decide
from webhook.rules.decision import Reason
from webhook.rules.objects import Pod
from webhook.rules.snapshot import Request

AT_A_TIME: Final = 4
"""Lists under way at once."""
FAIL_OPEN: Final = re.compile(
    r'^apiserver_admission_webhook_fail_open_count\{[^}]*name="[^"]*\.client-ip\.dev"[^}]*\} (\S+)$', re.MULTILINE
)
_STATUS: Final = re.compile(r"\b([45]\d\d)\b")


async def read_cluster(
    cluster: Cluster,
    *,
    own_namespace: str,
    expected: Document,
    namespace: str = "",
    dry_run: bool = True,
) -> Evidence:
    """
    Return what there is to see of *cluster*.

    Args:
        cluster: The open cluster.
        own_namespace: Where the webhook runs.
        expected: The webhook configuration as this version renders it.
        namespace: The one that is asked about; empty for all.
        dry_run: Whether a pod is created by dry run.

    Raises:
        KubeError: Not even the API server's version can be read.

    """
    version: dict[str, Any] = msgspec.json.decode(await cluster.get("/version"))
    server_date = cluster.client.server_time
    at = datetime.now(UTC)
    groups = await _groups(cluster)
    namespaces = {"own": own_namespace, "istio": wellknown.ISTIO_SYSTEM}
    gate = asyncio.Semaphore(AT_A_TIME)
    objects: dict[str, list[Document]] = {}
    unread: dict[str, str] = {}

    async def read(name: str, what: Read) -> None:
        async with gate:
            if what.served and what.api_version not in groups:
                objects[name] = []
                return
            try:
                objects[name] = await _objects(cluster, what, namespaces)
            except NotFoundError:
                objects[name] = []
            except KubeError as error:
                unread[name] = f"cannot {what.asked(namespaces)}: {str(error)[:200]}"

    await asyncio.gather(*(read(name, what) for name, what in READS.items()))
    snapshot = snapshot_of(objects, own_namespace)
    evidence = Evidence(
        at=at,
        own_namespace=own_namespace,
        server_version=str(version.get("gitVersion", "")),
        server_date=server_date,
        groups=frozenset(groups),
        objects={
            name: [_lean(name, each) for each in found] for name, found in objects.items() if name != "own-secret"
        },
        unread=unread,
        expected=expected,
        certificates=_certificates(objects),
        snapshot=snapshot,
        namespace=namespace,
    )
    if not dry_run:
        return evidence
    probe = await _probe(cluster, evidence)
    return _with(evidence, probe)


def _with(evidence: Evidence, probe: Probe) -> Evidence:
    fields = {name: getattr(evidence, name) for name in evidence.__dataclass_fields__}
    return Evidence(**{**fields, "probe": probe})


async def _groups(cluster: Cluster) -> set[str]:
    found: dict[str, Any] = msgspec.json.decode(await cluster.get("/apis"))
    return {version["groupVersion"] for group in found.get("groups", ()) for version in group.get("versions", ())}


async def _objects(cluster: Cluster, what: Read, namespaces: Mapping[str, str]) -> list[Document]:
    if what.name:
        return [_document(what, msgspec.json.decode(await cluster.get(what.path(namespaces))))]
    found: list[Document] = []
    query = {"labelSelector": "istio"} if what.kind == "Pod" and not what.where else None
    async for page in cluster.pages(what.path(namespaces), query):
        found += [_document(what, each) for each in msgspec.json.decode(page).get("items") or ()]
        if len(found) >= MAX_OBJECTS:
            return found[:MAX_OBJECTS]
    return found


def _document(what: Read, item: dict[str, Any]) -> Document:
    return {"apiVersion": what.api_version, "kind": what.kind, **item}


def _lean(name: str, document: Document) -> Document:
    """Return *document* without what no check reads: who wrote which field counts for two kinds alone."""
    if name in {"configurations", "services"}:
        return document
    found = {key: value for key, value in metadata(document).items() if key != "managedFields"}
    return {**document, "metadata": found}


# --- Certificates


def _certificates(objects: Mapping[str, list[Document]]) -> Certificates | None:
    found = objects.get("own-secret") or []
    if not found:
        return None
    reading = read_secret(found[0])
    leaf, signing = reading.state.leaf, reading.state.signing
    if leaf is None:
        return Certificates(problem="; ".join(reading.problems)[:300] or "it contains no certificate")
    certificate = leaf.certificate
    configuration = next(
        (each for each in objects.get("configurations", ()) if metadata(each).get("name") == wellknown.CONFIGURATION),
        {},
    )
    return Certificates(
        leaf_not_before=certificate.not_valid_before_utc,
        leaf_not_after=certificate.not_valid_after_utc,
        ca_not_after=signing.certificate.not_valid_after_utc if signing is not None else None,
        names=frozenset(certified_names(certificate)),
        trusted_by={
            str(each.get("name")): _verifies(str((each.get("clientConfig") or {}).get("caBundle", "")), certificate)
            for each in configuration.get("webhooks") or ()
        },
        problem="; ".join(reading.problems)[:300],
    )


def _verifies(bundle: str, leaf: x509.Certificate) -> bool:
    try:
        text = base64.b64decode(bundle, validate=True)
    except (binascii.Error, ValueError):
        return False
    for authority in parse_bundle(text).certificates:
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


# --- The probe


async def _probe(cluster: Cluster, evidence: Evidence) -> Probe:
    candidates = [name for name, labels in evidence.opted_in() if labels.get(wellknown.PRESERVE) == "enabled"]
    if not candidates:
        who = f"namespace {evidence.namespace} is not" if evidence.namespace else "no namespace is"
        return Probe(namespace="", message=f"{who} opted in with {wellknown.PRESERVE}=enabled")
    found = _patchable(evidence, candidates)
    if found is None:
        return Probe(
            namespace=candidates[0],
            message="in no opted-in namespace would the webhook patch a plain pod; client-ip explain shows why",
        )
    namespace, document = found
    path = f"/api/v1/namespaces/{namespace}/pods"
    created: Document | None = None
    status, message = 0, ""
    before = await _fail_open(cluster)
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        try:
            answer = await cluster.client.request("POST", path, query={"dryRun": "All"}, body=document)
            created = msgspec.json.decode(answer)
        except KubeError as error:
            message = str(error)
            found_status = _STATUS.search(message)
            status = int(found_status[1]) if found_status else 400
        seconds = time.monotonic() - started
    after = await _fail_open(cluster)
    return Probe(
        namespace=namespace,
        pod=created,
        status=status,
        message=message,
        seconds=seconds,
        fail_open=None if before is None or after is None else after - before,
    )


def _patchable(evidence: Evidence, namespaces: list[str]) -> tuple[str, dict[str, Any]] | None:
    """Return a namespace and a pod that the webhook would patch there, pinned to a node where that is needed."""
    index = evidence.snapshot.nodes
    supported = index.names(index.supported)[:1]
    for pinned in ("", *supported):
        for namespace in namespaces:
            document = pod_document(namespace, node=pinned)
            pod: Pod = decode(document, Pod)
            request = Request(object=pod, namespace=namespace, kind="Pod")
            if decide(request, evidence.snapshot, now=evidence.at).reason is Reason.TPROXY:
                return namespace, document
    return None


async def _fail_open(cluster: Cluster) -> float | None:
    """Return how many calls of ours the API server that answers counts as failed; None where it does not say."""
    try:
        text = (await cluster.get("/metrics")).decode(errors="replace")
    except KubeError:
        return None
    return sum(float(number) for number in FAIL_OPEN.findall(text))


# --- What a bundle holds beside the objects


async def read_metrics(cluster: Cluster, evidence: Evidence, port: int) -> dict[str, bytes]:
    """Return each replica's metrics by pod, through the API server; those that can't be had are left out."""
    found: dict[str, bytes] = {}
    for pod in evidence.all("own-pods"):
        name = str(metadata(pod).get("name"))
        path = f"/api/v1/namespaces/{evidence.own_namespace}/pods/{name}:{port}/proxy/metrics"
        try:
            found[name] = await cluster.get(path)
        except KubeError as error:
            found[name] = f"# {error}\n".encode()
    return found


async def read_logs(cluster: Cluster, evidence: Evidence, lines: int) -> dict[str, bytes]:
    """Return the last *lines* of each replica's log by pod."""
    found: dict[str, bytes] = {}
    for pod in evidence.all("own-pods"):
        name = str(metadata(pod).get("name"))
        path = f"/api/v1/namespaces/{evidence.own_namespace}/pods/{name}/log"
        try:
            found[name] = await cluster.get(path, {"tailLines": str(lines)})
        except KubeError as error:
            found[name] = f"{name_of(pod)}: {error}\n".encode()
    return found
