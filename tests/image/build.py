"""
Builds the Dockerfile without a Docker engine: buildah, and a base made by debootstrap that has the real one's name.

Nothing is pulled from a registry, and nothing outside the checkout's `build/` and the cache folder is touched.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.parts.cache import ROOT, cache

SUITE: Final = "trixie"
BASE: Final = f"docker.io/library/debian:{SUITE}-slim"
NAME: Final = "localhost/client-ip-webhook:test"
STORE: Final = ROOT / "build" / "image"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
SLIM: Final = (
    *("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*"),
    *("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/info/*", "./usr/share/locale/*"),
)
"""What the official slim images leave out as well (debuerreotype's .slimify-excludes)."""
COMMANDS: Final = ("buildah", "debootstrap", "unshare")


def missing() -> list[str]:
    """Return what this machine lacks, a sentence each."""
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    said = [f"the command {command}" for command in absent]
    if absent:
        said.append("install them: apt-get install buildah debootstrap util-linux")
    if os.geteuid() != 0:
        said.append("root: mounts and users inside the image")
    return said


def buildah(*arguments: str | Path) -> str:
    """
    Run buildah in a store of its own, and return what it printed.

    Raises:
        RuntimeError: With what it said.

    """
    store = ("--root", str(STORE / "store"), "--runroot", str(STORE / "run"), "--storage-driver", "vfs")
    return _run(("buildah", *store, *map(str, arguments)), env={**os.environ, "BUILDAH_ISOLATION": "chroot"})


def _run(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{tail}")
    return done.stdout


def base() -> Path:
    """Return the base's files as a tar archive; made once, minutes, and kept in the cache folder."""
    kept = cache() / f"debian-{SUITE}-{os.uname().machine}.tar"
    if kept.exists():
        return kept
    print(f"making {kept.name} by debootstrap: a minute or two, once", flush=True)
    folder = STORE / "base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _run(("debootstrap", "--variant=minbase", SUITE, str(folder)))
        made = kept.with_suffix(".part")
        _run(("tar", "-C", str(folder), *(f"--exclude={each}" for each in SLIM), "-cf", str(made), "."))
        made.rename(kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def build() -> None:
    """Build the Dockerfile as `NAME`, from the working tree."""
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir(parents=True)
    archive = base()
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, archive, "/")
    buildah("config", "--cmd", "bash", container)
    buildah("commit", "--quiet", "--rm", container, BASE)
    certificates: tuple[str, ...] = ()
    if CERTIFICATES.exists():
        # Those of a proxy between this machine and the world.
        certificates = ("--volume", f"{CERTIFICATES}:/usr/local/share/ca-certificates/machine.crt:ro")
    buildah(
        "bud", "--quiet", "--pull-never", "--layers=false", *certificates, "--tag", NAME, "--file", "Dockerfile", "."
    )


def inspect() -> dict[str, Any]:
    """Return the image's configuration as OCI has it."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", NAME))["OCIv1"]
    return found


def mount() -> tuple[str, Path]:
    """Return a container made of the image, and where its files are."""
    container = buildah("from", "--pull-never", NAME).strip()
    return container, Path(buildah("mount", container).strip())


def remove() -> None:
    """Remove the image and all that it was made of."""
    buildah("rm", "--all")
    shutil.rmtree(STORE, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below *folder*, each once."""
    seen = set()
    total = 0
    for path in folder.rglob("*"):
        status = path.lstat()
        if status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_size
    return total
