"""What holds for all suites."""

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which a test was skipped: what did not run has proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
