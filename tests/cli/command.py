"""`client-ip` as a user runs it: a process of its own, with what it printed and how it ended; and in this one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from unittest.mock import patch

from click.testing import CliRunner

from webhook.cli.main import client_ip
from webhook.facts import credentials

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


def call(*arguments: str, given: str = "") -> str:
    """
    Return what the command prints to its output, here in this process: for hundreds of calls, seconds less for each.

    Paths are those of this process, and credentials are read in it too; it must end well.
    """
    nothing = dict.fromkeys(name for name in os.environ if name.startswith(("CLIENT_IP_", "KUBE", "_CLIENT_IP")))
    with patch("webhook.facts.access._read_apart", credentials.read):
        done = CliRunner(env=nothing).invoke(client_ip, arguments, input=given, catch_exceptions=False)
    assert done.exit_code == 0, f"exit {done.exit_code}\n{done.output}"
    return done.stdout
