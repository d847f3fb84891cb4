"""
`python -m tests.chaos [PYTEST ARGUMENTS]`: the suite in namespaces of its own.

A launcher: it asks for what is missing, builds the parts, and starts pytest as the first process of new namespaces.
However it or pytest ends, by itself, by SIGINT, SIGTERM or SIGKILL, the kernel ends all processes in there.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from tests.chaos.preflight import missing, namespaces
from tests.parts.build import binaries
from tests.parts.cache import ROOT, cache

PARTS: Final = ("kube-1.37", "kubectl-1.37", "helm-4", "prometheus")
INSIDE: Final = "CLIENT_IP_CHAOS_INSIDE"
"""Tells the suite that it is where it may change addresses and mounts."""
PR_SET_PDEATHSIG: Final = 1
GRACE_SECONDS: Final = 30.0


def main() -> int:
    """Run the suite and return pytest's exit code."""
    lacking = missing()
    for line in lacking:
        print(f"make chaos lacks {line}", file=sys.stderr)
    if lacking:
        return 1
    for part in PARTS:
        binaries(part)
    with (cache() / "chaos.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make chaos runs: two would take each other's CPU, and figures would lie", file=sys.stderr)
            return 1
        return _run(sys.argv[1:])


def _run(arguments: list[str]) -> int:
    folder = str(Path(__file__).parent.relative_to(ROOT))
    chosen = arguments if any(each.startswith(folder) for each in arguments) else [*arguments, folder]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen]
    outer = subprocess.Popen(
        [*namespaces(), *pytest],
        cwd=ROOT,
        env={**os.environ, INSIDE: "1"},
        start_new_session=True,  # the terminal's Ctrl-C comes to the launcher alone, which passes it on once
        preexec_fn=_die_with_the_launcher,  # noqa: PLW1509  # there are no threads here
    )

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        for process in _children(outer.pid):
            os.kill(process, signal.SIGINT)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: outer.kill())
    return outer.wait()


def _die_with_the_launcher() -> None:
    """`unshare --kill-child` ends what it started when it ends itself; so it must not outlive us."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
