"""What the server needs of wherever the facts come from, and the source that reads files."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from webhook.facts.files import FilesInvalid, Mark, fingerprint
from webhook.facts.reader import load_apart, load_apart_in_slices
from webhook.rules.snapshot import Snapshot

log: Final = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 30.0
"""A reload that failed is tried again, later each time."""
SETTLE_SECONDS: Final = 1.0
"""Files that changed less than this ago may be written still."""
LONGEST_SETTLE_SECONDS: Final = 10.0
"""How long the start waits for files that go on changing."""


class FactSource(Protocol):
    """Where the facts come from."""

    @property
    def snapshot(self) -> Snapshot:
        """The facts in use; never changes under a decision."""

    def missing(self) -> Sequence[str]:
        """What must be known before the server is ready and is not yet."""

    def ages(self) -> Mapping[str, float]:
        """Seconds since each kind of object was last known to be current."""

    @property
    def policy_errors(self) -> Mapping[str, str]:
        """What is wrong with which stored policy."""

    @property
    def registered(self) -> bool | None:
        """Whether a webhook configuration calls us; None where that can't be known."""

    async def run(self) -> None:
        """Keep the facts current until cancelled."""


class FileSource:
    """
    Facts from files and folders, re-read when one of them changes.

    What is half-written is not read: a change is taken once the files have stayed the same for a second, and only if
    they are still the same after they were read. A writer that stops for longer amid a file can't be told from one that
    is done: who renames a finished file into place is never misunderstood. A change that can't be used is logged and
    tried again, and the last good facts stay in use.
    """

    def __init__(self, paths: Sequence[str], *, own_namespace: str) -> None:
        self._paths = tuple(paths)
        self._own_namespace = own_namespace
        self._mark = _settled(self._paths)
        """Of the files whose facts are in use."""
        self._snapshot = load_apart(self._paths, own_namespace=own_namespace).snapshot()
        self._seen = self._mark
        """As of the last look."""
        self._said = ""
        self._failures = 0
        self._retry_at = 0.0
        self._read_at = time.monotonic()
        self.policy_errors: Mapping[str, str] = {}
        self.registered: bool | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The facts of the last good read."""
        return self._snapshot

    def missing(self) -> Sequence[str]:
        """Nothing: what the files hold is all that there is."""
        return ()

    def ages(self) -> Mapping[str, float]:
        """Seconds since the facts in use were last known to be what the files hold."""
        return {"files": time.monotonic() - self._read_at}

    async def run(self) -> None:
        """Look once a second whether a file has changed, and read them all again when one has."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._poll()
            except FilesInvalid as error:
                self._failures += 1
                pause = min(FIRST_RETRY_SECONDS * 2 ** (self._failures - 1), LONGEST_RETRY_SECONDS)
                self._retry_at = time.monotonic() + pause
                if str(error) != self._said:
                    self._said = str(error)
                    log.error("the files are invalid; the previous state stays in use:\n%s", error)  # noqa: TRY400

    async def _poll(self) -> None:
        mark = await asyncio.to_thread(fingerprint, self._paths)
        before, self._seen = self._seen, mark
        if mark == self._mark:
            self._read_at = time.monotonic()
            self._said, self._failures = "", 0
            return
        if mark != before:
            self._failures, self._retry_at = 0, 0.0  # another change, another chance
            return
        if time.monotonic() < self._retry_at:
            return
        collector = await load_apart_in_slices(
            self._paths, own_namespace=self._own_namespace, base=self._snapshot.nodes
        )
        if await asyncio.to_thread(fingerprint, self._paths) != mark:
            return  # they changed while they were read
        self._mark = mark
        self._snapshot = collector.snapshot()
        self._read_at = time.monotonic()
        self._said, self._failures = "", 0
        log.info("reloaded changed files")


def _settled(paths: Sequence[str]) -> Mark:
    """Return the files' mark once nothing has changed for a moment; where that never comes, as it is."""
    until = time.monotonic() + LONGEST_SETTLE_SECONDS
    while True:
        mark = fingerprint(paths)
        # Files from the future, by a clock that is wrong, are not waited for.
        age = time.time() - max((nanoseconds / 1e9 for _, nanoseconds, _, _ in mark), default=0.0)
        if not 0 <= age < SETTLE_SECONDS or time.monotonic() > until:
            return mark
        time.sleep(SETTLE_SECONDS - age)
