"""What a scan leaves in the cluster for monitoring: its time and its numbers, in a ConfigMap."""

from collections import Counter

from certs.kube import KubeError, NotFoundError
from webhook.facts.cluster import Cluster
from webhook.facts.kube import MERGE_PATCH
from webhook.facts.scanresult import POLICIES, ScanResult, Workloads, config_map_patch
from webhook.running.findings import ExceptionState, Scan


def outcome(scan: Scan) -> ScanResult:
    """Return what *scan* of the whole cluster came to."""
    counts = scan.counts
    unused = Counter(each.exception.policy for each in scan.exceptions if each.state is ExceptionState.UNUSED)
    return ScanResult(
        time=scan.time,
        workloads=Workloads(
            at_risk=counts.at_risk,
            restart=counts.restart,
            change=counts.change,
            header=counts.header,
            excepted=counts.excepted,
            opted_out=counts.opted_out,
            preserved=counts.preserved,
            not_asked=counts.not_asked,
        ),
        unused_exceptions=dict(sorted(unused.items())[:POLICIES]),
    )


async def record(cluster: Cluster, scan: Scan, *, namespace: str, name: str) -> None:
    """
    Write the outcome of *scan* into a ConfigMap, which must be there: then nobody needs to be allowed to make one.

    Raises:
        KubeError: The API server did not grant it, or did not answer.

    """
    path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
    try:
        await cluster.client.request("PATCH", path, body=config_map_patch(outcome(scan)), content_type=MERGE_PATCH)
    except NotFoundError as error:
        raise KubeError(
            f"the ConfigMap {namespace}/{name} does not exist: the chart creates it (scan.enabled)"
        ) from error
