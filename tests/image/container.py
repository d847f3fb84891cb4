"""Runs the image as a kubelet would run the chart's pod: its own user, a root that can't be written, no capability."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

USER: Final = 65532
START_SECONDS: Final = 30.0
PREPARE: Final = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=1777 tmp "$ROOT/tmp"
mount --bind "$STATE" "$ROOT/mnt"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec=65532:65532 --groups=65532 "$ROOT" /usr/bin/env -i "$@"
"""
"""Mounts in a namespace of its own, which are gone with it."""


class Container:
    """One container; a context manager."""

    def __init__(
        self, root: Path, config: Mapping[str, Any], arguments: Sequence[str], *, state: Path, log: Path
    ) -> None:
        self.root = root
        self.log = log
        command = [*config["Env"], *config["Entrypoint"], *arguments]
        self.started = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", PREPARE, "sh", *command],
                env={"PATH": os.environ["PATH"], "ROOT": str(root), "STATE": str(state)},
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        """The container's first process, as this machine counts."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return where it answers reviews, and probes; waits until it says so."""
        pattern = re.compile(r"https://([^/:]+):(\d+)/mutate, probes and metrics on http://([^/:]+):(\d+)")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = pattern.search(self.log.read_text())
            if found is not None:
                host, port, probe_host, probe_port = found.groups()
                return (host, int(port)), (probe_host, int(probe_port))
            time.sleep(0.01)
        raise AssertionError(f"it did not start:\n{self.log.read_text()}")

    def terminate(self) -> int:
        """Send SIGTERM to the first process and return how it ended."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(30)
