"""
What a scan found, as a document: one row for each workload and gateway that somebody asked about.

It is what `-o json` prints and `--baseline` reads; every other form is made from it.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from webhook.rules.decision import ADVICE, Mode, Outcome, Reason, one_line
from webhook.rules.ends import End
from webhook.running.verdicts import Advice, Verdict, Waiver

FORMAT: Final = "client-ip-scan/v1"
OWNER_LIMIT: Final = 100
"""Characters of an owner that are kept: a tenant writes the annotation, and reports hold thousands."""
WHO_LIMIT: Final = 200
"""Characters of the user and the context that are kept: an identity provider may write long ones."""
NAMES: Final = 3
"""Pods and nodes that a row names of those that it counts."""
ENDING_DAYS: Final = 30
OWNER_ANNOTATION: Final = "client-ip.dev/owner"
OWNER_KEYS: Final = (OWNER_ANNOTATION, "team", "owner", "app.kubernetes.io/part-of")
"""Annotations or labels that say whose a workload is: the first that is there counts."""


class Change(StrEnum):
    """What a row is beside the baseline."""

    NEW = "new"
    UNCHANGED = "unchanged"
    RESOLVED = "resolved"
    NOT_COMPARABLE = "not-comparable"


class Pods(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A workload's pods that have not ended, by outcome."""

    all: int = 0
    lost: int = 0
    header: int = 0
    preserved: int = 0


class Named(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many there are, and the names of a few."""

    count: int = 0
    names: list[str] = []


class Manager(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Somebody else who writes a gateway's externalTrafficPolicy."""

    name: str
    operation: str
    """Apply: it states the field, and will state it again. Update: it wrote the object once."""


class Gateway(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Is `Local` safe for this gateway: which nodes and zones have a pod of it, and who else writes the field."""

    type: str = ""
    external_traffic_policy: str = ""
    ready_pods: int = 0
    nodes: Named = Named()
    """With a ready pod."""
    dropping: Named = Named()
    """Without one: under `Local` they drop what is sent to them."""
    zones_without: list[str] = []
    managers: list[Manager] = []
    warnings: list[str] = []


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One workload, or one gateway's Service."""

    fingerprint: str
    namespace: str
    kind: str
    name: str
    uid: str = ""
    advice: Advice
    reason: Reason
    """The one to act upon: of now or of after a restart."""
    mode: Mode = Mode.ENFORCE
    policy: str = ""
    owner: str = ""
    now: Verdict | None = None
    """Of the pods as they run, the worst; None where none of them runs."""
    after: Verdict
    pods: Pods = Pods()
    since: datetime | None = None
    change: Change | None = None
    restart: str = ""
    """The command that makes new pods, where a restart mends it."""
    exception: Waiver | None = None
    ended: Waiver | None = None
    """An exception that has ended."""
    disagreeing: Named | None = None
    """Pods whose annotation says another mode than their proxy runs in."""
    stranded: Named | None = None
    """Pods that run in TPROXY mode on nodes that don't support it."""
    gateway: Gateway | None = None

    @property
    def called(self) -> str:
        """The workload as kubectl names it."""
        return f"{self.kind.lower()}/{self.name}"

    @property
    def fix(self) -> str:
        """What to do about it, in one line."""
        if self.advice is Advice.RESTART:
            if self.mode is Mode.AUDIT:
                return "audit only: enforce, then restart it"
            return self.restart or _UNMANAGED.get(self.kind, "its controller must recreate its pods")
        if self.advice is Advice.AT_RISK and self.after.outcome is not Outcome.LOST:
            return "a new pod may run on a node that supports TPROXY: drain the nodes that do not"
        return ADVICE[self.reason]

    @property
    def is_lost(self) -> bool:
        """Whether the client's IP is lost now or will be, though it is to be preserved."""
        outcomes = {self.after.outcome, self.now.outcome if self.now is not None else None}
        waived = self.advice in {Advice.EXCEPTED, Advice.OPTED_OUT}
        return Outcome.LOST in outcomes and not waived and self.mode is Mode.ENFORCE


_UNMANAGED: Final[Mapping[str, str]] = {
    "Pod": "it has no controller: delete it and create it again",
    "Job": "a Job does not recreate its pods: delete the Job and create it again",
    "CronJob": "its next run is preserved",
    "ReplicaSet": "delete its pods: it creates new ones",
}


class ExceptionState(StrEnum):
    """What a policy's exception is worth at the time of the scan."""

    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"
    UNUSED = "unused"
    """It is live and matches nothing. Only a scan of everything can say so."""


class ExceptionUse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A policy's exception, and how much it covers."""

    state: ExceptionState
    exception: Waiver
    covers: int


class NamespaceOptOut(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A namespace that opted in to less than it might until an end; the end changes nothing by itself."""

    namespace: str
    state: End
    until: datetime
    owner: str


class Scope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was looked at, so that nothing is missing silently."""

    source: str
    """Where the objects came from: the API server's address, or the files."""
    cluster: str = ""
    """The uid of the namespace kube-system, which tells one cluster from another; empty where it is not known."""
    user: str = ""
    """Who looked, as the API server calls them; empty of files."""
    context: str = ""
    """Of the kubeconfig that was used; empty in a pod and of files."""
    namespaces: list[str] | None = None
    """None: all of them."""
    unreadable: dict[str, str] = {}
    """Namespaces, or kinds in them, that could not be read, with the reason."""

    def covers(self, namespace: str) -> bool:
        """Return whether the namespace was looked at."""
        named = self.namespaces is None or namespace in self.namespaces
        return named and namespace not in self.unreadable


class Counts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many rows have which advice, and what is no row."""

    workloads: int = 0
    gateways: int = 0
    at_risk: int = 0
    restart: int = 0
    change: int = 0
    header: int = 0
    excepted: int = 0
    ending: int = 0
    """Of the excepted: their exception ends within 30 days."""
    opted_out: int = 0
    preserved: int = 0
    not_asked: int = 0
    """Workloads that nobody opted in."""
    pods: int = 0
    """All pods that were read and have not ended."""


class Scan(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All that a scan found. Preserved workloads are counted, and listed only where that was asked for."""

    format: str = FORMAT
    version: str
    """Of client-ip."""
    time: datetime
    scope: Scope
    counts: Counts
    rows: list[Row]
    resolved: list[Row] = []
    """Rows of the baseline that are no more."""
    exceptions: list[ExceptionUse] = []
    namespace_opt_outs: list[NamespaceOptOut] = []
    """The one that ends first in front."""
    sentence: str = ""
    compared: str = ""
    """What the baseline says, in one sentence; empty without one."""


def to_look_at(scan: Scan) -> tuple[list[ExceptionUse], list[NamespaceOptOut]]:
    """Return the exceptions and the namespaces' opt-outs that end soon, have ended, or cover nothing."""
    uses = [use for use in scan.exceptions if use.state is not ExceptionState.LIVE]
    outs = [each for each in scan.namespace_opt_outs if each.state is not End.LIVE]
    return uses, outs


def fingerprint(namespace: str, kind: str, name: str, reason: str) -> str:
    """
    Return what a finding is known by from scan to scan: 16 hexadecimal digits.

    No uid, so that a workload that was created anew is the same; no message, since counts in it drift.
    """
    text = f"{namespace}/{kind}/{name}/{reason}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def owner_of(keys: Sequence[str], *places: tuple[Mapping[str, str] | None, Mapping[str, str] | None]) -> str:
    """
    Return whose a workload is, or nothing.

    Args:
        keys: Annotations or labels, the first that is there counts.
        places: Annotations and labels of the workload, then of its namespace.

    """
    for annotations, labels in places:
        for key in keys:
            value = (annotations or {}).get(key) or (labels or {}).get(key)
            if value and value.strip():
                return one_line(value, OWNER_LIMIT)
    return ""


ORDER: Final = {advice: number for number, advice in enumerate(Advice)}


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Return *rows* in the order of their advice; changes by Reason, exceptions by their end, then by name."""
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[object, ...]:
    by = row.reason.value if row.advice is Advice.CHANGE else ""
    end = row.exception.expires.isoformat() if row.exception is not None and row.advice is Advice.EXCEPTED else ""
    return ORDER[row.advice], by, end, row.namespace, row.kind, row.name


def count(rows: Iterable[Row], *, not_asked: int, pods: int, at: datetime) -> Counts:
    """Return how many of *rows* have which advice, at the time *at*."""
    found: dict[str, int] = {}
    ending = workloads = gateways = 0
    for row in rows:
        found[row.advice] = found.get(row.advice, 0) + 1
        workloads += row.kind != "Service"
        gateways += row.kind == "Service"
        if row.advice is Advice.EXCEPTED and row.exception is not None:
            ending += row.exception.expires - at <= timedelta(days=ENDING_DAYS)
    return Counts(
        workloads=workloads,
        gateways=gateways,
        at_risk=found.get(Advice.AT_RISK, 0),
        restart=found.get(Advice.RESTART, 0),
        change=found.get(Advice.CHANGE, 0),
        header=found.get(Advice.HEADER, 0),
        excepted=found.get(Advice.EXCEPTED, 0),
        ending=ending,
        opted_out=found.get(Advice.OPTED_OUT, 0),
        preserved=found.get(Advice.PRESERVED, 0),
        not_asked=not_asked,
        pods=pods,
    )


def sentence(counts: Counts) -> str:
    """Return the counts as one sentence, which every form of a scan begins with."""
    total = _many(counts.workloads, "workload")
    if counts.gateways:
        total += f" and {_many(counts.gateways, 'gateway')}"
    parts = [f"{counts.preserved} preserved"]
    if counts.at_risk:
        parts.append(f"{counts.at_risk} at risk")
    if counts.restart:
        parts.append(f"{counts.restart} after a restart")
    if counts.change:
        parts.append(f"{counts.change} need a change" if counts.change != 1 else "1 needs a change")
    if counts.header:
        parts.append(f"{counts.header} header only")
    if counts.excepted:
        ending = f" ({counts.ending} {_end(counts.ending)} within {ENDING_DAYS} days)" if counts.ending else ""
        parts.append(f"{counts.excepted} excepted{ending}")
    if counts.opted_out:
        parts.append(f"{counts.opted_out} opted out")
    rest = f"; {_many(counts.not_asked, 'workload')} not opted in" if counts.not_asked else ""
    return f"{total}: {', '.join(parts)}{rest}"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _end(number: int) -> str:
    return "ends" if number == 1 else "end"
