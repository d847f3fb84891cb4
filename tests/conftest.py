"""What holds for all suites."""

import re

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.parts.kube import VERSIONS

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")  # a busy machine is no fault
ON_A_CONTROL_PLANE = re.compile(r"[\[-](1\.\d\d)[\]-]")


class BySharedPart(LoadScopeScheduling):
    """
    Keep tests in one process that share what is costly: the control plane of a version, else what their module starts.

    xdist's own `loadgroup` does not group with pytest 9.2: https://github.com/pytest-dev/pytest-xdist/issues/1386
    """

    def _split_scope(self, nodeid: str) -> str:
        found = ON_A_CONTROL_PLANE.search(nodeid)
        return found[1] if found else nodeid.split("::", 1)[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that `make test-all` uses."""
    parser.addoption(
        "--kubernetes",
        choices=VERSIONS,
        default=VERSIONS[0],
        help="the minor that tests/apiserver runs on; with another than the newest, only what depends on it",
    )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> BySharedPart:
    """Hand out tests to the processes of `pytest -n`."""
    return BySharedPart(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped: what did not run has proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
