"""One server for the tests that don't change it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.server import Server

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the example cluster; at its end nothing but what was provoked stands in its log."""
    with Server(tmp_path_factory.mktemp("server"), "--state", str(CLUSTER), "--drain-seconds", "0") as running:
        yield running
        assert running.stop() == 0
        log = running.log.read_text()
        assert "Traceback" not in log
        assert "unclosed" not in log.lower()


@pytest.fixture
def cluster() -> str:
    """The example cluster's folder."""
    return str(CLUSTER)
