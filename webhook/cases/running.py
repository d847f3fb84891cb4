"""Reads cases from files, decides them by the facts that they name, and says what differs from what they expect."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from webhook.cases.format import VERSION, Case, completed, patch_of
from webhook.facts.collect import Collector, FactError, decode, decode_reviewed
from webhook.facts.files import FilesInvalid, Found, expand, read, read_bytes, take_all
from webhook.facts.problem import Problem
from webhook.rules.decide import Explained, decide, explain
from webhook.rules.decision import Decision, Mode, Outcome
from webhook.rules.objects import GROUPS, Reviewed, Service
from webhook.rules.snapshot import Request
from webhook.rules.yamls import Document, YAMLInvalid, documents

CLUSTER: Final = "cluster.yaml"
"""In a case's folder, or the nearest above it: the facts of every case that names no others."""
INJECTORS: Final = "MutatingWebhookConfiguration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A case and where it stands."""

    case: Case
    file: str
    document: Document

    def problem(self, field: str, message: str) -> Problem:
        """Return the Problem of a field of it."""
        line = self.document.line_of(field)
        return Problem(file=self.file, document=self.document.number, line=line, field=field, message=message)

    def __str__(self) -> str:
        """Return where it is, and what it is called."""
        return f"{self.file}:{self.document.line_of('')} (document {self.document.number}): {self.case.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A case that was decided."""

    read: Read
    decision: Decision
    questions: tuple[Explained, ...]
    differences: tuple[str, ...]
    """What came out otherwise: wanted …, got …"""


def read_cases(paths: Sequence[str], problems: list[Problem]) -> list[Read]:
    """Return the cases in files and folders; mistakes are added to *problems*, with file, document, line and field."""
    found: list[Read] = []
    try:
        files = expand(paths)
    except FilesInvalid as error:
        problems.extend(error.problems)
        return found
    for path in files:
        if path.name == CLUSTER:
            continue
        try:
            text = read_bytes(path, problems).decode()
            for document in documents(text):
                if document.value is not None:
                    found += _case(str(path), document, problems)
        except YAMLInvalid as error:
            problems.append(Problem(file=str(path), document=error.document, line=error.line, message=str(error)))
        except UnicodeDecodeError as error:
            problems.append(Problem(file=str(path), message=f"not UTF-8: {error.reason} at byte {error.start}"))
    return found


def _case(file: str, document: Document, problems: list[Problem]) -> Iterator[Read]:
    def problem(field: str, message: str) -> None:
        line = document.line_of(field)
        problems.append(Problem(file=file, document=document.number, line=line, field=field, message=message))

    value = document.value
    if not isinstance(value, Mapping):
        problem("", "must be a case: a mapping with case, object and expect")
        return
    if "case" not in value and "apiVersion" in value:
        problem(
            "case",
            "required: this is a Kubernetes object, not a case (client-ip test --record creates cases from objects)",
        )
        return
    version = value.get("version", VERSION)
    if version != VERSION:
        problem("version", f"must be {VERSION}, which this client-ip reads, not {version!r}")
        return
    try:
        # Its times and enumerations are texts: what YAML has read goes through JSON as kubectl's does.
        case = msgspec.convert(value, Case, strict=True)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".")
        unknown = re.fullmatch(r"Object contains unknown field `(.+)`", message)
        problem(".".join(part for part in (field, unknown.group(1) if unknown else "") if part), message)
        return
    for field, patch in (("expect.patch", case.expect.patch), ("expect.wouldPatch", case.expect.would_patch)):
        try:
            patch_of(patch)
        except KeyError:
            problem(field, f"there is no common patch named {patch!r}")
            return
    try:
        case = msgspec.structs.replace(
            case,
            file=re.sub(r"[^a-z0-9-]+", "-", Path(file).stem.lower()).strip("-") or "case",
            number=document.number,
            object=completed(case.object),
            old_object=completed(case.old_object) if case.old_object is not None else None,
            nodes=[completed({"kind": "Node", **each}) for each in case.nodes] if case.nodes is not None else None,
            facts=[completed(each) for each in case.facts],
        )
    except (KeyError, TypeError, AttributeError) as error:
        problem("object", f"every object needs a known kind: {error}")
        return
    yield Read(case=case, file=file, document=document)


class Facts:
    """The facts of cases: those given, and the cluster.yaml that is nearest to each file."""

    def __init__(self, states: Sequence[str], problems: list[Problem]) -> None:
        self._states = _objects(states, problems)
        self._problems = problems
        self._near: dict[Path, list[Found]] = {}

    def of(self, read_: Read) -> Collector:
        """Return the facts of a case; mistakes are added to the problems."""
        case = read_.case
        collector = Collector(from_files=not case.injectors)
        shared = [*self._states, *self._nearest(Path(read_.file).parent)]
        shared = [
            each
            for each in shared
            if not (each.kind == "Node" and case.nodes is not None)
            and not (each.kind == INJECTORS and not case.injectors)
        ]
        own = [*(case.nodes or ()), *case.facts]
        namespace = case.namespace_document()
        own += [namespace] if namespace is not None else []
        # Policies first, wherever they stand: nodes are read by their rules.
        take_all([each for each in shared if each.kind == "ClientIPPolicy"], collector, self._problems)
        for policies in (True, False):
            for document in own:
                if (document["kind"] == "ClientIPPolicy") == policies:
                    self._put(read_, collector, document)
            if policies:
                rest = [each for each in shared if each.kind != "ClientIPPolicy"]
                take_all(rest, collector, self._problems)
        return collector

    def _put(self, read_: Read, collector: Collector, document: Mapping[str, Any]) -> None:
        try:
            collector.put(document["apiVersion"], document["kind"], document)
        except FactError as error:
            self._problems.append(read_.problem("facts", f"{document['kind']}: {error}"))

    def _nearest(self, folder: Path) -> list[Found]:
        if folder not in self._near:
            place = next((each / CLUSTER for each in (folder, *folder.parents) if (each / CLUSTER).is_file()), None)
            self._near[folder] = _objects([str(place)] if place is not None else [], self._problems)
        return self._near[folder]


def _objects(paths: Sequence[str], problems: list[Problem]) -> list[Found]:
    found = []
    try:
        for path in expand(paths):
            text = read_bytes(path, problems)
            found += list(read(str(path), _with_versions(path, text), problems))
    except FilesInvalid as error:
        problems.extend(error.problems)
    return found


def _with_versions(path: Path, text: bytes) -> bytes:
    """Return a cluster.yaml with the apiVersion of each object that leaves it out, as cases may."""
    if path.name != CLUSTER or b"\napiVersion:" in text or text.startswith(b"apiVersion:"):
        return text
    completed_ = [completed(each.value) for each in documents(text.decode()) if isinstance(each.value, Mapping)]
    return b"\n".join(b"---\n" + msgspec.json.encode(each) for each in completed_)


def decided(read_: Read, collector: Collector, *, now: datetime) -> Tested:
    """
    Decide a case, and compare.

    Raises:
        FactError: The object is no such object.

    """
    case = read_.case
    snapshot = collector.snapshot()
    request = _request(case)
    moment = case.now or now
    decision = decide(request, snapshot, now=moment)
    return Tested(
        read=read_,
        decision=decision,
        questions=explain(request, snapshot, now=moment),
        differences=tuple(differences(case, decision)),
    )


def _request(case: Case) -> Request:
    kind = case.object["kind"]
    deleted = case.operation == "DELETE"
    reviewed: Reviewed | None = None
    excess = ""
    if kind in GROUPS and not deleted:
        reviewed, excess = decode_reviewed(case.object)
    old = ""
    if case.old_object is not None and kind == "Service":
        before: Service = decode(case.old_object, Reviewed)
        old = before.spec.external_traffic_policy
    return Request(
        object=reviewed,
        operation=case.operation,
        namespace=case.namespace_name,
        name=case.object["metadata"].get("name", ""),
        subresource=case.sub_resource,
        kind=kind,
        dry_run=case.dry_run,
        old_external_traffic_policy=old if case.operation == "UPDATE" else "",
        size=len(msgspec.json.encode(case.object)),
        excess=excess,
    )


def differences(case: Case, decision: Decision) -> Iterable[str]:
    """Yield what came out otherwise than the case expects: `reason: wanted …, got …`."""
    want = case.expect
    pairs: list[tuple[str, object, object]] = [
        ("reason", want.reason.value, decision.reason.value),
        ("outcome", want.outcome.value, decision.outcome.value),
        ("patch", patch_of(want.patch), _by_path(decision.patch)),
        ("wouldPatch", patch_of(want.would_patch), _by_path(decision.would_patch)),
        ("invalidPreserve", want.invalid_preserve, bool(decision.invalid_preserve)),
    ]
    if want.outcome is not Outcome.NOT_ASKED:
        pairs.append(("mode", want.mode.value, decision.mode.value))
    if want.policy:
        pairs.append(("policy", want.policy, decision.policy or "none"))
    for field, wanted, got in pairs:
        if wanted != got:
            yield f"{field}: wanted {_shown(wanted)}, got {_shown(got)}"
    if want.cause not in decision.cause:
        yield f"cause: wanted one that contains {want.cause!r}, got {decision.cause!r}"
    yield from _of_warnings(case, decision)


def _of_warnings(case: Case, decision: Decision) -> Iterable[str]:
    rest = list(decision.warnings)
    if decision.outcome is Outcome.LOST and decision.mode is Mode.ENFORCE:
        rest = rest[1:]
    wanted = case.expect.warnings
    if len(rest) != len(wanted) or not all(part in said for part, said in zip(wanted, rest, strict=True)):
        yield f"warnings: wanted {_shown(wanted)}, got {_shown(rest)}"


def _by_path(patch: Any) -> dict[str, Any]:
    return {each.path: each.as_json()["value"] for each in patch}


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    return "nothing" if value in ({}, []) else msgspec.json.encode(value).decode()


def record(decision: Decision) -> dict[str, Any]:
    """Return what a decision is, as a case expects it."""
    found: dict[str, Any] = {
        "reason": decision.reason.value,
        "outcome": decision.outcome.value,
        "mode": decision.mode.value,
        "cause": decision.cause,
        "policy": decision.policy,
        "patch": _by_path(decision.patch),
        "wouldPatch": _by_path(decision.would_patch),
        "warnings": list(decision.warnings[1 if _warned(decision) else 0 :]),
        "invalidPreserve": bool(decision.invalid_preserve),
    }
    defaults = {"mode": "enforce" if decision.outcome is not Outcome.NOT_ASKED else found["mode"]}
    return {key: value for key, value in found.items() if value and value != defaults.get(key)}


def _warned(decision: Decision) -> bool:
    return decision.outcome is Outcome.LOST and decision.mode is Mode.ENFORCE
