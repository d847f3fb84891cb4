"""The bill of materials of what runs (CycloneDX), read from an environment that holds the lock and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

from tests.parts.build import PIP_INSTALL, wheels


def write_bill(sources: Path, work: Path, bill: Path) -> Path:
    """
    Install the lock of what runs below *work*, write its bill of materials to *bill*, and return that path.

    Raises:
        subprocess.CalledProcessError: pip or cyclonedx-py refused.

    """
    environment = work / "run"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip, *install = PIP_INSTALL[1:]
    lock = sources / "requirements" / "run.txt"
    subprocess.run([sys.executable, "-m", pip, "--python", str(python), *install, "-r", str(lock)], check=True)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-format", "JSON"]
    command += ["--pyproject", str(sources / "pyproject.toml"), "--mc-type", "application"]
    subprocess.run(
        [*command, "--output-file", str(bill), str(python)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(wheels("sbom"))},
    )
    return bill
