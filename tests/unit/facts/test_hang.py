"""A reader that hangs is ended, one that works is not."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from webhook.facts import reader
from webhook.facts.files import FilesInvalid
from webhook.facts.reader import load_apart, load_apart_in_slices
from webhook.rules.nodes import NodeIndexBuilder
from webhook.rules.policy import BUILT_IN

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HUNG_SECONDS", 1.0)
    monkeypatch.setattr(reader, "WATCH_SECONDS", 0.1)


def test_a_hung_reader_ends_while_the_server_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reader, "_command", lambda _: SLEEPS)

    async def load() -> int:
        turns = 0
        index = NodeIndexBuilder(BUILT_IN.node_rules).freeze()
        task = asyncio.create_task(load_apart_in_slices([str(tmp_path)], own_namespace="", base=index))
        while not task.done():
            turns += 1
            await asyncio.sleep(0.01)
        with pytest.raises(FilesInvalid, match="the process that reads the files ended without a result"):
            await task
        return turns

    assert asyncio.run(load()) > 10


def test_a_hung_reader_ends_at_the_start_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reader, "_command", lambda _: SLEEPS)
    with pytest.raises(FilesInvalid, match="the process that reads the files ended without a result"):
        load_apart([str(tmp_path)], own_namespace="")


def test_who_computes_is_not_taken_for_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            hang = reader._Hang(busy.pid)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert not hang.is_over()
                time.sleep(0.1)
            busy.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while not hang.is_over():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            monkeypatch.setattr(reader, "LONGEST_SECONDS", 0.0)
            assert hang.is_over()
        finally:
            busy.kill()
