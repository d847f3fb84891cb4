"""
Standard output and error in every locale: no character that a command prints ends it, and documents are UTF-8.

It knows nothing of tables and colours, and imports nothing that `serve` would have to pay for.
"""

import codecs
import contextlib
import io
import os
import sys
from typing import Final

_ASCII: Final = {"→": "->", "✓": "+", "·": "-", "…": "...", "≥": ">=", "≤": "<=", "\N{EN DASH}": "-"}
"""What stands for the characters of our own messages where the locale has none of them."""


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Spell what the stream's encoding lacks: our own marks in ASCII, everything else as Python escapes it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    cut = error.object[error.start : error.end]
    return "".join(_ASCII.get(each) or each.encode("ascii", "backslashreplace").decode() for each in cut), error.end


codecs.register_error("client-ip", _spelled)


def set_up_streams() -> None:
    """Let standard output and error take every character, whatever the locale's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="client-ip")


def write_document(text: bytes) -> None:
    """Write *text*, JSON or YAML, to standard output as it is: UTF-8, which is what its readers take it for."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def let_go_of_output() -> None:
    """Let what is still buffered go nowhere: the reader of standard output has gone."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
