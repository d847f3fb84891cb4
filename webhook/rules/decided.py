"""The decisions that a snapshot keeps: few, short, and only as long as no exception begins to end or ends."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime

from webhook.rules.decision import Decision
from webhook.rules.limits import KEPT_DECISIONS, KEPT_PODS_BYTES


class Decided:
    """
    Decisions by what was decided on.

    A snapshot never changes, so what it kept is never stale; the next one begins with nothing. Where enough is kept
    everything is forgotten: to remember what was asked last would cost each pod more than a new beginning costs now
    and then.
    """

    __slots__ = ("_kept", "_since", "_until")

    def __init__(self) -> None:
        self._kept: dict[bytes, Decision] = {}
        self._since: datetime | None = None
        self._until: datetime | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, alike: bytes, now: datetime) -> Decision | None:
        """Return what was decided on *alike*, if it is so at *now*."""
        decision = self._kept.get(alike)
        if decision is None or (self._until is not None and now >= self._until):
            return None
        return decision if self._since is None or now >= self._since else None

    def keep(self, alike: bytes, decision: Decision, now: datetime, changes: Sequence[datetime]) -> None:
        """
        Keep *decision* on *alike*, which was made at *now*.

        Args:
            alike: What was decided on; what is long is not kept.
            decision: What was decided.
            now: The time it was decided by.
            changes: When decisions change by themselves, in order: what was kept between others of them is forgotten.

        """
        if len(alike) > KEPT_PODS_BYTES:
            return
        if changes:
            after = bisect_right(changes, now)
            since = changes[after - 1] if after else None
            until = changes[after] if after < len(changes) else None
            if (since, until) != (self._since, self._until):
                self._kept.clear()
                self._since, self._until = since, until
        if len(self._kept) >= KEPT_DECISIONS:
            self._kept.clear()
        self._kept[alike] = decision
