"""
Writes reports and Events: only what changed, slowly, and never what others wrote.

An unchanged namespace costs no write. A report of ours that nothing stands behind any more goes away; one of our name
that does not wear our labels is somebody else's, and stays.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from certs.kube import ConflictError, KubeError, NotFoundError
from webhook.facts.cluster import Cluster
from webhook.facts.kube import BusyError
from webhook.rules.decision import Reason, one_line
from webhook.rules.objects import GROUPS
from webhook.running.as_report import APIS, LABELS, ReportAPI, is_ours, known_since, reports, same
from webhook.running.findings import Row, Scope

WRITES_PER_SECOND: Final = 5.0
BUSY_SECONDS: Final = 30.0
"""The longest Retry-After that is waited for; beyond it nothing more is sent, and the next run does what is left."""
ATTEMPTS: Final = 5
PAGE: Final = 100
"""Reports in a page: each may have 300 kB."""
EVENT_SECONDS: Final = 300
"""Between two mentions of the same finding in its Event's series."""
NOTE_LIMIT: Final = 1024
"""What events.k8s.io/v1 takes (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""
ALARMING: Final = frozenset({Reason.ALREADY_INJECTED, Reason.POLICY_INVALID})
"""Reasons that need an operator's action; the others are informational."""
CONTROLLER: Final = "client-ip.dev/scan"


class NoReportAPI(Exception):  # noqa: N818  # an error's noun
    """The cluster serves neither API, or not the one that was asked for."""


async def served_api(cluster: Cluster, asked: ReportAPI | None) -> ReportAPI:
    """
    Return the API that the cluster serves, by discovery: an aggregated one has no CRD.

    Args:
        cluster: The open cluster.
        asked: The only one that will do; None for the first of `APIS`.

    Raises:
        NoReportAPI: It serves none.
        KubeError: It did not answer.

    """
    for api in (asked,) if asked is not None else APIS:
        try:
            answer = await cluster.get(f"/apis/{api.group}/{api.version}")
        except NotFoundError:
            continue
        served = msgspec.json.decode(answer, type=_Served)
        if any(each.name == api.plural for each in served.resources):
            return api
    names = " nor ".join(f"{api.group}/{api.version}" for api in ((asked,) if asked is not None else APIS))
    raise NoReportAPI(f"the cluster serves {'neither ' if asked is None else 'no '}{names}: no reports are written")


class _Resource(msgspec.Struct, frozen=True):
    name: str


class _Served(msgspec.Struct, frozen=True):
    resources: list[_Resource] = []


class _List(msgspec.Struct, frozen=True):
    items: list[dict[str, Any]] = []


@dataclass(slots=True)
class Written:
    """What was done."""

    api: str
    namespaces: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    pruned: int = 0
    events: int = 0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return it in one sentence."""
        events = f", {self.events} events" if self.events else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"reports ({self.api}) for {self.namespaces} namespaces: {self.created} created, {self.updated} updated, "
            f"{self.unchanged} unchanged, {self.pruned} pruned{events}{failed}"
        )


@dataclass(slots=True)
class Publisher:
    """Writes to an open cluster, at most so many times a second."""

    cluster: Cluster
    api: ReportAPI
    writes_per_second: float = WRITES_PER_SECOND
    _next: float = 0.0
    """Monotonic: when the next write may be sent."""
    _busy: BusyError | None = None
    """The API server's last answer, if its Retry-After is longer than we wait."""

    async def publish(self, rows: Sequence[Row], scope: Scope, *, at: datetime, events: bool = False) -> Written:
        """
        Make the cluster's reports say what *rows* say.

        Args:
            rows: All rows, the preserved ones too.
            scope: What was looked at: reports of other namespaces stay as they are.
            at: The time of the scan.
            events: Make an Event for each loss that the reports did not know.

        Raises:
            KubeError: The reports can't be read. One that can't be written is told in `Written.failed`.

        """
        stored = await self._stored()
        ours = {place: document for place, document in stored.items() if is_ours(document)}
        known = known_since(ours.values())
        covered = [row for row in rows if scope.covers(row.namespace)]
        wanted = reports(covered, self.api, known, at=at)
        written = Written(self.api.name, namespaces=len({namespace for namespace, _ in wanted}))
        for (namespace, name), document in sorted(wanted.items()):
            await self._put(written, namespace, name, document, stored.get((namespace, name)))
        for namespace, name in sorted(ours.keys() - wanted.keys()):
            if scope.covers(namespace):
                await self._prune(written, namespace, name, ours[namespace, name])
        if events:
            for row in covered:
                if row.is_lost and row.fingerprint not in known:
                    await self._event(written, row)
        return written

    async def _stored(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the reports that wear our labels."""
        found = {}
        selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
        async for page in self.cluster.pages(self.api.path(), {"labelSelector": selector}, limit=PAGE):
            for document in msgspec.json.decode(page, type=_List).items:
                metadata = document["metadata"]
                metadata.pop("managedFields", None)
                found[metadata["namespace"], metadata["name"]] = document
        return found

    async def _put(
        self,
        written: Written,
        namespace: str,
        name: str,
        document: dict[str, Any],
        stored: Mapping[str, Any] | None,
    ) -> None:
        if stored is None:
            if await self._write(written, "POST", self.api.path(namespace), document, f"{namespace}/{name}"):
                written.created += 1
        elif same(stored, document):
            written.unchanged += 1
        else:
            # By its version: whoever was faster is not overwritten, and the next run sees it.
            version = stored["metadata"]["resourceVersion"]
            labels = {**(stored["metadata"].get("labels") or {}), **document["metadata"]["labels"]}
            kept = {"annotations": stored["metadata"].get("annotations"), "labels": labels, "resourceVersion": version}
            changed = {**document, "metadata": {**document["metadata"], **kept}}
            if await self._write(written, "PUT", self.api.path(namespace, name), changed, f"{namespace}/{name}"):
                written.updated += 1

    async def _prune(self, written: Written, namespace: str, name: str, stored: Mapping[str, Any]) -> None:
        metadata = stored["metadata"]
        conditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        if await self._write(written, "DELETE", self.api.path(namespace, name), body, f"{namespace}/{name}"):
            written.pruned += 1

    # --- Events

    async def _event(self, written: Written, row: Row) -> None:
        """Say once that a workload's client IP is lost; where that was said not long ago, count it in the series."""
        if not row.uid or row.kind not in GROUPS:
            return  # without its uid, `kubectl describe` would not show it
        path = f"/apis/events.k8s.io/v1/namespaces/{row.namespace}/events"
        event = event_of(row, datetime.now(UTC))
        try:
            await self._send(lambda: self.cluster.client.request("POST", path, body=event))
            written.events += 1
        except ConflictError:
            await self._mention_again(written, f"{path}/{event['metadata']['name']}", row)
        except KubeError as error:
            written.failed.append(f"event of {row.namespace} {row.called}: {error}")

    async def _mention_again(self, written: Written, path: str, row: Row) -> None:
        try:
            stored = msgspec.json.decode(await self.cluster.get(path), type=_Event)
            now = datetime.now(UTC)
            series = stored.series
            last = series.last_observed_time if series is not None else stored.event_time
            if last is not None and (now - last).total_seconds() < EVENT_SECONDS:
                return
            count = series.count + 1 if series is not None else 2
            body = {"series": {"count": count, "lastObservedTime": _micro(now)}}
            await self._send(
                lambda: self.cluster.client.request(
                    "PATCH", path, body=body, content_type="application/merge-patch+json"
                )
            )
            written.events += 1
        except KubeError as error:
            written.failed.append(f"event of {row.namespace} {row.called}: {error}")

    # --- Writing

    async def _write(self, written: Written, method: str, path: str, body: Mapping[str, Any], what: str) -> bool:
        try:
            await self._send(lambda: self.cluster.client.request(method, path, body=body))
        except NotFoundError:
            return False  # the namespace, or the report, has gone since
        except ConflictError as error:
            written.failed.append(f"{what}: another client wrote it: {error}")
            return False
        except KubeError as error:
            written.failed.append(f"{what}: {error}")
            return False
        return True

    async def _send(self, request: Callable[[], Awaitable[bytes]]) -> None:
        """Send a write when its turn has come; an API server that is busy says when to come back."""
        for attempt in range(1, ATTEMPTS + 1):
            if self._busy is not None:
                raise self._busy
            pause = self._next - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            self._next = time.monotonic() + 1 / self.writes_per_second
            try:
                await request()
            except BusyError as error:
                if error.retry_after_seconds > BUSY_SECONDS:
                    self._busy = error
                if attempt == ATTEMPTS:
                    raise
                if self._busy is None:
                    await asyncio.sleep(max(error.retry_after_seconds, 1.0))
            else:
                return


class _Series(msgspec.Struct, frozen=True, rename="camel"):
    count: int
    last_observed_time: datetime


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    event_time: datetime | None = None
    series: _Series | None = None


def _micro(time_: datetime) -> str:
    return time_.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_of(row: Row, at: datetime) -> dict[str, Any]:
    """Return the Event that says so on the workload; its name is the finding's, so that one is never made twice."""
    kind = "Warning" if row.reason in ALARMING else "Normal"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"client-ip-{row.fingerprint}", "namespace": row.namespace, "labels": dict(LABELS)},
        "eventTime": _micro(at),
        "reportingController": CONTROLLER,
        "reportingInstance": socket.gethostname()[:128] or "scan",
        "action": "Scanning",
        "reason": "ClientIPLost",
        "type": kind,
        "regarding": {
            "apiVersion": f"{GROUPS[row.kind]}/v1".lstrip("/"),
            "kind": row.kind,
            "namespace": row.namespace,
            "name": row.name,
            "uid": row.uid,
        },
        "note": one_line(f"{row.reason}: {row.after.cause or row.reason} → {row.fix}", NOTE_LIMIT),
    }
