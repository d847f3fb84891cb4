"""Archives that are the same, byte for byte, whenever they are made of the same files."""

import gzip
import io
import tarfile
from pathlib import Path


def normalised(archive: bytes, *, epoch: int) -> bytes:
    """
    Return a .tar.gz with the same files, but sorted, owned by nobody, and as old as *epoch* (Unix time, seconds).

    Who made it, when, and in which order the folder was read would otherwise stand in it.
    """
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as source:
        members = [(member, source.extractfile(member)) for member in source.getmembers()]
        files = {member.name: (member, file.read() if file is not None else b"") for member, file in members}
    return _packed(files, epoch)


def of_files(files: dict[str, tuple[bytes, int]], *, epoch: int) -> bytes:
    """Return a .tar.gz of *files*: content and mode by name."""
    entries = {}
    for name, (content, mode) in files.items():
        member = tarfile.TarInfo(name)
        member.mode, member.size = mode, len(content)
        entries[name] = (member, content)
    return _packed(entries, epoch)


def _packed(files: dict[str, tuple[tarfile.TarInfo, bytes]], epoch: int) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as target:
        for name in sorted(files):
            member, content = files[name]
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(member, io.BytesIO(content) if member.isreg() else None)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as zipped:
        zipped.write(tar.getvalue())
    return packed.getvalue()


def write(path: Path, content: bytes) -> Path:
    """Write *content* and return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
