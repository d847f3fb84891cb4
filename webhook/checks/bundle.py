"""
The evidence as a file: what support asks for first, without what must not leave a cluster.

A .tgz: `doctor.json` (versions, findings' inputs, what could not be read), `objects/<name>.json` (Lists, as kubectl
writes them), `metrics/<pod>.txt` and `logs/<pod>.log`. It holds no Secret, no environment value, no argument of a
container, and no last-applied annotation.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from webhook.checks.evidence import Certificates, Document, Evidence, metadata, snapshot_of
from webhook.checks.probe import Probe
from webhook.rules import wellknown

VERSION: Final = 1
"""Of the format; a reader refuses others."""
LOG_LINES: Final = 500
MAX_BYTES: Final = 256 << 20
"""Of an unpacked bundle that is read: a bundle of 20,000 nodes has less."""
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KEPT_ENV: Final = frozenset({wellknown.MODE_ENV})
_PUBLIC: Final = wellknown.SYSTEM_NAMESPACES | {wellknown.ISTIO_SYSTEM, "default", "client-ip-webhook"}
"""Names that tell nothing about anybody."""


class BundleInvalid(ValueError):  # noqa: N818  # an error's noun
    """A file is no bundle of ours."""


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    client: str
    at: datetime
    own_namespace: str
    namespace: str
    server_version: str
    server_date: datetime | None
    groups: list[str]
    unread: dict[str, str]
    certificates: dict[str, Any] | None
    probe: dict[str, Any] | None
    expected: dict[str, Any]


def write_bundle(
    path: Path,
    evidence: Evidence,
    *,
    client: str,
    metrics: Mapping[str, bytes],
    logs: Mapping[str, bytes],
    redact_names: bool = False,
) -> None:
    """
    Write *evidence* to *path*.

    Args:
        path: The file; replaced where it exists.
        evidence: What was read.
        client: The version of the command.
        metrics: Each replica's metrics, by pod.
        logs: Each replica's last log lines, by pod.
        redact_names: Put a token in place of each name of a namespace, node, pod, Service or policy; the same token
            for the same name.

    Raises:
        OSError: The file can't be written.

    """
    files: dict[str, bytes] = {
        "doctor.json": msgspec.json.format(msgspec.json.encode(_meta(evidence, client)), indent=1),
        **{
            f"objects/{name}.json": msgspec.json.encode(
                {"apiVersion": "v1", "kind": "List", "items": [without_private(each) for each in found]}
            )
            for name, found in evidence.objects.items()
        },
        **{f"metrics/{name}.txt": text for name, text in metrics.items()},
        **{f"logs/{name}.log": text for name, text in logs.items()},
    }
    if redact_names:
        files = _redacted(files, _names(evidence))
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(files[name]), 0o600, int(evidence.at.timestamp())
            archive.addfile(member, io.BytesIO(files[name]))


def _meta(evidence: Evidence, client: str) -> _Meta:
    held, probe = evidence.certificates, evidence.probe
    return _Meta(
        version=VERSION,
        client=client,
        at=evidence.at,
        own_namespace=evidence.own_namespace,
        namespace=evidence.namespace,
        server_version=evidence.server_version,
        server_date=evidence.server_date,
        groups=sorted(evidence.groups),
        unread=dict(evidence.unread),
        certificates=None if held is None else msgspec.to_builtins(held),
        probe=None
        if probe is None
        else {
            **msgspec.to_builtins(probe),
            "pod": None if probe.pod is None else without_private(probe.pod),
        },
        expected=dict(evidence.expected),
    )


def without_private(value: Any) -> Any:
    """Return a document without environment values, arguments, commands and last-applied annotations."""
    if isinstance(value, Mapping):
        kept: dict[str, Any] = {}
        for key, each in value.items():
            if key in {"args", "command"} and isinstance(each, list):
                kept[key] = ["(left out)"] if each else []
            elif key == "env" and isinstance(each, list):
                kept[key] = [_variable(variable) for variable in each]
            elif key == "annotations" and isinstance(each, Mapping):
                kept[key] = {name: text for name, text in each.items() if name != _APPLIED}
            else:
                kept[key] = without_private(each)
        return kept
    return [without_private(each) for each in value] if isinstance(value, list) else value


def _variable(variable: Any) -> Any:
    if not isinstance(variable, Mapping) or variable.get("name") in _KEPT_ENV:
        return variable
    return {"name": variable.get("name"), "value": "(left out)"}


def _names(evidence: Evidence) -> set[str]:
    names = {
        str(part)
        for found in evidence.objects.values()
        for each in found
        for part in (metadata(each).get("name"), metadata(each).get("namespace"))
        if part
    }
    shipped = {wellknown.CONFIGURATION, evidence.own_namespace, "default"} | {
        each.configuration for each in evidence.snapshot.mesh.injectors
    }
    istios = {name for name in names if name.startswith(("istio-", "client-ip-"))}
    return names - _PUBLIC - shipped - istios


def _redacted(files: Mapping[str, bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Return *files* with a token for each name, wherever it stands as a whole word."""
    tokens = {name: f"name-{hashlib.sha256(name.encode()).hexdigest()[:8]}" for name in names}
    if not tokens:
        return dict(files)
    longest_first = sorted(tokens, key=len, reverse=True)
    word = re.compile(r"(?<![\w.-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-]|\.\w)")

    def replaced(text: str) -> str:
        return word.sub(lambda found: tokens[found[0]], text)

    return {
        "/".join(replaced(part) for part in name.split("/")) if not name.startswith("objects/") else name: replaced(
            content.decode(errors="replace")
        ).encode()
        for name, content in files.items()
    }


def read_bundle(path: Path) -> Evidence:
    """
    Return the evidence of a bundle.

    Raises:
        BundleInvalid: It is none, is of another version, or is too large.
        OSError: The file can't be read.

    """
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or not (member.name == "doctor.json" or member.name.startswith("objects/")):
                    continue
                left -= member.size
                if left < 0:
                    raise BundleInvalid(f"{path}: larger than {MAX_BYTES >> 20} MiB unpacked")
                files[member.name] = stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise BundleInvalid(f"{path}: not a bundle of client-ip doctor: {error}") from error
    try:
        meta = msgspec.json.decode(files["doctor.json"], type=_Meta)
        objects: dict[str, list[Document]] = {
            name.removeprefix("objects/").removesuffix(".json"): msgspec.json.decode(text)["items"]
            for name, text in files.items()
            if name.startswith("objects/")
        }
        certificates = None if meta.certificates is None else msgspec.convert(meta.certificates, Certificates)
        probe = None if meta.probe is None else msgspec.convert(meta.probe, Probe)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise BundleInvalid(f"{path}: not a bundle of client-ip doctor: {error}") from error
    if meta.version != VERSION:
        raise BundleInvalid(f"{path}: a bundle of version {meta.version}; this command reads {VERSION}")
    return Evidence(
        at=meta.at,
        own_namespace=meta.own_namespace,
        namespace=meta.namespace,
        server_version=meta.server_version,
        server_date=meta.server_date,
        groups=frozenset(meta.groups),
        objects=objects,
        unread=meta.unread,
        expected=meta.expected,
        certificates=certificates,
        probe=probe,
        snapshot=snapshot_of(objects, meta.own_namespace),
    )
