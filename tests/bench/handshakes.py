"""
What a new connection costs a server: CPU for each TLS 1.3 handshake, with one certificate and one client for all.

API servers close connections that are idle for 90 seconds, so that a quiet cluster pays a handshake for each review.
The client is OpenSSL's with the cipher that Go's asks for first. It resumes no session, as the API server's does not.
"""

import math
import random
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.bench.compare import Effort
from tests.bench.figures import by_name, paired_ratios
from tests.bench.scale import cpu_seconds
from tests.bench.servers import GENERATOR_CORE, HAND_TUNED, OURS, Target, on_core

CIPHERSUITES: Final = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""https://github.com/golang/go/blob/go1.26.0/src/crypto/tls/cipher_suites.go (defaultCipherSuitesTLS13)"""
SETTLE_SECONDS: Final = 0.2
"""What the last connections leave to do is done by then."""
WARM_UP_SECONDS: Final = 1


def measure(targets: Mapping[str, Target], effort: Effort, chance: random.Random) -> dict[str, Any]:
    """Return CPU seconds for each handshake, with ours in terms of the hand-tuned Go server's, round by round."""
    names = [OURS, HAND_TUNED]
    seconds = math.ceil(effort.seconds)  # openssl takes whole ones
    rounds: list[dict[str, float]] = []
    for _ in range(effort.rounds):
        chance.shuffle(names)
        rounds.append({name: _cost(targets[name], seconds) for name in names})
        print("handshakes: " + _figures(names, rounds[-1]), flush=True)
    return {
        name: {
            "cpu_seconds": by_name(rounds, name).as_json(),
            "ratio": paired_ratios(rounds, name, HAND_TUNED).as_json(),
        }
        for name in names
    }


def _cost(target: Target, seconds: int) -> float:
    _connect(target, WARM_UP_SECONDS)
    time.sleep(SETTLE_SECONDS)
    before = cpu_seconds(target.pid)
    number = _connect(target, seconds)
    time.sleep(SETTLE_SECONDS)
    return (cpu_seconds(target.pid) - before) / number


def _connect(target: Target, seconds: int) -> int:
    """Connect one time after the other for so long, and return how often."""
    command = [
        *on_core(GENERATOR_CORE),
        *("openssl", "s_time", "-new", "-time", str(seconds), "-ciphersuites", CIPHERSUITES),
        *("-connect", f"{target.address[0]}:{target.address[1]}", "-CAfile", str(target.ca), "-verify", "1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 4 * seconds, check=False)
    found = re.search(r"^(\d+) connections in [\d.]+ real seconds", done.stdout, re.MULTILINE)
    if done.returncode or found is None or not int(found[1]):
        raise RuntimeError(f"{target.name}: openssl s_time: {done.stdout}{done.stderr}")
    return int(found[1])


def _figures(names: Sequence[str], spent: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {spent[name] * 1e6:.0f} µs" for name in sorted(names))
