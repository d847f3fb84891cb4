"""The outcome of a scan: what is written is read again, and what is not of that form is none."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from webhook.facts.scanresult import (
    FILE_LIMIT,
    KEY,
    POLICIES,
    ScanFile,
    ScanResult,
    ScanResultInvalid,
    Workloads,
    config_map_patch,
    parse,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
COUNTS = st.integers(0, 1_000_000_000)


@given(
    st.builds(
        ScanResult,
        time=st.datetimes(datetime(2026, 1, 1), datetime(2026, 11, 26), timezones=st.just(UTC)),  # noqa: DTZ001
        workloads=st.builds(Workloads, at_risk=COUNTS, restart=COUNTS, change=COUNTS, preserved=COUNTS),
        unused_exceptions=st.dictionaries(st.text("abc-.", min_size=1, max_size=253), COUNTS, max_size=POLICIES),
    )
)
def test_what_is_recorded_is_read(result: ScanResult) -> None:
    text = config_map_patch(result)["data"][KEY]
    assert parse(text.encode(), now=NOW) == result


def test_the_largest_outcome_fits_the_file() -> None:
    most = {f"{number:03d}" + "p" * 250: 1_000_000_000 for number in range(POLICIES)}
    result = ScanResult(time=NOW, unused_exceptions=most)
    assert len(config_map_patch(result)["data"][KEY]) < FILE_LIMIT


GOOD: dict[str, Any] = {"format": "client-ip-scan-result/v1", "time": "2026-11-26T11:00:00Z"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "Input data was truncated"),
        (b"null", "Expected `object`"),
        (b"{}", "missing required field `time`"),
        (b"\xff", ""),
        (b"[" * 60_000, ""),
        (b" " * (FILE_LIMIT + 1), "longer than"),
        ({**GOOD, "format": "client-ip-scan-result/v2"}, "format"),
        ({**GOOD, "time": "yesterday"}, "time"),
        ({**GOOD, "time": "2026-11-26T11:00:00"}, "time: without a timezone"),
        ({**GOOD, "time": "2026-11-26T13:00:01Z"}, "time: is in the future"),
        ({**GOOD, "time": "9999-12-31T23:59:59Z"}, "time: is in the future"),
        ({**GOOD, "workloads": {"restart": -1}}, "workloads.restart"),
        ({**GOOD, "workloads": {"restart": 1e300}}, "workloads.restart"),
        ({**GOOD, "workloads": {"restart": "1"}}, "workloads.restart"),
        ({**GOOD, "workloads": {"made-up": 1}}, "workloads"),
        ({**GOOD, "unusedExceptions": {"p" * 254: 1}}, "unusedExceptions"),
        ({**GOOD, "unusedExceptions": {str(number): 1 for number in range(POLICIES + 1)}}, "unusedExceptions"),
    ],
)
def test_what_is_none_is_refused_with_the_place(raw: bytes | dict[str, Any], said: str) -> None:
    with pytest.raises(ScanResultInvalid) as raised:
        parse(raw if isinstance(raw, bytes) else json.dumps(raw).encode(), now=NOW)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300


@given(st.binary(max_size=300))
def test_any_bytes_are_an_outcome_or_refused(raw: bytes) -> None:
    try:
        parse(raw, now=NOW)
    except ScanResultInvalid:
        return


def test_the_file_may_come_later_and_is_said_to_be_bad_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / KEY
    file = ScanFile(path)
    assert file.read() is None
    path.write_text("{")
    assert [file.read(), file.read()] == [None, None]
    assert len(caplog.records) == 1
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    path.write_text(config_map_patch(ScanResult(time=at))["data"][KEY])
    found = file.read()
    assert found is not None
    assert found.time == at
    path.unlink()
    path.mkdir()
    assert file.read() is None
    assert len(caplog.records) == 2
