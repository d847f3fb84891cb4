"""
Rows as reports in the cluster: OpenReports' Report, or the PolicyReport that it grew out of, as plain documents.

One report for each namespace, in shards, with the workloads that are not preserved. Nothing in it changes unless a row
does: timestamps are carried over from the report that is there, and no message counts what drifts.

Schemas: https://github.com/openreports/reports-api/blob/v0.2.1/config/crd/openreports.io_reports.yaml and
https://github.com/kubernetes-retired/wg-policy-prototypes/blob/25056e1/policy-report/pkg/api/wgpolicyk8s.io/v1alpha2
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from webhook.rules.decision import ADVICE, Mode, Reason
from webhook.rules.objects import GROUPS
from webhook.running.findings import Row
from webhook.running.verdicts import Advice

SHARD: Final = 500
"""Results in a report: about 300 kB. etcd takes 1.5 MiB in a request by default."""
NAME: Final = "client-ip"
SOURCE: Final = "client-ip-webhook"
LABELS: Final[Mapping[str, str]] = {
    "app.kubernetes.io/managed-by": "client-ip-webhook",
    "app.kubernetes.io/name": "client-ip-webhook",
}
"""Labels of our reports. Pruning selects by these, as other tools prune by their own labels."""
STATUSES: Final = ("fail", "warn", "skip", "error")
DRIFTING: Final = frozenset({Reason.INCOMPATIBLE_NODES, Reason.MIXED_NODES, Reason.NO_FEASIBLE_NODE})
"""Reasons whose cause counts and names nodes: it changes whenever a node comes."""
_ERRORS: Final = frozenset({Reason.NODES_UNKNOWN, Reason.NAMESPACE_UNKNOWN, Reason.POLICY_INVALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAPI:
    """One of the two APIs: the same document under another name."""

    name: str
    group: str
    version: str
    kind: str
    plural: str
    partial: bool
    """It has fields that say that a report is partial, and whose it is."""

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """Return where the reports are: of all namespaces, of one, or one of them."""
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        return f"/apis/{self.group}/{self.version}{where}/{self.plural}" + (f"/{name}" if name else "")


OPEN_REPORTS: Final = ReportAPI(
    name="OpenReports",
    group="openreports.io",
    version="v1alpha1",
    kind="Report",
    plural="reports",
    partial=True,
)
POLICY_REPORT: Final = ReportAPI(
    name="PolicyReport",
    group="wgpolicyk8s.io",
    version="v1alpha2",
    kind="PolicyReport",
    plural="policyreports",
    partial=False,
)
APIS: Final = (OPEN_REPORTS, POLICY_REPORT)
"""In the order of preference. Never both: readers of both would see each finding twice."""


def reports(
    rows: Iterable[Row], api: ReportAPI, since: Mapping[str, tuple[int, int]], *, at: datetime
) -> dict[tuple[str, str], dict[str, Any]]:
    """
    Return the reports by namespace and name: of each namespace in which somebody asked, with what is not preserved.

    Args:
        rows: All rows, the preserved ones too.
        api: Which of the two APIs.
        since: Seconds and nanoseconds since when a finding is known, by its fingerprint.
        at: The time of those that are not.

    """
    by_namespace: dict[str, list[Row]] = {}
    for row in rows:
        by_namespace.setdefault(row.namespace, []).append(row)
    found = {}
    for namespace, within in by_namespace.items():
        bad = sorted((row for row in within if row.advice is not Advice.PRESERVED), key=_order)
        results = [_result(row, since.get(row.fingerprint, (int(at.timestamp()), 0))) for row in bad]
        shards = [results[start : start + SHARD] for start in range(0, len(results), SHARD)] or [[]]
        for number, shard in enumerate(shards, start=1):
            name = NAME if number == 1 else f"{NAME}-{number}"
            preserved = len(within) - len(bad) if number == 1 else 0
            found[namespace, name] = _report(api, namespace, name, shard, preserved)
    return found


def _order(row: Row) -> tuple[str, str, str]:
    return row.kind, row.name, row.reason


def _report(
    api: ReportAPI, namespace: str, name: str, results: Sequence[Mapping[str, Any]], preserved: int
) -> dict[str, Any]:
    summary = {status: sum(each["result"] == status for each in results) for status in STATUSES}
    document: dict[str, Any] = {
        "apiVersion": f"{api.group}/{api.version}",
        "kind": api.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": dict(LABELS)},
        "scope": {"apiVersion": "v1", "kind": "Namespace", "name": namespace},
        "summary": {"pass": preserved, **summary},
        "results": list(results),
    }
    if api.partial:
        document["source"] = SOURCE
        document["configuration"] = {"limits": {"maxResults": SHARD, "statusFilter": list(STATUSES)}}
    return document


def _result(row: Row, since: tuple[int, int]) -> dict[str, Any]:
    seconds, nanos = since
    return {
        "source": SOURCE,
        "policy": row.policy or "default",
        "rule": row.reason.value,
        "category": "Client IP",
        "severity": _severity(row),
        "result": _status(row),
        "scored": row.mode is Mode.ENFORCE,
        "message": _message(row),
        "timestamp": {"seconds": seconds, "nanos": nanos},
        "resources": [_resource(row)],
        "properties": dict(_properties(row)),
    }


def _status(row: Row) -> str:
    if row.reason in _ERRORS:
        return "error"
    match row.advice:
        case Advice.RESTART | Advice.CHANGE:
            return "fail"
        case Advice.EXCEPTED | Advice.OPTED_OUT:
            return "skip"
        case _:
            return "warn"


def _severity(row: Row) -> str:
    if row.advice in {Advice.HEADER, Advice.EXCEPTED, Advice.OPTED_OUT}:
        return "info"
    return "high" if row.reason is Reason.ALREADY_INJECTED and row.advice is Advice.CHANGE else "medium"


def _message(row: Row) -> str:
    verdict = row.now if row.advice is Advice.RESTART and row.now is not None else row.after
    if row.reason in DRIFTING or not verdict.cause:
        return f"{row.reason}: {ADVICE[row.reason]}"
    return f"{row.reason}: {verdict.cause}"


def _resource(row: Row) -> dict[str, str]:
    resource = {"kind": row.kind, "namespace": row.namespace, "name": row.name}
    if row.kind in GROUPS:
        resource["apiVersion"] = f"{GROUPS[row.kind]}/v1".lstrip("/")
    if row.uid:
        resource["uid"] = row.uid
    return resource


def _properties(row: Row) -> Iterable[tuple[str, str]]:
    yield "resultID", row.fingerprint
    yield "advice", row.advice.value
    yield "outcome", row.after.outcome.value
    yield "mode", row.mode.value
    yield "fix", row.fix
    if row.advice is Advice.RESTART and row.mode is Mode.ENFORCE:
        yield "restart", "true"
    if row.owner:
        yield "owner", row.owner
    waived = row.exception or row.ended
    if waived is not None:
        yield "exception", waived.name
        yield "expires", waived.expires.isoformat()


def known_since(documents: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return since when each finding of reports that are there is known, by its fingerprint."""
    found = {}
    for document in documents:
        for result in document.get("results") or ():
            mark = (result.get("properties") or {}).get("resultID")
            timestamp = result.get("timestamp") or {}
            if mark and isinstance(timestamp.get("seconds"), int):
                found[mark] = timestamp["seconds"], timestamp.get("nanos", 0)
    return found


def same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether what is stored says what is wanted; what others added to its metadata does not count."""
    labels = stored.get("metadata", {}).get("labels") or {}
    if not LABELS.items() <= labels.items():
        return False
    return all(_plain(stored.get(field)) == _plain(value) for field, value in wanted.items() if field != "metadata")


def _plain(value: Any) -> Any:
    """Absent and empty are the same to an API server that prunes."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value or None if isinstance(value, str) else value


def is_ours(document: Mapping[str, Any]) -> bool:
    """Return whether a report is one that we wrote."""
    metadata = document.get("metadata", {})
    name = metadata.get("name", "")
    named = name == NAME or (name.startswith(f"{NAME}-") and name.removeprefix(f"{NAME}-").isdigit())
    return named and LABELS.items() <= (metadata.get("labels") or {}).items()
