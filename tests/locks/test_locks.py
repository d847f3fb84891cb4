"""The locks name all that is installed, and whoever installs one resolves nothing."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.locks import lock
from tests.parts.cache import ROOT
from tests.parts.wheels import PIP_INSTALL

LOCKED = ("--no-deps", "--only-binary :all:", "--require-hashes")
"""
What keeps pip from asking the index which version.

Without `--no-deps` an old pip resolves an extra that the lock does not name apart from it; without `--only-binary` a
source archive resolves what it needs to be built.
"""
MAKE = re.findall(r"^PIP_INSTALL = .* pip install (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
HASH = "--hash=sha256:" + "0" * 64


def test_every_lock_belongs_to_an_environment() -> None:
    named = {each for locks in lock.ENVIRONMENTS.values() for each in locks}
    assert (
        named == {path.stem for path in lock.FOLDER.glob("*.txt")} == {path.stem for path in lock.FOLDER.glob("*.in")}
    )


def test_make_locks_archives_alone() -> None:
    alone = re.findall(r"^ALONE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(" ".join(alone).split()) == lock.ARCHIVES


@pytest.mark.parametrize("environment", ["run", "dev"])
def test_a_lock_names_what_its_packages_require(environment: str) -> None:
    # The others are looked at by `make locks`, which installs them.
    assert lock.faults(lock.ENVIRONMENTS[environment]) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in lock.FOLDER.glob("*.txt")))
def test_a_lock_names_no_host(name: str) -> None:
    text = (lock.FOLDER / f"{name}.txt").read_text()
    assert not re.search(r"://|--index-url|--find-links|--extra-index", text)


def write(folder: Path, name: str, wanted: str, *lines: str) -> None:
    (folder / f"{name}.in").write_text(f"# A comment.\n{wanted}\n")
    (folder / f"{name}.txt").write_text("".join(f"{line} \\\n    {HASH}\n    # via somebody\n" for line in lines))


REQUIRES = {
    "plugin": ["measure[toml]>=7.10", "old; python_version < '3.12'", "more; extra == 'all'"],
    "measure": ["reader>=2; extra == 'toml'"],
    "more": [],
}


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (("plugin==1", "measure[toml]==7.11", "reader==2.0", "old==1 ; python_full_version < '3.12'"), []),
        (
            ("plugin==1", "measure==7.11", "reader==2.0", "old==1"),
            ["plugin requires measure[toml]>=7.10; a.txt names measure without [toml]"],
        ),
        (
            ("plugin==1", "measure[toml]==7.11", "old==1"),
            [
                f'measure requires reader>=2; extra == "toml", which no line names for Python {python} on {platform}'
                for python in lock.PYTHONS
                for platform in ("linux", "darwin")
            ],
        ),
        (
            ("plugin==1", "measure[toml]==7.9", "reader==2.0", "old==1"),
            ["plugin requires measure[toml]>=7.10; a.txt has 7.9"],
        ),
        (
            ("plugin==1", "measure[toml]==7.11", "reader==2.0", "old==1 ; sys_platform == 'linux'"),
            ['plugin requires old; python_version < "3.12", which no line names for Python 3.11 on darwin'],
        ),
        (
            ("plugin>=1", "measure[toml]==7.11", "reader==2.0", "old==1"),
            ["a.txt: plugin>=1 is not pinned with =="],
        ),
        (
            ("plugin==1", "measure[toml]==7.11", "reader==2.0", "old==1", "left==1"),
            ["a.txt: nothing requires left==1"],
        ),
    ],
)
def test_what_a_lock_lacks_is_found(tmp_path: Path, lines: tuple[str, ...], want: list[str]) -> None:
    write(tmp_path, "a", "plugin", *lines)
    assert lock.faults(["a"], requires=REQUIRES.get, folder=tmp_path) == want


def test_an_extra_that_is_asked_for_directly_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "a", "plugin[all]", "plugin[all]==1", "measure[toml]==7.11", "reader==2", "old==1")
    found = lock.faults(["a"], requires=REQUIRES.get, folder=tmp_path)
    assert found
    assert all(each.startswith('plugin requires more; extra == "all", which no line names') for each in found)


def test_two_locks_of_an_environment_agree(tmp_path: Path) -> None:
    write(tmp_path, "a", "more", "more==1")
    write(tmp_path, "b", "more", "more==2")
    assert lock.faults(["a", "b"], requires=REQUIRES.get, folder=tmp_path) == [
        "a.txt and b.txt differ: more==1, more==2"
    ]


def test_a_line_without_a_hash_is_found(tmp_path: Path) -> None:
    write(tmp_path, "a", "more", "more==1")
    (tmp_path / "a.txt").write_text("more==1\n")
    assert lock.faults(["a"], requires=REQUIRES.get, folder=tmp_path) == ["a.txt: more==1 has no hash"]


def commands(path: Path) -> list[str]:
    """Return the commands of a Makefile or Dockerfile that run pip, each on one line."""
    text = path.read_text().replace("\\\n", " ").replace("$(PIP_INSTALL)", f"pip install {' '.join(MAKE)}")
    return [
        each.strip()
        for line in text.splitlines()
        for each in line.split("&&")
        if re.search(r"\bpip\b.* install ", each)
    ]


def test_whoever_installs_a_lock_resolves_nothing() -> None:
    """What pip installs is a whole lock, or the project itself, whose requirements the lock has."""
    found = [command for name in ("Makefile", "Dockerfile") for command in commands(ROOT / name)]
    assert len(found) >= 6
    for command in found:
        project = "--editable ." in command or "--no-index" in command
        assert "--no-deps" in command, command
        assert project or all(option in f"{command} " for option in LOCKED), command


def test_python_code_installs_by_one_command() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    with_pip = [
        name
        for name in tracked.stdout.split()
        if name != "tests/locks/test_locks.py" and '"pip", "install"' in (ROOT / name).read_text()
    ]
    assert with_pip == ["tests/parts/wheels.py"]
    assert all(option in " ".join(PIP_INSTALL) for option in LOCKED)
