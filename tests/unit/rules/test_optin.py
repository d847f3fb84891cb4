"""Only three values of the label mean anything."""

import pytest

from webhook.rules.optin import Preserve, invalid_value, preserve

LABEL = "client-ip.dev/preserve"


@pytest.mark.parametrize("value", ["enabled", "audit", "disabled"])
def test_each_word_is_itself(value: str) -> None:
    assert preserve({LABEL: value, "a": "b"}) == Preserve(value)
    assert invalid_value({LABEL: value}) is None


@pytest.mark.parametrize("labels", [None, {}, {"a": "enabled"}])
def test_an_absent_label_asks_for_nothing(labels: dict[str, str] | None) -> None:
    assert preserve(labels) is None
    assert invalid_value(labels) is None


@pytest.mark.parametrize("value", ["Enabled", "true", "", " enabled"])
def test_any_other_value_counts_as_absent_and_is_told(value: str) -> None:
    assert preserve({LABEL: value}) is None
    assert invalid_value({LABEL: value}) == value
