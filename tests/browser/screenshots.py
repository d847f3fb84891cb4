"""
The pictures of the report in the documentation: what `client-ip demo` writes, in light and dark.

    python -m tests.browser.screenshots       (after `make browser-test` has installed what it needs)
"""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from tests.browser.conftest import FLAGS
from tests.parts.cache import ROOT
from webhook.cli.scan import from_files
from webhook.running.as_html import as_html
from webhook.running.findings import OWNER_KEYS
from webhook.running.scanning import scan_of

STATES: Final = ("examples/cluster", "examples/running", "examples/apps/gateway.yaml")
AT: Final = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)
SIZE: Final[Any] = {"width": 1200, "height": 1150}


def main() -> None:
    """Write docs/report-light.png and docs/report-dark.png."""
    fold, scope = from_files(STATES, None, None, OWNER_KEYS, AT)
    html = as_html(scan_of(fold, scope, at=AT))
    executable = shutil.which("chromium")
    assert executable is not None, "chromium is needed"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        page_file.write_text(html)
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        for scheme in ("light", "dark"):
            page = browser.new_context(viewport=SIZE, color_scheme=scheme).new_page()
            page.goto(page_file.as_uri())
            page.screenshot(path=ROOT / "docs" / f"report-{scheme}.png")
        browser.close()


if __name__ == "__main__":
    main()
