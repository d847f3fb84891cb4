"""
Compiles Go programs with a build cache and a module cache of our own.

A compilation of Kubernetes leaves gigabytes in both. The user's own, in his home, are neither read nor written; ours
lie in `GO` of the cache folder while something is built, so that programs which are built together compile a shared
package once, and are removed when the binaries are there. What a killed build left is used and removed by the next.
"""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tests.parts.progress import Steps

FOLDER: Final = "go"
BUILD: Final = ("-trimpath", "-mod=readonly")
FAST: Final[tuple[str, ...]] = ()
"""Compiled as anybody would: programs whose speed is measured."""
CHEAP: Final = ("-gcflags=all=-l -dwarf=false", "-gcflags=std=-dwarf=false")
"""
Compiled in two thirds of the time: nothing is inlined but in the standard library, and there is nothing for debuggers.

Of k8s.io/kubernetes/pkg/apis/core/validation it is 2.2 s instead of 5.7 s, of k8s.io/api/core/v1 8 s instead of 11 s.
"""
COLLECTOR: Final = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
"""
For the compiler itself, which lives a second and has its memory collected in vain: of its time, a tenth.

A process that needs more than that collects; of Kubernetes' packages, a few do.
"""
DOWNLOADING: Final = "go: downloading "


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The Go command and the caches that builds share."""

    go: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """Return what the Go command is run with."""
        return {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
            "GOFLAGS": "-buildvcs=false -modcacherw",
            "GOCACHE": str(self.folder / "build"),
            "GOMODCACHE": str(self.folder / "modules"),
            "GOTMPDIR": str(self.folder / "tmp"),
            **apart(self.folder),
            **COLLECTOR,
        }

    def compile(
        self, module: Path, packages: Mapping[Path, str], *, ldflags: str, flags: Sequence[str], steps: Steps
    ) -> None:
        """
        Build programs of one module, all by one command.

        Args:
            module: The module's folder.
            packages: Package by binary; one is there whole or not at all.
            ldflags: For the linker.
            flags: For the compiler: `CHEAP` or `FAST`, and tags.
            steps: Are told how far it is.

        Raises:
            subprocess.CalledProcessError: The compiler refused; it has said why.

        """
        stale = self._stale(module, tuple(packages.values()), flags, steps)
        steps.begin("compiling", "packages", len(stale))
        made = self.folder / "made"  # in the same file system as the binaries, which are moved
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        command = ("build", "-v", *BUILD, *flags, "-ldflags", ldflags, "-o", f"{made}/", *packages.values())
        self._run(module, command, lambda line: line in stale, steps)
        for binary, package in packages.items():
            binary.parent.mkdir(parents=True, exist_ok=True)
            (made / _program(package)).rename(binary)

    def download(self, module: Path, path: str, steps: Steps) -> Path:
        """Return where the source of the module *path* is, of the version that the one in *module* requires."""
        steps.begin(f"downloading {path}", "modules", 1)
        told: dict[str, Any] = json.loads(self._output(module, ("mod", "download", "-json", path), steps))
        return Path(told["Dir"])

    def _stale(self, module: Path, packages: Sequence[str], flags: Sequence[str], steps: Steps) -> set[str]:
        """Return the packages that have to be compiled, after downloading what they are in."""
        sums = (module / "go.sum").read_text().splitlines()
        steps.begin("downloading", "modules at most", sum(1 for line in sums if "/go.mod " not in line))
        listed = ("list", "-deps", *BUILD, *flags, "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *packages)
        return set(self._output(module, listed, steps).split())

    def _output(self, module: Path, command: Sequence[str], steps: Steps) -> str:
        with (self.folder / "output").open("w+") as output:
            self._run(module, command, lambda line: line.startswith(DOWNLOADING), steps, stdout=output)
            output.seek(0)
            return output.read()

    def _run(
        self,
        module: Path,
        command: Sequence[str],
        counts: Callable[[str], bool],
        steps: Steps,
        stdout: IO[str] | None = None,
    ) -> None:
        """Run Go; each line of its standard error that *counts* advances the steps, the others are shown."""
        process = subprocess.Popen(
            [self.go, *command],
            cwd=module,
            env=self.environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert process.stderr is not None
        reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
        reader.start()
        try:
            while (line := _next(lines)) is not None:
                if not line:
                    steps.tick()
                elif counts(line):
                    steps.advance()
                elif not line.startswith(DOWNLOADING):
                    steps.say(line)
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            reader.join()
            process.stderr.close()
        if code != 0:
            raise subprocess.CalledProcessError(code, [self.go, *command])


def apart(folder: Path) -> dict[str, str]:
    """
    Return what has Go count nothing about itself, which it would do in the user's home, where his settings are.

    It is told so in *folder*, where it looks for its telemetry's mode: https://go.dev/doc/telemetry
    """
    mode = folder / "config" / "go" / "telemetry" / "mode"
    mode.parent.mkdir(parents=True, exist_ok=True)
    mode.write_text("off")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {"XDG_CONFIG_HOME": str(folder / "config"), "GOENV": os.environ.get("GOENV") or str(home / "go" / "env")}


@contextlib.contextmanager
def workspace(go: str, cache: Path) -> Iterator[Workspace]:
    """
    Yield the caches that builds share; they are removed at the end of the block, and kept if it fails.

    The caller holds the lock of the cache folder.
    """
    folder = cache / FOLDER
    for name in ("build", "modules", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    yield Workspace(go=go, folder=folder)
    shutil.rmtree(folder)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line.rstrip())
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None]) -> str | None:
    """Return the next line, "" after a second without one, None at the end."""
    try:
        return lines.get(timeout=1)
    except queue.Empty:
        return ""


def _program(package: str) -> str:
    """Return how Go names the program of *package*: by its last element that is no major version."""
    *parents, last = package.split("/")
    return parents[-1] if parents and last.startswith("v") and last[1:].isdigit() else last
