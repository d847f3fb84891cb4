"""Patches are `add` alone, into parents that exist or come with it."""

from typing import Literal

import pytest

from webhook.rules.patch import NOTHING, add_metadata, pointer


@pytest.mark.parametrize(
    ("tokens", "path"),
    [
        ((), ""),
        (("metadata", "labels"), "/metadata/labels"),
        (("metadata", "labels", "client-ip.dev/method"), "/metadata/labels/client-ip.dev~1method"),
        (("a~b", "~1", "/"), "/a~0b/~01/~1"),
        (("",), "/"),
    ],
)
def test_pointers_escape_tildes_before_slashes(tokens: tuple[str, ...], path: str) -> None:
    assert pointer(*tokens) == path


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_an_absent_map_is_added_with_its_entry(field: Literal["labels", "annotations"]) -> None:
    (operation,) = add_metadata(field, None, "a/b", "c")
    assert operation.as_json() == {"op": "add", "path": f"/metadata/{field}", "value": {"a/b": "c"}}


@pytest.mark.parametrize("present", [{}, {"d": "e"}, {"a/b": "other"}])
def test_a_map_that_is_there_gets_the_entry(present: dict[str, str]) -> None:
    (operation,) = add_metadata("labels", present, "a/b", "c")
    assert operation.as_json() == {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"}


def test_an_entry_that_is_there_is_not_added_again() -> None:
    assert add_metadata("labels", {"a/b": "c"}, "a/b", "c") == NOTHING
