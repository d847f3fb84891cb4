"""The real Helm, of each major version that users have."""

from pathlib import Path
from typing import Final

from tests.parts.build import binaries

VERSIONS: Final = ("4", "3")
"""The newest first; it is the one that is used where nobody asks for another."""

_used = VERSIONS[0]


def use(version: str) -> None:
    """Use another major version from now on, in the whole process."""
    global _used  # noqa: PLW0603  # a run is of one version, as pytest's option says
    _used = version


def helm_program(version: str | None = None) -> Path:
    """Return Helm's binary, of *version* or the one in use, after building it where it is missing."""
    return binaries(f"helm-{version or _used}")["helm"]
