"""
Reads files in a process of its own, and hands the facts over a line each: `python -m webhook.facts.reader PATH…`.

Reading YAML holds the interpreter for as long as it takes, a large JSON file for tenths of a second, and both leave
memory that is never given back. So the server lets a child do it: what arrives is small, and is taken in in slices
between which reviews are answered.

The first line says `{"problems": […]}`, or `{"objects": N}`; then N facts follow, policies first.
"""

import asyncio
import gc
import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from webhook.facts.collect import Collector, decode
from webhook.facts.files import FilesInvalid, Found, load, read_facts
from webhook.facts.problem import Problem
from webhook.rules.nodes import Node, NodeIndex

log: Final = logging.getLogger(__name__)

SLICE: Final = 20
"""Facts between two looks at what else is to be done; some hundred microseconds."""
FROZEN: Final = 1000
"""Facts between two looks at the garbage collector: what was loaded stays, and is never walked."""
PIECE_BYTES: Final = 64 << 10
"""What is read of a child at once: as much as a pipe holds."""
HUNG_SECONDS: Final = 60.0
"""A child that computes nothing for so long is ended: it waits for a mount that does not answer, or was stopped."""
LONGEST_SECONDS: Final = 600.0
"""And one that takes longer than this in all."""
WATCH_SECONDS: Final = 1.0


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    objects: int = -1
    problems: list[Problem] = []


class _Fact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str
    kind: str
    value: msgspec.Raw


_head: Final = msgspec.json.Decoder(_Head)
_fact: Final = msgspec.json.Decoder(_Fact)
_node: Final = msgspec.json.Decoder(Node)


# --- The server's side


def load_apart(paths: Sequence[str], *, own_namespace: str) -> Collector:
    """
    Return the facts in *paths*, read by a child.

    Raises:
        FilesInvalid: With every mistake in all of the files.

    """
    if _only_here(paths):
        return load(paths, own_namespace=own_namespace)
    try:
        child = _started(paths)
    except OSError as error:
        return _load_here(paths, own_namespace, error)
    collector = Collector(own_namespace=own_namespace, from_files=True)
    over = threading.Event()
    watchdog = threading.Thread(target=_watch_over, args=(child, over), name="files' reader", daemon=True)
    watchdog.start()
    try:
        with child:
            output = child.stdout or io.BytesIO()
            try:
                for number in range(1, _begin(output.readline()) + 1):
                    _take(_read(output.readline()), collector, number)
            except BaseException:
                child.kill()
                raise
    finally:
        over.set()
    return collector


def _watch_over(child: "subprocess.Popen[bytes]", over: threading.Event) -> None:
    """End a *child* that hangs, until it is *over*."""
    hang = _Hang(child.pid)
    while not over.wait(WATCH_SECONDS):
        if hang.is_over():
            child.kill()
            return


class _Hang:
    """Whether a process still gets on: by the CPU time that it has used."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._used = ""
        self._begun = self._moved = time.monotonic()

    def is_over(self) -> bool:
        """Return whether it is not to be waited for any longer."""
        now = time.monotonic()
        used = self._cpu()
        if used != self._used:
            self._used, self._moved = used, now
        return now - self._moved > HUNG_SECONDS or now - self._begun > LONGEST_SECONDS

    def _cpu(self) -> str:
        try:
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: utime and stime, after a name in brackets
            return " ".join(self._stat.read_text().rpartition(")")[2].split()[11:13])
        except OSError:
            return "gone"


async def load_apart_in_slices(paths: Sequence[str], *, own_namespace: str, base: NodeIndex) -> Collector:
    """
    Return the facts in *paths*, read by a child while the event loop goes on; nodes as in *base* cost next to nothing.

    Raises:
        FilesInvalid: With every mistake in all of the files.

    """
    if _only_here(paths):
        return await asyncio.to_thread(load, paths, own_namespace=own_namespace)
    try:
        child = await asyncio.to_thread(_started, paths)
    except OSError as error:
        return await asyncio.to_thread(_load_here, paths, own_namespace, error)
    collector = Collector(own_namespace=own_namespace, from_files=True)
    nodes: set[str] = set()
    watching = asyncio.create_task(_watch_over_aside(child))
    try:
        lines = _Lines(child.stdout or io.BytesIO())
        for number in range(1, _begin(await lines.next()) + 1):
            fact = _read(await lines.next())
            if fact.kind == "Node" and not nodes:
                collector.replace_nodes(collector.next_nodes(base))  # policies were first
            name = _take(fact, collector, number)
            if fact.kind == "Node":
                nodes.add(name)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        collector.builder.keep(nodes)
    except BaseException:
        child.kill()
        raise
    finally:
        watching.cancel()
        await asyncio.to_thread(_end, child)
    return collector


class _Lines:
    """What a child writes, line by line: what is not taken in yet waits in the pipe, and not in this process."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._read: deque[bytes] = deque()

    async def next(self) -> bytes:
        """Return the next line; nothing where there is none."""
        if not self._read:
            self._read.extend(await asyncio.to_thread(self._output.readlines, PIECE_BYTES))
        return self._read.popleft() if self._read else b""


def _end(child: "subprocess.Popen[bytes]") -> None:
    with child:  # closes the pipe, and waits
        pass


async def _watch_over_aside(child: "subprocess.Popen[bytes]") -> None:
    """End a *child* that hangs."""
    hang = _Hang(child.pid)
    while not hang.is_over():  # noqa: ASYNC110  # another process has no event
        await asyncio.sleep(WATCH_SECONDS)
    child.kill()


def _started(paths: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(_command(paths), stdout=subprocess.PIPE)


def _command(paths: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "webhook.facts.reader", *paths]


def _load_here(paths: Sequence[str], own_namespace: str, error: OSError) -> Collector:
    log.warning("cannot start a process that reads the files (%s); the server reads them itself", error)
    return load(paths, own_namespace=own_namespace)


def _only_here(paths: Sequence[str]) -> bool:
    """A pipe of this process' own, as shells make for `<(command)`, is no child's."""
    return any(Path(path).is_fifo() for path in paths)


def _begin(line: bytes) -> int:
    """Return how many facts follow."""
    if not line.endswith(b"\n"):
        raise FilesInvalid([Problem(file="", message="the process that reads the files ended without a result")])
    head = _head.decode(line)
    if head.objects < 0:
        raise FilesInvalid(head.problems)
    return head.objects


def _read(line: bytes) -> _Fact:
    if not line.endswith(b"\n"):
        raise FilesInvalid([Problem(file="", message="the process that reads the files ended too early")])
    return _fact.decode(line)


def _take(fact: _Fact, collector: Collector, number: int) -> str:
    """Give a fact to the *collector*, and return a node's name."""
    if number % FROZEN == 0:
        gc.freeze()
    if fact.kind != "Node":
        collector.put(fact.api_version, fact.kind, bytes(fact.value))
        return ""
    node = _node.decode(fact.value)
    collector.put_node(node)
    return node.metadata.name


# --- The child's side


def main(paths: Sequence[str]) -> None:
    """Write the facts in *paths* to standard output."""
    os.nice(19)  # reviews come first
    gc.disable()  # it reads, writes and ends
    write = sys.stdout.buffer.write
    try:
        facts = read_facts(paths, _Proofs())
    except FilesInvalid as error:
        write(msgspec.json.encode({"problems": error.problems}) + b"\n")
        return
    write(msgspec.json.encode({"objects": len(facts)}) + b"\n")
    for found in facts:
        write(_line(found))


class _Proofs(Collector):
    """Proves facts; nobody asks this one for an index."""

    def put_node(self, node: Node) -> None:
        """Let it go: it could be read."""


def _line(found: Found) -> bytes:
    value: Any = found.value
    if found.kind == "Node":
        value = decode(value, Node)  # of what a kubelet writes a tenth is read
    return msgspec.json.encode({"apiVersion": found.api_version, "kind": found.kind, "value": value}) + b"\n"


if __name__ == "__main__":
    main(sys.argv[1:])
