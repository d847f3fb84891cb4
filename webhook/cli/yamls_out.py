"""
YAML that kubectl reads as the object that it was.

kubectl reads with Go's yaml.v2 (sigs.k8s.io/yaml), which takes more unquoted texts for numbers and booleans than
PyYAML: `08`, `1234e56`, `0o17`, `1_000`, `y`. So a text stands unquoted only where it can be nothing else: it begins
with a letter or a slash and is no word that YAML 1.1 knows. Everything else is quoted.

https://github.com/kubernetes-sigs/yaml/blob/v1.6.0/goyaml.v2/resolve.go
"""

import io
import re
from collections.abc import Iterable
from typing import Any, Final

import yaml

_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})
_PLAIN: Final = re.compile(r"[A-Za-z/][^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]*")
_BLOCK: Final = re.compile(r"[^\s\x00-\x1f\x7f-\x9f][^\x00-\x08\x0b-\x1f\x7f-\x9f\t\u2028\u2029\ufeff\ufffe\uffff]*")
"""What a block scalar holds unchanged: no tabs, no line breaks but its own, nothing that must be escaped."""
_WIDTH: Final = 1 << 30
"""Columns: nothing is folded."""


class _Dumper(yaml.SafeDumper):
    """Writes plain texts that are texts to every reader, and what is there twice twice: `&id001` is for machines."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Say that nothing is an alias."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=_style(value))


def _style(value: str) -> str | None:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return None  # PyYAML quotes it where its place or its marks (`: `, ` #`) ask for it
    if "\n" in value and _BLOCK.fullmatch(value) and not re.search(r"[ ]\n|\n[ ]|[ ]$", value):
        return "|"
    if "\n" in value and _BLOCK.fullmatch(value) and not re.search(r"[ ]\n|[ ]$", value):
        return "|"
    return '"'


_Dumper.add_representer(str, _text)


def yaml_of(*documents: Any) -> str:
    """Return *documents* as a YAML stream; keys stay in their order."""
    return "".join(yaml_stream(documents))


def yaml_stream(documents: Iterable[Any]) -> Iterable[str]:
    """Yield each of *documents* as YAML, with what parts them."""
    for number, document in enumerate(documents):
        out = io.StringIO()
        yaml.dump(
            document, out, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=_WIDTH
        )
        text = out.getvalue()
        # A mark of the document's end stands at the head of its line: in a text that ends so, it is indented.
        end = len("...\n") if text.endswith("\n...\n") else 0
        yield ("---\n" if number else "") + text[: len(text) - end]
