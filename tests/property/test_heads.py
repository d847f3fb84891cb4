"""What heads say is the same whether it was kept or is read anew, and little is kept."""

from typing import Final

from hypothesis import given, settings, strategies as st

from webhook.server.heads import HEAD_LIMIT, KEPT_BYTES, KEPT_HEADS, Head, Heads, read_head

LINES: Final = (
    b"Host: webhook.client-ip-system.svc:443\r\n",
    b"User-Agent: kube-apiserver-admission\r\n",
    b"Content-Length: 17\r\n",
    b"Content-Length: 6350\r\n",
    b"Accept: application/json, */*\r\n",
    b"Content-Type: application/json\r\n",
    b"Accept-Encoding: gzip\r\n",
    b"Authorization: Bearer abc\r\n",
    b"Traceparent: 00-1-1-00\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
)
FIRST: Final = (b"POST /mutate?timeout=2s HTTP/1.1\r\n", b"POST /mutate HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n")
GOOD: Final = FIRST[0] + LINES[0] + LINES[1] + LINES[2] + LINES[4] + LINES[5] + LINES[6] + b"\r\n"


def head(length: int, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a good head that asks for a body of *length* bytes, with more before or after its Content-Type."""
    return FIRST[0] + LINES[0] + b"Content-Length: %d\r\n" % length + before + LINES[5] + after + b"\r\n"


heads = st.tuples(st.sampled_from(FIRST), st.lists(st.sampled_from(LINES), max_size=8)).map(
    lambda parts: parts[0] + b"".join(parts[1]) + b"\r\n"
)


@settings(max_examples=300, deadline=None)
@given(st.lists(heads | st.permutations(LINES[1:7]).map(lambda some: FIRST[0] + LINES[0] + b"".join(some)), max_size=6))
def test_what_is_kept_is_what_was_read(read: list[bytes]) -> None:
    """Heads good and bad, each more than once."""
    kept = Heads()
    for each in [*read, GOOD, *read, GOOD]:
        assert kept[each] == read_head(each)
    assert None not in kept.values()


def test_a_good_head_says_how_long_the_body_is_and_may_take() -> None:
    assert Heads()[GOOD] == Head(17, 1.9)
    assert Heads()[GOOD[:-2]] is None


def test_little_is_kept_and_no_secret() -> None:
    """At most so many heads, none of which is long or has a token in it; they are read all the same."""
    kept = Heads()
    for length in range(3 * KEPT_HEADS):
        assert kept[head(length)] == Head(length, 1.9)
        assert 0 < len(kept) <= KEPT_HEADS
    kept.clear()
    for more in (b"Authorization: Bearer abc", b"Accept: " + b"a" * KEPT_BYTES):
        assert kept[head(1, before=more + b"\r\n")] == Head(1, 1.9)
    assert kept[head(1, after=b"Traceparent: 00-1-1-01\r\n")] == Head(1, 1.9)
    assert KEPT_BYTES < HEAD_LIMIT
    assert not kept
