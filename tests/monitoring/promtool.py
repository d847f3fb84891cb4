"""promtool, built from Prometheus' own module."""

import subprocess
from pathlib import Path

from tests.parts.build import binaries


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Run promtool; return its exit status and all that it printed."""
    command = [str(binaries("prometheus")["promtool"]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
