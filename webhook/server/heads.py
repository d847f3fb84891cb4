"""
Heads of requests as Go's HTTP client writes them, to the letter, and what they say: the body's length and the time.

No other HTTP is read here. Heads of reviews of one kind are the same byte by byte, so what they say is kept.
"""

import re
from typing import Final, NamedTuple

BLANK_LINE: Final = b"\r\n\r\n"
HEAD_LIMIT: Final = 32_768
"""Bytes within which a head that is read here ends; Go's has 300, and a token some hundred more."""
KEPT_HEADS: Final = 256
KEPT_BYTES: Final = 512
"""Of a head that is kept: what is longer is read anew each time."""
DEFAULT_TIMEOUT_SECONDS: Final = 10.0
"""The API server's own default; it always sends `?timeout=`."""
MAX_TIMEOUT_SECONDS: Final = 30.0
_MARGIN_SECONDS: Final = 0.1
_DURATION: Final = re.compile(r"(?:([0-9.]+)h)?(?:([0-9.]+)m(?!s))?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?", re.ASCII)
_VALUE: Final = rb": [\x20-\x7e]{0,4096}\r\n"
_HEAD: Final = re.compile(
    rb"POST /mutate(?:\?timeout=([0-9a-z.]{1,20}))? HTTP/1\.1\r\n"
    rb"Host: [\x21-\x7e]{1,512}\r\n"
    rb"(?:Accept-Encoding" + _VALUE + rb"|User-Agent" + _VALUE + rb")?"
    rb"Content-Length: ([0-9]{1,8})\r\n"
    rb"(?:Accept" + _VALUE + rb")?"
    rb"(?:Authorization" + _VALUE + rb")?"
    rb"Content-Type: application/json\r\n"
    rb"(?:Traceparent" + _VALUE + rb")?"
    rb"(?:Tracestate" + _VALUE + rb")?"
    rb"(?:Accept-Encoding" + _VALUE + rb")?"
    rb"\r\n"
)
"""
A head that says nothing but how long the body is and how long it may take, each header once and where Go writes it.

Python's own client, which the tests use, has Accept-Encoding where Go has User-Agent. Nothing is taken that aiohttp
would refuse or read otherwise: values are shorter than the lines that it takes.
https://github.com/golang/go/blob/go1.26.0/src/net/http/request.go#L599
"""
_NEVER_KEPT: Final = re.compile(rb"\r\n(?:Authorization|Traceparent): ")
"""A secret, and what is another one with each request."""


class Head(NamedTuple):
    """What a head says."""

    length: int
    """Of the body, in bytes."""
    seconds: float
    """How long the body may take to arrive."""


class Heads(dict[bytes, Head | None]):
    """What heads say, by their bytes: `heads[head]` is None for any that is to be read by somebody else."""

    def __missing__(self, head: bytes) -> Head | None:
        """Read *head*, and keep what it says, unless it is long, holds a secret or will not come again."""
        found = read_head(head)
        if found is not None and len(head) <= KEPT_BYTES and _NEVER_KEPT.search(head) is None:
            if len(self) >= KEPT_HEADS:
                self.clear()
            self[head] = found
        return found


def read_head(head: bytes) -> Head | None:
    """Return what *head* says; None where it is not to the letter what Go's client writes."""
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    return Head(int(found[2]), timeout_seconds(found[1].decode() if found[1] else ""))


def timeout_seconds(text: str) -> float:
    """Return how long a body may take, of the API server's `?timeout=` (a Go duration), less a margin to answer."""
    found = _DURATION.fullmatch(text)
    seconds = DEFAULT_TIMEOUT_SECONDS
    if text and found is not None:
        units = (3600.0, 60.0, 1.0, 0.001)
        try:
            seconds = sum(float(part) * unit for part, unit in zip(found.groups(), units, strict=True) if part)
        except ValueError:
            seconds = DEFAULT_TIMEOUT_SECONDS
    return max(min(seconds, MAX_TIMEOUT_SECONDS) - _MARGIN_SECONDS, _MARGIN_SECONDS)
