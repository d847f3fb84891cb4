"""
Real processes under test: started with a log file, stopped by their own process id, waited for with a bound.

Knows nothing of what runs in them. Ports are reserved here too, since only a started process can prove one free.
"""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from tests.parts.cache import cache

T = TypeVar("T")

TAIL_LINES: Final = 25
PORTS: Final = range(20000, 30000)
"""Below what Linux gives to outgoing connections (32768) and to NodePorts (30000): only listeners take these."""


class ProcessError(RuntimeError):
    """A process that ended, or did not get where it was awaited; the message ends with its last log lines."""


class Process:
    """
    One command, with its output in a file.

    A context manager that starts and stops it; `stop` and `start` again is a restart with the same command.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        netns: str | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """
        Describe the process without starting it.

        Args:
            name: What messages call it.
            argv: The command, unshelled.
            log: Where its output goes; a restart appends.
            netns: A network namespace to run in (`ip netns exec` becomes the command, so the id stays the same).
            environment: Added to this process's environment.
            folder: Its working directory.

        """
        self.name = name
        self.argv = [*(("ip", "netns", "exec", netns) if netns else ()), *map(str, argv)]
        self.log = log
        self._environment = {**os.environ, **(environment or {})}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._process is None:
            raise ProcessError(f"{self.name} is not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or where it never ran."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; a session of its own keeps a terminal's Ctrl-C from it, so that it ends in order."""
        if self.running:
            raise ProcessError(f"{self.name} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """
        Wait for its end and return the exit code.

        Raises:
            ProcessError: It still runs after *seconds*.

        """
        if self._process is None:
            raise ProcessError(f"{self.name} is not started")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} still runs after {seconds:g} s\n{self.tail()}") from None

    def stop(self, grace_seconds: float = 15) -> int | None:
        """Ask it to end (SIGTERM), then end it and what it started (SIGKILL); return the exit code."""
        if self._process is None:
            return None
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                return self.kill()
        return self._process.returncode

    def kill(self) -> int | None:
        """End it and what it started without warning, as a crash or the kernel would."""
        if self._process is None:
            return None
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_until(
        self,
        reached: Callable[[], T | None],
        *,
        what: str,
        seconds: float = 60,
        passing: tuple[type[Exception], ...] = (OSError,),
    ) -> T:
        """Wait as the function of that name does, and no longer than the process lives."""
        return wait_until(reached, what=what, seconds=seconds, passing=passing, processes=(self,))


def wait_until(
    reached: Callable[[], T | None],
    *,
    what: str,
    seconds: float = 30,
    interval_seconds: float = 0.05,
    passing: tuple[type[Exception], ...] = (),
    processes: Sequence[Process] = (),
) -> T:
    """
    Return the first true value of *reached*, asked again and again.

    Args:
        what: What is awaited, for the message: "waited 30 s for <what>".
        passing: Errors that only mean "not yet".
        processes: Whose end makes waiting pointless, and whose logs the message shows.

    Raises:
        ProcessError: It did not come in time, or one of *processes* ended.

    """
    end = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            value = reached()
        except passing as error:
            last = error
        else:
            if value:
                return value
            last = value
        for process in processes:
            if not process.running:
                raise ProcessError(
                    f"{process.name} ended with {process.exit_code} before {what}\n{process.tail()}",
                )
        if time.monotonic() >= end:
            logs = "".join(f"\n--- {process.name}\n{process.tail()}" for process in processes)
            raise ProcessError(f"waited {seconds:g} s for {what}; last: {last!r}{logs}")
        time.sleep(interval_seconds)


class Ports:
    """
    Loopback ports that no other run of these tests takes, until `close`.

    A port that is merely found free can be taken before its server listens. Here each is held by a lock on a file,
    from before the server starts until after it ended, and lies where the kernel never puts an outgoing connection.
    """

    def __init__(self) -> None:
        self._locks: list[int] = []

    def take(self) -> int:
        """Return a port that is reserved and free now."""
        folder = cache() / "ports"
        folder.mkdir(parents=True, exist_ok=True)
        for port in random.sample(PORTS, len(PORTS)):
            lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            if _is_free(port):
                self._locks.append(lock)
                return port
            os.close(lock)
        raise ProcessError(f"no port is free between {PORTS.start} and {PORTS.stop}")

    def close(self) -> None:
        """Give the ports back."""
        while self._locks:
            os.close(self._locks.pop())


@contextlib.contextmanager
def ports() -> Iterator[Ports]:
    """Reserve ports for as long as the context lasts."""
    taken = Ports()
    try:
        yield taken
    finally:
        taken.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
