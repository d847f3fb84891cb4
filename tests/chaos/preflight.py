"""What the lab needs of a machine, asked before anything starts: whatever is missing is named, nothing is skipped."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

COMMANDS: Final = {"ip": "iproute2", "mount": "mount", "unshare": "util-linux"}
"""Debian's package by command; `packages.txt` lists the packages."""
LIBRARIES: Final = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"))
FAKETIME: Final = "faketime/libfaketime.so.1"
GNU: Final = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
TRIAL: Final = "ip link set lo up && ip address add 10.231.0.1/32 dev lo && mount -t tmpfs chaos /run"


def namespaces() -> tuple[str, ...]:
    """
    Return the command that runs another in namespaces of its own: network, mounts and processes.

    The kernel ends everything inside when the first process there ends, and undoes every mount and address: whatever
    happens to a run, nothing of it is left. Who is not root becomes root in a user namespace, where the kernel allows.
    """
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return ("unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child")


def faketime() -> Path | None:
    """Return the library that moves a process' clock, None where it is not installed."""
    folders = [folder / GNU.get(os.uname().machine, "") for folder in LIBRARIES]
    found = [folder / FAKETIME for folder in (*folders, *LIBRARIES) if (folder / FAKETIME).exists()]
    return found[0] if found else None


def missing() -> list[str]:
    """Return what this machine lacks, a sentence each."""
    if sys.platform != "linux":
        return ["this is not Linux"]
    absent = {package: f"the command {name}" for name, package in COMMANDS.items() if shutil.which(name) is None}
    if faketime() is None:
        absent["libfaketime"] = f"the library {FAKETIME}"
    if absent:
        return [*absent.values(), f"install them: apt-get install {' '.join(sorted(absent))}"]
    refused = _said((*namespaces(), "sh", "-c", TRIAL))
    if refused is None:
        return []
    who = "root" if os.geteuid() == 0 else "an unprivileged user (sudo make chaos, or allow user namespaces)"
    return [f"network, mount and process namespaces for {who}: {refused}"]


def _said(command: Sequence[str]) -> str | None:
    """Return what a command that failed had to say, None where it did not fail."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
