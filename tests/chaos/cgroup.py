"""
Memory limits of containers, as the kubelet sets them: a cgroup for each, of version 2 or 1, whichever the machine has.

https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
PARENT: Final = "client-ip-chaos"
"""Only one chaos runs at a time: what a killed run left there is nobody's."""
GONE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Version:
    """How one version of cgroups calls things, and where its memory controller is."""

    root: Path
    limit: str
    events: str
    controllers: str = ""
    """The file that hands controllers on to what is below; there is none where all have them."""


VERSIONS: Final = (
    Version(CGROUPS, "memory.max", "memory.events", "cgroup.subtree_control"),
    Version(CGROUPS / "unified", "memory.max", "memory.events", "cgroup.subtree_control"),
    Version(CGROUPS / "memory", "memory.limit_in_bytes", "memory.oom_control"),
)


class NoCgroupsError(Exception):
    """This machine gives us no cgroup with a memory limit; the message says why."""


class Cgroup:
    """A memory limit, and what is in it."""

    def __init__(self, folder: Path, version: Version, limit_bytes: int) -> None:
        self._folder, self._version = folder, version
        self.limit_bytes = limit_bytes
        folder.mkdir()
        (folder / version.limit).write_text(str(limit_bytes))

    def prefix(self, oom_score_adj: int) -> tuple[str, ...]:
        """Return the beginning of a command that is to run in it; the id stays the same."""
        script = f'echo 0 > "$0" && echo {oom_score_adj} > /proc/self/oom_score_adj && exec "$@"'
        return ("sh", "-c", script, str(self._folder / "cgroup.procs"))

    @property
    def kills(self) -> int:
        """How many processes the kernel has ended for their memory."""
        lines = (self._folder / self._version.events).read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        """Remove it; its processes have ended, or end now."""
        _remove(self._folder)


class Cgroups:
    """
    Where the cgroups of a run are.

    Raises:
        NoCgroupsError: There can be none here.

    """

    def __init__(self) -> None:
        refused = []
        for version in VERSIONS:
            try:
                self._folder = _parent(version)
            except OSError as error:
                refused.append(f"{version.root}: {error}")
                continue
            self._version = version
            return
        raise NoCgroupsError("; ".join(refused))

    def make(self, name: str, limit_bytes: int) -> Cgroup:
        """Make one."""
        return Cgroup(self._folder / name, self._version, limit_bytes)

    def close(self) -> None:
        """Remove all of them."""
        for each in self._folder.iterdir():
            if each.is_dir():
                _remove(each)
        _remove(self._folder)


def _parent(version: Version) -> Path:
    """Make the folder for all; raises OSError where limits can't be set in it."""
    folder = version.root / PARENT
    if version.controllers:
        # Else there is a folder alone, in which files of any name can be made.
        (version.root / "cgroup.controllers").stat()
    if folder.exists():
        for each in folder.iterdir():
            if each.is_dir():
                _remove(each)
    elif version.controllers:
        (version.root / version.controllers).write_text("+memory")
        folder.mkdir()
    else:
        (version.root / version.limit).stat()
        folder.mkdir()
    try:
        if version.controllers:
            (folder / version.controllers).write_text("+memory")
        trial = Cgroup(folder / "trial", version, 64 << 20)
        trial.remove()
    except OSError:
        _remove(folder)
        raise
    return folder


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:  # a process that ended is there until its last page is gone
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def cgroups() -> Iterator[Cgroups | str]:
    """Yield where cgroups can be made, or why none can be."""
    try:
        made = Cgroups()
    except NoCgroupsError as error:
        yield str(error)
        return
    try:
        yield made
    finally:
        made.close()


UNITS: Final[Mapping[str, int]] = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def quantity(text: str) -> int:
    """Return the bytes of a quantity such as 256Mi."""
    unit = text[-2:]
    return int(text[:-2]) * UNITS[unit] if unit in UNITS else int(text)
