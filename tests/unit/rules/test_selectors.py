"""Label selectors, requirements and tolerations mean what Kubernetes means by them."""

import re

import pytest
from hypothesis import given, strategies as st

from webhook.rules.selectors import (
    EVERYTHING,
    LabelSelectorSpec,
    Requirement,
    SelectorError,
    Toleration,
    label_selector,
    parse_int64,
    requirement_is_valid,
    tolerates,
    valid_label_key,
    valid_label_value,
)


def expressing(*parts: tuple[str, str, list[str] | None]) -> LabelSelectorSpec:
    return LabelSelectorSpec(
        match_expressions=[Requirement(key=key, operator=operator, values=values) for key, operator, values in parts],
    )


@pytest.mark.parametrize(
    ("spec", "matching", "others"),
    [
        pytest.param(None, [{}, {"a": "b"}], [], id="none matches everything"),
        pytest.param(LabelSelectorSpec(), [{}, {"a": "b"}], [], id="an empty one matches everything"),
        pytest.param(
            LabelSelectorSpec(match_labels={"a": "b", "c": ""}),
            [{"a": "b", "c": ""}, {"a": "b", "c": "", "d": "e"}],
            [{"a": "b"}, {"a": "c", "c": ""}, {}],
            id="all labels must be equal, an empty value is one",
        ),
        pytest.param(
            expressing(("a", "In", ["b", "c"])), [{"a": "b"}, {"a": "c"}], [{"a": "d"}, {"b": "b"}, {}], id="In"
        ),
        pytest.param(
            expressing(("a", "NotIn", ["b"])), [{}, {"a": "c"}], [{"a": "b"}], id="NotIn also matches absent keys"
        ),
        pytest.param(expressing(("a", "Exists", None)), [{"a": ""}], [{}, {"b": ""}], id="Exists"),
        pytest.param(expressing(("a", "DoesNotExist", [])), [{}, {"b": ""}], [{"a": ""}], id="DoesNotExist"),
        pytest.param(
            expressing(("a", "Exists", None), ("a", "NotIn", ["b"])),
            [{"a": "c"}],
            [{"a": "b"}, {}],
            id="every expression must hold",
        ),
        pytest.param(
            LabelSelectorSpec(match_labels={"a": "b"}, match_expressions=[Requirement(key="c", operator="Exists")]),
            [{"a": "b", "c": ""}],
            [{"a": "b"}, {"c": ""}],
            id="labels and expressions must both hold",
        ),
    ],
)
def test_a_selector_matches(
    spec: LabelSelectorSpec | None,
    matching: list[dict[str, str]],
    others: list[dict[str, str]],
) -> None:
    selector = label_selector(spec)
    assert [labels for labels in matching if not selector.matches(labels)] == []
    assert [labels for labels in others if selector.matches(labels)] == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (LabelSelectorSpec(match_labels={"a b": "c"}), "matchLabels[a b]: 'a b' is not a valid label key"),
        (LabelSelectorSpec(match_labels={"a": "b c"}), "matchLabels[a]: 'b c' is not a valid label value"),
        (expressing(("", "Exists", None)), "matchExpressions[0].key: '' is not a valid label key"),
        (
            expressing(("a", "Exists", None), ("a", "In", [])),
            "matchExpressions[1].values: must name at least one value for In",
        ),
        (expressing(("a", "NotIn", None)), "matchExpressions[0].values: must name at least one value for NotIn"),
        (expressing(("a", "In", ["b", "-c"])), "matchExpressions[0].values: '-c' is not a valid label value"),
        (expressing(("a", "Exists", ["b"])), "matchExpressions[0].values: must be empty for Exists"),
        (expressing(("a", "DoesNotExist", ["b"])), "matchExpressions[0].values: must be empty for DoesNotExist"),
        (
            expressing(("a", "Gt", ["1"])),
            "matchExpressions[0].operator: 'Gt' is not one of In, NotIn, Exists, DoesNotExist",
        ),
    ],
)
def test_what_the_api_server_refuses_is_named_with_its_field(spec: LabelSelectorSpec, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        label_selector(spec)
    assert str(caught.value) == message
    assert caught.value.field == message.partition(": ")[0]


def test_an_error_of_the_whole_selector_has_no_field() -> None:
    assert str(SelectorError("", "no selector")) == "no selector"


def test_a_selector_reads_as_kubectl_writes_it() -> None:
    spec = LabelSelectorSpec(
        match_labels={"b": "c", "a": "b"},
        match_expressions=[
            Requirement(key="d", operator="NotIn", values=["y", "x"]),
            Requirement(key="e", operator="Exists"),
            Requirement(key="f", operator="DoesNotExist"),
        ],
    )
    assert str(label_selector(spec)) == "a=b, b=c, d NotIn [x, y], e, !f"
    assert str(EVERYTHING) == "everything"


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("a", True),
        ("A-b_c.9", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("example.com/a", True),
        ("a.b-c.d/a", True),
        ("a" * 253 + "/a", True),
        ("a" * 254 + "/a", False),
        ("", False),
        ("/a", False),
        ("a/", False),
        ("a/b/c", False),
        ("UPPER.com/a", False),
        ("a..b/c", False),
        ("-a", False),
        ("a-", False),
        ("ä", False),
        ("a\n", False),
        ("example.com\n/a", False),
    ],
)
def test_label_keys_are_qualified_names(key: str, *, valid: bool) -> None:
    assert valid_label_key(key) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [("", True), ("a", True), ("a" * 63, True), ("a" * 64, False), ("a b", False), ("-a", False), ("a\n", False)],
)
def test_label_values_are_short_names_or_empty(value: str, *, valid: bool) -> None:
    assert valid_label_value(value) is valid


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("+5", 5),
        ("-5", -5),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", None),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", None),
        ("9" * 5000, None),
        ("0" * 399 + "7", 7),
        ("", None),
        ("-", None),
        (" 5", None),
        ("5\n", None),
        ("1_0", None),
        ("0x5", None),
        ("5.0", None),
        ("\u0665", None),
    ],
)
def test_integers_are_read_as_go_reads_them(text: str, number: int | None) -> None:
    assert parse_int64(text) == number


@pytest.mark.parametrize(
    ("key", "operator", "values", "valid"),
    [
        ("a", "In", ["b"], True),
        ("a", "In", [], False),
        ("a", "In", None, False),
        ("a", "NotIn", ["b", ""], True),
        ("a", "NotIn", [], False),
        ("a", "Exists", None, True),
        ("a", "Exists", ["b"], False),
        ("a", "DoesNotExist", [], True),
        ("a", "DoesNotExist", ["b"], False),
        ("a", "Gt", ["007"], True),
        ("a", "Gt", ["7", "8"], False),
        ("a", "Gt", ["b"], False),
        ("a", "Lt", ["-1"], False),
        ("a", "Lt", [], False),
        ("a", "Equals", ["b"], False),
        ("a", "", None, False),
        ("-a", "Exists", None, False),
        ("a", "In", ["b c"], False),
    ],
)
def test_a_requirement_parses_or_voids_its_term(
    key: str,
    operator: str,
    values: list[str] | None,
    *,
    valid: bool,
) -> None:
    assert requirement_is_valid(Requirement(key=key, operator=operator, values=values)) is valid


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        pytest.param({"operator": "Exists"}, True, id="no key tolerates all"),
        pytest.param({"key": "gpu", "operator": "Exists"}, True, id="Exists"),
        pytest.param({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True, id="its effect"),
        pytest.param({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False, id="another effect"),
        pytest.param({"key": "cpu", "operator": "Exists"}, False, id="another key"),
        pytest.param({"key": "gpu", "value": "7"}, True, id="no operator is Equal"),
        pytest.param({"key": "gpu", "operator": "Equal", "value": "8"}, False, id="another value"),
        pytest.param({"key": "gpu"}, False, id="no value is the empty one"),
        pytest.param({"key": "gpu", "operator": "Gt", "value": "6"}, True, id="Gt below"),
        pytest.param({"key": "gpu", "operator": "Gt", "value": "7"}, False, id="Gt its own"),
        pytest.param({"key": "gpu", "operator": "Lt", "value": "8"}, True, id="Lt above"),
        pytest.param({"key": "gpu", "operator": "Lt", "value": "7"}, False, id="Lt its own"),
        pytest.param({"key": "gpu", "operator": "Gt", "value": "006"}, False, id="leading zeros are no integer here"),
        pytest.param({"key": "gpu", "operator": "Gt", "value": "+6"}, False, id="nor is a plus sign"),
        pytest.param({"key": "gpu", "operator": "exists"}, False, id="an unknown operator tolerates nothing"),
    ],
)
def test_a_toleration_tolerates(toleration: dict[str, str], *, tolerated: bool) -> None:
    assert tolerates(Toleration(**toleration), key="gpu", value="7", effect="NoSchedule") is tolerated


def test_a_taint_without_a_number_is_beyond_gt_and_lt() -> None:
    for value in ("", "a", "007"):
        assert not tolerates(Toleration(operator="Gt", value="-1"), key="gpu", value=value, effect="NoSchedule")


def _as_kubernetes_has_it(key: str) -> bool:
    """https://github.com/kubernetes/apimachinery/blob/v0.37.2/pkg/util/validation/validation.go."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (
        0 < len(prefix) <= 253
        and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", prefix, re.ASCII)
    ):
        return False
    return len(name) <= 63 and bool(re.fullmatch(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", name, re.ASCII))


@given(key=st.text("aB0-._/\n\u00e9", max_size=9) | st.text("a-.", max_size=12).map("{}/a".format))
def test_a_key_is_one_to_kubernetes_too(key: str) -> None:
    assert valid_label_key(key) == _as_kubernetes_has_it(key)
