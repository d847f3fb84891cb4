"""The servers that are measured: ours as users run it, and what they would use instead; each on one core."""

import contextlib
import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from certs.authority import issue_ca, issue_leaf
from tests.parts.build import binaries
from tests.parts.cache import ROOT
from tests.parts.process import Ports, Process, wait_until
from tests.parts.wheels import PIP_INSTALL
from tests.serve.server import Server

SERVER_CORE: Final = 0
GENERATOR_CORE: Final = 1
START_SECONDS: Final = 60.0
PEERS_FOLDER: Final = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server that runs and can be asked."""

    name: str
    address: tuple[str, int]
    ca: Path
    pid: int


def on_core(core: int) -> tuple[str, ...]:
    """Return the prefix of a command that keeps it on *core*."""
    return ("taskset", "--cpu-list", str(core))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A webhook that is not ours; its command takes `PORT` and `FOLDER` (of tls.crt and tls.key)."""

    name: str
    title: str
    command: Callable[[int, Path], Sequence[str | Path]]


def _go(binary: str, *arguments: str) -> Callable[[int, Path], Sequence[str | Path]]:
    def command(port: int, folder: Path) -> Sequence[str | Path]:
        return (binaries("bench")[binary], "-port", str(port), "-cert-dir", folder, *arguments)

    return command


def interpreter() -> Path:
    """
    Return the Python that Python servers run on: the distribution's of this version where there is one.

    It is what the image has, and what most people run; those that are compiled in a home are mostly plain builds,
    without profiles, and a quarter slower.
    """
    distributions = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    return distributions if distributions.exists() else Path(sys.executable)


def _installed(*packages: Path) -> dict[str, str]:
    """Return the environment in which `interpreter` finds what a virtual environment has."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, packages))}


def _python(program: str) -> Callable[[int, Path], Sequence[str | Path]]:
    def command(port: int, folder: Path) -> Sequence[str | Path]:
        packages = next(environment().parents[1].glob("lib/python3*/site-packages"))
        run = ("env", f"PYTHONPATH={packages}", interpreter(), PEERS_FOLDER / program)
        return (*run, "--port", str(port), "--cert-dir", folder)

    return command


OURS: Final = "ours"
REFERENCE: Final = "controller-runtime"
HAND_TUNED: Final = "plain-go"
PEERS: Final = (
    Peer(
        name=REFERENCE,
        title="controller-runtime, `admission.Handler` + `PatchResponseFromRaw`",
        command=_go("controllerruntime", "-handler=raw"),
    ),
    Peer(
        name="defaulter",
        title="controller-runtime, `WithDefaulter`",
        command=_go("controllerruntime", "-handler=defaulter"),
    ),
    Peer(name=HAND_TUNED, title="Go net/http tuned by hand (not a product)", command=_go("plain")),
    Peer(name="tutorial", title="tutorial: aiohttp + json + deepcopy + jsonpatch", command=_python("tutorial.py")),
    Peer(name="kopf", title="kopf, one handler", command=_python("kopf_webhook.py")),
)
TITLES: Final[Mapping[str, str]] = {OURS: "**client-ip-webhook**, 5,000 nodes", **{p.name: p.title for p in PEERS}}


def environment() -> Path:
    """Return the Python of the peers' own environment, made from requirements/bench.txt where it is not there yet."""
    requirements = ROOT / "requirements" / "bench.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / "build" / f"bench-{key}"
    python = folder / "bin" / "python"
    installed = folder / ".installed"
    if not installed.exists():
        print("installing the Python peers …", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, *PIP_INSTALL, "-r", requirements], check=True)
        subprocess.run([python, "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
        installed.touch()
    return python


def write_certificate(folder: Path) -> Path:
    """Write tls.crt and tls.key for 127.0.0.1 to *folder*, ECDSA P-256 as ours are; return the authority's file."""
    now, life = datetime.now(tz=UTC), timedelta(days=1)
    authority = issue_ca(organization="bench", now=now, life=life)
    leaf = issue_leaf(authority, names=["127.0.0.1"], now=now, life=life)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tls.crt").write_bytes(leaf.certificate_pem)
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(leaf.key_pem)
    ca = folder / "ca.crt"
    ca.write_bytes(authority.certificate_pem)
    return ca


@contextlib.contextmanager
def peer(chosen: Peer, folder: Path, ports: Ports) -> Iterator[Target]:
    """Run *chosen* until the block ends."""
    certificates = folder / "certificates"
    ca = certificates / "ca.crt"
    if not ca.exists():
        write_certificate(certificates)
    port = ports.take()
    command = [*on_core(SERVER_CORE), *chosen.command(port, certificates)]
    with Process(chosen.name, command, log=folder / f"{chosen.name}.log") as process:
        process.wait_until(lambda: _listens(port), what="it listens", seconds=START_SECONDS)
        yield Target(name=chosen.name, address=("127.0.0.1", port), ca=ca, pid=process.pid)


def _listens(port: int) -> bool:
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@contextlib.contextmanager
def ours(folder: Path, *options: str, name: str = OURS) -> Iterator[tuple[Target, Server]]:
    """Run our server with *options* until the block ends: TLS, metrics, uvloop, as users run it."""
    environment = _installed(ROOT, Path(sysconfig.get_path("platlib")))
    core = on_core(SERVER_CORE)
    python = interpreter()
    with Server(
        folder, *options, prefix=core, start_seconds=START_SECONDS, python=python, environment=environment
    ) as server:
        wait_until(lambda: server.probe("/readyz").status == 200, what="ready", seconds=START_SECONDS)
        yield Target(name=name, address=server.address, ca=server.ca, pid=server.process.pid), server
