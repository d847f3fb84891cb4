"""
Facts from files: YAML or JSON Kubernetes objects, in files or folders, re-read when they change.

This is the embedded default, no cluster needed; it never imports `kubernetes`. A file that can't be read as a whole
changes nothing: the last good facts stay in use.
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from webhook.facts.collect import KINDS, Collector, FactError
from webhook.facts.packed import Archive, EncodingInvalid, Unpacked, is_readable, text_of, unpack
from webhook.facts.problem import Problem
from webhook.rules import wellknown
from webhook.rules.policy_document import PolicyInvalid, read_policy
from webhook.rules.yamls import Document, YAMLInvalid, documents, json_documents


class FilesInvalid(ValueError):  # noqa: N818  # an error's noun
    """Files that can't be used, with every mistake found in them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One Kubernetes object, and where it stands."""

    file: str
    document: Document
    prefix: str
    """The path of the object within its document: `items[3]` in a List."""
    api_version: str
    kind: str
    value: Mapping[str, Any]

    def problem(self, field: str, message: str) -> Problem:
        """Return the Problem of this object's *field*."""
        path = ".".join(part for part in (self.prefix, field) if part)
        line = self.document.line_of(path)
        return Problem(file=self.file, document=self.document.number, line=line, field=path, message=message)


def expand(paths: Iterable[str]) -> list[Path]:
    """
    Return the files that *paths* name: files themselves, and in folders, recursively, YAML, JSON and dumps by suffix.

    Kubernetes mounts show each file twice, once below a folder that starts with `..`: hidden names are passed over.

    Raises:
        FilesInvalid: A path does not exist.

    """
    found: list[Path] = []
    problems = []
    for each in paths:
        path = Path(each)
        if path.is_dir():
            found.extend(
                sorted(
                    file
                    for file in path.rglob("*")
                    if is_readable(file.name)
                    and file.is_file()
                    and not any(part.startswith(".") for part in file.relative_to(path).parts)
                ),
            )
        elif path.exists():
            found.append(path)
        else:
            problems.append(Problem(file=each, message="no such file or folder"))
    if problems:
        raise FilesInvalid(problems)
    return found


def read(
    name: str,
    text: bytes,
    problems: list[Problem],
    *,
    remarks: list[str] | None = None,
    facts_alone: bool = False,
) -> Iterator[Found]:
    """
    Yield the objects in *text*, as it is or compressed, or in the files of an archive; add mistakes to *problems*.

    Archives are dumps: what in them is no Kubernetes object is passed over, and said in *remarks*.

    Args:
        facts_alone: Files of an archive that hold no fact by their look are not read at all: dumps are large.

    """
    archive = Archive()
    for each in unpack(name, text, archive, problems):
        if not each.packed:
            yield from _read_text(each, problems)
        elif not facts_alone or may_be_fact(each.data):
            mistakes: list[Problem] = []
            yield from _read_text(each, mistakes)
            archive.unread += [f"{each.name.partition('!')[2]} ({mistakes[0].message})"] if mistakes else []
    if remarks is not None:
        remarks += archive.remarks(name)


_FACTS: Final = "|".join(sorted({"List", *(kind for _, kind in KINDS)}))
_MAY_BE_FACT: Final = re.compile(rf"kind[\"']?\s*:\s*[\"']?({_FACTS})".encode())


def may_be_fact(data: bytes) -> bool:
    """Return whether a file holds a fact, by its look: `NodeList` and the like begin as their kinds do."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.replace(b"\0", b"")
    return _MAY_BE_FACT.search(data) is not None


def _read_text(file: Unpacked, problems: list[Problem]) -> Iterator[Found]:
    try:
        yield from _read(file, problems)
    except YAMLInvalid as error:
        problems.append(Problem(file=file.name, document=error.document, line=error.line, message=str(error)))
    except EncodingInvalid as error:
        problems.append(Problem(file=file.name, message=str(error)))


def _read(file: Unpacked, problems: list[Problem]) -> Iterator[Found]:
    text = text_of(file.data)
    for document in _documents(file.name, text):
        values = document.value if file.packed and isinstance(document.value, list) else [document.value]
        for number, value in enumerate(values):
            prefix = f"[{number}]" if values is document.value else ""
            yield from _objects(file.name, document, value, prefix, problems)


def _documents(name: str, text: str) -> Iterable[Document]:
    if text.lstrip()[:1] not in {"{", "["}:
        return documents(text)
    try:
        return list(json_documents(text))
    except YAMLInvalid as error:
        try:
            return list(documents(text))  # YAML's flow style begins like JSON
        except YAMLInvalid:
            if name.lower().partition(".json")[2] in {"", ".gz", ".bz2", ".xz"} and ".json" in name.lower():
                raise error from None
            raise


def _objects(name: str, document: Document, value: Any, prefix: str, problems: list[Problem]) -> Iterator[Found]:
    def problem(field: str, message: str) -> None:
        path = ".".join(part for part in (prefix, field) if part)
        line = document.line_of(path)
        problems.append(Problem(file=name, document=document.number, line=line, field=path, message=message))

    if not isinstance(value, Mapping):
        problem("", "must be a Kubernetes object, a mapping with apiVersion and kind")
        return
    missing = [field for field in ("apiVersion", "kind") if not isinstance(value.get(field), str) or not value[field]]
    for field in missing:
        problem(field, "required, and must be a string")
    if missing:
        return
    api_version, kind = value["apiVersion"], value["kind"]
    if kind.endswith("List") and "items" in value:
        items = value["items"] or []  # an empty list of Go's is null
        if not isinstance(items, list):
            problem("items", "must be a list")
            return
        for number, item in enumerate(items):
            below = f"{prefix}.items[{number}]" if prefix else f"items[{number}]"
            if isinstance(item, Mapping) and kind != "List" and item.get("kind") is None:
                # The API server leaves these out in the items of typed lists.
                item = {"apiVersion": api_version, "kind": kind.removesuffix("List"), **item}  # noqa: PLW2901
            yield from _objects(name, document, item, below, problems)
        return
    yield Found(file=name, document=document, prefix=prefix, api_version=api_version, kind=kind, value=value)


def take(found: Found, collector: Collector, problems: list[Problem]) -> bool:
    """Give *found* to the *collector*; return whether it is a fact. Mistakes are added to *problems*."""
    metadata = found.value.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name = metadata.get("name")
    if not collector.takes(found.api_version, found.kind, str(metadata.get("namespace")), str(name)):
        return False
    try:
        if found.kind == wellknown.POLICY_KIND:
            read_policy(found.value)  # in files a bad policy is a mistake, not one that is in force
        if not isinstance(name, str) or not name:
            problems.append(found.problem("metadata.name", "required, a string"))
            return True
        collector.put(found.api_version, found.kind, found.value)
    except PolicyInvalid as error:
        problems.extend(found.problem(each.field, each.message) for each in error.errors)
    except FactError as error:
        problems.append(found.problem(error.field, error.message))
    return True


def load(paths: Iterable[str], *, own_namespace: str = wellknown.OWN_NAMESPACE) -> Collector:
    """
    Return the facts in the files and folders *paths*; objects that are no facts are passed over.

    Policies count first, whatever their order: nodes are classified by them.

    Raises:
        FilesInvalid: With every mistake in all of the files.

    """
    collector = Collector(own_namespace=own_namespace, from_files=True)
    read_facts(paths, collector)
    return collector


def read_facts(paths: Iterable[str], collector: Collector) -> list[Found]:
    """
    Give the facts in *paths* to the *collector*, and return them, policies first.

    Raises:
        FilesInvalid: With every mistake in all of the files.

    """
    problems: list[Problem] = []
    found = [
        each
        for path in expand(paths)
        for each in read(str(path), read_bytes(path, problems), problems, facts_alone=True)
    ]
    facts = [each for each in _policies_first(found) if take(each, collector, problems)]
    if problems:
        raise FilesInvalid(problems)
    return facts


def take_all(found: Iterable[Found], collector: Collector, problems: list[Problem]) -> list[Found]:
    """Give all of *found* to the *collector*, policies first; return what is no fact."""
    return [each for each in _policies_first(found) if not take(each, collector, problems)]


def _policies_first(found: Iterable[Found]) -> list[Found]:
    return sorted(found, key=lambda each: each.kind != wellknown.POLICY_KIND)


def read_bytes(path: Path, problems: list[Problem]) -> bytes:
    """Return what a file holds; where it can't be read that is added to *problems*."""
    try:
        return path.read_bytes()
    except OSError as error:
        problems.append(Problem(file=str(path), message=error.strerror or str(error)))
        return b""


Mark = tuple[tuple[str, int, int, int], ...]
"""Of each file its name, time (nanoseconds), size and inode."""


def fingerprint(paths: Iterable[str]) -> Mark:
    """Return what changes when one of the files does: names, times, sizes and inodes."""
    marks = []
    for path in expand(paths):
        try:
            status = path.stat()
        except OSError:
            continue  # gone since; its absence is the change
        marks.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(marks)
