"""What holds for all suites."""

import pytest
from hypothesis import settings

from tests.parts import helm
from tests.parts.kube import VERSIONS

settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")  # a busy machine is no fault


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `make test-rest` uses."""
    parser.addoption(
        "--kubernetes",
        choices=VERSIONS,
        default=VERSIONS[0],
        help="the minor that tests/apiserver runs on; with another than the newest, only what depends on it",
    )
    parser.addoption("--helm", choices=helm.VERSIONS, default=helm.VERSIONS[0], help="the major version of Helm")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the Helm of this run."""
    helm.use(config.getoption("--helm"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped: what did not run has proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
