"""The bill of materials of the image (CycloneDX), read from an environment that holds its locks and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.parts.wheels import PIP_INSTALL, wheels

LOCKS: Final = ("run", "tracing")
"""What the Dockerfile installs: the program, and its extra for traces."""


def write_bill(sources: Path, work: Path, bill: Path) -> Path:
    """
    Install the locks of what runs below *work*, write its bill of materials to *bill*, and return that path.

    Raises:
        subprocess.CalledProcessError: pip or cyclonedx-py refused.

    """
    environment = work / "run"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip, *install = PIP_INSTALL[1:]
    locks = [option for lock in LOCKS for option in ("-r", str(sources / "requirements" / f"{lock}.txt"))]
    subprocess.run([sys.executable, "-m", pip, "--python", str(python), *install, *locks], check=True)
    # Not by PYTHONPATH: the environment's own Python would inherit it, and list what reads it as well.
    program = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        "runpy.run_module('cyclonedx_py', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program, str(wheels("sbom"))]
    command += ["environment", "--gather-license-texts", "--output-reproducible", "--output-format", "JSON"]
    command += ["--pyproject", str(sources / "pyproject.toml"), "--mc-type", "application"]
    subprocess.run([*command, "--output-file", str(bill), str(python)], check=True, capture_output=True)
    return bill
