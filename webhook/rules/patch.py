"""
JSON Patch operations that cannot fail: `add` alone, into parents that exist or are added first.

The API server refuses the request when a patch does not apply, whatever the failurePolicy
(https://github.com/kubernetes/kubernetes/issues/129459), so nothing here tests, removes or replaces.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec


class PatchOperation(msgspec.Struct, frozen=True):
    """
    One `add` of RFC 6902.

    https://www.rfc-editor.org/rfc/rfc6902#section-4.1
    """

    path: str
    value: str | tuple[str, str]
    """A string, or the one entry of a map that is added with it."""

    def as_json(self) -> dict[str, Any]:
        """Return the operation as the API spells it."""
        value = self.value if isinstance(self.value, str) else dict([self.value])
        return {"op": "add", "path": self.path, "value": value}


Patch: TypeAlias = tuple[PatchOperation, ...]
NOTHING: Final[Patch] = ()


@lru_cache(maxsize=256)
def pointer(*tokens: str) -> str:
    """
    Return the JSON Pointer of *tokens*: `~` becomes `~0` and `/` becomes `~1`.

    https://www.rfc-editor.org/rfc/rfc6901#section-3
    """
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def add_metadata(
    field: Literal["annotations", "labels"],
    present: Mapping[str, str] | None,
    key: str,
    value: str,
) -> Patch:
    """
    Return what gives the object's *field* the entry *key*: *value*.

    Where the map is absent or null it is added with the entry in it: `add` into a missing parent fails.
    """
    if present is None:
        return _add_map(field, key, value)
    return NOTHING if present.get(key) == value else _add_entry(field, key, value)


@lru_cache(maxsize=256)
def _add_map(field: str, key: str, value: str) -> Patch:
    return (PatchOperation(pointer("metadata", field), (key, value)),)


@lru_cache(maxsize=256)
def _add_entry(field: str, key: str, value: str) -> Patch:
    return (PatchOperation(pointer("metadata", field, key), value),)
