"""
`python -m tests.docs`, a part of `make lint`: what pages and help texts say is so.

Exit 1 where something leads nowhere, is refused by our own commands, or differs from the code. Pages whose figures are
older than what they measure are reported, and fail nothing.
"""

import sys
from collections.abc import Iterator

from tests.docs import commands, measured, references, tables


def faults() -> Iterator[str]:
    """Yield all that is wrong, a sentence each."""
    yield from references.faults()
    yield from commands.faults()
    yield from tables.faults()
    yield from measured.unnamed()


def main() -> None:
    """Print what is wrong, and which pages should be measured again."""
    found = list(faults())
    for each in found:
        print(each)
    for each in measured.behind():
        print(f"note: {each}")
    sys.exit(f"{len(found)} statements are not so" if found else 0)


if __name__ == "__main__":
    main()
