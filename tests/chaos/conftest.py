"""
The lab, once for all tests of this folder, and the table at the end.

Run it by `make chaos`. Whatever is missing fails the run by name; whatever is interrupted is gone with its namespaces.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.chaos import report
from tests.chaos.__main__ import INSIDE
from tests.chaos.cluster import Lab
from tests.docs.measured import commit
from tests.parts.cache import ROOT

JSON: Final = ROOT / "build" / "chaos.json"
DASHBOARD: Final = ROOT / "build" / "chaos-dashboard.json"
LOGS: Final = ROOT / "build" / "chaos-logs"
LAB: Final = pytest.StashKey[Lab]()


def _terminated(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, in the namespaces that `python -m tests.chaos` made."""
    if os.environ.get(INSIDE) != "1":
        pytest.fail("run these tests by `make chaos`: they change addresses and mounts", pytrace=False)
    signal.signal(signal.SIGTERM, _terminated)
    # In memory, and only here: data and keys are gone with the namespace, whatever ends the run.
    run = Path("/var/run").resolve()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "chaos", run], check=True)
    folder = run / "chaos"
    folder.mkdir()
    try:
        with Lab(folder) as running:
            request.config.stash[LAB] = running
            yield running
            DASHBOARD.parent.mkdir(exist_ok=True)
            DASHBOARD.write_text(json.dumps({"commit": commit(), "panels": list(running.prometheus.dashboard())}))
    finally:
        shutil.rmtree(LOGS, ignore_errors=True)
        for each in (folder / "log", folder / "kube" / "log"):
            if each.exists():
                shutil.copytree(each, LOGS, dirs_exist_ok=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the figures."""
    lab = session.config.stash.get(LAB, None)
    if lab is not None and lab.rows:
        report.write(lab.rows, JSON)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    lab = config.stash.get(LAB, None)
    if lab is not None and lab.rows:
        terminalreporter.section("chaos")
        terminalreporter.write_line(report.table(lab.rows))
        terminalreporter.write_line(f"measured at {commit()}")
        if lab.no_cgroups:
            terminalreporter.write_line(f"no memory cgroups ({lab.no_cgroups}): peak RSS was measured instead")
        terminalreporter.write_line(f"\n{len(lab.rows)} faults: {JSON.relative_to(ROOT)}")
