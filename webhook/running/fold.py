"""
Folds what runs into one row for each workload: objects are taken in page by page, judged at once, and let go.

Workloads come first, so that a pod's template is known, then Services, so that a gateway's pods are counted, then pods.
What is kept of a workload are counts and a few names, whatever the number of its pods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from webhook.rules.decide import pod_of
from webhook.rules.decision import Mode, Outcome, Reason, one_line
from webhook.rules.ends import end_state
from webhook.rules.objects import Pod, Workload
from webhook.rules.snapshot import Snapshot
from webhook.running import restart
from webhook.running.findings import (
    NAMES,
    OWNER_KEYS,
    ExceptionState,
    ExceptionUse,
    Named,
    NamespaceOptOut,
    Pods,
    Row,
    fingerprint,
    owner_of,
)
from webhook.running.gateways import LOCAL, gateway_of
from webhook.running.objects import (
    ENDED,
    Key,
    OwnerReference,
    RunningJob,
    RunningMeta,
    RunningNamespace,
    RunningPod,
    RunningService,
    made_again,
    top_owner,
)
from webhook.running.verdicts import (
    Advice,
    Expected,
    Verdict,
    Waiver,
    advise,
    as_it_runs,
    disagreement,
    expected,
    runs_by_tproxy,
    waiver,
)

NOT_GATEWAYS: Final = frozenset({Reason.NOT_A_GATEWAY, Reason.NOT_EXTERNAL, Reason.NOT_OPTED_IN, Reason.BEING_DELETED})
_WORST: Final = {Outcome.LOST: 0, Outcome.HEADER: 1, Outcome.PRESERVED: 2}
ENDING_SOON_DAYS: Final = 7
MAX_SELECTORS: Final = 256
"""Different selectors of a namespace's gateways whose pods are counted: each pod is held against all of them."""


@dataclass(slots=True)
class _Workload:
    """What is kept of a workload."""

    after: Expected | None = None
    """None: its template has not been seen."""
    owner: str = ""
    uid: str = ""
    pods: int = 0
    lost: int = 0
    header: int = 0
    preserved: int = 0
    worst: Verdict | None = None
    disagreeing: int = 0
    stranded: int = 0
    names: dict[str, list[str]] | None = None
    """Of the disagreeing and the stranded pods, a few."""

    def add(self, verdict: Verdict) -> None:
        self.pods += 1
        if verdict.outcome is Outcome.LOST:
            self.lost += 1
        elif verdict.outcome is Outcome.HEADER:
            self.header += 1
        elif verdict.outcome is Outcome.PRESERVED:
            self.preserved += 1
        else:
            return
        if self.worst is None or _WORST[verdict.outcome] < _WORST[self.worst.outcome]:
            self.worst = verdict

    def name(self, what: str, name: str) -> None:
        self.names = self.names or {}
        held = self.names.setdefault(what, [])
        if len(held) < NAMES:
            held.append(name)

    def named(self, what: str, count: int) -> Named | None:
        return Named(count=count, names=(self.names or {}).get(what, [])) if count else None


@dataclass(slots=True)
class _GatewayService:
    service: RunningService
    after: Expected
    owner: str
    pod_nodes: list[str] = field(default_factory=list)
    counted: bool = True
    """Whether its pods were looked for."""


class Fold:
    """What a scan knows so far."""

    def __init__(self, snapshot: Snapshot, *, now: datetime, owner_keys: Sequence[str] = OWNER_KEYS) -> None:
        self._snapshot = snapshot
        self._now = now
        self._owner_keys = tuple(owner_keys)
        self._workloads: dict[Key, _Workload] = {}
        self._gateways: dict[Key, _GatewayService] = {}
        self._selecting: dict[str, dict[frozenset[tuple[str, str]], list[str]]] = {}
        """By namespace the selectors of its gateways, each with the nodes of the pods that it selects."""
        self._cron_jobs: dict[tuple[str, str], str] = {}
        self._namespace_meta: dict[str, tuple[Mapping[str, str] | None, Mapping[str, str] | None]] = {}
        self._covers: dict[tuple[str, str], int] = {}
        self._verdicts: dict[Verdict, Verdict] = {}
        """Each kept once: most pods of a cluster have one of a few."""
        self._passed_over: set[Key] = set()
        self.not_asked = 0
        self.pods = 0

    # --- Taking in

    def take_namespace(self, namespace: RunningNamespace) -> None:
        """Take in whose the namespace is: before anything in it."""
        metadata = namespace.metadata
        self._namespace_meta[metadata.name] = (metadata.annotations, metadata.labels)

    def take_workload(self, kind: str, workload: Workload, excess: str = "") -> None:
        """
        Take in a workload with its template; what a workload has made is that one's.

        Here and below *excess* is what of the object is too much for the webhook to decode.
        """
        metadata = workload.metadata
        assert isinstance(metadata, RunningMeta)  # noqa: S101  # `objects.WORKLOADS` decodes no other
        owner = metadata.controller()
        if isinstance(workload, RunningJob):
            if owner is not None and owner.kind == "CronJob":
                self._cron_jobs[metadata.namespace, metadata.name] = owner.name
            if workload.status.ended():
                return
        if owner is not None and (kind == "ReplicaSet" or (kind, owner.kind) == ("Job", "CronJob")):
            return
        self._take_template(Key(metadata.namespace, kind, metadata.name), pod_of(workload), metadata, excess)

    def _take_template(self, key: Key, pod: Pod, metadata: RunningMeta, excess: str) -> None:
        after = self._expected(pod, key, excess)
        if advise(None, after.verdict) is None:
            self._pass_over(key)
            return
        found = self._workloads.setdefault(key, _Workload())
        found.after, found.uid = after, metadata.uid
        found.owner = self._owner(key.namespace, metadata)
        self._cover(after)

    def take_service(self, service: RunningService, excess: str = "") -> None:
        """Take in a Service, where it is a gateway's."""
        metadata = service.metadata
        key = Key(metadata.namespace, "Service", metadata.name)
        after = expected(service, key.namespace, key.name, key.kind, self._snapshot, now=self._now, excess=excess)
        if after.verdict.reason in NOT_GATEWAYS or advise(None, after.verdict) is None:
            return
        taken = _GatewayService(service, after, self._owner(key.namespace, metadata))
        self._gateways[key] = taken
        self._count_pods_of(taken, key.namespace)
        self._cover(after)

    def _count_pods_of(self, taken: _GatewayService, namespace: str) -> None:
        """Gateways that select the same pods share what is found; beyond so many nothing is said of theirs."""
        selector = frozenset((taken.service.spec.selector or {}).items())
        selecting = self._selecting.setdefault(namespace, {})
        if not selector:
            return
        if selector in selecting:
            taken.pod_nodes = selecting[selector]
        elif len(selecting) < MAX_SELECTORS:
            selecting[selector] = taken.pod_nodes
        else:
            taken.counted = False

    def take_pod(self, pod: RunningPod, excess: str = "") -> None:
        """Take in a pod as it runs."""
        if not pod.status.phase:  # a manifest: it does not run yet
            self._take_template(_key_of_manifest(pod), pod, pod.metadata, excess)
            return
        if pod.status.phase in ENDED:
            return
        self.pods += 1
        namespace = pod.metadata.namespace
        selecting = self._selecting.get(namespace)
        if selecting and pod.status.ready():
            labels = (pod.metadata.labels or {}).items()
            for selector, pod_nodes in selecting.items():
                if selector <= labels:
                    pod_nodes.append(pod.spec.node_name)
        verdict = as_it_runs(pod, namespace, self._snapshot, now=self._now)
        key = top_owner(pod, self._cron_jobs)
        found = self._workloads.get(key)
        if found is None:
            if verdict.outcome is Outcome.NOT_ASKED and key in self._passed_over:
                return
            found = self._new(key, pod, verdict, excess)
            if found is None:
                return
        found.add(self._verdicts.setdefault(verdict, verdict))
        if verdict.outcome is Outcome.NOT_ASKED:
            return
        if disagreement(pod):
            found.disagreeing += 1
            found.name("disagreeing", f"{pod.metadata.name} ({disagreement(pod)})")
        if pod.spec.node_name and runs_by_tproxy(pod) and self._unsupported(pod.spec.node_name):
            found.stranded += 1
            found.name("stranded", f"{pod.metadata.name} on {pod.spec.node_name}")

    def _new(self, key: Key, pod: RunningPod, verdict: Verdict, excess: str) -> _Workload | None:
        """Begin with a pod whose workload has no template that could be read: another of its pods stands for it."""
        after = self._expected(made_again(pod), key, excess)
        if advise(None, after.verdict) is None and verdict.outcome is Outcome.NOT_ASKED:
            self._pass_over(key)
            return None
        reference = pod.metadata.controller()
        uid = pod.metadata.uid if key.kind == "Pod" else _uid(reference, key)
        owner = self._owner(key.namespace, pod.metadata)
        found = self._workloads[key] = _Workload(after=after, owner=owner, uid=uid)
        self._cover(after)
        return found

    def _pass_over(self, key: Key) -> None:
        """Count a workload that nobody opted in; a bare pod comes but once."""
        self.not_asked += key not in self._passed_over
        if key.kind != "Pod":
            self._passed_over.add(key)

    # --- ReplicaSets whose pods' labels don't tell the owner

    def unresolved(self) -> list[Key]:
        """Return the ReplicaSets that pods were counted for: each is to be read, and given to `resolve`."""
        return [key for key in self._workloads if key.kind == "ReplicaSet"]

    def resolve(self, workload: Workload, excess: str = "") -> None:
        """Take in a ReplicaSet that was read: what it counted goes to what made it; its template is what that makes."""
        metadata = workload.metadata
        assert isinstance(metadata, RunningMeta)  # noqa: S101  # as above
        counted = self._workloads.pop(Key(metadata.namespace, "ReplicaSet", metadata.name), None)
        if counted is None:
            return
        owner = metadata.controller()
        key = Key(metadata.namespace, owner.kind if owner else "ReplicaSet", owner.name if owner else metadata.name)
        counted.uid = owner.uid if owner else metadata.uid
        counted.owner = self._owner(key.namespace, metadata) or counted.owner
        known = self._workloads.get(key)
        if known is None:
            if counted.after is not None:
                counted.after = self._expected(pod_of(workload), key, excess)
            self._workloads[key] = counted
        else:
            _merge(known, counted)

    # --- What comes out

    def rows(self) -> Iterable[Row]:
        """Yield a row for each workload and gateway that somebody asked about."""
        for key, found in self._workloads.items():
            row = self._row(key, found)
            if row is not None:
                yield row
        for key, taken in self._gateways.items():
            yield self._gateway_row(key, taken)

    def namespace_opt_outs(self) -> list[NamespaceOptOut]:
        """Return the namespaces in sight that opted in to less than they might, the one that ends first in front."""
        ends = [
            NamespaceOptOut(
                namespace=name, state=end_state(out.until, now=self._now), until=out.until, owner=one_line(out.owner)
            )
            for name, out in self._snapshot.opt_outs.items()
            if out.until is not None
        ]
        return sorted(ends, key=lambda each: (each.until, each.namespace))

    def exceptions(self, *, complete: bool) -> list[ExceptionUse]:
        """
        Return what the policies' exceptions are worth, the one that ends first in front.

        Args:
            complete: Everything was looked at, so that an exception which covers nothing is unused.

        """
        uses = []
        for policy in self._snapshot.policies.ordered:
            for exception in policy.exceptions:
                shown = waiver(policy, exception)
                covers = self._covers.get((policy.name, exception.name), 0)
                state = self._state(shown, covers, complete=complete)
                uses.append(ExceptionUse(state=state, exception=shown, covers=covers))
        return sorted(uses, key=lambda use: (use.exception.expires, use.exception.policy, use.exception.name))

    def _state(self, shown: Waiver, covers: int, *, complete: bool) -> ExceptionState:
        left = (shown.expires - self._now).total_seconds()
        if left <= 0:
            return ExceptionState.ENDED
        if not covers and complete:
            return ExceptionState.UNUSED
        return ExceptionState.ENDING if left <= ENDING_SOON_DAYS * 86400 else ExceptionState.LIVE

    def _row(self, key: Key, found: _Workload) -> Row | None:
        after = found.after
        if after is None:
            return None
        now = found.worst.outcome if found.worst is not None else None
        advice = advise(now, after.verdict, stranded=bool(found.stranded))
        if advice is None:
            return None
        reason = after.verdict.reason
        if advice is Advice.RESTART and found.worst is not None:
            reason = found.worst.reason
        return Row(
            fingerprint=fingerprint(*key, reason),
            namespace=key.namespace,
            kind=key.kind,
            name=key.name,
            uid=found.uid,
            advice=advice,
            reason=reason,
            mode=after.mode,
            policy=after.policy,
            owner=found.owner,
            now=found.worst,
            after=after.verdict,
            pods=Pods(all=found.pods, lost=found.lost, header=found.header, preserved=found.preserved),
            restart=_restart(key, advice, after.mode),
            exception=after.waiver if advice is Advice.EXCEPTED else None,
            ended=after.ended,
            disagreeing=found.named("disagreeing", found.disagreeing),
            stranded=found.named("stranded", found.stranded),
        )

    def _gateway_row(self, key: Key, taken: _GatewayService) -> Row:
        service, after = taken.service, taken.after
        is_local = service.spec.external_traffic_policy == LOCAL
        now = after.verdict
        if after.verdict.reason is Reason.LOCAL and not is_local:
            now = Verdict(outcome=Outcome.LOST, reason=Reason.LOCAL, cause="externalTrafficPolicy is Cluster")
        advice = advise(now.outcome if now.outcome in _WORST else None, after.verdict) or Advice.PRESERVED
        of_local = taken.counted and (after.verdict.reason is Reason.LOCAL or is_local)
        return Row(
            fingerprint=fingerprint(*key, after.verdict.reason),
            namespace=key.namespace,
            kind=key.kind,
            name=key.name,
            uid=service.metadata.uid,
            advice=advice,
            reason=after.verdict.reason,
            mode=after.mode,
            policy=after.policy,
            owner=taken.owner,
            now=now,
            after=after.verdict,
            restart=_restart(key, advice, after.mode),
            exception=after.waiver if advice is Advice.EXCEPTED else None,
            ended=after.ended,
            gateway=gateway_of(service, taken.pod_nodes, self._snapshot.nodes) if of_local else None,
        )

    # --- Facts

    def _expected(self, pod: Pod, key: Key, excess: str) -> Expected:
        found = expected(pod, key.namespace, key.name, key.kind, self._snapshot, now=self._now, excess=excess)
        shared = self._verdicts.setdefault(found.verdict, found.verdict)
        return Expected(verdict=shared, mode=found.mode, policy=found.policy, waiver=found.waiver, ended=found.ended)

    def _cover(self, after: Expected) -> None:
        for each in (after.waiver, after.ended):
            if each is not None:
                name = each.policy, each.name
                self._covers[name] = self._covers.get(name, 0) + 1

    def _owner(self, namespace: str, metadata: RunningMeta) -> str:
        around = self._namespace_meta.get(namespace) or (None, self._snapshot.namespaces.get(namespace))
        return owner_of(self._owner_keys, (metadata.annotations, metadata.labels), around)

    def _unsupported(self, name: str) -> bool:
        node = self._snapshot.nodes.node(name)
        return node is not None and not node.compatibility.supported


def _key_of_manifest(pod: RunningPod) -> Key:
    metadata = pod.metadata
    return Key(metadata.namespace, "Pod", metadata.name or f"{metadata.generate_name}…")


def _uid(reference: OwnerReference | None, key: Key) -> str:
    return reference.uid if reference is not None and reference.kind == key.kind else ""


def _restart(key: Key, advice: Advice, mode: Mode) -> str:
    if advice is not Advice.RESTART or mode is not Mode.ENFORCE:
        return ""
    return restart.restart_command(key.kind, key.namespace, key.name)


def _merge(into: _Workload, counted: _Workload) -> None:
    into.pods += counted.pods
    into.lost += counted.lost
    into.header += counted.header
    into.preserved += counted.preserved
    into.disagreeing += counted.disagreeing
    into.stranded += counted.stranded
    for what, names in (counted.names or {}).items():
        for name in names:
            into.name(what, name)
    worst = counted.worst
    if worst is not None and (into.worst is None or _WORST[worst.outcome] < _WORST[into.worst.outcome]):
        into.worst = worst
