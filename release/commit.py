"""The commit that a release is made of: what is not committed is in none."""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.parts.cache import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit, and the second when it was made."""

    revision: str
    epoch: int

    def export(self, folder: Path) -> Path:
        """Write the commit's files below *folder*, which must not exist."""
        packed = subprocess.run(
            ["git", "archive", "--format=tar", self.revision], check=True, capture_output=True, cwd=ROOT
        ).stdout
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        return folder


def head() -> Commit:
    """Return the commit that is checked out."""
    said = subprocess.run(
        ["git", "log", "-1", "--format=%H %ct"], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    revision, epoch = said.split()
    return Commit(revision=revision, epoch=int(epoch))


def uncommitted() -> list[str]:
    """Return what differs from the commit; it will not be in the release."""
    said = subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return said.splitlines()
