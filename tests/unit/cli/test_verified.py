"""How `verify` prints: a table on a terminal, row by row in a pipe, and as it comes where a log is followed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.unit.cli.test_printing import at_terminal

LOGS: Final = Path(__file__).parents[1] / "accesslogs"
PRESERVED: Final = (LOGS / "tproxy.text.log").read_text().splitlines()[2]
LOST: Final = (LOGS / "redirect.text.log").read_text().splitlines()[2]
PROGRAM: Final = """
import sys
from webhook.cli.main import main
sys.argv = ["client-ip", "verify", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
"""


def printed(*arguments: str | Path, columns: int = 120) -> list[str]:
    program = PROGRAM.format(arguments=[str(each) for each in arguments])
    return plain(at_terminal(program, columns))


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f'{PRESERVED}\n{LOST}\nGET /a HTTP/1.1" 200\n')
    found = printed("--pod", LOGS / "redirect.pod.yaml", log, columns=140)
    assert found[0].startswith("demo/app-redirect: injected mode REDIRECT")
    assert found[1].split() == ["VERDICT", "REQUEST", "UPSTREAM_LOCAL_ADDRESS", "WHY"]
    assert [line.split("  ")[0] for line in found[2:5]] == ["preserved", "lost", "not read"]
    assert "1 preserved, 1 lost, 0 unknown, 1 not read" in found


def test_a_terminal_colours_verdicts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOST)
    assert "\x1b[31mlost" in at_terminal(PROGRAM.format(arguments=[str(log)]), 120)


def test_a_narrow_terminal_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOST)
    assert "127.0.0.6:54236" in "".join(printed(log, columns=40)).replace(" ", "")


def test_of_a_long_log_a_terminal_shows_the_beginning_and_counts_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{PRESERVED}\n" * 700 + f"{LOST}\n")
    found = printed(log)
    assert sum(line.startswith("preserved") for line in found) == 500
    assert sum(line.startswith("lost") for line in found) == 1
    assert found[-2:] == [
        "… and 200 preserved are not shown; use a pipe or -o json to see all",
        "700 preserved, 1 lost, 0 unknown",
    ]


@pytest.mark.parametrize("lines", [1, 2_500])
def test_every_row_is_printed_in_a_pipe(tmp_path: Path, lines: int) -> None:
    log = tmp_path / "log"
    log.write_text(f"{PRESERVED}\n" * lines)
    command = [sys.executable, "-m", "webhook.cli", "verify", str(log)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == lines + 2


@pytest.mark.parametrize("output", ["table", "json"])
def test_what_comes_is_printed_as_it_comes_and_ctrl_c_gives_the_verdict(output: str) -> None:
    """`kubectl logs --follow | client-ip verify -`."""
    command = [sys.executable, "-m", "webhook.cli", "verify", "-o", output, "-"]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        told: list[str] = []
        for line in (PRESERVED, PRESERVED):
            running.stdin.write(line + "\n")
            running.stdin.flush()
            while not told or "the application's socket showed the caller" not in told[-1]:
                told.append(running.stdout.readline())
            told.append("")
        running.send_signal(signal.SIGINT)
        rest, error = running.communicate(timeout=60)
    assert (running.returncode, error) == (0, "")
    assert ("2 preserved, 0 lost, 0 unknown" if output == "table" else '"proved": true') in rest


def test_a_row_for_a_terminal_that_follows() -> None:
    pipe = "import os\nr, w = os.pipe()\nos.write(w, {line!r})\nos.close(w)\nos.dup2(r, 0)\n"
    program = pipe.format(line=f"{PRESERVED}\n".encode())
    lines = plain(at_terminal(program + PROGRAM.format(arguments=["-"]), 120))
    assert lines[0].split() == ["VERDICT", "REQUEST", "UPSTREAM_LOCAL_ADDRESS", "WHY"]
    assert lines[1].startswith("preserved  GET /ip  10.88.0.30:32786")
    assert lines[-1] == "1 preserved, 0 lost, 0 unknown"
