"""What the API server makes of a patch: RFC 6902 by jsonpatch, of the very operations that the webhook sends."""

import base64
import copy
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import jsonpatch
import msgspec

from webhook.cli.yamls_out import yaml_of
from webhook.rules.patch import Patch
from webhook.server.review import encode_patch


class PatchFails(ValueError):  # noqa: N818  # an error's noun
    """A patch that can't be applied: the API server would refuse the object for it."""


def patched(manifest: Mapping[str, Any], patch: Patch) -> dict[str, Any]:
    """
    Return *manifest* with *patch* applied, as it goes over the wire.

    Raises:
        PatchFails: It can't be applied.

    """
    return applied(manifest, msgspec.json.decode(base64.b64decode(encode_patch(patch))) if patch else [])


def applied(manifest: Mapping[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Return *manifest* with the JSON patch *operations* applied.

    Raises:
        PatchFails: They can't be applied.

    """
    try:
        result: dict[str, Any] = jsonpatch.apply_patch(copy.deepcopy(dict(manifest)), operations, in_place=True)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise PatchFails(f"the patch cannot be applied, and the API server would reject the object: {error}") from error
    return result


def difference(before: Mapping[str, Any], after: Mapping[str, Any], *, context: int = 3) -> Iterator[str]:
    """Yield the lines of a unified diff of the two as YAML, without its heads."""
    one, other = (yaml_of(each).splitlines() for each in (before, after))
    for number, line in enumerate(difflib.unified_diff(one, other, lineterm="", n=context)):
        if number >= 2 and not line.startswith("@@"):
            yield line
