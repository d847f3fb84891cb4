"""What commands print for people: plain in a pipe, laid out on a terminal, and never rich's reading of a text."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

CLEAN: Final = {
    key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR", "CI", "COLUMNS", "LINES"}
}
TEXTS: Final = (
    "In [enabled, audit]",
    "[/etc/x] [red]not red[/red]",
    ":smile: :warning:",
    "http://10.0.0.1:8080/x 'quoted' 127.0.0.6 True None",
)
TABLE: Final = """
from webhook.cli.streams import set_up_streams
from webhook.cli.printing import *
set_up_streams()
out = console()
print_table(out, ["OBJECT", "REASON", "WHAT IT MEANS"], [
    ["shop/Pod/" + "x" * 60, styled("mixed-nodes", "red"), "one\\n→ " + " ".join(["word"] * 60)],
    *[["shop/Pod/b", "tproxy", text] for text in %r],
    ["shop/Pod/evil\\x1b[31m", "tproxy", "a\\x07b\\x1b]0;title\\x07"],
])
"""
TREE: Final = """
from webhook.cli.streams import set_up_streams
from webhook.cli.printing import *
set_up_streams()
root = Branch("Pod shop/web")
root.add(styled("✓ 1. opted in?", "green")).add("label [x]=y " + "z" * 100)
print_tree(console(), root)
"""


def piped(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=30, env={**CLEAN, **environment}
    )
    assert done.stderr == b""
    return done.stdout.decode(environment.get("PYTHONIOENCODING", "utf-8"))


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[int, int]]:
    main, terminal = pty.openpty()
    try:
        os.set_blocking(main, True)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        yield main, terminal
    finally:
        os.close(main)


def at_terminal(
    program: str,
    columns: int,
    environment: Mapping[str, str] | None = None,
    *,
    seen: Callable[[str], object] = lambda _: None,
) -> str:
    """Return what the program writes to a terminal of that many columns; *seen* is told all of it as it comes."""
    with _terminal(columns) as (main, terminal):
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=terminal,
            stderr=terminal,
            stdin=terminal,
            env={"TERM": "xterm-256color", **CLEAN, **(environment or {})},
        )
        os.close(terminal)
        found = b""
        while True:
            try:
                more = os.read(main, 1 << 16)
            except OSError:
                break  # Linux' way to say that the other side has closed
            if not more:
                break
            found += more
            seen(found.decode(errors="replace"))
        assert child.wait(30) == 0, found
    return found.decode()


def test_a_piped_table_is_one_whole_line_for_each_row() -> None:
    printed = piped(TABLE % (TEXTS,), COLUMNS="20")
    head, first, *rest = printed.splitlines()
    assert head.split() == ["OBJECT", "REASON", "WHAT", "IT", "MEANS"]
    assert first.startswith("shop/Pod/" + "x" * 60)
    assert first.endswith(" word" * 59)
    assert "one  → word word" in first, "a cell's lines are one line"
    assert len(rest) == len(TEXTS) + 1
    assert "\x1b" not in printed
    assert not any(line.endswith(" ") for line in printed.splitlines())
    column = head.index("REASON")
    assert [line[column:].split()[0] for line in rest] == ["tproxy"] * len(rest)


def test_texts_are_shown_as_they_are() -> None:
    printed = piped(TABLE % (TEXTS,))
    for text in TEXTS:
        assert text in printed, text
    assert "evil\\x1b[31m" in printed
    assert "\x07" not in printed


def test_a_complaint_is_shown_as_the_rest_is(tmp_path: Path) -> None:
    """A file's name and its keys are in it: on a terminal, and where a log's lines are read for commands."""
    policy = tmp_path / "a\x1b]0;x\x07\u202e.yaml"
    policy.write_text(
        "apiVersion: client-ip.dev/v1alpha1\nkind: ClientIPPolicy\nmetadata: {name: default}\n"
        'spec: {mode: Enforce, "\\x1b[31m\\u202e\\x9b\\n::error::x": 1}\n'
    )
    command = [sys.executable, "-m", "webhook.cli", "check", "--state", str(policy), str(tmp_path / "no\n::error::y")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=CLEAN)
    assert ended.returncode == 2
    assert ended.stderr.replace("\n", "").isprintable()
    assert "a\\x1b]0;x\\x07\\u202e.yaml:4" in ended.stderr
    assert "spec.\\x1b[31m\\u202e\\x9b\\n::error::x: unknown field" in ended.stderr
    assert not any(line.startswith("::") for line in ended.stderr.splitlines())


@pytest.mark.parametrize("columns", [30, 60, 80, 200])
def test_a_terminal_of_any_width_shows_every_word(columns: int) -> None:
    printed = at_terminal(TABLE % (TEXTS,), columns, {"NO_COLOR": "1"})
    assert printed.count("word") == 60
    assert printed.count("x" * 10) + printed.count("x" * 9) > 1
    assert "…" not in printed, "nothing is cut"
    assert max(map(len, _plain(printed).splitlines())) <= columns
    assert "\x1b[31m" not in printed


def _plain(printed: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", printed.replace("\r", ""))


def test_colours_are_for_terminals_and_for_those_who_want_them() -> None:
    assert "\x1b[31m" in at_terminal(TABLE % ((),), 100)
    assert "\x1b[31m" not in at_terminal(TABLE % ((),), 100, {"NO_COLOR": "1"})
    assert "\x1b" not in at_terminal(TABLE % ((),), 100, {"TERM": "dumb"})
    forced = piped(TABLE % ((),), FORCE_COLOR="1")
    assert "\x1b[31m" in forced
    assert len(forced.splitlines()) == 3, "colours change no line"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_locale_gets_every_character(encoding: str) -> None:
    printed = piped(TABLE % (("größe 客户",),), PYTHONIOENCODING=encoding)
    arrow = "→ word" if encoding == "utf-8" else "-> word"
    assert arrow in printed
    size = {"ascii": "gr\\xf6\\xdfe", "latin-1": "größe", "utf-8": "größe"}[encoding]
    client = "客户" if encoding == "utf-8" else "\\u5ba2\\u6237"
    assert f"{size} {client}" in printed


def test_a_tree_has_guides_on_a_terminal_and_indents_in_a_pipe() -> None:
    assert piped(TREE) == "Pod shop/web\n  ✓ 1. opted in?\n    label [x]=y " + "z" * 100 + "\n"
    printed = _plain(at_terminal(TREE, 50))
    assert "└── ✓ 1. opted in?" in printed
    assert printed.count("z") == 100


BAR: Final = """
import time
from webhook.cli.printing import progress
with progress("reading [files]", total=10, unit="files") as bar:
    for _ in range(10):
        time.sleep(%s)
        bar.advance()
print("done")
"""


@pytest.mark.slow
def test_a_bar_is_for_terminals_and_what_takes_long() -> None:
    assert "reading [files]" in at_terminal(BAR % 0.3, 100)
    assert at_terminal(BAR % 0.01, 100) == "done\r\n"
    assert piped(BAR % 0.25) == "done\n"


def test_serve_never_pays_for_the_command_line() -> None:
    """7 MiB and more for what no server prints, and 17 for what reads a kubeconfig: a child does that, and ends."""
    program = """
import sys
import webhook.cli.main, webhook.cli.serve, webhook.facts.kube, webhook.facts.watch, webhook.facts.reader
apart = {"rich", "jsonpatch", "jsonpointer", "pygments", "kubernetes", "requests", "urllib3", "oauthlib", "websocket"}
print(sorted(apart & sys.modules.keys()))
"""
    assert piped(program) == "[]\n"
