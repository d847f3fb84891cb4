"""
What a file holds: text in whatever encoding, compressed, or in the files of an archive. All of it bounded.

Knows gzip, bzip2, xz, tar and zip by their first bytes, whatever the name: must-gather and support bundles are archives
of YAML and JSON files among logs.
"""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Final

from webhook.facts.problem import Problem

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
PACKED_SUFFIXES: Final = frozenset({".gz", ".tgz", ".bz2", ".xz", ".tar", ".zip"})
MAX_FILE_BYTES: Final = 512 << 20
"""Of one text, and of all the texts of an archive."""
MAX_ARCHIVE_BYTES: Final = 8 << 30
"""Of an archive, unpacked: what is passed over in it has to be unpacked as well."""
MAX_DEPTH: Final = 2
"""An archive in an archive is read; what is in that is not."""
_NAMED: Final = 5
"""Files that a remark names."""


class EncodingInvalid(ValueError):  # noqa: N818  # an error's noun
    """Bytes that are no text in an encoding that kubectl reads."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A text, where it comes from, and whether it comes from an archive."""

    name: str
    data: bytes
    packed: bool = False


@dataclass(slots=True)
class Archive:
    """What of an archive is not read, and how much still may be."""

    left: int = MAX_FILE_BYTES
    passed: int = 0
    """Files that are neither YAML nor JSON by their names."""
    unread: list[str] = field(default_factory=list)
    """Files that should be, and hold no Kubernetes objects."""

    def remarks(self, name: str) -> Iterator[str]:
        """Yield what there is to say of it."""
        if self.passed:
            yield f"{name}: {self.passed} files that are neither YAML nor JSON were skipped"
        if self.unread:
            more = f" and {len(self.unread) - _NAMED} more" if len(self.unread) > _NAMED else ""
            yield f"{name}: no Kubernetes objects in {', '.join(self.unread[:_NAMED])}{more}"


def is_readable(name: str) -> bool:
    """Return whether a file in a folder is read, by its name's suffix."""
    path = PurePosixPath(name.lower())
    if path.suffix in {".tgz", ".zip", ".tar"} or path.suffix in SUFFIXES:
        return True
    return path.suffix in PACKED_SUFFIXES and PurePosixPath(path.stem).suffix in {*SUFFIXES, ".tar"}


def unpack(name: str, data: bytes, archive: Archive, problems: list[Problem], depth: int = 0) -> Iterator[Unpacked]:
    """Yield the texts in *data*; what can't be unpacked is added to *problems*."""
    try:
        yield from _unpack(name, data, archive, problems, depth)
    except _TooLargeError as error:
        problems.append(Problem(file=name, message=f"larger than {error.limit >> 20} MiB when unpacked"))
    except Exception as error:  # noqa: BLE001  # a damaged header makes their readers raise nearly anything
        problems.append(Problem(file=name, message=f"cannot be unpacked: {error}"))


def _unpack(name: str, data: bytes, archive: Archive, problems: list[Problem], depth: int) -> Iterator[Unpacked]:
    for magic, what in _UNKNOWN:
        if data.startswith(magic):
            problems.append(Problem(file=name, message=f"{what}, which is not supported: unpack it first"))
            return
    if data.startswith(b"PK\x03\x04"):
        yield from _unzip(name, data, archive, problems, depth)
        return
    opened = _opened(data)
    if opened is None:
        if len(data) > MAX_FILE_BYTES:
            problems.append(Problem(file=name, message=f"larger than {MAX_FILE_BYTES >> 20} MiB"))
            return
        yield Unpacked(name, data, packed=depth > 0)
        return
    with opened:
        if is_tar(data) or is_tar(opened.read(tarfile.BLOCKSIZE)):
            opened.seek(0)
            yield from _untar(name, opened, archive, problems, depth)
            return
        opened.seek(0)
        text = _read_within(opened, archive)
    yield from unpack(name, text, archive, problems, depth) if is_tar(text) else (Unpacked(name, text, depth > 0),)


_UNKNOWN: Final = (
    (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)


class _TooLargeError(ValueError):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


def _opened(data: bytes) -> IO[bytes] | None:
    """Return what unpacks *data*, or None: it is not packed."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=io.BytesIO(data))  # type: ignore[return-value]  # its stub is no IO
    if data.startswith(b"BZh"):
        return bz2.BZ2File(io.BytesIO(data))
    if data.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(io.BytesIO(data))
    return io.BytesIO(data) if is_tar(data) else None


def is_tar(data: bytes) -> bool:
    """Return whether *data* begins as POSIX and GNU archives do."""
    return data[257:262] == b"ustar"


def _read_within(stream: IO[bytes], archive: Archive) -> bytes:
    """Return the rest of *stream*, of which no more is read than may be."""
    text = stream.read(archive.left + 1)
    archive.left -= len(text)
    if archive.left < 0:
        raise _TooLargeError(MAX_FILE_BYTES)
    return text


class _Bounded(io.RawIOBase):
    """A stream that ends in an error where it goes on for too long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_ARCHIVE_BYTES

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        text = self._stream.read(size)
        self._left -= len(text)
        if self._left < 0:
            raise _TooLargeError(MAX_ARCHIVE_BYTES)
        return text


def _untar(name: str, stream: IO[bytes], archive: Archive, problems: list[Problem], depth: int) -> Iterator[Unpacked]:
    with tarfile.open(fileobj=_Bounded(stream), mode="r|") as files:
        for member in files:
            content = files.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if not is_readable(member.name) or depth >= MAX_DEPTH:
                archive.passed += 1
                continue
            yield from unpack(f"{name}!{member.name}", _read_within(content, archive), archive, problems, depth + 1)


def _unzip(name: str, data: bytes, archive: Archive, problems: list[Problem], depth: int) -> Iterator[Unpacked]:
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        for member in files.infolist():
            if member.is_dir():
                continue
            if not is_readable(member.filename) or depth >= MAX_DEPTH:
                archive.passed += 1
                continue
            if member.flag_bits & 1:
                problems.append(Problem(file=f"{name}!{member.filename}", message="encrypted"))
                continue
            with files.open(member) as content:
                text = _read_within(content, archive)
            yield from unpack(f"{name}!{member.filename}", text, archive, problems, depth + 1)


def text_of(data: bytes) -> str:
    """
    Return *data* as text: UTF-8, or UTF-16 with a byte order mark, which is what kubectl reads.

    A mark may stand at the head of each file that was concatenated. A last line without an end gets one: kubectl reads
    line by line, and gives each its end.

    Raises:
        EncodingInvalid: It is neither.

    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise EncodingInvalid("UTF-32, which is not supported (nor by kubectl): use UTF-8")
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not marked and b"\x00" in data[:4]:
        raise EncodingInvalid("not UTF-8: it looks like UTF-16 without a byte order mark; use UTF-8")
    try:
        text = data.decode("utf-16" if marked else "utf-8")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if marked else "UTF-8"
        raise EncodingInvalid(f"not {kind}: {error.reason} at byte {error.start}") from error
    text = text.removeprefix("\ufeff").replace("\n\ufeff", "\n")
    return text if text.endswith("\n") or not text else text + "\n"
