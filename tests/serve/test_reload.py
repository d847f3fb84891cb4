"""Files that change under a server: what is half-written or can't be read changes nothing, and is read in the end."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.serve.server import POD, Server, review

LEGACY = {**POD, "spec": {**POD["spec"], "nodeSelector": {"pool": "legacy"}}}


@pytest.fixture
def state(tmp_path: Path, cluster: str) -> Path:
    """A copy of the example cluster, to be changed."""
    folder = tmp_path / "state"
    shutil.copytree(cluster, folder)
    return folder


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _reader(server: Server, seconds: float = 20.0) -> int:
    """Wait for the process that reads the files, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if children := _children(server.process.pid):
            return children[0]
        time.sleep(0.002)
    raise AssertionError("nobody reads the files")


@pytest.mark.slow
def test_a_reader_that_is_killed_is_started_again(tmp_path: Path, state: Path) -> None:
    with Server(tmp_path / "run", "--state", str(state)) as server:
        nodes = state / "nodes.yaml"
        changed = (
            nodes.read_text()
            .replace("CentOS Linux 7 (Core)", "Ubuntu 24.04 LTS")
            .replace("3.10.0", "6.8.0")
            .replace(".el7.", ".")
        )
        (state / "new").write_text(changed)
        (state / "new").rename(nodes)
        os.kill(_reader(server), signal.SIGKILL)
        server.wait_for_log("the process that reads the files ended")
        assert server.probe("/readyz").status == 200
        server.wait_for_log("reloaded changed files", seconds=30)
        assert server.ask(review(LEGACY)).response["auditAnnotations"]["reason"] == "tproxy"


def test_a_file_that_is_written_slowly_is_never_believed_by_half(tmp_path: Path, state: Path) -> None:
    nodes = state / "nodes.yaml"
    whole = nodes.read_text()
    with Server(tmp_path / "run", "--state", str(state)) as server:
        before = server.ask(review(POD)).response
        documents = whole.split("---\n")
        with nodes.open("w") as file:
            for document in documents:
                file.write(document + "---\n")
                file.flush()
                for _ in range(8):
                    assert server.ask(review(POD)).response == before
                    time.sleep(0.05)
            file.write("# all of it\n")
        server.wait_for_log("reloaded changed files", seconds=30)
        assert server.ask(review(POD)).response == before
        assert server.log.read_text().count("reloaded changed files") == 1


@pytest.mark.slow
def test_what_can_t_be_used_is_said_once_and_used_when_it_can(tmp_path: Path, state: Path) -> None:
    nodes = state / "nodes.yaml"
    whole = nodes.read_text()
    with Server(tmp_path / "run", "--state", str(state)) as server:
        nodes.write_text("kind: [")
        server.wait_for_log("the previous state stays in use", seconds=30)
        time.sleep(4)
        assert server.log.read_text().count("the previous state stays in use") == 1
        assert server.metric('client_ip_cache_age_seconds{kind="files"}') > 3
        nodes.write_text(whole)
        server.wait_for_log("reloaded changed files", seconds=30)
        assert server.metric('client_ip_cache_age_seconds{kind="files"}') < 3
