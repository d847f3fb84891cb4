"""An exception's end is told whenever it comes, also while the writer does something else."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from webhook.facts import statuses
from webhook.facts.collect import Collector
from webhook.facts.statuses import Statuses
from webhook.rules.policy import Policy, PolicyException


class Written:
    """Takes the place of the API server's client: keeps what is written, at an API server's pace."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.reasons: list[str] = []
        self.ended = asyncio.Event()

    async def request(self, method: str, path: str, *, body: Mapping[str, Any], **_: object) -> bytes:
        # How long a write takes is what is tried: the end comes in the middle of it.
        await asyncio.sleep(self.seconds)
        (ending,) = [each for each in body["status"]["conditions"] if each["type"] == "ExceptionsEnding"]
        self.reasons.append(ending["reason"])
        if ending["reason"] == "Ended":
            self.ended.set()
        return json.dumps(body).encode()


@pytest.mark.parametrize("slow", [0.0, 2.0], ids=["in the pause", "while it is written"])
async def test_an_end_that_comes_while_something_else_is_done_is_told(
    slow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statuses, "PAUSE", 2.0 - slow)
    collector, client = Collector(), Written(slow)
    exception = PolicyException(
        name="legacy", owner="team-shop", reason="old", expires=datetime.now(UTC) + timedelta(seconds=1)
    )
    collector.put_read_policy(Policy(name="shop", exceptions=(exception,)), None)
    writer = Statuses(client, collector, lambda *_: None)  # type: ignore[arg-type]  # what of it is used
    writer.put({"metadata": {"name": "shop", "generation": 1}})
    running = asyncio.create_task(writer.run())
    try:
        async with asyncio.timeout(20):
            await client.ended.wait()
    finally:
        running.cancel()
    assert client.reasons[0] == "Ending"
