"""YAML is read as kubectl reads it, with a line for every field, and whatever it is, in bounded time and memory."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from webhook.rules.yamls import MAX_DEPTH, YAMLExcess, YAMLInvalid, documents, json_documents


def value(text: str) -> Any:
    (document,) = documents(text)
    return document.value


def refused(text: str, **limits: int) -> tuple[str, int, int]:
    with pytest.raises(YAMLInvalid) as caught:
        list(documents(text, **limits))
    return str(caught.value), caught.value.line, caught.value.document


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # YAML 1.1's booleans, as sigs.k8s.io/yaml has them.
        *((word, True) for word in ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")),
        *((word, False) for word in ("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")),
        *((word, word) for word in ("yEs", "tRue", "oN", "yess", "nope", "truee", "enabled")),
        ('"yes"', "yes"),
        ("'no'", "no"),
        *((word, None) for word in ("~ ", "null", "Null", "NULL")),
        ("nULL", "nULL"),
        ('""', ""),
        # Neither timestamps nor sexagesimal numbers.
        ("2027-03-31", "2027-03-31"),
        ("2027-03-31T00:00:00Z", "2027-03-31T00:00:00Z"),
        ("12:30:45", "12:30:45"),
        ("1:30", "1:30"),
        # Integers.
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("-12", -12),
        ("1_000", 1000),
        ("0b101", 5),
        ("-0b101", -5),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("-017", -15),
        ("0_17", 15),
        ("9223372036854775808", 9223372036854775808),
        # Floats.
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5e3", -1500.0),
        ("1e3", 1000.0),
        ("089", 89.0),
        # What looks like a number and is none.
        *((text, text) for text in ("1.2.3", "0x", "0xg", "1e", "e1", "--1", "+", ".", "1,000", "v1", "10Gi")),
        ("9" * 5000, "9" * 5000),
        ("0x" + "f" * 5000, "0x" + "f" * 5000),
        ("0b_", "0b_"),
        ("._", "._"),
        ("-_", "-_"),
        # Tags say it outright.
        ("!!str 7", "7"),
        ("! 7", "7"),
        ("!!binary aGk=", "hi"),
        ("1e400", "1e400"),
        ('!!int "7"', 7),
        ("!!float 0x10", 16.0),
        ("0O17", 15),
        ("0B11", 3),
        ("0X1F", 31),
        ("1.e5", 100000.0),
        ("18446744073709551615", 18446744073709551615),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775809", -9223372036854775809.0),
        ("0xfffffffffffffffff", "0xfffffffffffffffff"),
        ("!<tag:example.com,2000:int> a", "a"),
        ("!!float 7", 7.0),
        ("!!bool yes", True),
        ("!custom 7", "7"),
        # Block scalars.
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
    ],
)
def test_scalars(text: str, wanted: Any) -> None:
    found = value(f"- {text}")[0]
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize("text", [".inf", "-.Inf", "+.INF", ".NaN"])
def test_what_json_has_not_is_refused(text: str) -> None:
    assert refused(f"a: 1\nb: {text}\n") == (f"{text} cannot be represented in JSON", 2, 1)


def test_keys_become_strings() -> None:
    assert value("{1: a, 1.5: b, true: c, no: d, 1e6: e, 0x10: f, g: h}") == {
        "1": "a",
        "1.5": "b",
        "true": "c",
        "false": "d",
        "1e+06": "e",
        "16": "f",
        "g": "h",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", 3), ('1: a\n"1": b\n', 2), ("x:\n- a: 1\n  a: 1\n", 3), ("{y: 1, yes: 2}", 1)],
)
def test_a_key_that_is_there_twice_is_an_error(text: str, line: int) -> None:
    message, at, document = refused(text)
    assert message.startswith("duplicate key")
    assert (at, document) == (line, 1)


def test_merges() -> None:
    text = """
base: &base {a: 1, b: 2}
more: &more {b: 3, c: 4}
one: {<<: *base, b: 5}
two: {<<: [*base, *more], d: 6}
quoted: {"<<": 7}
"""
    found = value(text)
    assert found["one"] == {"a": 1, "b": 5}
    assert found["two"] == {"a": 1, "b": 2, "c": 4, "d": 6}
    assert found["quoted"] == {"<<": 7}


@pytest.mark.parametrize("merged", ["a", "[a]", "7", "[{a: 1}, [b]]"])
def test_only_mappings_are_merged(merged: str) -> None:
    assert refused(f"a: 1\n<<: {merged}") == ("'<<' can only merge mappings", 2, 1)


def test_a_key_is_not_null() -> None:
    assert refused("a: 1\n~: b\n") == ("a key must be a string, not null", 2, 1)


@pytest.mark.parametrize("key", ["[a]", "{a: b}", "&x [a]"])
def test_keys_are_scalars(key: str) -> None:
    assert refused(f"a: 1\n? {key}\n: b\n") == ("a key must be a string", 2, 1)


def test_several_documents_and_empty_ones() -> None:
    found = list(documents("# nothing\n---\na: 1\n---\n---\n# only a comment\n---\nb: 2\n...\n"))
    assert [(each.number, each.value) for each in found] == [(1, {"a": 1}), (4, {"b": 2})]
    assert list(documents("")) == []
    assert list(documents("# a comment\n")) == []
    assert list(documents("---\n---\n")) == []


@pytest.mark.parametrize(
    ("text", "message", "line", "document"),
    [
        ("a: [1\nb: 2\n", "while parsing a flow sequence, did not find expected ',' or ']'", 2, 1),
        ("a:\n\tb: 1\n", "while scanning for the next token, found character that cannot start any token", 2, 1),
        ("a: b: c\n", "mapping values are not allowed in this context", 1, 1),
        ("a: 1\n---\nb: 2\n---\nc: 'x\n", "while scanning a quoted scalar, found unexpected end of stream", 6, 3),
        ("a: *b\n", "no anchor 'b' before this alias", 1, 1),
        ("a: &b 1\n---\nc: *b\n", "no anchor 'b' before this alias", 3, 2),
        ("a: 1\n- b\n", "while parsing a block mapping, did not find expected key", 2, 1),
        ("%YAML 9.9\n---\na\n", "found incompatible YAML document", 1, 1),
        ("a: !x!y z\n", "while parsing a node, found undefined tag handle", 1, 1),
    ],
)
def test_syntax_errors_name_their_line_and_document(text: str, message: str, line: int, document: int) -> None:
    assert refused(text) == (message, line, document)


def test_control_characters_are_refused() -> None:
    message, _, _ = refused("a: \0")
    assert "control characters are not allowed" in message


def test_the_documents_before_a_bad_one_are_read() -> None:
    found = documents("a: 1\n---\nb: [\n")
    assert next(found).value == {"a": 1}
    with pytest.raises(YAMLInvalid):
        next(found)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_deep_nesting_ends_early(opening: str, depth: int) -> None:
    assert refused(opening * depth) == ("nested too deeply", 1, 1)


def test_nesting_has_a_bound_that_manifests_do_not_reach() -> None:
    assert value("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert refused("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[0] == "nested too deeply"


def test_an_alias_inside_its_own_anchor_has_no_end() -> None:
    assert refused("a: &a\n  b: *a\n")[0] == "nested too deeply"
    assert refused("a: &a [*a]\n")[0] == "nested too deeply"


def test_aliases_that_multiply_are_cut_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert refused("\n".join(lines))[0] == "too large after its aliases are expanded"
    assert refused("a: &a [x, x, x]\nb: [*a, *a]", max_repeated=7)[0] == "too large after its aliases are expanded"
    (document,) = documents("a: &a [x, x, x]\nb: [*a, *a]", max_repeated=8)
    assert document.value["b"] == [["x"] * 3] * 2


def test_merges_that_multiply_are_cut_off() -> None:
    """Each copies all that it merges, however often that was copied before."""
    keys = ",".join(f"k{number}" for number in range(3_000))
    assert refused("{<<: " * 190 + "{" + keys + "}" + "}" * 190)[0] == "too large after its aliases are expanded"
    assert refused("{<<: {<<: {a: 1, b: 2}}}", max_repeated=3)[0] == "too large after its aliases are expanded"
    (document,) = documents("{<<: {<<: {a: 1, b: 2}}}", max_repeated=4)
    assert document.value == {"a": 1, "b": 2}


def test_values_are_counted_where_there_is_a_limit() -> None:
    assert [each.value for each in documents("[a, {b: c}]", max_nodes=5)] == [["a", {"b": "c"}]]
    with pytest.raises(YAMLExcess, match=r"^more than 4 values$"):
        list(documents("[a, {b: c}]", max_nodes=4))


MANIFEST = """\
# a comment
kind: Node
metadata:
  name: a
  labels: {b: c,
    d: e}
spec:
  taints:
  - key: f
    effect: NoSchedule
  -
    key: g
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 2),
        ("kind", 2),
        ("metadata", 3),
        ("metadata.name", 4),
        ("metadata.labels.b", 5),
        ("metadata.labels.d", 6),
        ("metadata.labels[...]", 5),
        ("spec.taints", 8),
        ("spec.taints[0]", 9),
        ("spec.taints[0].effect", 10),
        ("spec.taints[1].key", 12),
        ("spec.taints[2].key", 8),
        ("spec.unschedulable", 7),
        ("status", 2),
        ("kind.name", 2),
    ],
)
def test_every_field_has_a_line(path: str, line: int) -> None:
    """Its own, or that of the nearest field above it."""
    (document,) = documents(MANIFEST)
    assert document.line_of(path) == line


def test_json_has_no_lines() -> None:
    (document,) = json_documents(b'{"a": [1]}')
    assert (document.number, document.value, document.line_of("a")) == (1, {"a": [1]}, 0)
    assert list(json_documents(b"null")) == []


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2", b'{"a": 1}}', b'"\xff"', b"NaN", b'"\\ud800"', b"1" * 5000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(YAMLInvalid, match=r"\Ainvalid JSON: "):
        list(json_documents(text))


def test_deep_json_is_refused() -> None:
    with pytest.raises(YAMLInvalid, match=r"\Anested too deeply\Z"):
        list(json_documents(b"[" * 100_000))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}#&*!|>'\"%@`,?\\~<=01.e_x \n\t\r\u2028\ud800")) | st.text())
def test_no_text_does_harm(text: str) -> None:
    """It is read, or refused by this module's own error."""
    try:
        found = [each.value for each in documents(text)]
    except (YAMLInvalid, UnicodeEncodeError):
        return
    json.dumps(found)


plane_0 = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
"""YAML's escapes know no surrogate pairs."""
keys = plane_0.filter(lambda text: len(json.dumps(text)) < 1024)
"""YAML's simple keys end after 1,024 characters, libyaml's and Go's alike; longer JSON is read as JSON."""


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | plane_0,
        lambda below: st.lists(below, max_size=4) | st.dictionaries(keys, below, max_size=4),
    ),
)
def test_json_is_yaml(tree: Any) -> None:
    """What other tools write as JSON reads the same."""
    found = [each.value for each in documents(json.dumps(tree))]
    assert found == ([] if tree is None else [tree])


@pytest.mark.parametrize("text", ["!!int a", "!!int 08", "!!bool 1", "!!null x", "!!float x", '!!binary "!!"'])
def test_a_scalar_that_is_not_what_its_tag_says_is_an_error(text: str) -> None:
    with pytest.raises(YAMLInvalid):
        value(text)


def test_what_is_merged_replaces_what_stands_before_it() -> None:
    """As Go has it; of a list of mappings the first counts."""
    assert value("<<: [{a: 1, b: 1}, {a: 2, c: 2}]\nc: 3\n") == {"a": 1, "b": 1, "c": 3}
    assert value("b: 3\n<<: {a: 1}\n? <<\n: {a: 2, b: 2}\n") == {"a": 2, "b": 2}
    assert value("b: {p: 3, <<: {p: 1, q: 2}, r: 4}") == {"b": {"p": 1, "q": 2, "r": 4}}


@pytest.mark.parametrize(
    "text", ["1" * 200_000 + "x", "_" * 200_000 + "x", "1." + "0_" * 100_000 + "x", "0x" + "f" * 200_000 + "x"]
)
def test_a_long_number_that_is_none_is_a_string(text: str) -> None:
    """By a pattern that backtracks each of these would take minutes."""
    assert value(text) == text
