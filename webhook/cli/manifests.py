"""
Reads what `check` and `explain` are given: manifests to decide, and the facts to decide them by.

Facts inside the manifests join those of --state; without either, a cluster is read once. What files lack is no fact:
it may be in the cluster all the same, and is said once.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from webhook.cli.printing import progress
from webhook.facts.collect import Collector, FactError, decode, decode_reviewed
from webhook.facts.files import FilesInvalid, Found, expand, read, read_bytes, take_all
from webhook.facts.kubeconfig import KubeconfigUnreadable, context_namespace
from webhook.facts.problem import Problem
from webhook.rules.decide import pod_of
from webhook.rules.ends import read_time
from webhook.rules.objects import GROUPS, ObjectMeta, Pod, Reviewed, Service
from webhook.rules.snapshot import Request, Snapshot
from webhook.rules.templates import MAX_TEMPLATES, ShapedTemplate, as_daemon, pod_templates

API_VERSIONS: Final = {kind: f"{group}/v1".lstrip("/") for kind, group in GROUPS.items()}
STDIN: Final = "-"
DAEMON_SET: Final = "DaemonSet"
TEMPLATES: Final = {"CronJob": "spec.jobTemplate.spec.template"}
"""Where the pod template of each of our workloads stands, if not at spec.template."""
CLUSTER_SCOPED: Final = frozenset(
    {
        *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PersistentVolume", "StorageClass"),
        *("PriorityClass", "IngressClass", "GatewayClass", "APIService", "RuntimeClass", "CSIDriver"),
        *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy"),
        *("ValidatingAdmissionPolicyBinding", "ClusterIssuer", "ClusterPolicy"),
    }
)
"""Kinds that are often among manifests and have no namespace: only how a name is printed rests on it."""
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
    """One Pod, Service or pod template to decide."""

    api_version: str
    kind: str
    namespace: str
    name: str
    manifest: Mapping[str, Any]
    """The object that the decision's patch applies to: a Pod of a workload's template in its place."""
    request: Request
    notes: tuple[str, ...] = ()
    """What a raw manifest lacks, where it matters."""
    template: str = ""
    """Where the pod template stands; empty in what is patched itself, Pods and Services."""
    part: str = ""
    """What tells it from another pod template of the same object."""
    offline: bool = False
    """Files took a cluster's place: what they lack may be there all the same."""

    @property
    def title(self) -> str:
        """How it is named in a table."""
        return f"{self.namespace}/{self.kind}/{self.name}{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What was read: subjects in input order, the facts, and what was neither."""

    subjects: tuple[Subject, ...]
    snapshot: Snapshot
    documents: tuple[tuple[Found, tuple[Subject, ...]], ...]
    """Every object of the files in input order, with its Subjects where it has some."""
    undecided: tuple[str, ...]
    """What is neither decided nor a fact, a line for each kind."""
    lacking: tuple[str, ...]
    """What the files do not hold, a line for each kind of fact."""


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
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> Manifests:
    """
    Read the manifests and the facts.

    Args:
        namespace: Of objects that name none; None for that of the kubeconfig's context.

    Raises:
        click.UsageError: No facts, no objects, or mistakes in the files: all of them, with file, line and field.

    """
    if [*files, *states].count(STDIN) > 1:
        raise click.UsageError("standard input can be read only once: use - either for FILE or for --state")
    problems: list[Problem] = []
    remarks: list[str] = []
    if states:
        collector = Collector(from_files=True)
        around = namespace or _context_namespace(kubeconfig, context)
    else:
        collector, around = _cluster(kubeconfig, context)
        around = namespace or around
    take_all(_read([*states, *([policy] if policy else [])], problems, remarks, facts_alone=True), collector, problems)
    found = list(_read(files, problems, remarks))
    collector.joining = True  # a Namespace among manifests is applied: the labels that it does not name stay
    left = {id(each) for each in take_all(found, collector, problems)}
    documents = [(each, tuple(_subjects(each, around, collector, problems, remarks))) for each in found]
    if problems:
        raise click.UsageError("invalid input:\n" + "\n".join(map(str, problems)))
    subjects = tuple(subject for _, below in documents for subject in below)
    undecided = [each for each, below in documents if id(each) in left and not below]
    snapshot = collector.snapshot()
    return Manifests(
        subjects=subjects,
        snapshot=snapshot,
        documents=tuple(documents),
        undecided=(*undecided_lines(undecided, around), *remarks),
        lacking=tuple(_lacking(snapshot, subjects)) if states else (),
    )


def _context_namespace(kubeconfig: str | None, context: str | None) -> str:
    try:
        return context_namespace(kubeconfig, context)
    except KubeconfigUnreadable as error:
        raise click.UsageError(str(error)) from error


def _cluster(kubeconfig: str | None, context: str | None) -> tuple[Collector, str]:
    """Return the cluster's facts, and the namespace of the kubeconfig's context."""
    from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`
    from webhook.facts.cluster import Cluster  # noqa: PLC0415

    async def read_facts(cluster: Cluster) -> tuple[Collector, str]:
        return await cluster.collect(), cluster.namespace

    with progress("reading the cluster"):
        return ask(kubeconfig, context, read_facts, without="no --state, and no cluster")


def _lacking(snapshot: Snapshot, subjects: Sequence[Subject]) -> Iterator[str]:
    """Yield what to say once of files that hold less than decisions rest on."""
    if not subjects:
        return
    pods = any(not isinstance(each.request.object, Service) for each in subjects)
    if not snapshot.namespaces:
        yield "--state has no Namespace, so it is not known who opted in (add kubectl get namespaces -o yaml)"
    if pods and not snapshot.nodes.everything:
        yield "--state has no Node, so it is not known where pods can run (add kubectl get nodes -o yaml)"
    if pods and not snapshot.mesh.injectors:
        yield (
            "--state has no MutatingWebhookConfiguration of a sidecar injector, so it is not known which pods get a "
            "sidecar (add kubectl get mutatingwebhookconfigurations -o yaml)"
        )


def _read(
    files: Sequence[str], problems: list[Problem], remarks: list[str], *, facts_alone: bool = False
) -> Iterator[Found]:
    paths: list[Path | None] = []
    for name in files:
        if name == STDIN:
            paths.append(None)
            continue
        try:
            paths += expand([name])
        except FilesInvalid as error:
            problems.extend(error.problems)
    with progress("reading", total=len(paths), unit="files") as bar:
        for path in paths:
            bar.say(f"reading {path.name if path is not None else 'standard input'}")
            data = sys.stdin.buffer.read() if path is None else read_bytes(path, problems)
            named = "stdin" if path is None else str(path)
            yield from read(named, data, problems, remarks=remarks, facts_alone=facts_alone)
            bar.advance()


def _subjects(
    found: Found, default_namespace: str, collector: Collector, problems: list[Problem], remarks: list[str]
) -> Iterator[Subject]:
    """Yield what of an object is decided: itself, or the pods that its templates make."""
    # Whether it is a fact or not: Terway's DaemonSet is evidence, and a workload as well.
    whole = API_VERSIONS.get(found.kind) == found.api_version
    templates = () if whole else pod_templates(found.value)
    if len(templates) == MAX_TEMPLATES:
        remarks.append(f"not decided: pod templates of {found.kind} beyond the first {MAX_TEMPLATES}")
    try:
        if whole:
            reviewed, excess = decode_reviewed(found.value)
            yield _placed(_subject(found, reviewed, excess, default_namespace), collector)
        for each in templates:
            try:
                pod, excess = decode_reviewed(each.as_pod())
            except FactError as error:
                # Its own API says what it is: the webhook lets it through as well.
                remarks.append(f"not decided: {each.path} of {found.kind} is not a pod template ({error})")
                continue
            part = f" {each.path}" if len(templates) > 1 else ""
            yield _placed(_shaped(found, pod, excess, each, part, default_namespace), collector)
    except FactError as error:
        problems.append(found.problem(error.field, error.message))


def _named(metadata: ObjectMeta, default_namespace: str) -> tuple[str, str]:
    """Return the object's namespace and what it is called."""
    name = metadata.name or (f"{metadata.generate_name}…" if metadata.generate_name else "")
    if not name:
        raise FactError("metadata.name", "required, or metadata.generateName")
    return metadata.namespace or default_namespace, name


def _subject(found: Found, reviewed: Reviewed, excess: str, default_namespace: str) -> Subject:
    namespace, name = _named(reviewed.metadata, default_namespace)
    is_itself = isinstance(reviewed, Pod | Service)
    thing = reviewed if isinstance(reviewed, Pod | Service) else pod_of(reviewed)
    return Subject(
        api_version=found.api_version,
        kind=found.kind,
        namespace=namespace,
        name=name,
        manifest=found.value if is_itself else _pod_of_template(found),
        # A workload is decided as the pods that it makes: theirs is the patch.
        request=Request(
            object=thing,
            operation="CREATE",
            namespace=namespace,
            name=reviewed.metadata.name,
            kind=found.kind,
            excess=excess,
        ),
        notes=_notes(thing, found.kind),
        template="" if is_itself else TEMPLATES.get(found.kind, "spec.template"),
    )


def _shaped(
    found: Found, pod: Pod, excess: str, template: ShapedTemplate, part: str, default_namespace: str
) -> Subject:
    metadata: ObjectMeta = decode(found.value.get("metadata") or {}, ObjectMeta)
    namespace, name = _named(metadata, default_namespace)
    if found.kind == DAEMON_SET:
        pod = as_daemon(pod)
    return Subject(
        api_version=found.api_version,
        kind=found.kind,
        namespace=namespace,
        name=name,
        manifest=template.as_pod(),
        request=Request(
            object=pod, operation="CREATE", namespace=namespace, name=metadata.name, kind=found.kind, excess=excess
        ),
        notes=_notes(pod, found.kind),
        template=template.path,
        part=part,
    )


def _pod_of_template(found: Found) -> Mapping[str, Any]:
    value: Any = found.value
    for field in TEMPLATES.get(found.kind, "spec.template").split("."):
        value = (value.get(field) or {}) if isinstance(value, Mapping) else {}
    return {"kind": "Pod", "metadata": value.get("metadata") or {}, "spec": value.get("spec") or {}}


def _placed(subject: Subject, collector: Collector) -> Subject:
    """Say so where the namespace or an unknown RuntimeClass adds node selectors or tolerations to the pods."""
    subject = replace(subject, offline=collector.from_files)
    pod = subject.request.object
    if not isinstance(pod, Pod):
        return subject
    notes = []
    annotation = collector.node_selected.get(subject.namespace)
    if annotation is not None:
        notes.append(
            f"annotation {annotation} of namespace {subject.namespace} may add node selectors or tolerations to it"
        )
    name = pod.spec.runtime_class_name
    if name and name not in collector.runtime_classes:
        notes.append(f"RuntimeClass {name} is not known: it may add a node selector and tolerations")
    return replace(subject, notes=(*subject.notes, *notes)) if notes else subject


def _notes(thing: Pod | Service, kind: str) -> tuple[str, ...]:
    """What other admission plugins would add to a raw manifest before it is decided."""
    if isinstance(thing, Service):
        return ()
    notes = []
    if kind == DAEMON_SET:
        notes.append("each pod is decided again for its own node when it is created")
    return tuple(notes)


# --- What is not decided


ELSEWHERE: Final[Mapping[tuple[str, str], str]] = {
    ("gateway.networking.k8s.io", "Gateway"): (
        "istiod creates a Deployment and a Service NAME-CLASS for each, and the webhook decides them at creation; "
        "client-ip render gateway-defaults makes the Services Local at the source"
    ),
    ("istio.alibabacloud.com", "IstioGateway"): (
        "ASM creates a Deployment and a Service istio-NAME for each, and the webhook decides them at creation; "
        "spec.externalTrafficPolicy: Local makes the Service Local at the source"
    ),
    ("install.istio.io", "IstioOperator"): (
        "istioctl and the operator create the gateways' Services, and the webhook decides them at creation"
    ),
}
"""By group and kind: where the Service of what is not decided here is decided."""


def undecided_lines(found: Sequence[Found], default_namespace: str) -> Iterator[str]:
    """Yield a line for each kind that is not decided, with every object's name."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for each in found:
        group = each.api_version.rpartition("/")[0]
        kinds.setdefault((group, each.kind), []).append(_called(each, default_namespace))
    for (group, kind), names in kinds.items():
        where = ELSEWHERE.get((group, kind))
        why = f": {where}" if where else ""
        yield f"not decided: {kind} {', '.join(names)}{why}"


def _called(found: Found, default_namespace: str) -> str:
    metadata = found.value.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name = metadata.get("name") or f"{metadata.get('generateName') or ''}…"
    namespace = metadata.get("namespace")
    if not namespace and found.kind in CLUSTER_SCOPED:
        return str(name)
    return f"{namespace or default_namespace}/{name}"
