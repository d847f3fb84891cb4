"""
What `check -o yaml` prints is, to kubectl, the object that it was: by kubectl's own reader.

And what kubectl reads, in whatever form, is what we read.
"""

import json
import string
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings, strategies as st

from tests.parts.kubectl_yaml import KubectlYaml
from webhook.cli.yamls_out import yaml_of
from webhook.facts.files import read
from webhook.facts.problem import Problem
from webhook.rules.yamls import YAMLInvalid, documents

WORDS: Final = (
    *("08", "1234e56", "0123", "1e3", "0o17", "+.5", "1e-5", "0192389", "1_0e3", "0X1F", "0b_1", "=", "2024-01-01"),
    *("1:30", "._1", ".5", "-", "0x_1F", "1.", "+1", "_1", "0_8", "NaN", ".nan", "<<", "~", "null", "Null", "NULL"),
    *("y", "Y", "n", "N", "yes", "Yes", "no", "on", "On", "off", "OFF", "true", "True", "false", ".inf", "-.Inf"),
    *("", " ", "a ", " a", "a: b", "a:", ":a", "a #b", "#a", "a\tb", "\t", "---", "...", "--- a", "? a", "- a", "[a]"),
    *("{a}", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a", "'a'", '"a"', "a'b", "\\", "a\\nb", "0x1p-2", "1__0"),
    *("\n", "a\n", "a\nb", "a\nb\n", "a\n\n", "\na", " a\nb", "a\n b\n", "a \nb", "a\n\tb", "a\r\nb", "\r"),
    *("a\n---\nb\n", "a\x85b", "\x85", "a\u2028b", "a\u2029b", "\ufeffa", "a\ufeff", "\u00a0", "größe", "客户"),
    *("\U0001f600", "\x00", "\x1b", "+.INF", "0b1", "12345678901234567890", "1e400", "0.1", "-0", "+0", "1e", "e1"),
    *("0x", "Infinity", "inf", "nan", "123e", "1,000", "2024-01-01T00:00:00Z", "12:30:45", "190:20:30.15", "0777"),
    *("0o8", "-08", "+08", "1_000", "x" * 200, "word " * 60, "k" * 1100),
    *("...\n", "x\n...\n", "x...\n", "x\n...", "...\n...\n", "x\n---\n", "x\n...\n\n", "x\n ...\n"),
)
"""Texts that some reader takes for something else, or that are hard to write."""

characters = st.one_of(
    st.sampled_from("0123456789+-._eExXobinfaNyY:#~<=> \t\n\r\x85\u2028\ufeff'\"\\|&*!%@`?[]{},"),
    st.characters(exclude_categories=["Cs"]),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(characters, max_size=12), st.text(string.printable, max_size=40))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
objects = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
        max_leaves=12,
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def kubectl() -> Iterator[KubectlYaml]:
    with KubectlYaml() as running:
        yield running


def same(one: Any, other: Any) -> bool:
    """Go writes a float that is whole without its point; integers keep every digit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) != isinstance(other, float) and bool not in {type(one), type(other)}:
        return isinstance(one, float | int) and isinstance(other, float | int) and float(one) == float(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("text", WORDS, ids=ascii)
def test_a_text_stays_the_text_that_it_is(kubectl: KubectlYaml, text: str) -> None:
    document = {"value": text, text: "key", "list": [text, {"below": text}], "last": text}
    found = kubectl.read(yaml_of(document).encode())
    assert found.error == ""
    assert found.documents == (document,)


@settings(max_examples=400, deadline=None)
@given(st.lists(objects, min_size=1, max_size=3))
@pytest.mark.slow
def test_any_object_is_to_kubectl_what_it_was(kubectl: KubectlYaml, given_objects: list[dict[str, Any]]) -> None:
    printed = yaml_of(*given_objects)
    found = kubectl.read(printed.encode())
    assert found.error == "", printed
    assert same(list(found.documents), given_objects), printed
    ours = [each.value for each in documents(printed)]
    assert same(ours, given_objects), "and we read our own output as kubectl does"


POD: Final = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"note":"größe"}'
A, B = POD % "a", POD % "b"
YAML_A, YAML_B = (f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nnote: größe\n" for name in "ab")
STREAMS: Final[dict[str, bytes]] = {
    "lines": f"{A}\n{B}\n".encode(),
    "concatenated": f"{A}{B}".encode(),
    "with space before, between and after": f"\n\n  {A}\n \t\n{B}\n\n".encode(),
    "indented": json.dumps(json.loads(A), indent=2).encode() + b"\n" + json.dumps(json.loads(B), indent=2).encode(),
    "JSON in YAML documents": f"{A}\n---\n{B}\n".encode(),
    "JSON after YAML": f"{YAML_A}---\n{B}\n".encode(),
    "YAML": f"{YAML_A}---\n{YAML_B}".encode(),
    "YAML with comments and empty documents": f"# c\n---\n---\n{YAML_A}---\n# d\n---\n{YAML_B}---\n".encode(),
    "a mark": f"\ufeff{YAML_A}---\n{YAML_B}".encode(),
    "a mark before JSON": f"\ufeff{A}\n{B}".encode(),
    "UTF-16, little": f"{YAML_A}---\n{YAML_B}".encode("utf-16"),
    "UTF-16, big": b"\xfe\xff" + f"{YAML_A}---\n{YAML_B}".encode("utf-16-be"),
    "UTF-16 JSON": f"{A}\n{B}".encode("utf-16"),
    "CR LF": f"{YAML_A}---\n{YAML_B}".replace("\n", "\r\n").encode(),
    "a block that ends without its line's end": f"{YAML_A}---\n{YAML_B}text: |\n  one\n  two".encode(),
    "a block that keeps its lines": f"{YAML_A}---\n{YAML_B}text: |+\n  one\n\n".encode(),
    "an end of a document": f"{YAML_A}...\n---\n{YAML_B}".encode(),
    "flow style": b"\n---\n".join(b"{apiVersion: v1, kind: Pod, metadata: {name: %s}}" % name for name in (b"a", b"b")),
}


@pytest.mark.parametrize("what", STREAMS)
def test_every_stream_that_kubectl_reads_is_read_the_same(kubectl: KubectlYaml, what: str) -> None:
    stream = STREAMS[what]
    theirs = kubectl.read(stream)
    assert theirs.error == ""
    problems: list[Problem] = []
    for name in ("stdin", "f.json", "f.yaml"):
        ours = [dict(each.value) for each in read(name, stream, problems)]
        assert problems == []
        assert ours == list(theirs.documents)
        assert [each["metadata"]["name"] for each in ours] == ["a", "b"]


READ: Final = (
    *(
        f"a: {{{key}: 1}}"
        for key in ("1", "1.5", "08", "1e3", "0x10", "0123", "1_000", ".5", "1.", "1e400", "-1", "+1")
    ),
    *(f"a: {{{key}: 1}}" for key in ("1e20", "1.0", "1234567.5", "1e-7", "1e-4", "100000.0", "-1e-9", "0b11", "+1")),
    *("x: 08", "x: 1e3", "x: 1.", "x: 0b11", "x: 0o17", "x: +12", "x: -0x1f", "x: 1_0.5_0", "x: 1:30", "x: 0x"),
    *("x: 08.5", "x: 1e400", "x: -1e400", "x: 1e-400", "x: 18446744073709551615", "x: !!str 08", "x: ! 5", "x: !foo 1"),
    *("x: !!binary aGk=", 'x: !!int "5"', "x: !!float 5", 'x: !!bool "yes"', "x: !!null", "x: !!str", "x: ~", "x:"),
    *("x: 2024-01-01T00:00:00Z", "x: <<", "x: =", "x: y", "x: On", "x: NULL", "x: |2\n   a\n  b", "x: >-\n  a\n\n  b"),
    *("a: &a {b: 1}\nc: {<<: *a, d: 2}", "a: &a [1]\nb: *a", "a: [1, 2, ]", "a: {b: 1, }", "? a\n: b", '"a\\\n  b": c'),
    *("x: 0O17", "x: 0B11", "x: 0X1F", "x: -0b11", "x: +0x10", "x: 1.e5", "x: 1e1_0", "x: 0x_", "x: 0o", "x: __1"),
    *(
        f"x: {number}"
        for number in (2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**40, "0x" + "f" * 17, "0" * 30)
    ),
    *("x: !!bool 1", "x: !!int 08", "x: !!int 1.5", "x: !!int yes", "x: !!float 0x10", "x: !!float x", "x: !!null x"),
    *('x: !!null ""', "x: !!timestamp 2001-12-14", "x: !!timestamp x", 'x: !!binary "!!"', "x: !!binary gIGC"),
    *("x: !<tag:example.com,2000:int> 1", "x: !!str yes", "x: !!map {a: 1}", 'x: !!bool "on"', "x: !!float .inf"),
    *(f"{key}: 1" for key in (".inf", "-.Inf", ".nan", "123456789.5", "16777217.0", "1e39", "-1e39", "1e-46", "-0.0")),
    *("12345678901234567890: 1", "9223372036854775807: 1", "340282366920938463463374607431768211456: 1"),
    *("b: {p: 3, <<: {p: 1, q: 2}, r: 4}", "b: {<<: {p: 1}, <<: {p: 2}}", "b: {<<: {p: 1}, p: 2}"),
    *("b: {p: 0, <<: [{p: 1}, {p: 2, q: 3}]}", "b: {<<: [{<<: {p: 1}}, {p: 2}]}", "b: {<<: [[{p: 1}]]}", "b: {<<: }"),
    *("b: {!!merge <<: {p: 1}}", 'b: {"<<": {p: 1}}', "a: &x {p: 1}\nb:\n  p: 3\n  <<: *x", "b: {p: 1, <<: null}"),
    *("x: .inf", "x: -.Inf", "x: .NaN", "{a: b}: c", "? [a]\n: 1", "~: 1", "a: *b", "a: [", "\ta: 1", "a: 'b"),
)


@pytest.mark.parametrize("text", READ, ids=ascii)
def test_what_kubectl_reads_is_read_the_same(kubectl: KubectlYaml, text: str) -> None:
    """The same value, or an error in both."""
    theirs = kubectl.read(text.encode())
    try:
        ours = [each.value for each in documents(text + "\n")]
    except YAMLInvalid:
        assert theirs.error
    else:
        assert not theirs.error
        assert same(ours, list(theirs.documents))
