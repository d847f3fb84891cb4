"""
YAML as kubectl reads it, with a line for every field.

sigs.k8s.io/yaml reads YAML 1.1: `y`, `no` and `on` are booleans. It has no timestamps and no sexagesimal numbers, and
takes a key that is there twice as an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml


class YAMLInvalid(ValueError):  # noqa: N818  # an error's noun
    """A document that can't be read; *line* counts from 1, 0 where it is not known."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.CSafeLoader):
    """Composes nodes; the scalars' meaning is decided by the resolvers below."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", list("yYnNtTfFoO")),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9][0-9_]*)?\.?[0-9_]+([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)

_TRUE: Final = frozenset({"y", "yes", "true", "on"})
_MERGE: Final = "tag:yaml.org,2002:merge"
MAX_DEPTH: Final = 200
MAX_NODES: Final = 5_000_000
"""Aliases can make a small file large: what is read in all is bounded."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and where each field stands."""

    number: int
    value: Any
    root: Any = None

    def line_of(self, path: str) -> int:
        """Return the line of the field at *path* (`spec.rules[0].name`), or of the nearest one above it."""
        node = self.root
        line = node.start_mark.line + 1 if node is not None else 0
        for token in re.findall(r"[^.\[\]]+", path):
            below = _below(node, token)
            if below is None:
                break
            line, node = below
        return line


def _below(node: Any, token: str) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == token:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and token.isdigit() and int(token) < len(node.value):
        below = node.value[int(token)]
        return below.start_mark.line + 1, below
    return None


def documents(text: str) -> Iterator[Document]:
    """
    Yield the documents of *text* that are not empty.

    Raises:
        YAMLInvalid: When its turn comes; the documents before it have been yielded.

    """
    try:
        for number, root in enumerate(yaml.compose_all(text, Loader=_Loader), start=1):
            reader = _Reader()
            value = reader.value(root, 0)
            if value is not None:
                yield Document(number, value, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise YAMLInvalid(message, mark.line + 1 if mark is not None else 0) from error
    except yaml.YAMLError as error:
        raise YAMLInvalid(str(error), 0) from error
    except RecursionError as error:
        raise YAMLInvalid("nested too deeply", 0) from error


def json_documents(text: bytes) -> Iterator[Document]:
    """Yield the one document of JSON *text*; much faster than YAML, without lines."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise YAMLInvalid(f"no JSON: {error}", 0) from error
    if value is not None:
        yield Document(1, value)


class _Reader:
    """Turns nodes into values."""

    def __init__(self) -> None:
        self._seen = 0

    def value(self, node: Any, depth: int) -> Any:
        self._seen += 1
        if depth > MAX_DEPTH:
            raise YAMLInvalid("nested too deeply", node.start_mark.line + 1)
        if self._seen > MAX_NODES:
            raise YAMLInvalid("too large once its aliases are followed", node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, depth + 1) for each in node.value]
        return _scalar(node)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            value = self.value(value_node, depth + 1)
            if key_node.tag == _MERGE:
                for each in value if isinstance(value, list) else [value]:
                    if not isinstance(each, Mapping):
                        raise YAMLInvalid("'<<' merges mappings alone", line)
                    merged = {**each, **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise YAMLInvalid("a key must be a string", line)
            key = _key(_scalar(key_node), key_node.value)
            if key in found:
                raise YAMLInvalid(f"key {key!r} is there twice", line)
            found[key] = value
        return {**merged, **found} if merged else found


def _key(scalar: Any, text: str) -> str:
    """Keys become strings, as JSON has them."""
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    return "null" if scalar is None else text


def _scalar(node: Any) -> Any:
    text: str = node.value
    try:
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() in _TRUE
            case "int":
                return _integer(text.replace("_", ""))
            case "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
            case _:
                return text
    except ValueError:
        return text


def _integer(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567":
        return sign * int(digits, 8)
    return sign * int(digits, 0)
