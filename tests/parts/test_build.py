"""Programs are built in caches of our own, once, and what a build says is passed on."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.parts import helm
from tests.parts.build import PARTS, Part, binaries, build, go_command
from tests.parts.cache import ROOT

GOOD = 'package main\n\nfunc main() { println("built") }\n'
BAD = "package main\n\nfunc main() { println(undefined) }\n"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own caches, which Go uses where nobody tells it otherwise."""
    folder = tmp_path / "users"
    # Where there is no Go on PATH, ours lies in the cache folder, which is another one here.
    monkeypatch.setenv("PATH", f"{Path(go_command('kube-1.37')).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("GOCACHE", "GOMODCACHE", "GOPATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv("CLIENT_IP_CACHE", str(tmp_path / "cache"))
    return folder


def module(folder: Path, **mains: str) -> Part:
    """Write a module of small programs."""
    for name, text in mains.items():
        (folder / "cmd" / name).mkdir(parents=True)
        (folder / "cmd" / name / "main.go").write_text(text)
    (folder / "go.mod").write_text("module example.org/small\n\ngo 1.26\n")
    (folder / "go.sum").touch()
    packages = {f"the-{name}": f"./cmd/{name}" for name in mains}
    return Part(name="small", module=str(folder), packages=packages, sources=("go.mod", "cmd/*/*.go"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_build_leaves_binaries_and_nothing_else(
    tmp_path: Path, users: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    part = module(tmp_path / "module", one=GOOD, two=BAD)
    with pytest.raises(subprocess.CalledProcessError):
        build([part])
    assert "undefined: undefined" in capfd.readouterr().err
    # What was compiled is used by the next try, and removed after it.
    assert (tmp_path / "cache" / "go" / "build").exists()

    (tmp_path / "module" / "cmd" / "two" / "main.go").write_text(GOOD)
    [folder] = build([part])
    for name in part.packages:
        done = subprocess.run([folder / name], capture_output=True, text=True, check=True)
        assert done.stderr == "built\n"
    said = capfd.readouterr().err
    assert "small: compiling, 0 of " in said
    assert "built small in " in said
    assert names(tmp_path / "cache") == ["bin", "build.lock"]
    assert names(folder) == ["the-one", "the-two"]
    assert not users.exists()

    assert build([part]) == [folder]
    assert capfd.readouterr().err == ""


def test_make_builds_what_its_suites_need() -> None:
    """Else a part is compiled in the middle of a test, with Go's caches empty once more."""
    text = (ROOT / "Makefile").read_text()
    line = " ".join(re.findall(r"^(?:PARTS|SLOW|REST) := (.*)$", text, re.MULTILINE))
    sources = [path for name in ("parts", "deploy", "apiserver") for path in (ROOT / "tests" / name).glob("*.py")]
    used = {name for path in sources for name in re.findall(r'binaries\("([\w.-]+)"\)', path.read_text())}
    used |= {f"helm-{version}" for version in helm.VERSIONS}
    assert {"kube-1.37", "kubectl-1.37", "filters-1.37"} <= used - {"kube-node-1.37"} <= set(line.split())


def said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_programs_from_a_wheel_are_of_the_versions_that_their_parts_name() -> None:
    kubectl = binaries("kubectl-1.37")["kubectl"]
    assert json.loads(said(kubectl, "version", "--client", "-o", "json"))["clientVersion"]["gitVersion"][:6] == "v1.37."
    assert said(binaries("helm-4")["helm"], "version", "--template", "{{.Version}}").startswith("v4.")


@pytest.mark.parametrize("name", ["kubectl-1.37", "helm-4"])
def test_a_machine_that_a_wheel_is_not_for_builds_its_programs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert PARTS[name].comes_packed
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not PARTS[name].comes_packed
