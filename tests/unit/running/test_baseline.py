"""A scan beside a former one: new, unchanged, resolved, and not comparable where one of them did not look."""

from datetime import UTC, datetime
from typing import Final

import msgspec
import pytest

from tests.browser.scans import NOW, row, scan
from webhook.running.baseline import BaselineInvalid, compare, compared_sentence, read_baseline
from webhook.running.findings import Change, Row, Scan, Scope
from webhook.running.verdicts import Advice

BEFORE: Final = datetime(2026, 5, 1, tzinfo=UTC)
EVERYTHING: Final = Scope(source="https://10.0.0.1:6443", cluster="one")


def baseline(*rows: Row, scope: Scope = EVERYTHING) -> Scan:
    """Return a former scan, as it is read from a file."""
    former = msgspec.structs.replace(scan(0), time=BEFORE, scope=scope, rows=list(rows))
    return read_baseline(msgspec.json.encode(former))


def plain(number: int) -> Row:
    return msgspec.structs.replace(row(number), change=None, since=None)


def changes(now: list[Row], scope: Scope, before: Scan) -> dict[str, str]:
    rows, gone = compare(now, scope, before, at=NOW)
    return {each.name: str(each.change) for each in (*rows, *gone)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not the output of client-ip scan -o json"),
        (b"[1]", "not the output of client-ip scan -o json"),
        (b"[" * 100_000, "not the output of client-ip scan -o json"),
        (b"\xff\xfe", "not the output of client-ip scan -o json"),
        (b"{}", "format: must be client-ip-scan/v1"),
        (b'{"format": "another"}', "(format 'another')"),
    ],
    ids=["nothing", "a list", "a bomb", "no UTF-8", "no format", "another format"],
)
def test_what_is_no_scan_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(BaselineInvalid) as caught:
        read_baseline(text)
    assert said in str(caught.value)


def test_a_scan_with_a_wrong_field_is_refused_with_its_path() -> None:
    document = msgspec.json.decode(msgspec.json.encode(scan(2)))
    document["rows"][1]["name"] = 7
    with pytest.raises(BaselineInvalid, match=r"rows.+name: Expected `str`, got `int`$"):
        read_baseline(msgspec.json.encode(document))


def test_each_state() -> None:
    kept, new, gone = plain(0), plain(1), plain(2)
    rows, resolved = compare([kept, new], EVERYTHING, baseline(kept, gone), at=NOW)
    assert [(each.name, each.change, each.since) for each in rows] == [
        (kept.name, Change.UNCHANGED, BEFORE),
        (new.name, Change.NEW, NOW),
    ]
    assert [(each.name, each.change) for each in resolved] == [(gone.name, Change.RESOLVED)]
    said = compared_sentence(rows, resolved, baseline(kept, gone))
    assert said == "since 2026-05-01 00:00 UTC: 1 new, 1 unchanged, 1 resolved"


def test_what_is_mended_is_resolved() -> None:
    """The workload is there, preserved: its former finding is no more, and being preserved is no finding."""
    mended = msgspec.structs.replace(plain(0), advice=Advice.PRESERVED)
    rows, resolved = compare([mended], EVERYTHING, baseline(plain(0)), at=NOW)
    assert [each.change for each in rows] == [None]
    assert [each.change for each in resolved] == [Change.RESOLVED]


def test_a_workload_lost_for_another_reason_is_new_and_resolved() -> None:
    other = msgspec.structs.replace(plain(0), fingerprint="f" * 16)
    ((found,), (gone,)) = compare([other], EVERYTHING, baseline(plain(0)), at=NOW)
    assert (found.change, gone.change) == (Change.NEW, Change.RESOLVED)


@pytest.mark.parametrize(
    ("scope", "former"),
    [
        (EVERYTHING, msgspec.structs.replace(EVERYTHING, namespaces=["other"])),
        (EVERYTHING, msgspec.structs.replace(EVERYTHING, unreadable={"shop-1": "403"})),
        (EVERYTHING, msgspec.structs.replace(EVERYTHING, cluster="two")),
    ],
    ids=["a namespace that the baseline was not asked for", "one that it could not read", "another cluster"],
)
def test_what_one_of_the_two_did_not_look_at_is_not_comparable(scope: Scope, former: Scope) -> None:
    """Neither way: nothing is called new that may be old, nothing resolved that nobody looked at."""
    assert changes([plain(1)], scope, baseline(scope=former)) == {plain(1).name: "not-comparable"}
    assert changes([], former, baseline(plain(1), scope=scope)) == {plain(1).name: "not-comparable"}


def test_without_the_clusters_uid_two_scans_are_compared() -> None:
    """Files do not tell which cluster they are of."""
    files = Scope(source="dump/")
    assert changes([plain(1)], files, baseline(plain(1))) == {plain(1).name: "unchanged"}
