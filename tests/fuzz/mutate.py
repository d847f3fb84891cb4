"""Changes a document or a text a little, by its structure; the same chance gives the same change."""

import copy
import random
from collections.abc import Sequence
from typing import Any, Final

SCALARS: Final[Sequence[Any]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        2**63,
        -(2**63) - 1,
        1e308,
        "",
        "TPROXY",
        "Local",
        "enabled",
        "audit",
        "disabled",
        "\0",
    ),
    *(
        "\u202e",
        "\ud7ff",
        "\U0010ffff",
        "a/b~c",
        "0" * 500,
        "x" * 20_000,
        "{interceptionMode: 1",
        "<<: [{a: 1}]",
        "a,,b",
    ),
    *([], {}, [[]], [None], {"": ""}, {"a": None}),
)
KEYS: Final = (
    *(
        "metadata",
        "spec",
        "labels",
        "annotations",
        "tolerations",
        "affinity",
        "nodeSelector",
        "containers",
        "env",
        "name",
    ),
    *("sidecar.istio.io/interceptionMode", "proxy.istio.io/config", "inject.istio.io/templates", "template", "type"),
    *(
        "client-ip.dev/preserve",
        "sidecar.istio.io/inject",
        "sidecar.istio.io/status",
        "externalIPs",
        "operator",
        "values",
    ),
)


def document(chance: random.Random, value: Any) -> Any:
    """Return a copy of *value* with one to four places of it changed."""
    changed = copy.deepcopy(value)
    for _ in range(chance.randint(1, 4)):
        changed = _one(chance, changed)
    return changed


def _one(chance: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        action = chance.random()
        if action < 0.7:
            value[key] = _one(chance, value[key])
        elif action < 0.8:
            del value[key]
        elif action < 0.9:
            value[chance.choice(KEYS)] = copy.deepcopy(value[key])
        else:
            value[chance.choice(KEYS)] = copy.deepcopy(chance.choice(SCALARS))
        return value
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        if chance.random() < 0.7:
            value[place] = _one(chance, value[place])
        else:
            value[place:place] = [copy.deepcopy(value[place])] * chance.choice((1, 2, 50, 5_000))
        return value
    return copy.deepcopy(chance.choice(SCALARS))


def text(chance: random.Random, value: bytes) -> bytes:
    """Return *value* with one to four cuts, swaps, repetitions or other bytes in it."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(value) + 1)
        end = min(len(value), start + chance.choice((0, 1, 1, 2, 8, 64)))
        piece = value[start:end]
        put = chance.choice(
            (
                b"",
                piece * 2,
                piece * 50,
                bytes([chance.randrange(256)]),
                piece.swapcase(),
                b"\r\n",
                b": ",
                b"-----BEGIN ",
            )
        )
        value = value[:start] + put + value[end:]
    return value
