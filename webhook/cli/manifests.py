"""
Reads what `check` and `explain` are given: manifests to decide, and the facts to decide them by.

Facts inside the manifests join those of --state; without either, a cluster is read once.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from webhook.facts.collect import Collector, FactError, decode
from webhook.facts.files import FilesInvalid, Found, Problem, expand, read, read_bytes, take_all
from webhook.rules import wellknown
from webhook.rules.decide import pod_of
from webhook.rules.objects import GROUPS, DaemonSet, Pod, Reviewed, Service
from webhook.rules.policy_document import read_time
from webhook.rules.snapshot import Request, Snapshot

API_VERSIONS: Final = {kind: f"{group}/v1".lstrip("/") for kind, group in GROUPS.items()}
_SHORT: Final = {
    "po": "Pod",
    "svc": "Service",
    "deploy": "Deployment",
    "sts": "StatefulSet",
    "ds": "DaemonSet",
    "rs": "ReplicaSet",
    "cj": "CronJob",
}
_KINDS: Final = {**{kind.lower(): kind for kind in GROUPS}, **{f"{kind.lower()}s": kind for kind in GROUPS}, **_SHORT}


def kind_of(written: str) -> str | None:
    """Return the kind that is meant, as kubectl takes it (`Pod`, `pods`, `po`), or None: nothing that is decided."""
    return _KINDS.get(written.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One Pod, Service or workload to decide."""

    api_version: str
    kind: str
    namespace: str
    name: str
    manifest: dict[str, Any]
    request: Request
    notes: tuple[str, ...] = ()
    """What a raw manifest lacks, where it matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What was read: subjects in input order, the facts, and how many objects were neither."""

    subjects: tuple[Subject, ...]
    snapshot: Snapshot
    others: int
    documents: tuple[tuple[Found, Subject | None], ...]
    """Every object of the files in input order, with its Subject where it is one."""


class TimeType(click.ParamType[datetime]):
    """An RFC 3339 time."""

    name = "TIME"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time that *value* writes."""
        if isinstance(value, datetime):
            return value
        try:
            return read_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def now_or(moment: datetime | None) -> datetime:
    """Return *moment*, or the wall clock's time."""
    return moment if moment is not None else datetime.now(UTC)


def read_manifests(
    files: Sequence[str],
    *,
    states: Sequence[str],
    policy: str | None,
    namespace: str,
    kubeconfig: str | None,
    context: str | None,
) -> Manifests:
    """
    Read the manifests and the facts.

    Raises:
        click.UsageError: No facts, no objects, or mistakes in the files: all of them, with file, line and field.

    """
    problems: list[Problem] = []
    collector, from_cluster = _facts(states, policy, kubeconfig, context, problems)
    found = list(_read(files, problems))
    left = {id(each) for each in take_all(found, collector, problems)}
    subjects: dict[int, Subject] = {}
    for each in found:
        # Whether it is a fact or not: Terway's DaemonSet is evidence, and a workload as well.
        if API_VERSIONS.get(each.kind) == each.api_version:
            subject = _subject(each, namespace, problems)
            if subject is not None:
                subjects[id(each)] = _placed(subject, collector)
    if problems:
        raise click.UsageError("bad input:\n" + "\n".join(map(str, problems)))
    snapshot = collector.snapshot()
    if not from_cluster:
        snapshot = _complete(snapshot, subjects.values())
    return Manifests(
        subjects=tuple(subjects.values()),
        snapshot=snapshot,
        others=sum(1 for each in found if id(each) in left and id(each) not in subjects),
        documents=tuple((each, subjects.get(id(each))) for each in found),
    )


def _complete(snapshot: Snapshot, _subjects: Iterable[Subject]) -> Snapshot:
    """The namespace `default` is in every cluster, and manifests seldom hold it."""
    if "default" in snapshot.namespaces:
        return snapshot
    labels = {wellknown.NAMESPACE_NAME: "default"}
    return Snapshot(
        policies=snapshot.policies,
        nodes=snapshot.nodes,
        nodes_synced=snapshot.nodes_synced,
        namespaces={**snapshot.namespaces, "default": labels},
        mesh=snapshot.mesh,
        network=snapshot.network,
        own_namespace=snapshot.own_namespace,
    )


def _facts(
    states: Sequence[str],
    policy: str | None,
    kubeconfig: str | None,
    context: str | None,
    problems: list[Problem],
) -> tuple[Collector, bool]:
    collector = Collector()
    if not states:
        collector = _cluster(kubeconfig, context)
    try:
        paths = expand([*states, *([policy] if policy else [])])
    except FilesInvalid as error:
        problems.extend(error.problems)
        return collector, not states
    take_all(
        (each for path in paths for each in read(str(path), read_bytes(path, problems), problems)), collector, problems
    )
    return collector, not states


def _cluster(kubeconfig: str | None, context: str | None) -> Collector:
    from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`
    from webhook.facts.cluster import Cluster  # noqa: PLC0415

    return ask(kubeconfig, context, Cluster.collect, without="no --state, and no cluster")


def _read(files: Sequence[str], problems: list[Problem]) -> Iterable[Found]:
    for name in files:
        if name == "-":
            yield from read("stdin", sys.stdin.buffer.read(), problems)
            continue
        try:
            paths = expand([name])
        except FilesInvalid as error:
            problems.extend(error.problems)
            continue
        for path in paths:
            yield from read(str(path), read_bytes(path, problems), problems)


def _subject(found: Found, default_namespace: str, problems: list[Problem]) -> Subject | None:
    try:
        reviewed: Reviewed = decode(found.value, Reviewed)
    except FactError as error:
        problems.append(found.problem(error.field, error.message))
        return None
    metadata = reviewed.metadata
    namespace = metadata.namespace or default_namespace
    name = metadata.name or (f"{metadata.generate_name}…" if metadata.generate_name else "")
    if not name:
        problems.append(found.problem("metadata.name", "required, or metadata.generateName"))
        return None
    return Subject(
        api_version=found.api_version,
        kind=found.kind,
        namespace=namespace,
        name=name,
        manifest=msgspec.to_builtins(found.value),
        # A workload is decided as the pods that it makes: theirs is the patch.
        request=Request(
            object=reviewed if isinstance(reviewed, Pod | Service) else pod_of(reviewed),
            operation="CREATE",
            namespace=namespace,
            name=metadata.name,
            kind=found.kind,
        ),
        notes=_notes(reviewed),
    )


def _placed(subject: Subject, collector: Collector) -> Subject:
    """Say so where the namespace adds node selectors or tolerations to the pods that are made in it."""
    annotation = collector.node_selected.get(subject.namespace)
    if annotation is None or isinstance(subject.request.object, Service):
        return subject
    note = f"annotation {annotation} of namespace {subject.namespace} adds to its pods, which is not seen here"
    return replace(subject, notes=(*subject.notes, note))


def _notes(reviewed: Reviewed) -> tuple[str, ...]:
    """What other admission plugins would add to a raw manifest before it is decided."""
    if isinstance(reviewed, Service):
        return ()
    spec = reviewed.spec if isinstance(reviewed, Pod) else reviewed.template().spec
    notes = []
    if spec.runtime_class_name:
        notes.append(
            f"RuntimeClass {spec.runtime_class_name} may add a node selector and tolerations, which are not seen here",
        )
    if isinstance(reviewed, DaemonSet):
        notes.append("each of its pods is decided for the node that it is made for")
    return tuple(notes)
