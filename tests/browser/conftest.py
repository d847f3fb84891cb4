"""Chromium of the system, driven by Playwright, with a list of all that goes wrong or leaves the page."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import sync_playwright

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""No sandbox: the suite runs as root in CI; nothing but its own files is opened. The rest keeps the browser silent."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser that all tests share."""
    executable = shutil.which("chromium")
    assert executable is not None, "chromium is needed: apt-get install chromium (tests/browser/packages.txt)"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield running
        running.close()


@dataclass
class Opened:
    """A page, and what it did beside being shown."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Any) -> None:
        """Note a dialog, and go on."""
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()


class Reader:
    """Opens reports as readers do: from a file."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self._contexts: list[Any] = []

    def open(self, html: str, *, name: str = "report.html", **context: Any) -> Opened:
        """Open *html*; *context* is Playwright's: viewport, color_scheme, java_script_enabled."""
        path = self._folder / name
        path.write_text(html)
        made = self._browser.new_context(**context)
        self._contexts.append(made)
        page = made.new_page()
        opened = Opened(page)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("console", lambda message: opened.errors.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: opened.errors.append(f"page: {error}"))
        page.on("dialog", opened.dismiss)
        page.goto(path.as_uri())
        return opened

    def close(self) -> None:
        """Close what was opened."""
        for each in self._contexts:
            each.close()


@pytest.fixture
def reader(browser: Any, tmp_path: Path) -> Iterator[Reader]:
    """Somebody who opens reports."""
    made = Reader(browser, tmp_path)
    yield made
    made.close()
