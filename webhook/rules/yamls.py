"""
YAML as kubectl reads it, with a line for every field.

sigs.k8s.io/yaml reads YAML 1.1: `y`, `no` and `on` are booleans. It has no timestamps and no sexagesimal numbers, and
takes a key that is there twice as an error. Text of any origin is safe to read: libyaml's events are put together here
in a loop, since PyYAML's composer calls itself for each level and ends the process where text nests deeply enough.
"""

import base64
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec
import yaml


class YAMLInvalid(ValueError):  # noqa: N818  # an error's noun
    """A document that can't be read; *line* counts from 1, 0 where it is not known, as *document* does."""

    def __init__(self, message: str, line: int, document: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.document = document


class YAMLExcess(YAMLInvalid):
    """A document that is beyond a limit of the reader's: it may be a good one to others."""


MAX_DEPTH: Final = 200
MAX_REPEATED: Final = 400_000
"""Aliases and merges make a small file large: how many nodes of a document are read more than once is bounded."""

_TRUE: Final = frozenset({"y", "yes", "true", "on"})
_TAGS: Final = tuple(
    (tag, re.compile(pattern), frozenset(first))
    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        (
            "bool",
            r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
            list("yYnNtTfFoO"),
        ),
        ("int", r"[-+]?(?:0[bB][01_]++|0[oO]?[0-7_]++|0[xX][0-9a-fA-F_]++|0|[1-9][0-9_]*+)", list("-+0123456789")),
        (
            "float",
            (
                r"[-+]?(?:[0-9_]++|(?:[0-9][0-9_]*+)?+\.[0-9_]++)(?:[eE][-+]?[0-9_]++)?"
                r"|[-+]?[0-9][0-9_]*+\.(?:[eE][-+]?[0-9_]++)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
            ),
            list("-+0123456789."),
        ),
        ("merge", r"<<", ["<"]),
    )
)
"""
What a plain scalar means: the first tag whose pattern fits it, found by its first character.

Every repetition is possessive: it gives back nothing, so that reading a scalar takes one pass for each alternative.
Tenants write these texts, and a pattern that backtracks takes minutes for a long number.
"""


@dataclass(slots=True, eq=False)
class _Node:
    """A part of the text: a scalar's text with its tag, or what a sequence or mapping holds."""

    line: int
    tag: str = "str"
    text: str = ""
    items: "list[_Node] | None" = None
    pairs: "list[tuple[_Node, _Node]] | None" = None
    read: bool = False

    def below(self, token: str) -> "tuple[int, _Node] | None":
        """Return the field or item called *token*, and its line."""
        for key, value in self.pairs or ():
            if key.text == token:
                return key.line, value
        if self.items is not None and token.isdigit() and int(token) < len(self.items):
            below = self.items[int(token)]
            return below.line, below
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and where each field stands."""

    number: int
    value: Any
    root: _Node | None = None

    def line_of(self, path: str) -> int:
        """Return the line of the field at *path* (`spec.rules[0].name`), or of the nearest one above it."""
        node = self.root
        line = node.line if node is not None else 0
        for token in re.findall(r"[^.\[\]]+", path):
            below = node.below(token) if node is not None else None
            if below is None:
                break
            line, node = below
        return line


def documents(text: str, *, max_repeated: int = MAX_REPEATED, max_nodes: int | None = None) -> Iterator[Document]:
    """
    Yield the documents of *text* that are not empty.

    Args:
        text: YAML.
        max_repeated: How many nodes (scalars, lists, mappings) are read once more, by aliases and merges.
        max_nodes: How many nodes there are in all; None: any number.

    Raises:
        YAMLInvalid: When its turn comes; the documents before it have been yielded.

    """
    number = 0
    try:
        for number, root in enumerate(_composed(yaml.parse(text, Loader=yaml.CSafeLoader), max_nodes), start=1):
            value = _Reader(max_repeated).value(root, 0)
            if value is not None:
                yield Document(number, value, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise YAMLInvalid(message, mark.line + 1 if mark is not None else 0, number + 1) from error
    except yaml.YAMLError as error:
        raise YAMLInvalid(" ".join(str(error).split()), 0, number + 1) from error
    except YAMLInvalid as error:
        error.document = error.document or number
        raise


def json_documents(text: bytes | str) -> Iterator[Document]:
    """
    Yield the documents of JSON *text*, one or a stream of them; much faster than YAML, without a line for each field.

    Raises:
        YAMLInvalid: When its turn comes.

    """
    try:
        values: Iterable[Any] = (msgspec.json.decode(text),)
    except RecursionError as error:
        raise YAMLInvalid("nested too deeply", 0) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        if "trailing characters" not in str(error):
            raise YAMLInvalid(f"invalid JSON: {error}", 0) from error
        values = _json_stream(text if isinstance(text, str) else text.decode())
    for number, value in enumerate(values, start=1):
        if value is not None:
            yield Document(number, value)


def _json_stream(text: str) -> Iterator[Any]:
    """Yield the values of *text*, which stand one after the other: `kubectl -o json` of several, `jq '.items[]'`."""
    number, at = 0, 0
    while True:
        at = _AFTER.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing as well
        if at >= len(text):
            return
        number += 1
        line = text.count("\n", 0, at) + 1
        try:
            value, at = _json.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise YAMLInvalid(f"invalid JSON: {error.msg}", error.lineno, number) from error
        except RecursionError as error:
            raise YAMLInvalid("nested too deeply", line, number) from error
        except ValueError as error:  # NaN, or more digits than Python takes
            raise YAMLInvalid(f"invalid JSON: {error}", line, number) from error
        yield value


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not valid JSON")


_json: Final = json.JSONDecoder(parse_constant=_no_number)
_AFTER: Final = re.compile(r"[ \t\r\n]*")


def _composed(events: Iterable[yaml.Event], max_nodes: int | None) -> Iterator[_Node]:
    """Yield each document's root; an alias is the node that its anchor names."""
    anchors: dict[str, _Node] = {}
    number, depth, nodes = 0, 0, 0
    root = top = _Node(0, items=[])
    above: list[tuple[_Node, _Node | None]] = []
    key: _Node | None = None
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        match event:
            case yaml.ScalarEvent():
                node = _Node(line, _tag(event), event.value)
            case yaml.SequenceStartEvent():
                node = _Node(line, items=[])
            case yaml.MappingStartEvent():
                node = _Node(line, pairs=[])
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    raise YAMLInvalid(f"no anchor {event.anchor!r} before this alias", line, number)
                node = anchors[event.anchor]
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                top, key = above.pop()
                depth -= 1
                continue
            case yaml.DocumentStartEvent():
                number += 1
                anchors.clear()
                root = top = _Node(0, items=[])
                continue
            case yaml.DocumentEndEvent():
                yield from root.items or ()
                continue
            case _:
                continue
        nodes += 1
        if max_nodes is not None and nodes > max_nodes:
            raise YAMLExcess(f"more than {max_nodes:,} values", line, number)
        if top.items is not None:
            top.items.append(node)
        elif key is None:
            key = node
        elif top.pairs is not None:
            top.pairs.append((key, node))
            key = None
        if isinstance(event, yaml.AliasEvent):
            continue
        if event.anchor is not None:
            anchors[event.anchor] = node
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YAMLExcess("nested too deeply", node.line, number)
            above.append((top, key))
            top, key = node, None


def _tag(event: yaml.ScalarEvent) -> str:
    if event.tag is not None:
        tag = str(event.tag)
        written = tag.removeprefix(_YAMLS_OWN)
        return f"!!{written}" if written not in {tag, "str"} else "str"
    return _resolved(event.value) if event.implicit[0] else "str"


_YAMLS_OWN: Final = "tag:yaml.org,2002:"
"""Before YAML's own tags, which are written `!!int`; all others say nothing of a scalar."""


def _resolved(text: str) -> str:
    """Return what an unquoted scalar is taken for."""
    first = text[:1]
    for tag, pattern, firsts in _TAGS:
        if first in firsts and pattern.fullmatch(text):
            return tag
    return "str"


class _Reader:
    """Turns nodes into values."""

    def __init__(self, max_repeated: int) -> None:
        self._left = max_repeated

    def value(self, node: _Node, depth: int) -> Any:
        if node.read:
            self._again(1, node.line)
        node.read = True
        if depth > MAX_DEPTH:
            raise YAMLExcess("nested too deeply", node.line)
        if node.pairs is not None:
            return self._mapping(node.pairs, depth)
        if node.items is not None:
            return [self.value(each, depth + 1) for each in node.items]
        return _scalar(node)

    def _again(self, number: int, line: int) -> None:
        """Count *number* values that were read already: by an alias, or to be merged into another mapping."""
        self._left -= number
        if self._left < 0:
            raise YAMLExcess("too large after its aliases are expanded", line)

    def _mapping(self, pairs: "list[tuple[_Node, _Node]]", depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own: set[str] = set()
        for key_node, value_node in pairs:
            if key_node.items is not None or key_node.pairs is not None:
                raise YAMLInvalid("a key must be a string", key_node.line)
            value = self.value(value_node, depth + 1)
            if key_node.tag in {"merge", "!!merge"}:
                # As Go has it: what is merged replaces what stands before it, of several the first counts.
                for each in reversed(value) if isinstance(value, list) else [value]:
                    if not isinstance(each, Mapping):
                        raise YAMLInvalid("'<<' can only merge mappings", key_node.line)
                    self._again(len(each), key_node.line)
                    found.update(each)
                continue
            key = _key(key_node)
            if key in own:
                raise YAMLInvalid(f"duplicate key {key!r}", key_node.line)
            own.add(key)
            found[key] = value
        return found


def _key(node: _Node) -> str:
    """Keys become strings, as JSON has them."""
    if node.tag == "float" and (text := node.text.lower()).endswith(("inf", "nan")):
        return text.removeprefix("+")  # no number of JSON's, but a text
    scalar = _scalar(node)
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    if scalar is None:
        raise YAMLInvalid("a key must be a string, not null", node.line)
    if isinstance(scalar, float):
        return _number_key(scalar)
    if isinstance(scalar, int) and scalar > _INT64:
        raise YAMLInvalid(f"a key must be a string, not {scalar}", node.line)
    return str(scalar)


def _number_key(number: float) -> str:
    """Return *number* as Go's `FormatFloat(…, 'g', -1, 32)` writes it: from a million on with an exponent."""
    rounded = _single(number)
    if math.isinf(rounded):
        return ".inf" if number > 0 else "-.inf"
    texts = (f"{rounded:.{digits}g}" for digits in range(1, 10))
    shortest = next(text for text in texts if _single(float(text)) == rounded)
    digits = Decimal(shortest).normalize()
    exponent = digits.adjusted()
    if -4 <= exponent < 6 or not digits:
        return format(digits, "f")
    mantissa = format(digits.scaleb(-exponent), "f")
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"


def _single(number: float) -> float:
    """Return *number* in single precision."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.inf


def _scalar(node: _Node) -> Any:
    text, tag = node.text, node.tag
    if tag.startswith("!!"):
        return _tagged(text, tag.removeprefix("!!"), node.line)
    try:
        match tag:
            case "null":
                return None
            case "bool":
                return text.lower() in _TRUE
            case "int":
                return _integer(text.replace("_", ""))
            case "float":
                return _float(text, node.line)
            case _:
                return text
    except YAMLInvalid:
        raise
    except ValueError:
        return text


def _tagged(text: str, tag: str, line: int) -> Any:
    """Return what a scalar with one of YAML's own tags is: it must be what the tag says, quoted or not."""
    if tag == "binary":
        try:
            return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True).decode(errors="replace")
        except ValueError as error:
            raise YAMLInvalid("!!binary is not base64", line) from error
    if tag not in {"bool", "int", "float", "null", "timestamp"}:
        return text
    resolved = "timestamp" if tag == "timestamp" and _DATE.match(text) else _resolved(text)
    value = _scalar(_Node(line, resolved, text))
    if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if resolved != tag or (tag == "int" and not isinstance(value, int)):
        raise YAMLInvalid(f"{text[:40]!r} is not a valid !!{tag}", line)
    return value


_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", re.ASCII)


def _float(text: str, line: int) -> float:
    """JSON has no infinity and no NaN; digits that are beyond every float stay a text, as Go has it."""
    number = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    if math.isfinite(number):
        return number
    if any(each.isdigit() for each in text):
        raise ValueError("too large")
    raise YAMLInvalid(f"{text} cannot be represented in JSON", line)


_INT64: Final = (1 << 63) - 1
_UINT64: Final = (1 << 64) - 1


def _integer(text: str) -> int | float:
    """What is beyond 64 bits is a float, as Go has it, or a text where it is no decimal number."""
    number = _exact_integer(text)
    if -_INT64 - 1 <= number <= _UINT64:
        return number
    if text.lstrip("+-")[:2].lower() in {"0b", "0o", "0x"}:
        raise ValueError("too large")
    return float(text)


def _exact_integer(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if len(digits) > 400:
        raise ValueError("far beyond every number of Kubernetes, and Python would not write it out again")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        return sign * int(digits, 8)
    return sign * int(digits, 0)
