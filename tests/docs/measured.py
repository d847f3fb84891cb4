"""Pages that a run made name the commit that it ran on, and how far what they measure has moved since can be told."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from tests.parts.build import ROOT

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
