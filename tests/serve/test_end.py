"""SIGTERM: heard from the first moment, and bounded whatever is half-sent."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.flood.peer import REVIEW, head
from tests.serve.server import POD, Server, review
from webhook.server.peers import OPEN_BYTES

DRAIN_SECONDS = 1.0
STOP_SECONDS = 7.0
"""Five for what is under way, and a little."""

HALF_SENT = {
    "a body on the fast path": head(1000) + b"{",
    "a body on aiohttp's": head(1000, more="X-Odd: 1\r\n") + b"{",
    "a chunked body": head(0, more="X-Odd: 1\r\n").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"5\r\nabc",
    "a head": b"POST /mutate HTTP/1.1\r\nHost: a\r\nX-A: ",
    "nothing": b"",
    "a body that was refused": head(1000, more="Content-Encoding: gzip\r\n") + b"x",
}


def _start(folder: Path, cluster: str) -> tuple[list[str], Path]:
    log = folder / "log"
    options = ["--listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0", "--state", cluster, "--tls-self-signed"]
    return [sys.executable, "-m", "webhook.cli", "serve", *options, "--drain-seconds", "0"], log


@pytest.mark.parametrize("kinds", [*([kind] for kind in HALF_SENT), list(HALF_SENT)], ids="+".join)
@pytest.mark.slow
def test_whatever_is_half_sent_the_end_comes(tmp_path: Path, cluster: str, kinds: list[str]) -> None:
    with Server(tmp_path, "--state", cluster, "--drain-seconds", str(DRAIN_SECONDS)) as server, ExitStack() as stack:
        for kind in kinds:
            plain = stack.enter_context(socket.create_connection(server.address, timeout=30))
            client = stack.enter_context(server.context().wrap_socket(plain, server_hostname=server.address[0]))
            client.sendall(HALF_SENT[kind])
        half_hello = stack.enter_context(socket.create_connection(server.address))
        half_hello.sendall(b"\x16\x03\x01\x02\x00")
        probe = stack.enter_context(socket.create_connection(server.probes))
        probe.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ")
        assert server.ask(review(POD)).status == 200
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - begun < DRAIN_SECONDS + STOP_SECONDS + 3  # three for a machine that is busy
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("after_seconds", [0.1, 0.2, 0.3, 0.5, 0.8])
def test_sigterm_while_it_starts_ends_it(tmp_path: Path, cluster: str, after_seconds: float) -> None:
    command, log = _start(tmp_path, cluster)
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        _wait_for_handler(process.pid)
        time.sleep(after_seconds - 0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "Traceback" not in log.read_text()


def test_as_process_1_sigterm_is_heard_before_anything_is_served(tmp_path: Path, cluster: str) -> None:
    command, log = _start(tmp_path, cluster)
    unshare = [str(shutil.which("unshare")), "--pid", "--fork", "--kill-child=SIGKILL"]
    prefix = unshare if os.geteuid() == 0 else [*unshare, "--user", "--map-root-user"]
    with log.open("wb") as output, subprocess.Popen([*prefix, *command], stdout=output, stderr=output) as outer:
        try:
            inner = _only_child(outer.pid)
            _wait_for_handler(inner)
            os.kill(inner, signal.SIGTERM)
            assert outer.wait(20) == 0
        finally:
            outer.kill()
    assert "answering reviews" not in log.read_text()


def _wait_for_handler(pid: int) -> None:
    """Wait until SIGTERM has a handler: Python's own start, some ten milliseconds, is over."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError("SIGTERM is not handled")


def _only_child(pid: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.002)
    raise AssertionError("it did not start")


def test_a_review_that_has_begun_is_answered_in_the_drain(tmp_path: Path, cluster: str) -> None:
    with Server(tmp_path, "--state", cluster, "--drain-seconds", "0") as server:
        plain = socket.create_connection(server.address, timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with server.context().wrap_socket(plain, server_hostname=server.address[0]) as client:
            client.sendall(head(len(REVIEW)) + REVIEW[:-1])
            while server.metric('client_ip_peers_held_bytes{listener="reviews"}') <= OPEN_BYTES:
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("draining")
            client.sendall(REVIEW[-1:])
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(20) == 0
