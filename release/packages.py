"""The wheel and the sdist, by setuptools' own build backend and without isolation: what builds them is locked."""

import os
import subprocess
import sys
from pathlib import Path

from release.archive import normalised, write


def build(sources: Path, out: Path, *, epoch: int) -> tuple[Path, Path]:
    """
    Build the wheel and the sdist of *sources* into *out*, and return their paths.

    Raises:
        subprocess.CalledProcessError: The backend refused.

    """
    out.mkdir(parents=True, exist_ok=True)
    sdist = out / _hook(sources, "build_sdist", out, epoch)
    write(sdist, normalised(sdist.read_bytes(), epoch=epoch))
    return out / _hook(sources, "build_wheel", out, epoch), sdist


def _hook(sources: Path, name: str, out: Path, epoch: int) -> str:
    program = f"import setuptools.build_meta as b; print('made', b.{name}({str(out.resolve())!r}))"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=sources, env=environment
    )
    return done.stdout.splitlines()[-1].removeprefix("made ")
