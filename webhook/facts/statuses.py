"""Writes the conditions of ClientIPPolicies: where they differ from what is stored, and as exceptions end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from certs.kube import KubeError, NotFoundError, RefusedError
from webhook.facts.collect import Collector
from webhook.facts.conditions import ACCEPTED, EXCEPTIONS_ENDING, conditions, due, next_change
from webhook.facts.kube import APPLY_PATCH, KubeClient
from webhook.rules import wellknown

log: Final = logging.getLogger(__name__)

POLICIES: Final = f"/apis/{wellknown.POLICY_API_VERSION}/clientippolicies"
FIELD_MANAGER: Final = "client-ip-webhook"
OURS: Final = frozenset({ACCEPTED, EXCEPTIONS_ENDING})
LONGEST_WAIT: Final = 3600.0
"""Seconds after which ends are looked at again in any case: clocks are set."""
PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Stored:
    generation: int
    conditions: tuple[Mapping[str, Any], ...]


class Statuses:
    """The policies whose status is kept."""

    def __init__(self, client: KubeClient, collector: Collector, say: Callable[[str, str], None]) -> None:
        """
        Know of no policy yet.

        Args:
            client: Whom to write to.
            collector: Has the policies as they are read.
            say: Logs a line once, by a key.

        """
        self._client = client
        self._collector = collector
        self._say = say
        self._stored: dict[str, _Stored] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()

    def put(self, document: Mapping[str, Any]) -> None:
        """Take in a policy as it is stored."""
        metadata = document["metadata"]
        stored = (document.get("status") or {}).get("conditions") or ()
        ours = tuple(each for each in stored if isinstance(each, Mapping) and each.get("type") in OURS)
        self._stored[metadata["name"]] = _Stored(metadata.get("generation", 0), ours)
        self._due.add(metadata["name"])
        self._wake.set()

    def remove(self, name: str) -> None:
        """Forget a policy."""
        self._stored.pop(name, None)
        self._due.discard(name)

    async def run(self) -> None:
        """Write what is due until cancelled."""
        seen = datetime.now(UTC)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._seconds(seen))
            if not self._wake.is_set():
                seen = datetime.now(UTC)
                self._due.update(self._stored)
            self._wake.clear()
            for name in list(self._due):
                await self._write(name)
            await asyncio.sleep(PAUSE)

    def _seconds(self, seen: datetime) -> float:
        """
        Return how long nothing changes by itself; *seen* is when all ends were looked at.

        What has ended since then, while something was written or in the pause after it, is due at once.
        """
        ends = (next_change(each.exceptions, now=seen) for each in self._collector.stored_policies.values())
        first = min((each for each in ends if each is not None), default=None)
        if first is None:
            return LONGEST_WAIT
        return min(max((seen + first - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_WAIT)

    async def _write(self, name: str) -> None:
        policy, stored = self._collector.stored_policies.get(name), self._stored.get(name)
        self._due.discard(name)
        if policy is None or stored is None:
            return
        error, now = self._collector.policy_errors.get(name), datetime.now(UTC)
        wanted = conditions(policy, str(error) if error is not None else "", stored.generation, now=now)
        found = due(wanted, stored.conditions, now=now)
        if found is None:
            return
        body = {
            "apiVersion": wellknown.POLICY_API_VERSION,
            "kind": wellknown.POLICY_KIND,
            "metadata": {"name": name},
            "status": {"conditions": found},
        }
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = f"{POLICIES}/{name}/status"
        try:
            await self._client.request("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)
        except NotFoundError:
            return
        except RefusedError as refusal:
            self._say("status", f"the status of policies cannot be written: {refusal}")
        except KubeError as refusal:
            log.debug("the status of a policy could not be written, trying again later: %s", refusal)
            self._due.add(name)
            self._wake.set()
