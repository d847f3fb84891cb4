"""
The shapes in which people have an access log, and the entries in them.

Entries are Envoy's: JSON by key, or Istio's default text format. Around them stands what kubectl (`--prefix`,
`--timestamps`), stern, kubetail, container runtimes (CRI, Docker's json-file), log shippers and terminals add. A line
that looks like a request and can't be read is never passed over in silence: it is `Read` without an entry.

The reading is linear in the input for any text, and bounded: no pattern here can backtrack over more than one name,
and no line or entry is kept beyond the limits below.

Istio's formats (JSON keys and the default text, "for Istio 1.9 onwards"):
https://github.com/istio/istio/blob/86c9f01fd735/pilot/pkg/model/telemetry_logging.go#L44-L104
"""

import codecs
import re
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from webhook.rules import wellknown
from webhook.running.accesslog import Entry
from webhook.running.prefixes import CONTINUED, KUBECTL, MAX_TIME, is_own_line, uncoloured, unprefixed
from webhook.running.within import decoded, leaves, member, values

MAX_LINE: Final = 256 << 10
"""Characters of a line. Envoy takes 60 KiB of request headers, of which its formats name a few."""
MAX_ENTRY_LINES: Final = 200
"""Lines of one entry: Istio's JSON format has 25 keys, and few people add a hundred."""
MAX_SOURCES: Final = 1000
"""Pods of one stream of which an entry may be incomplete at the same time."""
MAX_WRAPPED: Final = 2
"""Documents around an entry: a shipper's around a runtime's."""
SHOWN: Final = 200
"""Characters of a line that was not read, for the message."""
ABSENT: Final = "-"
GZIP: Final = b"\x1f\x8b"
MAX_INFLATED: Final = 1 << 20
"""Bytes of a compressed log that are held at a time."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """What was found: an entry, or (None) a line that looks like a request and can't be read."""

    line: int
    """In its log, from 1; the first one, where the entry has several."""
    pod: str
    """As the line's prefix names it; empty where it has none."""
    entry: Entry | None
    text: str = ""
    """How the line begins that can't be read."""


# --- Bytes to lines


class Lines:
    """A log's bytes as lines of text: UTF-8, UTF-16, plain or gzip; a line that is too long is None."""

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._inflate: Any = None
        self._damaged = False
        self._begun = False
        """A compressed member has begun and not ended."""
        self._first = b""
        self._rest: list[str] = []
        self._length = 0
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[str | None]:
        """Yield the lines that *chunk* ends."""
        if self._decoder is None:
            self._first += chunk
            if len(self._first) < 4:
                return
            chunk = self._begin()
        yield from self._lines(chunk)

    def end(self) -> Iterator[str | None]:
        """Yield the last line, where no line feed ends it."""
        if self._decoder is None:
            yield from self._lines(self._begin())
        yield from self._split(self._decode(b"", final=True))
        if self._too_long or self._length:
            yield self._take()
        if self._begun and not self._damaged:
            yield None  # it was cut off

    def _begin(self) -> bytes:
        """Look at the first bytes: which encoding, and whether compressed."""
        first = self._first
        self._decoder = codecs.getincrementaldecoder(_encoding(first))(errors="replace")
        if first.startswith(GZIP):
            self._inflate = zlib.decompressobj(wbits=31)
        return first

    def _lines(self, chunk: bytes) -> Iterator[str | None]:
        if self._inflate is None:
            yield from self._split(self._decode(chunk, final=False))
            return
        try:
            while chunk and not self._damaged:
                self._begun = True
                yield from self._split(self._decode(self._inflate.decompress(chunk, MAX_INFLATED), final=False))
                chunk = self._inflate.unconsumed_tail
                if self._inflate.eof:  # rotated logs are often put together: one member follows the other
                    chunk = self._inflate.unused_data.lstrip(b"\0")
                    self._inflate, self._begun = zlib.decompressobj(wbits=31), False
        except zlib.error:
            self._damaged = True
            yield None  # what follows is not read

    def _decode(self, data: bytes, *, final: bool) -> str:
        # Logs hold what callers sent: bytes that are no text must not end the reading.
        return "" if self._decoder is None else self._decoder.decode(data, final)

    def _split(self, text: str) -> Iterator[str | None]:
        first, *others = text.split("\n")
        self._keep(first)
        if others:
            yield self._take()
            self._keep(others.pop())
            for line in others:
                yield line if len(line) <= MAX_LINE else None

    def _keep(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_LINE:
            self._rest, self._too_long = [], True
        elif text:
            self._rest.append(text)

    def _take(self) -> str | None:
        line = None if self._too_long else "".join(self._rest)
        self._rest, self._length, self._too_long = [], 0, False
        return line


def _encoding(first: bytes) -> str:
    """
    Return the encoding of a log that begins with these bytes.

    PowerShell 5's `>` writes UTF-16; without a NUL beside its mark it is no text at all, and read as UTF-8.
    """
    if b"\0" in first[:4]:
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        nuls = [not each for each in first[:4]]
        if nuls == [False, True, False, True]:
            return "utf-16-le"
        return "utf-16-be" if nuls == [True, False, True, False] else "utf-8"
    return "utf-8-sig"


# --- One line


class _Full(msgspec.Struct, frozen=True, gc=False):
    """Istio's JSON keys; those without a default decide, and are in every format that says it all."""

    upstream_cluster: str | None
    upstream_local_address: str | None
    downstream_local_address: str | None
    downstream_remote_address: str | None
    upstream_host: str | None = None
    x_forwarded_for: str | None = None
    start_time: str | None = None
    method: str | None = None
    path: str | None = None
    response_code: int | str | None = None
    response_code_details: str | None = None


DECIDING: Final = (
    "upstream_cluster",
    "upstream_local_address",
    "downstream_remote_address",
    "downstream_local_address",
)
KEYS: Final = frozenset(
    {
        *DECIDING,
        "authority",
        "bytes_received",
        "bytes_sent",
        "connection_termination_details",
        "duration",
        "method",
        "path",
        "protocol",
        "request_id",
        "requested_server_name",
        "response_code",
        "response_code_details",
        "response_flags",
        "route_name",
        "start_time",
        "upstream_host",
        "upstream_service_time",
        "upstream_transport_failure_reason",
        "user_agent",
        "x_forwarded_for",
    }
)
"""Of Istio's JSON format. An object with two of them tells of a request."""
_BY_LETTERS: Final = {key.replace("_", ""): key for key in KEYS}
"""People write these names in their own way: upstreamCluster, UPSTREAM_CLUSTER, upstream-cluster."""
WRAPPERS: Final = (
    "log",
    "message",
    "msg",
    "MESSAGE",
    "content",
    "line",
    "text",
    "textPayload",
    "jsonPayload",
    "@message",
    "_raw",
    "_source",
    "body",
)
"""Where runtimes (Docker: log), stern (message), journals, shippers and clouds put the line, or its fields."""

DOCKER: Final = frozenset({"log", "stream", "time", "attrs"})
"""The keys of Docker's json-file."""

_full: Final = msgspec.json.Decoder(_Full)
_FIELDS: Final = tuple(name for name in Entry.__struct_fields__ if name in KEYS)
_TEXT: Final = re.compile(
    r'\[([^\]]{1,80}+)\] "([^" ]++) ([^" ]*+) [^" ]++" (\d{1,3}+) [^" ]++ ([^" ]++) [^"]*+"[^"]*+" '
    r'\d++ \d++ \d++ [^" ]++ "([^"]*+)" "[^"]*+" "[^"]*+" "[^"]*+" '
    r'"([^" ]++)" ([^" ]++) ([^" ]++) ([^" ]++) ([^" ]++) [^" ]++ [^" ]++'
)
"""
The whole line, where no caller wrote a quotation mark: then there is but one way to read it.

Every repetition ends where its own characters do, and gives none back: it costs what `str.find` would.
"""
_CODE: Final = re.compile(r'" (\d{1,3}) ')
_LIKE_REQUEST: Final = re.compile(
    r'^\[[^\]]{1,40}\] "'
    r"|^\[\d{4}-\d\d-\d\dT|^\[\d{4}[-\dT:.Z]{0,36}$"  # cut off in its time
    r'|HTTP/[0-3](?:\.[0-9])?[" ]'
    r"|\b(?:in|out)bound(?:-vip)?\|"
    r"|PassthroughCluster|BlackHoleCluster"
    r"|\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE) [/*]"
    r"|(?i:upstream_?local_?address|downstream_?remote_?address)"
)
_ENTRY: Final = re.compile(r'\[\d{4}-\d\d-\d\dT[^\]" ]{4,40}+\] \\{0,3}"|upstream_local_address\\{0,3}"[ ]{0,3}:')
"""How an entry is written: what a container says of itself has none of it."""
_SOCKET: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}:\d{1,5}(?!\d)|\[[0-9a-fA-F:.]{2,45}\]:\d{1,5}(?!\d)")


def parse(text: str) -> Entry | None:
    """Return the fields of an entry that *text* begins with; None where it is none, such as the agent's messages."""
    text = text.strip()
    return _from_json(text) if text.startswith("{") else _from_text(text)


def _from_json(text: str) -> Entry | None:
    try:
        found = _full.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        value = decoded(text)
        return _from_fields(value) if isinstance(value, dict) else None
    return Entry(
        upstream_cluster=_said(found.upstream_cluster),
        upstream_host=_said(found.upstream_host),
        upstream_local_address=_said(found.upstream_local_address),
        downstream_local_address=_said(found.downstream_local_address),
        downstream_remote_address=_said(found.downstream_remote_address),
        x_forwarded_for=_said(found.x_forwarded_for),
        start_time=_said(found.start_time),
        method=_said(found.method),
        path=_said(found.path),
        response_code=_said(found.response_code),
        response_code_details=_said(found.response_code_details),
    )


def _from_fields(value: Mapping[str, Any]) -> Entry | None:
    """Return the entry that an object of any format tells, with what its format leaves out."""
    told = {_BY_LETTERS.get(key.replace("_", "").replace("-", "").lower(), ""): each for key, each in value.items()}
    if len(told.keys() & KEYS) < 2 and "upstream_local_address" not in told:
        return None
    if told.keys().isdisjoint(DECIDING) and not value.keys().isdisjoint(WRAPPERS):
        return None  # a document around an entry, which has a method or a path of its own
    fields: dict[str, Any] = {name: _said(told.get(name)) for name in _FIELDS}
    return Entry(**fields, missing=tuple(name for name in DECIDING if name not in told))


def _said(value: Any) -> str | None:
    return None if value is None or value in {ABSENT, ""} else str(value)


def _from_text(text: str) -> Entry | None:
    """Return the entry of a line in Istio's default text format."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return _from_quoting_text(text)
    fields = [None if each == ABSENT or not each else each for each in found.groups()]
    return Entry(
        start_time=fields[0],
        method=fields[1],
        path=fields[2],
        response_code=fields[3],
        response_code_details=fields[4],
        x_forwarded_for=fields[5],
        upstream_host=fields[6],
        upstream_cluster=fields[7],
        upstream_local_address=fields[8],
        downstream_local_address=fields[9],
        downstream_remote_address=fields[10],
    )


def _from_quoting_text(text: str) -> Entry | None:
    """
    Return the entry of a line in which the caller wrote quotation marks, or None.

    The caller writes a good part of it (path, user agent), so the fields that decide are taken from its end, behind
    the last quotation mark: %UPSTREAM_HOST%" %UPSTREAM_CLUSTER% and so on.
    """
    begun = text.find("]", 1, MAX_TIME)
    if begun < 0 or not text.startswith("[") or not text.startswith('] "', begun):
        return None
    if _BEGINNING.search(text, begun):
        return None  # more than one entry, as it looks: `_apart`
    head, *tail = text.rsplit(" ", 6)
    code = _CODE.search(text, begun + 3)
    quoted = head.rfind(' "', 0, -1)
    # With fewer than six words behind the last quotation mark the line was cut off.
    if (
        len(tail) != 6
        or not all(tail)
        or any('"' in word for word in tail)
        or code is None
        or quoted < 0
        or not head.endswith('"')
    ):
        return None
    host = head[quoted + 2 : -1]
    if not host or " " in host or '"' in host:
        return None
    method, _, rest = text[begun + 3 : code.start()].partition(" ")
    details = text[code.end() :].split(" ", 2)
    return Entry(
        upstream_cluster=_said(tail[0]),
        upstream_host=_said(host),
        upstream_local_address=_said(tail[1]),
        downstream_local_address=_said(tail[2]),
        downstream_remote_address=_said(tail[3]),
        x_forwarded_for=_forwarded(text, code.end()),
        start_time=text[1:begun],
        method=_said(method),
        path=_said(rest.rpartition(" ")[0]),
        response_code=code[1],
        response_code_details=_said(details[1]) if len(details) == 3 else None,
    )


_BEGINNING: Final = re.compile(r'\[\d{4}-\d\d-\d\dT[^\]" ]{4,40}+\] "')
_BEHIND: Final = re.compile(r"[\s,]*(?:\[pod/[^\] ]{1,520}\] )?(?:\d{4}-\d\d-\d\dT[^ \"]{4,40} )?[\s,]*$")


def _apart(text: str) -> list[str]:
    """
    Return the entries that *text*, one line, is made of: in a format without a line feed at its end, or put together.

    The prefix of the next entry is no part of the one before.
    """
    starts = [found.start() for found in _BEGINNING.finditer(text)]
    if len(starts) < 2 or starts[0]:
        return [text]
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [piece[: _BEHIND.search(piece, max(0, len(piece) - 600)).start()] for piece in pieces]  # type: ignore[union-attr]  # it finds the end


def _forwarded(text: str, start: int) -> str | None:
    """
    Return X-Forwarded-For, which nothing depends on.

    It stands behind the quoted %UPSTREAM_TRANSPORT_FAILURE_REASON% and four figures.
    """
    opened = text.find(' "', start - 1)
    closed = text.find('" ', opened + 2)
    begun = text.find(' "', closed + 1)
    ended = text.find('" "', begun + 2)
    if min(opened, closed, begun, ended) < 0 or text.count(" ", closed, begun + 1) != 5:
        return None
    return _said(text[begun + 2 : ended])


# --- Lines to entries


class _Line(msgspec.Struct, frozen=True, gc=False):
    """What a line without its prefixes is: an entry, or a document around another line (*inner*), or neither."""

    entry: Entry | None
    inner: str = ""
    pod: str = ""
    """As the document names it, else as the prefix did."""
    container: str = ""
    partial: bool = False
    """The inner line goes on in the next one."""
    value: Any = None
    """The document."""


class _Open:
    """An entry over several lines of which not all have come: what they say, and how deep its braces are."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lines: list[tuple[int, str]] = []
        self.length = 0
        self.depth = 0

    def add(self, number: int, text: str) -> bool:
        """Take a line in; return whether it can't belong to an entry."""
        self.lines.append((number, text))
        self.length += len(text)
        depth = _depth(text)
        if depth is None or self.length > MAX_LINE or len(self.lines) > MAX_ENTRY_LINES:
            return True
        self.depth += depth
        return self.depth < 0


_TOKENS: Final = re.compile(r'[^"{}\[\]]++|"(?:[^"\\]|\\.)*+"|[{}\[\]]')


def _depth(text: str) -> int | None:
    """Return how many more braces and brackets *text* opens than closes, strings apart; None where a string tears."""
    depth = position = 0
    while position < len(text):
        found = _TOKENS.match(text, position)
        if found is None:
            return None
        position = found.end()
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
    return depth


class Reader:
    """Reads one log, line by line, into entries and into lines that look like requests and can't be read."""

    def __init__(self) -> None:
        self.lines = 0
        """That were read so far, blank ones included."""
        self.entries = 0
        self.unread = 0
        self._open: dict[str, _Open] = {}
        self._parts: dict[str, _Open] = {}

    def read(self, lines: Iterable[str | None]) -> Iterator[Read]:
        """Yield what *lines* tell; an entry that they begin may end with the next ones."""
        for line in lines:
            self.lines += 1
            if line is None:
                yield self._not_read(self.lines, "", f"a line of more than {MAX_LINE} characters, or damaged data")
                continue
            text = line.strip()
            if not text:
                continue
            if not self._open and not self._parts:
                # What most lines are, with nothing before them but kubectl's prefixes.
                pod, entry = "", None
                if text[0] == "{":
                    entry = _from_json(text)
                elif text[:2] == "[2":
                    entry = _from_text(text)
                else:
                    found = KUBECTL.match(text)
                    if found is not None:
                        pod = found["pod"] or ""
                        entry = parse(text[found.end() :])
                if entry is not None and not entry.missing:
                    self.entries += 1
                    yield Read(line=self.lines, pod=pod, entry=entry)
                    continue
            # A crash leaves NULs in a log, and an archive of logs has them between its files.
            for part in line.split("\0"):
                if part and not part.isspace():
                    yield from self._read(part)

    def _read(self, line: str) -> Iterator[Read]:
        """Yield what a *line* tells, whatever stands before it."""
        pod, container, tag, text = unprefixed(uncoloured(line.strip()))
        continued = CONTINUED.match(text) if self._open else None
        if continued is not None:
            pod, container = continued.group("pod", "container")
            text = text[continued.end() :]
        if tag:  # of a part the last space counts
            *_, text = unprefixed(uncoloured(line.lstrip()).rstrip("\r"))
        if not tag and not self._open and text[:1] in {"[", "{"}:
            entry = parse(text)
            if entry is not None and not entry.missing:
                self.entries += 1
                yield Read(line=self.lines, pod=pod, entry=entry)
                return
        yield from self._line(self.lines, pod, container, tag, text)

    def end(self) -> Iterator[Read]:
        """Yield what was left incomplete at the log's end."""
        for parts in (self._parts, self._open):
            for key, torn in list(parts.items()):
                del parts[key]
                yield from self._torn(torn, key.rpartition(" ")[2], whole=parts is self._open)

    def _line(self, number: int, pod: str, container: str, tag: str, text: str) -> Iterator[Read]:
        if tag:
            # The runtime cuts lines at 16 KiB.
            stream, _, part = tag.partition(" ")
            joined = self._join(number, f"{stream} {pod}", text, whole=part != "P")
            if joined is None:
                return
            number, text = joined
        yield from self._message(number, pod, container, text.strip())

    def _join(self, number: int, source: str, text: str, *, whole: bool) -> tuple[int, str] | None:
        """Return the line of *source* that is whole by now."""
        parts = self._parts.get(source)
        if parts is None:
            if whole or len(self._parts) >= MAX_SOURCES:
                return number, text
            parts = self._parts[source] = _Open(number)
        parts.lines.append((number, text))
        parts.length += len(text)
        if not whole and parts.length <= MAX_LINE:
            return None
        del self._parts[source]
        return parts.number, "".join(part for _, part in parts.lines)

    def _message(self, number: int, pod: str, container: str, text: str, wrapped: int = 0) -> Iterator[Read]:
        """Read a line without its prefixes."""
        opened = self._open.get(pod)
        if opened is None or text[:2] in {'{"', "[2"}:
            whole = _whole(text, pod, container)
            if whole.entry is not None:
                if opened is not None:  # what was begun never ended
                    del self._open[pod]
                    yield from self._torn(opened, pod)
                if not _is_anothers(whole.entry, whole.container):
                    self.entries += 1
                    yield Read(line=number, pod=whole.pod, entry=whole.entry)
                return
            if whole.inner and wrapped < MAX_WRAPPED:
                told = whole.pod in self._open or whole.partial or _is_line(whole)
                if told or not (yield from self._within(number, whole.pod, whole.container, whole.value)):
                    yield from self._inner(number, whole, wrapped + 1)
                return
            if (yield from self._several(number, whole.pod, whole.container, text)):
                return
        if opened is None and text[:1] == "{" and len(self._open) < MAX_SOURCES and (_depth(text) or 0) > 0:
            opened = self._open[pod] = _Open(number)
        if opened is not None:
            yield from self._continue(number, pod, opened, text)
            return
        line = member(text) if text.startswith('"') else None
        if line is None or not (yield from self._within(number, pod, container, line)):
            yield from self._no_entry(number, pod, container, text)

    def _several(self, number: int, pod: str, container: str, text: str) -> Generator[Read, None, bool]:
        """Read a line that holds more than one entry, or one at a place that only its tool knows; say if it does."""
        pieces = _apart(text)
        if len(pieces) > 1:
            yield from self._pieces(number, pod, container, pieces)
            return True
        documents, rest = values(text)
        found = False
        for each in documents:
            found = (yield from self._within(number, pod, container, each)) or found
        if found and rest:
            yield from self._pieces(number, pod, container, _apart(rest))
        return found

    def _pieces(self, number: int, pod: str, container: str, pieces: Sequence[str]) -> Iterator[Read]:
        """
        Read entries in the text format that stand one behind the other.

        What callers write is not escaped there: all but the last may be of a caller's making.
        """
        for count, piece in enumerate(pieces, start=1):
            entry = _from_text(piece)
            if entry is None:
                yield from self._no_entry(number, pod, container, piece)
                continue
            self.entries += 1
            if count < len(pieces):
                entry = msgspec.structs.replace(entry, forgeable=True)
            yield Read(line=number, pod=pod, entry=entry)

    def _within(self, number: int, pod: str, container: str, value: Any) -> Generator[Read, None, bool]:
        """Read the entries at any place in a document, and say whether there are any, or what looks like one."""
        found = False
        for each in leaves(value, _is_entry):
            entry = _from_fields(each) if isinstance(each, Mapping) else None
            if entry is not None:
                if not _is_anothers(entry, container):
                    found = True
                    self.entries += 1
                    yield Read(line=number, pod=pod, entry=entry)
            elif isinstance(each, str):
                _, _, _, text = unprefixed(uncoloured(each).strip())
                if _from_text(text) is not None or looks_like_request(text):
                    found = True
                    yield from self._pieces(number, pod, container, _apart(text))
        return found

    def _inner(self, number: int, around: _Line, wrapped: int) -> Iterator[Read]:
        """Read the line that a document holds."""
        joined = self._join(number, f"{wrapped} {around.pod}", around.inner, whole=not around.partial)
        if joined is None:
            return
        number, inner = joined
        pod, container, _, text = unprefixed(uncoloured(inner).strip())
        yield from self._message(number, pod or around.pod, container or around.container, text, wrapped)

    def _continue(self, number: int, pod: str, opened: _Open, text: str) -> Iterator[Read]:
        torn = opened.add(number, text)
        if not torn and opened.depth > 0:
            return
        del self._open[pod]
        if not torn:
            whole = "\n".join(line for _, line in opened.lines)
            value = decoded(whole.rstrip(","))
            around = _named(value, pod, "") if isinstance(value, dict) else (pod, "")
            if value is not None and (yield from self._within(opened.number, *around, value)):
                return
        yield from self._torn(opened, pod)

    def _torn(self, opened: _Open, pod: str, *, whole: bool = True) -> Iterator[Read]:
        """Look at the lines of what is no entry one by one: once, so that the reading stays linear."""
        for number, text in opened.lines:
            entry = _whole(text, pod).entry if whole else None
            if entry is not None:
                self.entries += 1
                yield Read(line=number, pod=pod, entry=entry)
                continue
            line = member(text) if whole else None
            if line is None or not (yield from self._within(number, pod, "", line)):
                yield from self._no_entry(number, pod, "", text)

    def _no_entry(self, number: int, pod: str, container: str, text: str) -> Iterator[Read]:
        if container in {"", wellknown.PROXY_CONTAINER} and looks_like_request(text):
            yield self._not_read(number, pod, text)

    def _not_read(self, number: int, pod: str, text: str) -> Read:
        self.unread += 1
        return Read(line=number, pod=pod, entry=None, text=text[:SHOWN])


def _whole(text: str, pod: str, container: str = "") -> _Line:
    if not text.startswith("{"):
        return _Line(_from_text(text), "", pod, container)
    entry = _from_json(text)
    value = None if entry is not None else decoded(text.rstrip(","))
    if not isinstance(value, dict):
        return _Line(entry, "", pod, container)
    return _document(value, *_named(value, pod, container), depth=1)


def _document(value: Mapping[str, Any], pod: str, container: str, *, depth: int) -> _Line:
    for name in WRAPPERS:
        inner = value.get(name)
        if isinstance(inner, dict):
            entry = _from_fields(inner)
            if entry is not None:
                return _Line(entry, "", pod, container)
            found = _document(inner, pod, container, depth=depth + 1) if depth < MAX_WRAPPED else None
            if found is not None and (found.entry is not None or found.inner):
                return found
        elif isinstance(inner, str) and inner:
            return _Line(None, inner, pod, container, partial=_goes_on(value, inner), value=value)
    return _Line(_from_fields(value), "", pod, container)


def _goes_on(value: Mapping[str, Any], inner: str) -> bool:
    """Return whether the runtime says that the line goes on: Docker by a missing line feed, CRI by its tag."""
    if value.keys() <= DOCKER:
        return "stream" in value and not inner.endswith("\n")
    return "P" in {value.get("logtag"), value.get("_p")}


def _is_line(around: _Line) -> bool:
    """Return whether a document's inner line is its container's, as it looks: a runtime's, or one that may be read."""
    if around.value.keys() <= DOCKER or not around.value.keys().isdisjoint({"logtag", "_p"}):
        return True
    return around.inner.lstrip()[:1] in {"{", "["} or looks_like_request(around.inner)


def _named(value: Mapping[str, Any], pod: str, container: str) -> tuple[str, str]:
    """Return the pod and container that stern or a shipper (`kubernetes`) names beside the line."""
    kubernetes = value.get("kubernetes")
    beside = kubernetes if isinstance(kubernetes, dict) else {}
    told = []
    for what in ("pod", "container"):
        below = beside.get(what)
        name = below.get("name") if isinstance(below, dict) else None
        candidates = (value.get(f"{what}Name"), beside.get(f"{what}_name"), name, value.get(what))
        told.append(next((each for each in candidates if isinstance(each, str) and each), ""))
    return uncoloured(told[0]) or pod, uncoloured(told[1]) or container


def _is_entry(value: Mapping[str, Any]) -> bool:
    return _from_fields(value) is not None


def _is_anothers(entry: Entry, container: str) -> bool:
    """Return whether an entry is another container's own: it has none of the fields that decide."""
    return container not in {"", wellknown.PROXY_CONTAINER} and len(entry.missing) == len(DECIDING)


def looks_like_request(text: str) -> bool:
    """Return whether a line that is no entry may tell of a request all the same: of another format, or cut off."""
    if is_own_line(text):
        return _ENTRY.search(text) is not None
    if _LIKE_REQUEST.search(text):
        return True
    if text.startswith('{"') and decoded(text.rstrip(",")) is None:
        return True  # cut off before it says what it is
    return sum(1 for _, _ in zip(_SOCKET.finditer(text), range(2), strict=False)) == 2
