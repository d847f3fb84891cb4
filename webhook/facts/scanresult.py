"""
The outcome of the last scan, as the scan leaves it in a ConfigMap and the server reads it from a file mounted of that.

It is small and bounded whatever the cluster holds: a time, and numbers. Who may write the ConfigMap is believed in
nothing else: what is not of this form is as if there were none.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from webhook.rules.decision import one_line

log: Final = logging.getLogger(__name__)

FORMAT: Final = "client-ip-scan-result/v1"
KEY: Final = "result.json"
"""In the ConfigMap's data; the mounted file's name."""
FILE_LIMIT: Final = 65_536
"""Bytes that are read of it."""
POLICIES: Final = 200
"""Policies whose unused exceptions are told: the first by name."""
AHEAD: Final = timedelta(hours=1)
"""How far clocks may differ: a time beyond would hide for good that scans have ended."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class Workloads(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Workloads and gateways by what is to be done about them."""

    at_risk: Count = 0
    restart: Count = 0
    change: Count = 0
    header: Count = 0
    excepted: Count = 0
    opted_out: Count = 0
    preserved: Count = 0
    not_asked: Count = 0


class ScanResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a scan of the whole cluster came to."""

    format: Literal["client-ip-scan-result/v1"] = FORMAT
    time: datetime
    workloads: Workloads = Workloads()
    unused_exceptions: Annotated[dict[Name, Count], msgspec.Meta(max_length=POLICIES)] = {}
    """By policy: exceptions that are live and cover nothing."""

    @property
    def states(self) -> Mapping[str, int]:
        """The numbers of workloads by state."""
        found: dict[str, int] = msgspec.to_builtins(self.workloads)
        return found


class ScanResultInvalid(ValueError):  # noqa: N818  # an error's noun
    """What is there is no outcome of a scan."""


_decoder: Final = msgspec.json.Decoder(ScanResult)


def config_map_patch(result: ScanResult) -> dict[str, Any]:
    """Return the merge patch that records *result* in a ConfigMap."""
    return {"data": {KEY: msgspec.json.encode(result).decode()}}


def parse(raw: bytes, *, now: datetime) -> ScanResult:
    """
    Return the outcome that *raw* holds.

    Raises:
        ScanResultInvalid: It is none, or of a time that is not yet.

    """
    if len(raw) > FILE_LIMIT:
        raise ScanResultInvalid(f"longer than {FILE_LIMIT} bytes")
    try:
        result = _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ScanResultInvalid(one_line(str(error))) from error
    if result.time.tzinfo is None:
        raise ScanResultInvalid(f"time: without a timezone: {result.time.isoformat()}")
    if result.time > now + AHEAD:
        raise ScanResultInvalid(f"time: is in the future: {result.time.isoformat()}")
    return result


class ScanFile:
    """The file that the ConfigMap is mounted at; it may come later, and change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = ""

    def read(self) -> ScanResult | None:
        """Return the outcome; None where there is none yet, or what is there is none, which is logged once."""
        try:
            with self._path.open("rb") as file:
                return self._good(parse(file.read(FILE_LIMIT + 1), now=datetime.now(UTC)))
        except FileNotFoundError:
            return self._good(None)
        except (OSError, ScanResultInvalid) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("%s does not contain the outcome of a scan: %s", self._path, error)
            return None

    def _good(self, result: ScanResult | None) -> ScanResult | None:
        self._said = ""
        return result
