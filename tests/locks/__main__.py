"""
`make locks`: every lock installed by the oldest pip that a supported system has, and shown to be complete.

    python -m tests.locks [ENVIRONMENT ...]

Each environment is made from nothing in `build/locks`, by the command that users have. That pip comes from a lock too.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from tests.locks import lock
from tests.parts.cache import ROOT
from tests.parts.wheels import PIP_INSTALL

FOLDER: Final = ROOT / "build" / "locks"
AT_A_TIME: Final = 3
"""Environments: most of the time goes into waiting for the index."""
EDITABLE: Final = threading.Lock()
"""An editable installation writes into the checkout."""
READ: Final = """
import importlib.metadata, json
print(json.dumps({each.metadata["Name"]: each.requires or [] for each in importlib.metadata.distributions()}))
"""


def environment(name: str) -> Path:
    """Return the Python of a new virtual environment, with the oldest pip and nothing else."""
    folder = FOLDER / name
    venv.create(folder, with_pip=False, clear=True)
    python = folder / "bin" / "python"
    module, pip, *options = PIP_INSTALL
    install: list[str | Path] = [
        sys.executable,
        module,
        pip,
        "--python",
        python,
        *options,
        "-r",
        lock.FOLDER / "oldest-pip.txt",
    ]
    subprocess.run(install, check=True)
    return python


def install(name: str, python: Path) -> None:
    """
    Install an environment of `lock.ENVIRONMENTS`.

    Raises:
        subprocess.CalledProcessError: pip refused, or `pip check` found something missing.

    """
    if name in {"run", "dev"}:
        target = {"run": "install", "dev": "install-dev"}[name]
        command = ["make", "--no-print-directory", "-s", target, f"VENV={FOLDER / name}"]
        with EDITABLE:
            subprocess.run(command, cwd=ROOT, check=True)
    else:
        for each in lock.ENVIRONMENTS[name]:
            subprocess.run([python, *PIP_INSTALL, "-r", lock.FOLDER / f"{each}.txt"], check=True)
    if name not in lock.ARCHIVES:
        subprocess.run([python, "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)


def faults(name: str, python: Path) -> list[str]:
    """Return what a lock lacks of what its packages require."""
    done = subprocess.run([python, "-I", "-c", READ], check=True, capture_output=True, text=True)
    requires: dict[str, list[str]] = {canonicalize_name(each): needs for each, needs in json.loads(done.stdout).items()}
    return lock.faults(lock.ENVIRONMENTS[name], requires=(lambda _: []) if name in lock.ARCHIVES else requires.get)


def prove(name: str) -> list[str]:
    """Make an environment, look at it, remove it; return what is wrong, after a line that says how it went."""
    started = time.monotonic()
    python = environment(name)
    try:
        install(name, python)
        found = faults(name, python)
    except subprocess.CalledProcessError as error:
        found = [str(error)]
    pip = subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True, text=True).stdout
    told = f"{'FAILED' if found else 'complete'}, by {' '.join(pip.split()[:2])}"
    lines = [f"{name:<11} {told}, {time.monotonic() - started:.0f} s", *(f"  {each}" for each in found)]
    print("\n".join(lines), flush=True)
    shutil.rmtree(FOLDER / name)
    return found


def main() -> None:
    """Install and look at the named environments, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", choices=[[], *lock.ENVIRONMENTS], metavar="ENVIRONMENT")
    chosen = parser.parse_args().environments or list(lock.ENVIRONMENTS)
    with ThreadPoolExecutor(max_workers=AT_A_TIME) as pool:
        failed = sum(map(bool, pool.map(prove, chosen)))
    sys.exit(f"{failed} of {len(chosen)} locks are not complete" if failed else 0)


if __name__ == "__main__":
    main()
