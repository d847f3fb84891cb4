"""
How much memory this process may have: what its container's cgroup says.

https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
"""

from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
UNLIMITED_BYTES: Final = 1 << 60
"""Version 1 writes the largest multiple of a page where there is no limit."""


def limit_bytes(*, membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int | None:
    """
    Return the least memory limit of the cgroup that this process is in and of those above it; None where there is none.

    In a container the cgroup that `/proc` names may lie outside of what is mounted: then what is mounted is its own.
    """
    found = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _limits(cgroups, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(cgroups / "memory", path, "memory.limit_in_bytes")
    return min(found, default=None)


def _limits(mounted: Path, path: str, name: str) -> list[int]:
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    folders = [mounted.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [limit for folder in folders if (limit := _limit(folder / name)) is not None]


def _limit(file: Path) -> int | None:
    for line in _lines(file):
        if line.isdigit() and int(line) < UNLIMITED_BYTES:
            return int(line)
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
