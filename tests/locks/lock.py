"""
What a lock must name: each direct and transitive requirement, extras included, on every system that it is made for.

What a package requires is read from its installed metadata. `pip check` reads the same, but leaves out extras.
"""

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.parts.cache import ROOT

FOLDER: Final = ROOT / "requirements"
ENVIRONMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "run": ("build", "run"),
    "tracing": ("build", "run", "tracing"),
    "dev": ("build", "run", "tracing", "dev"),
    "bench": ("bench",),
    "browser": ("build", "run", "tracing", "dev", "browser"),
    "go": ("go",),
    "envoy": ("envoy",),
    "clients": ("clients",),
    "oldest-pip": ("oldest-pip",),
    "uv": ("uv",),
    "sbom": ("sbom",),
    "plot": ("plot",),
}
"""The locks that are installed together, by the name of the environment that they make."""
ARCHIVES: Final = frozenset({"clients"})
"""Environments of which nothing is imported: what their packages' metadata requires is left out."""
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS: Final[tuple[Mapping[str, str], ...]] = (
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
)

System: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of a lock."""

    requirement: Requirement
    hashes: int
    lock: str

    @property
    def version(self) -> str | None:
        """The one version that it allows; None where it allows several."""
        specifiers = list(self.requirement.specifier)
        return specifiers[0].version if len(specifiers) == 1 and specifiers[0].operator == "==" else None


def pins(lock: str, folder: Path = FOLDER) -> list[Pin]:
    """
    Return the lines of a lock.

    Raises:
        packaging.requirements.InvalidRequirement: A line is none, as `-r other.txt` or a URL without a name.

    """
    joined = (folder / f"{lock}.txt").read_text().replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text:
            requirement, *options = re.split(r"\s+--", text)
            hashes = sum(bool(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", each)) for each in options)
            found.append(Pin(Requirement(requirement), hashes, lock))
    return found


def asked(lock: str, folder: Path = FOLDER) -> list[Requirement]:
    """Return what a lock was made for: the lines of its `.in` file."""
    lines = (re.sub(r"#.*", "", line).strip() for line in (folder / f"{lock}.in").read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-c")]


def systems() -> Iterator[System]:
    """Yield the marker environments of each supported Python on each platform."""
    here = {key: str(value) for key, value in default_environment().items()}
    for python in PYTHONS:
        for platform in PLATFORMS:
            versions = {"python_version": python, "python_full_version": f"{python}.0"}
            yield {**here, **versions, **platform, "implementation_version": f"{python}.0"}


def installed(name: str) -> list[str] | None:
    """Return what the package *name* of this environment requires, None where it is not installed."""
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def faults(
    locks: Sequence[str], *, requires: Callable[[str], list[str] | None] = installed, folder: Path = FOLDER
) -> list[str]:
    """
    Return what is wrong with locks that are installed together, a sentence each.

    Args:
        locks: Their names.
        requires: The requirements of a package, None where nobody knows; those of other platforms are not installed.
        folder: Where they are.

    """
    lines = [pin for lock in locks for pin in pins(lock, folder)]
    found = [f"{each.lock}.txt: {each.requirement} is not pinned with ==" for each in lines if each.version is None]
    found += [f"{each.lock}.txt: {each.requirement} has no hash" for each in lines if not each.hashes]
    reached: set[str] = set()
    for system in systems():
        by_name: dict[str, Pin] = {}
        for pin in lines:
            if not _holds(pin.requirement, system, ()):
                continue
            first = by_name.setdefault(canonicalize_name(pin.requirement.name), pin)
            if first.version != pin.version:
                found.append(f"{first.lock}.txt and {pin.lock}.txt differ: {first.requirement}, {pin.requirement}")
        wanted = ((requirement, f"{lock}.in") for lock in locks for requirement in asked(lock, folder))
        found += _unmet(wanted, by_name, system, requires, reached)
    unused = {canonicalize_name(pin.requirement.name): pin for pin in lines if pin.requirement.marker is None}
    found += [
        f"{pin.lock}.txt: nothing requires {pin.requirement}" for name, pin in unused.items() if name not in reached
    ]
    return list(dict.fromkeys(found))


def _unmet(
    wanted: Iterable[tuple[Requirement, str]],
    by_name: Mapping[str, Pin],
    system: System,
    requires: Callable[[str], list[str] | None],
    reached: set[str],
) -> Iterator[str]:
    """Yield what one system would miss; add the names that it needs to *reached*."""
    waiting: list[tuple[Requirement, tuple[str, ...], str]] = [(requirement, (), who) for requirement, who in wanted]
    done: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        requirement, of_extras, who = waiting.pop()
        if not _holds(requirement, system, of_extras):
            continue
        name = canonicalize_name(requirement.name)
        reached.add(name)
        pin = by_name.get(name)
        if pin is None:
            where = f"Python {system['python_version']} on {system['sys_platform']}"
            yield f"{who} requires {requirement}, which no line names for {where}"
            continue
        if pin.version is not None and not requirement.specifier.contains(pin.version, prereleases=True):
            yield f"{who} requires {requirement}; {pin.lock}.txt has {pin.version}"
        if lost := requirement.extras - pin.requirement.extras:
            yield f"{who} requires {requirement}; {pin.lock}.txt names {name} without [{','.join(sorted(lost))}]"
        extras = tuple(sorted(requirement.extras | pin.requirement.extras))
        if (name, extras) not in done:
            done.add((name, extras))
            waiting += [(Requirement(each), extras, name) for each in requires(name) or ()]


def _holds(requirement: Requirement, system: System, extras: Sequence[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({**system, "extra": extra}) for extra in extras or ("",))
