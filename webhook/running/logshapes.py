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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from webhook.rules import wellknown
from webhook.running.accesslog import Entry

MAX_LINE: Final = 256 << 10
"""Characters of a line. Envoy takes 60 KiB of request headers, of which its formats name a few."""
MAX_ENTRY_LINES: Final = 200
"""Lines of one entry: Istio's JSON format has 25 keys, and few people add a hundred."""
MAX_PREFIXES: Final = 6
"""What may stand one behind the other before an entry: kubectl's, a timestamp, a runtime's, a shipper's."""
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
                yield from self._split(self._decode(self._inflate.decompress(chunk, MAX_INFLATED), final=False))
                chunk = self._inflate.unconsumed_tail
                if self._inflate.eof:  # rotated logs are often put together: one member follows the other
                    chunk = self._inflate.unused_data
                    self._inflate = zlib.decompressobj(wbits=31)
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
        return "utf-16-le" if first[1:2] == b"\0" else "utf-16-be" if first[:1] == b"\0" else "utf-8"
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
_TEXT: Final = re.compile(
    r'\[([^\]]{1,80}+)\] "([^" ]++) ([^" ]*+) [^" ]++" (\d{1,3}+) [^" ]++ ([^" ]++) [^"]*+"[^"]*+" '
    r'\d++ \d++ \d++ [^" ]++ "([^"]*+)" "[^"]*+" "[^"]*+" "[^"]*+" '
    r'"([^" ]++)" ([^" ]++) ([^" ]++) ([^" ]++) ([^" ]++) [^" ]++ [^" ]++'
)
"""
The whole line, where no caller wrote a quotation mark: then there is but one way to read it.

Every repetition ends where its own characters do, and gives none back: it costs what `str.find` would.
"""
MAX_TIME: Final = 80
"""Characters of a %START_TIME% in brackets."""
_CODE: Final = re.compile(r'" (\d{1,3}) ')
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:?]{0,40}[@-~]")
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}"
_TIME: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_PREFIX: Final = re.compile(
    rf"\[pod/(?P<pod>{_NAME})/(?P<container>{_NAME})\][ ]"  # kubectl logs --prefix
    rf"|\[{_NAME}(?:[ /]{_NAME}){{0,3}}\][ ]"  # kubetail
    rf"|{_TIME}[ ](?P<stream>stdout|stderr)[ ](?P<tag>[FP])(?::{_NAME}){{0,3}}[ ]"  # CRI
    rf"|{_TIME}[ ]"  # kubectl logs --timestamps
    rf"|\d\d-\d\d[ ]\d\d:\d\d:\d\d(?:\.\d{{1,9}})?[ ]"  # stern --timestamps=short
    rf"|[A-Z][a-z]{{2}}[ ][ \d]\d[ ]\d\d:\d\d:\d\d[ ]{_NAME}[ ]{_NAME}(?:\[\d{{1,10}}\])?:[ ]"  # journalctl
    rf"|\{{{_NAME}=\"[^\"]{{0,500}}\"(?:, ?{_NAME}=\"[^\"]{{0,500}}\"){{0,40}}\}}[ \t]"  # logcli
    rf"|(?:{_NAME}[ ]{{1,60}}){{0,3}}{_NAME}[ ]{{0,60}}\|[ ]{{1,4}}"  # docker compose
    rf"|{_NAME}/{_NAME}\[{_NAME}\]:[ ]"  # kail
    r"|(?:[A-Za-z0-9_./-]{1,255}:){1,2}(?=\[2|\{)"  # grep -n, and grep in several files
    rf"|(?P<stern>(?:{_NAME}[ ]{{1,4}}){{1,4}}?)(?=[\[{{]|\d{{4}}-\d\d-\d\dT|\d\d-\d\d[ ]\d\d:)",  # stern
)
_KUBECTL: Final = re.compile(
    r"(?:\[pod/(?P<pod>[^/\] ]{1,253}+)/(?P<container>[^/\] ]{1,253}+)\] )?(?:\d[^ \t]{17,40}+ )?(?=\[2|\{)"
)
"""What kubectl puts before most lines, in one step; what is between must be an entry all the same."""
_CONTINUED: Final = re.compile(rf"(?P<pod>{_NAME})[ ]{{1,4}}(?P<container>{_NAME})[ ]{{1,60}}(?=[\"}}\]])")
"""stern's prefix before a line in the middle of an entry."""
_OWN_LINES: Final = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]{8,20}(?:Z|[+-]\d\d:\d\d)\t"  # pilot-agent's, and Envoy's through it
    r"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "  # of Go's own logger
    r"|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,9}\]\[\d{1,10}\]\["  # Envoy's
)
"""What the container says of itself."""
_LIKE_REQUEST: Final = re.compile(
    r'^\[[^\]]{1,40}\] "'
    r'|HTTP/[0-3](?:\.[0-9])?[" ]'
    r"|\b(?:in|out)bound(?:-vip)?\|"
    r"|PassthroughCluster|BlackHoleCluster"
    r"|\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE) [/*]"
    r"|(?i:upstream_?local_?address|downstream_?remote_?address)"
)
_SOCKET: Final = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}:\d{1,5}(?!\d)|\[[0-9a-fA-F:.]{2,45}\]:\d{1,5}(?!\d)")


def parse(text: str) -> Entry | None:
    """Return the fields of an entry that *text* begins with; None where it is none, such as the agent's messages."""
    text = text.strip()
    return _from_json(text) if text.startswith("{") else _from_text(text)


def _from_json(text: str) -> Entry | None:
    try:
        found = _full.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        value = _decoded(text)
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


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _from_fields(value: Mapping[str, Any]) -> Entry | None:
    """Return the entry that an object of any format tells, with what its format leaves out."""
    told = {_BY_LETTERS.get(key.replace("_", "").replace("-", "").lower(), ""): each for key, each in value.items()}
    if len(told.keys() & KEYS) < 2 and "upstream_local_address" not in told:
        return None
    fields: dict[str, Any] = {name: _said(told.get(name)) for name in Entry.__struct_fields__ if name != "missing"}
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


def _unprefixed(text: str) -> tuple[str, str, str, str]:
    """Return pod, container, the CRI's stream and tag (`stdout P`), and what follows the prefixes."""
    pod = container = tag = ""
    for _ in range(MAX_PREFIXES):
        if text.startswith("["):
            if text.startswith('] "', text.find("]", 1, MAX_TIME)):
                break
        elif text[:1] in "\ufeff ":
            text = text.lstrip("\ufeff ")
        elif _OWN_LINES.match(text):
            break
        found = _PREFIX.match(text)
        if found is None:
            break
        text = text[found.end() :]
        kind = found.lastgroup
        if kind == "container":
            pod, container = found.group("pod", "container")
        elif kind == "tag":
            tag = " ".join(found.group("stream", "tag"))
        elif kind == "stern":
            words = found["stern"].split()
            pod, container = (words[-2], words[-1]) if len(words) > 1 else (words[0], container)
    return pod, container, tag, text


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
                    found = _KUBECTL.match(text)
                    if found is not None:
                        pod = found["pod"] or ""
                        entry = parse(text[found.end() :])
                if entry is not None:
                    self.entries += 1
                    yield Read(line=self.lines, pod=pod, entry=entry)
                    continue
            if "\x1b" in text:
                text = _COLOURS.sub("", text)
            pod, container, tag, text = _unprefixed(text)
            continued = _CONTINUED.match(text) if self._open else None
            if continued is not None:
                pod, container = continued.group("pod", "container")
                text = text[continued.end() :]
            if tag:  # of a part the last space counts
                *_, text = _unprefixed(_COLOURS.sub("", line.lstrip()).rstrip("\r"))
            if not tag and not self._open and text[:1] in {"[", "{"}:
                entry = parse(text)
                if entry is not None:
                    self.entries += 1
                    yield Read(line=self.lines, pod=pod, entry=entry)
                    continue
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
                self.entries += 1
                yield Read(line=number, pod=whole.pod, entry=whole.entry)
                return
            if whole.inner and wrapped < MAX_WRAPPED:
                yield from self._inner(number, whole, wrapped + 1)
                return
        if opened is None and text[:1] == "{" and len(self._open) < MAX_SOURCES and (_depth(text) or 0) > 0:
            opened = self._open[pod] = _Open(number)
        if opened is not None:
            yield from self._continue(number, pod, opened, text)
            return
        yield from self._no_entry(number, pod, container, text)

    def _inner(self, number: int, around: _Line, wrapped: int) -> Iterator[Read]:
        """Read the line that a document holds."""
        joined = self._join(number, f"{wrapped} {around.pod}", around.inner, whole=not around.partial)
        if joined is None:
            return
        number, inner = joined
        if "\x1b" in inner:
            inner = _COLOURS.sub("", inner)
        pod, container, _, text = _unprefixed(inner.strip())
        yield from self._message(number, pod or around.pod, container or around.container, text, wrapped)

    def _continue(self, number: int, pod: str, opened: _Open, text: str) -> Iterator[Read]:
        torn = opened.add(number, text)
        if not torn and opened.depth > 0:
            return
        del self._open[pod]
        if not torn:
            whole = "\n".join(line for _, line in opened.lines)
            value = _decoded(whole.rstrip(","))
            entry = _from_fields(value) if isinstance(value, dict) else None
            if entry is not None:
                self.entries += 1
                yield Read(line=opened.number, pod=pod, entry=entry)
                return
        yield from self._torn(opened, pod)

    def _torn(self, opened: _Open, pod: str, *, whole: bool = True) -> Iterator[Read]:
        """Look at the lines of what is no entry one by one: once, so that the reading stays linear."""
        for number, text in opened.lines:
            entry = _whole(text, pod).entry if whole else None
            if entry is not None:
                self.entries += 1
                yield Read(line=number, pod=pod, entry=entry)
            else:
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
    value = None if entry is not None else _decoded(text.rstrip(","))
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
            return _Line(None, inner, pod, container, partial=_goes_on(value, inner))
    return _Line(_from_fields(value), "", pod, container)


def _goes_on(value: Mapping[str, Any], inner: str) -> bool:
    """Return whether the runtime says that the line goes on: Docker by a missing line feed, CRI by its tag."""
    if value.keys() <= DOCKER:
        return "stream" in value and not inner.endswith("\n")
    return "P" in {value.get("logtag"), value.get("_p")}


def _named(value: Mapping[str, Any], pod: str, container: str) -> tuple[str, str]:
    """Return the pod and container that stern or a shipper (`kubernetes`) names beside the line."""
    kubernetes = value.get("kubernetes")
    beside = kubernetes if isinstance(kubernetes, dict) else {}
    told = (value.get("podName") or beside.get("pod_name"), value.get("containerName") or beside.get("container_name"))
    named = [each if isinstance(each, str) else "" for each in told]
    return named[0] or pod, named[1] or container


def looks_like_request(text: str) -> bool:
    """Return whether a line that is no entry may tell of a request all the same: of another format, or cut off."""
    if _OWN_LINES.match(text):
        return False
    if _LIKE_REQUEST.search(text):
        return True
    return sum(1 for _, _ in zip(_SOCKET.finditer(text), range(2), strict=False)) == 2
