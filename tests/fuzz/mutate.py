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


HEADERS: Final = (
    *(b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 0005", b"Host: b"),
    *(b"Connection: close", b"Connection: keep-alive", b"Upgrade: h2c", b"Expect: 100-continue", b"Content-Length : 2"),
    *(b"Content-Encoding: gzip", b"Content-Type: text/plain", b"content-type: application/json", b" folded", b"\tx"),
    *(b"User-Agent: a", b"Accept: \x0b", b"Accept: " + b"x" * 9_000, b"Authorization: \x80", b"Traceparent: 00-1-1-01"),
    *(b"Accept:", b"Accept:x", b": x", b"", b"X\x00: a", b"Accept-Encoding: gzip\r", b"Accept: a\nb"),
    *((b"Tracestate: a\r\n" * 200)[:-2], b"Accept-Encoding: \xff", b"Content-Type: application/json"),
)
LINES: Final = (
    *(
        b"POST /mutate HTTP/1.1",
        b"POST /mutate?timeout=1s HTTP/1.0",
        b"POST  /mutate HTTP/1.1",
        b"post /mutate HTTP/1.1",
    ),
    *(b"POST /mutate?timeout=%31s HTTP/1.1", b"POST /mutate?timeout=.. HTTP/1.1", b"POST //mutate HTTP/1.1"),
    *(b"POST /mutate?timeout=2s&timeout=3s HTTP/1.1", b"POST http://a/mutate HTTP/1.1", b"POST /mutate# HTTP/1.1"),
)


def head(chance: random.Random, value: bytes) -> bytes:
    """Return the request *value* with one to three lines of its head left out, doubled, moved or put in."""
    first, _, body = value.partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0 | 1 | 2:
                lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(HEADERS))
            case 3:
                lines.insert(place, lines[place])
            case 4:
                lines.append(lines.pop(place))
            case 5 if len(lines) > 1:
                del lines[place]
            case _:
                lines[0] = chance.choice(LINES)
    ends = chance.choice((*(b"\r\n",) * 8, b"\n", b"\r"))
    return ends.join(lines) + ends * 2 + body
