"""
JSON in which something else stands: several values on one line, and texts and mappings at any depth of a document.

The shapes that logs come in have no end (answers of Loki and CloudWatch, exports of Grafana, OpenTelemetry's records),
and the line of a container is always a string in them, or its fields a mapping. All of it is bounded.
"""

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

MAX_VISITED: Final = 100_000
"""Values of one document that are looked at: a line has 256 Ki characters at most."""
MAX_DEPTH: Final = 16
_BETWEEN: Final = re.compile(r"[ \t\r\n,]*+")
_MEMBER: Final = re.compile(r'(?:"[^"\\]{0,120}+"\s{0,8}:\s{0,8})?("(?:[^"\\]|\\.)*+")\s{0,8},?')
_DECODER: Final = json.JSONDecoder()


def decoded(text: str) -> Any:
    """Return the value of *text*; None where it is no JSON, or null."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


def values(text: str) -> tuple[list[Any], str]:
    """Return the mappings and lists that *text* begins with, one behind the other, and what is left of it."""
    found: list[Any] = []
    at = 0
    while at < len(text) and text[at] in "{[":
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        if value:
            found.append(value)
        at = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing as well
    return found, text[at:]


def member(text: str) -> str | None:
    """Return the string that a line of a document holds, `"message": "…",` or `"…"`; None where it is no such line."""
    found = _MEMBER.fullmatch(text)
    value = decoded(found[1]) if found is not None else None
    return value if isinstance(value, str) else None


def leaves(value: Any, is_whole: Callable[[Mapping[str, Any]], bool]) -> Iterator[str | Mapping[str, Any]]:
    """
    Yield the texts in *value*, and its mappings that *is_whole* says are read as they are, in order.

    A text that is JSON itself is looked into in its place.
    """
    ahead: deque[tuple[Any, int]] = deque([(value, 0)])
    visited = 0
    while ahead and visited < MAX_VISITED:
        each, depth = ahead.popleft()
        visited += 1
        below: Any = ()
        if isinstance(each, str):
            inner = decoded(each) if each[:1] in {"{", "["} and each.rstrip()[-1:] in {"}", "]"} else None
            if isinstance(inner, dict | list):
                below = (inner,)
            else:
                yield each
        elif isinstance(each, dict):
            if is_whole(each):
                yield each
            else:
                below = each.values()
        elif isinstance(each, list):
            below = (_text_of(each),) if _is_bytes(each) else each
        if depth < MAX_DEPTH:
            ahead.extendleft((one, depth + 1) for one in reversed(list(below)))


_BYTES: Final = 16


def _is_bytes(value: list[Any]) -> bool:
    """How journald writes a text that is not printable: as its bytes."""
    return len(value) >= _BYTES and all(type(each) is int and 0 <= each <= 255 for each in value)


def _text_of(value: list[int]) -> str:
    return bytes(value).decode(errors="replace")
