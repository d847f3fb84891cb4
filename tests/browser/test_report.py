"""The HTML report: filter, sort, group; silent, accessible, readable on a phone, in the dark, on paper, unharmed."""

import itertools
import re
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.attacks import ATTACKS, attacked
from tests.browser.conftest import Opened, Reader
from tests.browser.scans import scan
from webhook.running.as_html import as_html
from webhook.running.grouping import GroupBy

SIZE: Final = 24
WIDTHS: Final = (390, 820, 1440)


@pytest.fixture(scope="module")
def report() -> str:
    return as_html(scan(SIZE))


def rows(opened: Opened) -> list[str]:
    """Return the workloads that are to be seen, in order."""
    found: list[str] = opened.page.eval_on_selector_all(
        "#groups tbody tr", "rows => rows.filter(r => r.offsetParent).map(r => r.cells[1].innerText.split('\\n')[0])"
    )
    return found


def titles(opened: Opened) -> list[str]:
    found: list[str] = opened.page.eval_on_selector_all(
        "#groups > details:not([hidden]) h2", "all => all.map(each => each.innerText)"
    )
    return found


def assert_silent(opened: Opened) -> None:
    """Nothing but the file itself was asked for, and nothing was complained of."""
    assert [url for url in opened.requests if not url.startswith("file:")] == []
    assert len(opened.requests) == 1
    assert opened.errors == []


def test_the_filter_takes_any_words(reader: Reader, report: str) -> None:
    opened = reader.open(report)
    assert len(rows(opened)) == SIZE
    opened.page.fill("#filter", "POD-security platform")
    shown = rows(opened)
    assert 0 < len(shown) < SIZE
    assert opened.page.inner_text("#found") == f"{len(shown)} of {SIZE} rows"
    assert titles(opened) == ["Change these first"]
    opened.page.fill("#filter", "nobody has this")
    assert rows(opened) == []
    opened.page.fill("#filter", "")
    assert len(rows(opened)) == SIZE
    assert_silent(opened)


def test_a_column_is_sorted_by_its_head_and_numbers_by_their_size(reader: Reader) -> None:
    opened = reader.open(as_html(scan(200)))
    table = opened.page.locator("#groups table").first
    head = table.locator("thead button", has_text="Workload")
    for direction in ("ascending", "descending"):
        head.click()
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        cells = [each.split("\n")[0] for each in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
        keys = [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", cell)] for cell in cells]
        assert keys == sorted(keys, reverse=direction == "descending")
    table.locator("thead button", has_text="Pods lost").click()
    assert table.locator("th[aria-sort]").count() == 1
    assert_silent(opened)


def test_rows_are_grouped_anew_and_as_they_were(reader: Reader, report: str) -> None:
    opened = reader.open(report)
    before, as_printed = rows(opened), titles(opened)
    opened.page.select_option("#by", "owner")
    assert titles(opened) == ["no owner", "platform", "team-pay", "team-shop@example.com"]
    assert sorted(rows(opened)) == sorted(before)
    opened.page.fill("#filter", "platform")
    assert titles(opened) == ["platform"]
    opened.page.fill("#filter", "")
    opened.page.select_option("#by", "reason")
    assert "already-injected" in titles(opened)
    opened.page.locator("#groups thead button", has_text="Namespace").first.click()
    opened.page.select_option("#by", "")
    assert (rows(opened), titles(opened)) == (before, as_printed)
    assert_silent(opened)


def test_a_reason_leads_to_what_it_means(reader: Reader, report: str) -> None:
    opened = reader.open(report)
    opened.page.locator("#groups a", has_text="mixed-nodes").first.click()
    assert opened.page.url.endswith("#mixed-nodes")
    assert "exclude these nodes" in opened.page.inner_text("dt#mixed-nodes + dd")
    assert_silent(opened)


def test_published_documentation_is_linked(reader: Reader) -> None:
    opened = reader.open(as_html(scan(SIZE), docs_url="https://docs.example.com/client-ip/"))
    link = opened.page.locator("dt#mixed-nodes + dd a").get_attribute("href")
    assert link == "https://docs.example.com/client-ip/decisions.md"
    assert_silent(opened)


def test_the_commands_are_copied_whole(reader: Reader, report: str) -> None:
    opened = reader.open(report, permissions=["clipboard-read", "clipboard-write"])
    opened.page.click("text=Copy the commands")
    opened.page.wait_for_selector("text=Copied")
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == opened.page.inner_text("#commands")
    assert copied.startswith("kubectl rollout restart deployment/")
    assert_silent(opened)


def test_it_says_who_made_it_when_of_what_and_with_what(reader: Reader, report: str) -> None:
    opened = reader.open(report, java_script_enabled=False)
    names = opened.page.locator("header dl.about dt").all_inner_texts()
    said = dict(zip(names, opened.page.locator("header dl.about dd").all_inner_texts(), strict=True))
    assert said["By"] == "alice@example.com, context production"
    assert said["Scanned"] == "2026-06-01 09:30 UTC"
    assert said["Source"] == "https://10.0.0.1:6443"
    assert said["Cluster"] == "7d1c9a52-8c1e-4f7e-9d5e-0f3c2b1a9e77"
    assert said["Made with"].startswith("client-ip 1.0.0")


def test_without_script_everything_is_there(reader: Reader, report: str) -> None:
    opened = reader.open(report, java_script_enabled=False)
    assert opened.page.locator("#groups tbody tr").count() == SIZE
    assert not opened.page.is_visible("#tools")
    assert not opened.page.is_visible("button[data-copy]")
    opened.page.locator("#groups summary").first.click()
    assert not opened.page.locator("#groups table").first.is_visible()
    assert_silent(opened)


@pytest.mark.parametrize("by", GroupBy)
def test_each_grouping_is_a_page(reader: Reader, by: GroupBy) -> None:
    opened = reader.open(as_html(scan(SIZE), by))
    assert len(rows(opened)) == SIZE
    assert_silent(opened)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_accessible_and_fits(reader: Reader, report: str, width: int, scheme: str) -> None:
    """Contrast, headings, names, landmarks: all of axe-core's rules; and nothing sticks out of the page."""
    opened = reader.open(report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    results = Axe().run(opened.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    found = results.response["violations"]
    assert found == [], [(each["id"], each["nodes"][0]["html"]) for each in found]
    assert len(results.response["passes"]) > 20
    sizes = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert sizes[0] <= sizes[1]
    levels = opened.page.eval_on_selector_all("h1,h2,h3", "all => all.map(each => +each.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_an_empty_scan_is_a_page(reader: Reader) -> None:
    opened = reader.open(as_html(scan(0, unreadable={})))
    assert "0 workloads" in opened.page.inner_text(".sentence")
    assert_silent(opened)


def test_it_is_printed_whole(reader: Reader, report: str) -> None:
    """Groups that the reader closed are on paper all the same; what is only for the screen is not."""
    opened = reader.open(report, color_scheme="dark")
    opened.page.locator("#groups summary").first.click()
    assert opened.page.pdf(format="A4", print_background=True).startswith(b"%PDF-")
    opened.page.emulate_media(media="print", color_scheme="light")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(rows(opened)) == SIZE
    assert not opened.page.is_visible("#tools")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_two_thousand_rows_stay_below_a_megabyte_and_usable(reader: Reader) -> None:
    html = as_html(scan(2000))
    assert len(html.encode()) <= 1_000_000
    opened = reader.open(html)
    opened.page.fill("#filter", "mixed-nodes")
    assert 0 < len(rows(opened)) < 2000
    opened.page.select_option("#by", "namespace")
    assert len(titles(opened)) > 1
    assert_silent(opened)


@pytest.mark.parametrize("place", attacked(), ids=str)
def test_nothing_from_the_cluster_injects_markup(reader: Reader, place: str) -> None:
    """Each attack in each text: no element, no attribute, no link, no script of it is there; its text is."""
    html = as_html(attacked()[place])
    opened = reader.open(html)
    page: Any = opened.page
    assert page.evaluate("window.hacked") is None
    assert page.locator("img,iframe,object,embed,link,base,form:not(#tools),svg svg,style ~ style").count() == 0
    assert page.locator("script").count() == 1
    handlers = "all => all.flatMap(e => [...e.attributes]).filter(a => /^on|^style$|^srcdoc$/i.test(a.name)).length"
    assert page.eval_on_selector_all("*", handlers) == 0
    hrefs = page.eval_on_selector_all("[href]", "all => all.map(each => each.getAttribute('href'))")
    assert all(re.fullmatch(r"#[a-z-]+", href) for href in hrefs)
    assert "\u202e" not in page.inner_text("body")
    page.fill("#filter", "hacked")
    page.select_option("#by", "owner")
    page.select_option("#by", "namespace")
    assert page.evaluate("window.hacked") is None
    assert_silent(opened)


def test_attacks_would_be_seen(reader: Reader) -> None:
    """The same texts in a page without our care do run: else the test above could not fail."""
    for attack in ATTACKS[:4]:
        opened = reader.open(attack)
        opened.page.wait_for_function("window.hacked !== undefined")
