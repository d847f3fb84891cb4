"""docs/security.md lists every limit with its value."""

import re
from pathlib import Path

from webhook.rules import limits

PAGE = Path(__file__).parents[3] / "docs" / "security.md"


def test_the_page_lists_the_limits_as_they_are() -> None:
    listed = re.findall(r"^\| [^|]+ \| ([0-9,]+) \| `([A-Z_]+)` \|$", PAGE.read_text(), re.MULTILINE)
    stated = {name: value for name, value in vars(limits).items() if isinstance(value, int)}
    assert {name: int(value.replace(",", "")) for value, name in listed} == stated
    assert len(listed) == len(stated)
