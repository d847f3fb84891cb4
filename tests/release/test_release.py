"""What `make release` makes can be made again to the byte, installed where nothing else is, and believed."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import webhook
from release.__main__ import SUMS, make
from release.bill import LOCKS
from release.chart import KINDS, changes
from release.commit import head
from tests.locks.lock import pins
from tests.parts.cache import ROOT
from tests.parts.wheels import PIP_INSTALL
from webhook.rules.policy_document import read_policy

URL: Final = "https://example.com/releases"
SOURCE: Final = "https://example.com/client-ip-webhook"
VERSION: Final = webhook.__version__


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "dist"
    make(head(), out, url=URL, source=SOURCE)
    return out


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_second_release_of_the_commit_is_the_same_to_the_byte(first: Path, tmp_path: Path) -> None:
    make(head(), tmp_path / "dist", url=URL, source=SOURCE)
    assert (tmp_path / "dist" / SUMS).read_text() == (first / SUMS).read_text()


def test_the_checksums_are_those_of_the_files_and_of_all_of_them(first: Path) -> None:
    lines = {line.split("  ")[1]: line.split("  ")[0] for line in (first / SUMS).read_text().splitlines()}
    assert set(lines) == {path.name for path in first.iterdir()} - {SUMS}
    for name, digest in lines.items():
        assert hashlib.sha256((first / name).read_bytes()).hexdigest() == digest


def test_the_wheel_runs_where_nothing_else_is_installed(first: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = bare / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), *PIP_INSTALL[2:]]
    subprocess.run([*install, "-r", str(ROOT / "requirements" / "run.txt")], check=True)
    wheel = only(first, "*.whl")
    offline = [each for each in install if each != "--require-hashes"]
    subprocess.run([*offline, "--no-index", str(wheel)], check=True)
    environment = {"PATH": f"{bare / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
        return done.stdout

    assert VERSION in run("client-ip", "--version")
    assert "tproxy" in run("kubectl-client_ip", "check", "--state", *map(str, EXAMPLES))
    assert "/" in run(str(python), "-c", "import webhook; print(webhook.__file__)").replace(str(ROOT), "")


EXAMPLES: Final = (ROOT / "examples" / "cluster", ROOT / "examples" / "apps")


def test_the_wheel_holds_the_packages_and_no_tests(first: Path) -> None:
    names = zipfile.ZipFile(only(first, "*.whl")).namelist()
    tops = {name.split("/", 1)[0] for name in names}
    assert tops == {"webhook", "certs", f"client_ip_webhook-{VERSION}.dist-info"}
    assert "webhook/cli/crd.yaml" in names


def test_the_sdist_builds_the_same_wheel(first: Path, tmp_path: Path) -> None:
    with tarfile.open(only(first, "client_ip_webhook-*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    (sources,) = tmp_path.iterdir()
    program = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(head().epoch)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=sources, env=environment, capture_output=True)
    made = zipfile.ZipFile(only(tmp_path, "*.whl"))
    released = zipfile.ZipFile(only(first, "*.whl"))
    assert {name: made.read(name) for name in made.namelist()} == {
        name: released.read(name) for name in released.namelist()
    }


def test_the_bill_of_materials_names_the_images_locks_and_nothing_else_with_licences(first: Path) -> None:
    bill = json.loads((first / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "client-ip-webhook"
    named = {(each["name"].lower().replace("_", "-"), each["version"]): each for each in bill["components"]}
    locked = {
        (pin.requirement.name.lower().replace("_", "-"), pin.version)
        for lock in LOCKS
        for pin in pins(lock)
        if pin.requirement.marker is None or pin.requirement.marker.evaluate()
    }
    assert set(named) == locked
    assert not [name for name, each in named.items() if not each.get("licenses")]


@pytest.fixture(scope="module")
def chart(first: Path) -> dict[str, Any]:
    with tarfile.open(only(first, "client-ip-webhook-*.tgz")) as archive:
        file = archive.extractfile("client-ip-webhook/Chart.yaml")
        assert file is not None
        read: dict[str, Any] = yaml.safe_load(file.read())
    return read


def test_the_chart_says_what_has_changed_as_the_changelog_does(chart: dict[str, Any]) -> None:
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    said = yaml.safe_load(chart["annotations"]["artifacthub.io/changes"])
    assert said == changes((ROOT / "CHANGELOG.md").read_text(), VERSION)
    assert said
    assert {each["kind"] for each in said} <= set(KINDS.values())


def test_the_chart_names_the_crd_with_an_example_that_is_valid(chart: dict[str, Any]) -> None:
    crd = yaml.safe_load((ROOT / "webhook" / "cli" / "crd.yaml").read_text())
    (described,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    assert described["name"] == crd["metadata"]["name"]
    assert described["kind"] == crd["spec"]["names"]["kind"]
    assert described["version"] in {each["name"] for each in crd["spec"]["versions"]}
    (example,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])
    assert example["kind"] == described["kind"]
    assert read_policy(example) is not None


def test_an_undated_version_is_no_release() -> None:
    with pytest.raises(KeyError, match="no dated section"):
        changes("# Changelog\n\n## [Unreleased]\n\n## [9.9.9]\n\n### Added\n- x\n", "9.9.9")


def test_the_krew_manifest_points_to_the_launcher(first: Path) -> None:
    manifest = yaml.safe_load((first / "client-ip.yaml").read_text())
    archived = only(first, "kubectl-client_ip-*.tar.gz")
    assert manifest["spec"]["version"] == f"v{VERSION}"
    for platform in manifest["spec"]["platforms"]:
        assert platform["uri"] == f"{URL}/{archived.name}"
        assert platform["sha256"] == hashlib.sha256(archived.read_bytes()).hexdigest()
    with tarfile.open(archived) as archive:
        assert sorted(archive.getnames()) == ["LICENSE", "kubectl-client_ip"]
        assert archive.getmember("kubectl-client_ip").mode == 0o755


def test_the_launcher_runs_the_command_or_says_how_to_install_it(first: Path, tmp_path: Path) -> None:
    with tarfile.open(only(first, "kubectl-client_ip-*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    launcher = str(tmp_path / "kubectl-client_ip")
    bare = {"PATH": "/usr/bin:/bin"}
    said = subprocess.run([launcher, "check"], capture_output=True, text=True, check=False, env=bare)
    assert said.returncode == 127
    assert "pipx install client-ip-webhook" in said.stderr
    with_command = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=True, env=with_command)
    assert VERSION in done.stdout


def test_the_image_is_told_what_it_is_made_of(first: Path) -> None:
    given = dict(
        line.removeprefix("--build-arg ").split("=", 1) for line in (first / "image.args").read_text().splitlines()
    )
    assert given["VERSION"] == VERSION
    assert given["REVISION"] == head().revision
    assert given["SOURCE"] == SOURCE
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert all(f"ARG {name}" in dockerfile for name in given)
