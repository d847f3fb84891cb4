"""Each check finds what it looks for, and the project's own texts pass."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.docs import commands, measured, references, tables
from tests.docs.__main__ import faults
from tests.docs.pages import Line, code, pages
from tests.parts.cache import ROOT


def test_what_the_texts_say_is_so() -> None:
    assert list(faults()) == []


@pytest.fixture
def page() -> Iterable[Callable[[str], Path]]:
    """Write a page beside the others; it is removed at the end."""
    path = ROOT / "build" / "docs" / "page.md"
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    yield write
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("See [this](other.md).", ["the link other.md leads nowhere"]),
        ("# A title\n\nSee [this](#another-title).", ["page.md has no heading #another-title"]),
        ("# A title: `x`, again\n\nSee [this](#a-title-x-again).", []),
        ("[this]: missing.md", ["the link missing.md leads nowhere"]),
        ("See [this](https://example.com/other.md) and `[that](other.md)`.", []),
        ("![a plot](plot.svg)", ["the link plot.svg leads nowhere"]),
    ],
)
def test_links(page: Callable[[str], Path], text: str, want: list[str]) -> None:
    assert [each.partition(": ")[2] for each in references.links(page(text))] == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("as docs/nowhere.md says", ["there is no docs/nowhere.md"]),
        ("as docs/server.md says, and tests/parts/.", []),
        ('"""See `tests/nowhere/README.md`."""', ["there is no tests/nowhere/README.md"]),
        ("the files tests/*/packages.txt and tests/*/nothing.txt", ["there is no tests/*/nothing.txt"]),
        ("requirements/NAME.txt, docs/…, https://example.com/docs/nowhere.md", []),
        ("kubectl logs deploy/reviews", []),
    ],
)
def test_paths(text: str, want: list[str]) -> None:
    line = Line(ROOT / "README.md", 1, text)
    assert [each.partition(": ")[2] for each in references.paths(line)] == want


@pytest.mark.parametrize(
    "text",
    ["| 1,000 | SIZE_1000 |", "TODO: measure", "about FIXME seconds", "{{ figure }}", "in `SIZE_CPU_5000` s", "???"],
)
def test_what_was_left_to_be_filled_in(page: Callable[[str], Path], text: str) -> None:
    assert list(references.placeholders(page(text), references.constants()))


def test_constants_of_the_code_are_no_placeholders(page: Callable[[str], Path]) -> None:
    text = "`CLIENT_IP_LISTEN`, NET_ADMIN and `NO_COLOR`"
    assert list(references.placeholders(page(text), references.constants())) == []


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("    client-ip check --state examples/cluster -o json deploy.yaml | less", []),
        ("    client-ip check --states examples/cluster", ["No such option '--states'"]),
        ("    client-ip certs rotate --leaf   # explained", []),
        ("    client-ip certs rotates", ["there is no command rotates"]),
        ("    client-ip chekc deploy.yaml", ["there is no command chekc"]),
        ("    kubectl client-ip check -o xml deploy.yaml", ["'xml' is not one of"]),
        ("    client-ip serve \\\n      --tls-certificate tls.crt", ["No such option '--tls-certificate'"]),
        ("    client-ip serve tls.crt", ["takes no tls.crt"]),
        ("the command `client-ip explain --stat x`", ["No such option '--stat'"]),
        ("the option of `client-ip render configuration --ca-file`", []),
    ],
)
def test_commands(page: Callable[[str], Path], text: str, want: list[str]) -> None:
    found = [each for line in commands.joined(code(page(text))) for each in commands.command(line)]
    assert len(found) == len(want), found
    assert all(part in each for part, each in zip(want, found, strict=True)), found


@pytest.mark.parametrize(
    ("check", "text", "want"),
    [
        (commands.target, "make tests", "there is no such target"),
        (commands.target, "make test-fast", None),
        (commands.options, "--not-an-option", "no command has this option"),
        (commands.options, "--tls-secret NAME", None),
        (commands.values, "helm upgrade x deploy/chart --set image.repo=y", "the chart has no such value"),
        (commands.values, "helm upgrade x deploy/chart --set image.repository=y", None),
        (commands.environment, "CLIENT_IP_LISTENS", "nothing reads CLIENT_IP_LISTENS"),
        (commands.environment, "CLIENT_IP_LISTEN", None),
    ],
)
def test_names(check: Callable[[Line], Iterable[str]], text: str, want: str | None) -> None:
    found = list(check(Line(ROOT / "README.md", 1, text)))
    assert len(found) == (want is not None), found
    assert want is None or want in found[0]


def test_every_command_and_metric_is_known() -> None:
    assert {"check", "serve", "certs rotate"} <= commands.commands().keys()
    made = tables.made_metrics()
    assert made["client_ip_reviews_total"] == {"kind", "operation", "reason", "mode", "patched", "dry_run"}
    assert made["client_ip_build_info"] == {"version"}


def test_pages_that_a_run_made_say_what_they_were_made_of() -> None:
    assert measured.COMMIT.search(f"measured at {measured.commit()}.")
    assert set(measured.MEASURES) <= {str(path.relative_to(ROOT)) for path in pages()}


def test_what_a_table_lists_twice(page: Callable[[str], Path]) -> None:
    head = "| option | default |\n|---|---|\n"
    assert list(tables.twice(page(f"{head}| `--a` | 1 |\n| `--b` | 1 |\n"))) == []
    assert list(tables.twice(page(f"{head}| `--a` | 1 |\n| `--b` | 1 |\n| `--a` | 2 |\n"))) == [
        "build/docs/page.md: `--a` is listed twice"
    ]


def test_a_run_writes_its_own_table_and_commit_and_nothing_else() -> None:
    table = "Before.\n\n| nodes | peak |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n"
    page = f"{table}By `make it` (commit `0123456`; 3 at\nanother): so.\n"
    made = "commit `abcdef0`"
    assert measured.rewritten(page, "| nodes |", ["| 5 | 6 |"], made, "`make it`") == (
        "Before.\n\n| nodes | peak |\n|---|---|\n| 5 | 6 |\n\nBy `make it` (commit `abcdef0`): so.\n"
    )
    with pytest.raises(LookupError, match="no table"):
        measured.rewritten(page, "| no such head |", [], made, "`make it`")
    with pytest.raises(LookupError, match="no commit"):
        measured.rewritten(page, "| nodes |", [], made, "`make another`")


@pytest.mark.parametrize(
    ("head", "by"), [("| nodes |", "`python -m tests.bench.sizes`"), ("| fault |", "`make chaos`: real replicas")]
)
def test_the_page_has_what_a_run_writes(head: str, by: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert "commit `abcdef0`)" in measured.rewritten(text, head, ["| 1 |"], "commit `abcdef0`", by)
