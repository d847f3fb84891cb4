"""The load generator (tests/parts/go/bench/cmd/load), and what it found."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tests.bench.servers import GENERATOR_CORE, Target, on_core
from tests.parts.build import binaries

PATCHED: Final = "sidecar.istio.io~1interceptionMode"
"""What every server's patch of a pod holds: each response is looked at."""
CLOSED_CONNECTIONS: Final = 8
OPEN_CONNECTIONS: Final = 64


class LoadFailed(RuntimeError):  # noqa: N818  # an error's noun
    """Responses that were wrong, or none."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run's figures; times in seconds."""

    reviews: int
    errors: int
    seconds: float
    per_second: float
    cpu_seconds_per_review: float
    cpu_share: float
    latency_seconds: Mapping[str, float]
    late_seconds: Mapping[str, float] = {}
    first_error: str = ""


def start(
    target: Target,
    body: Path,
    *,
    seconds: float,
    rate: float = 0,
    seed: int = 1,
    patch: str = PATCHED,
    warm_up_seconds: float = 0.2,
) -> "subprocess.Popen[bytes]":
    """Start asking *target* for the review in *body*; `finish` gives the figures."""
    command = [
        *on_core(GENERATOR_CORE),
        str(binaries("bench")["load"]),
        *("-address", f"{target.address[0]}:{target.address[1]}", "-ca", str(target.ca), "-pid", str(target.pid)),
        *("-body", str(body), "-patch", patch, "-duration", f"{seconds}s", "-warm-up", f"{warm_up_seconds}s"),
        *("-rate", str(rate), "-seed", str(seed)),
        *("-connections", str(OPEN_CONNECTIONS if rate else CLOSED_CONNECTIONS)),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(running: "subprocess.Popen[bytes]", name: str, seconds: float = 120) -> Load:
    """
    Return what a run found.

    Raises:
        LoadFailed: A response was wrong.

    """
    try:
        output, errors = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        raise LoadFailed(f"{name}: the load generator did not end within {seconds:g} s") from None
    if running.returncode:
        raise LoadFailed(f"{name}: {errors.decode().strip()}")
    load = msgspec.json.decode(output, type=Load)
    if load.errors or not load.reviews:
        raise LoadFailed(f"{name}: {load.errors} of {load.reviews + load.errors} reviews failed: {load.first_error}")
    return load


def ask(
    target: Target,
    body: Path,
    *,
    seconds: float,
    rate: float = 0,
    seed: int = 1,
    patch: str = PATCHED,
    warm_up_seconds: float = 0.2,
) -> Load:
    """Ask *target* for the review in *body* and return the figures."""
    running = start(target, body, seconds=seconds, rate=rate, seed=seed, patch=patch, warm_up_seconds=warm_up_seconds)
    return finish(running, target.name, seconds=seconds * 4 + 60)
