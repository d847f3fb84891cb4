"""
`python -m tests.chaos.page`: writes the table of faults in docs/operations.md from what `make chaos` measured.

Reads build/chaos.json. Run it at the commit that was measured, since that is what the page will name.
"""

import argparse
import json
from typing import Any, Final

from tests.docs.measured import commit, rewritten
from tests.parts.cache import ROOT

PAGE: Final = ROOT / "docs" / "operations.md"
MEASURED: Final = ROOT / "build" / "chaos.json"


def row(found: dict[str, Any]) -> str:
    """Return the page's row of one fault; a time is left out where nothing had to heal."""
    healed = found["healed_seconds"]
    seconds = f"{healed:.1f} s" if 0 < healed < 10 else f"{healed:.0f} s" if healed else ""  # 9.9 s, 39 s
    return f"| {found['fault']} | {found['calls']:,} | {found['failed']:,} | {found['unpatched']:,} | {seconds} |"


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = [row(found) for found in json.loads(MEASURED.read_text())]
    PAGE.write_text(rewritten(PAGE.read_text(), "| fault |", rows, commit(), "`make chaos`: real replicas"))
    print(f"{len(rows)} faults written to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
