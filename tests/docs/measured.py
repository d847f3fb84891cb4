"""Pages that a run made name the commit that it ran on, and how far what they measure has moved since can be told."""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.parts.cache import ROOT

MEASURES: Final[Mapping[str, tuple[str, ...]]] = {
    "docs/performance.md": ("webhook", "requirements/run.txt", "tests/bench"),
    "docs/proof.md": ("webhook", "deploy/chart", "tests/proof"),
    "docs/operations.md": ("webhook", "certs", "deploy/chart", "tests/chaos"),
}
"""What each page's figures depend on."""
COMMIT: Final = re.compile(r"commit\s+`([0-9a-f]{7,40})`")


def commit() -> str:
    """Return how a page names the commit that it was made of."""
    revision = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "webhook", "certs", "deploy", "tests", "requirements")
    return f"commit `{revision}`" + (", with changes that were not committed" if changed else "")


def rewritten(text: str, head: str, rows: Sequence[str], made: str, by: str) -> str:
    """
    Return a page with other figures in one of its tables.

    Args:
        text: The page.
        head: How the table's head begins, such as `| nodes |`.
        rows: The new rows.
        made: What the page now says of the commit, as `commit` gives it.
        by: The command whose figures these are; the next commit in parentheses is replaced, to the parenthesis' end.

    Raises:
        LookupError: There is no such table, or no commit after the command.

    """
    lines = text.splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.startswith(head)), None)
    if first is None:
        raise LookupError(f"no table begins with {head}")
    last = first + 2
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    lines[first + 2 : last] = [f"{row}\n" for row in rows]
    before, found, after = "".join(lines).partition(by)
    named, count = re.subn(rf"{COMMIT.pattern}[^)]*\)", f"{made})", after, count=1)
    if not found or not count:
        raise LookupError(f"no commit is named after {by}")
    return before + found + named


def unnamed() -> Iterator[str]:
    """Yield the pages that name no commit, a sentence each."""
    for page in MEASURES:
        if not COMMIT.search((ROOT / page).read_text()):
            yield f"{page}: names no commit that its figures were measured at"


def behind() -> Iterator[str]:
    """Yield how far each page is behind what it measures, a sentence each; nothing for those that are up to date."""
    for page, paths in MEASURES.items():
        for revision in dict.fromkeys(COMMIT.findall((ROOT / page).read_text())):
            try:
                count = int(_git("rev-list", "--count", f"{revision}..HEAD", "--", *paths))
            except subprocess.CalledProcessError:
                yield f"{page}: measured at {revision}, which is not in this clone"
                continue
            if count:
                commits = "commit has" if count == 1 else "commits have"
                yield f"{page}: measured at {revision}; {count} {commits} changed {', '.join(paths)} since"


def _git(*arguments: str) -> str:
    command = ("git", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
