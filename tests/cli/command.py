"""`client-ip` as a user runs it: a process of its own, with what it printed and how it ended."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CLUSTER: Final = "examples/cluster"
APPS: Final = "examples/apps"
BIN: Final = Path(sys.executable).parent


def run(
    *arguments: str,
    given: str = "",
    environment: Mapping[str, str] | None = None,
    program: str = "client-ip",
    code: int = 0,
) -> subprocess.CompletedProcess[str]:
    """
    Run the command in the checkout, and assert how it ends.

    Nothing of the user's own reaches it: no kubeconfig, no options from the environment.
    """
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("CLIENT_IP_", "KUBE", "_CLIENT_IP"))
    }
    done = subprocess.run(
        [BIN / program, *arguments],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**clean, "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config", **(environment or {})},
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done
