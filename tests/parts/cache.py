"""Where this checkout is, and the folder outside it that keeps what takes long to make."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """Return the folder that outlives the checkout; CONTRIBUTING.md names it."""
    named = os.environ.get("CLIENT_IP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "client-ip-webhook"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes for the block; a killed process holds none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
