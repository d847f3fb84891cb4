"""
What a run leaves when it is killed: network namespaces, the processes inside them, and its folder; and the lock that
tells a killed run from one that runs.

    python -m tests.proof.leftover

A run that is interrupted (SIGINT, SIGTERM, SIGHUP) removes them itself, and so does the next run at its start.
"""

import fcntl
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final, TextIO

from tests.parts.cache import cache
from tests.proof.namespaces import clean

FOLDER_PREFIX: Final = "client-ip-proof-"


def lock() -> TextIO | None:
    """Return the lock of this machine's one run, held until it is closed; None where another run holds it."""
    cache().mkdir(parents=True, exist_ok=True)
    file = (cache() / "proof.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def new_folder() -> Path:
    """Make a run's folder; the sidecars, which are another user, may enter it."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    folder.chmod(0o755)
    return folder


def remove() -> None:
    """Remove all that is left; the caller holds the lock."""
    clean()
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def main() -> None:
    """Remove what a killed run left, unless a run goes on."""
    held = lock()
    if held is None:
        sys.exit("a make proof is running on this machine: end it first")
    with held:
        remove()


if __name__ == "__main__":
    main()
