"""What the server needs of wherever the facts come from, and the source that reads files."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from webhook.facts.files import FilesInvalid, fingerprint
from webhook.facts.reader import load_apart, load_apart_in_slices
from webhook.rules.snapshot import Snapshot

log: Final = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0


class FactSource(Protocol):
    """Where the facts come from."""

    @property
    def snapshot(self) -> Snapshot:
        """The facts in use; never changes under a decision."""

    def missing(self) -> Sequence[str]:
        """What must be known before the server is ready and is not yet."""

    def ages(self) -> Mapping[str, float]:
        """Seconds since each kind of fact was last known to be current."""

    @property
    def policy_errors(self) -> Mapping[str, str]:
        """What is wrong with which stored policy."""

    async def run(self) -> None:
        """Keep the facts current until cancelled."""


class FileSource:
    """
    Facts from files and folders, re-read when one of them changes.

    A change that can't be used is logged, and the last good facts stay in use.
    """

    def __init__(self, paths: Sequence[str], *, own_namespace: str) -> None:
        self._paths = tuple(paths)
        self._own_namespace = own_namespace
        self._mark = fingerprint(self._paths)
        self._snapshot = load_apart(self._paths, own_namespace=own_namespace).snapshot()
        self._bad = False
        self._read_at = time.monotonic()
        self.policy_errors: Mapping[str, str] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The facts of the last good read."""
        return self._snapshot

    def missing(self) -> Sequence[str]:
        """Nothing: what the files hold is all that there is."""
        return ()

    def ages(self) -> Mapping[str, float]:
        """Seconds since the files were last read well."""
        return {"files": time.monotonic() - self._read_at}

    async def run(self) -> None:
        """Look once a second whether a file has changed, and read them all again when one has."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._poll()
            except FilesInvalid as error:
                log.error("the files can't be used, the last good facts stay in use:\n%s", error)  # noqa: TRY400

    async def _poll(self) -> None:
        mark = await asyncio.to_thread(fingerprint, self._paths)
        if mark == self._mark:
            if not self._bad:
                self._read_at = time.monotonic()
            return
        self._mark, self._bad = mark, True
        collector = await load_apart_in_slices(
            self._paths, own_namespace=self._own_namespace, base=self._snapshot.nodes
        )
        self._snapshot = collector.snapshot()
        self._read_at, self._bad = time.monotonic(), False
        log.info("files changed: read again")
