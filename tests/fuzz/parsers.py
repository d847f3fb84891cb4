"""Heads of HTTP by both of our parsers: what the fast path takes for a request, aiohttp reads as the same request."""

import asyncio
from typing import Final

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage

from webhook.server.edge import BODY_LIMIT
from webhook.server.handed import READ_BYTES
from webhook.server.heads import BLANK_LINE, HEAD_LIMIT, Heads, timeout_seconds

_LOOP: Final = asyncio.new_event_loop()
_HEADS: Final = Heads()


def compared(data: bytes) -> str:
    """
    Return which parser takes *data* and what becomes of it; both must agree on what the fast path takes.

    Raises:
        AssertionError: aiohttp reads another request, or none.

    """
    # As the fast path cuts it, and with what it keeps of heads that it has read.
    start = data.find(BLANK_LINE, 0, HEAD_LIMIT) + len(BLANK_LINE)
    head = _HEADS[data[:start]]
    if head is None or head.length > BODY_LIMIT:
        return f"handed over: {_said_by_aiohttp(data)}"
    length = head.length
    body = data[start : start + length]
    try:
        messages, upgraded, rest = _parser().feed_data(data[: start + length])
    except HttpProcessingError as error:
        raise AssertionError(f"taken, and aiohttp refuses it: {error.message}") from error
    assert len(messages) == 1, f"taken as one request, and aiohttp reads {len(messages)}"
    message, payload = messages[0]
    assert isinstance(message, RawRequestMessage)
    path = data[len(b"POST ") : data.index(b" HTTP/1.1\r\n")].decode()
    assert (message.method, message.path) == ("POST", path), (message.method, message.path)
    assert message.url.path == "/mutate", message.url
    assert timeout_seconds(message.url.query.get("timeout", "")) == head.seconds, "another time"
    assert [int(each) for each in message.headers.getall("Content-Length")] == [length], "another length"
    assert message.headers.getall("Content-Type") == ["application/json"], "another type"
    odd = (message.chunked, message.compression, message.upgrade, message.should_close, upgraded)
    assert not any(odd), odd
    assert not rest, f"{len(rest)} bytes of another request"
    if length:
        assert payload.is_eof() == (len(body) == length), "another end of the body"
        assert payload.total_bytes == len(body), "another body"
    return "taken, whole" if len(body) == length else "taken, its body still to come"


def _parser() -> HttpRequestParser:
    protocol = BaseProtocol(_LOOP)
    # As aiohttp's server makes it: aiohttp/web_protocol.py.
    return HttpRequestParser(
        protocol,
        _LOOP,
        READ_BYTES,
        max_line_size=8190,
        max_field_size=8190,
        max_headers=128,
        auto_decompress=False,
    )


def _said_by_aiohttp(data: bytes) -> str:
    try:
        messages, _, _ = _parser().feed_data(data)
    except HttpProcessingError as error:
        return f"refused, {type(error).__name__}"
    return f"{len(messages)} read" if messages else "incomplete"
