"""Links and paths that pages, docstrings and comments name lead somewhere, and nothing was left to be filled in."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.docs.pages import Line, code, lines, pages, prose, texts
from tests.parts.cache import ROOT

LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]:\s+(\S+)")
PATH: Final = re.compile(
    r"(?<![\w/.@$}~-])((?:docs|tests|webhook|certs|deploy|examples|requirements|release|\.ci)/[\w.*/{},-]*)"
)
ELIDED: Final = re.compile(r"(?:^|/)(?!README|CHANGELOG|CONTRIBUTING|NOTES|LICENSE)[A-Z]{2,}|…|\.\.\.|<|\{|\}")
"""A path with a part that the reader chooses: `requirements/NAME.txt`, `docs/…`."""
FOREIGN: Final = frozenset({"ISTIO_INBOUND", "ISTIO_IN_REDIRECT"})
"""Names of others that no code of ours uses: chains that Istio makes in iptables."""
PLACEHOLDER: Final = re.compile(
    r"\b(TODO|FIXME|TBD|XXX|TKTK|LOREM|PLACEHOLDER)\b|\?\?\?|<(fill|insert)[^>]*>|\{\{|@@", re.IGNORECASE
)
CAPITALS: Final = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


def faults() -> Iterator[str]:
    """Yield what leads nowhere, and what was left to be filled in, a sentence each."""
    for page in pages():
        yield from links(page)
    for text in texts():
        for line in lines(text):
            yield from paths(line)
    known = constants()
    for page in pages():
        yield from placeholders(page, known)


def links(page: Path) -> Iterator[str]:
    """Yield a page's relative links without a target, and anchors without a heading."""
    for line in prose(page):
        for found in LINK.findall(re.sub(r"`[^`]*`", "", line.text)):
            target = found[0] or found[1]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name) if name else page
            if not path.exists():
                yield f"{line.where}: the link {target} leads nowhere"
            elif anchor and path.suffix == ".md" and anchor not in headings(path):
                yield f"{line.where}: {name or page.name} has no heading #{anchor}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    titles = (line.text.lstrip("#") for line in prose(page) if line.text.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def paths(line: Line) -> Iterator[str]:
    """Yield the paths of the project that a line names and that are not there."""
    for found in PATH.findall(line.text):
        name = found.rstrip(".,-*/") if "*" not in found.rstrip(".,-") else found.rstrip(".,-")
        if re.search(r"https?://\S+ \($", line.text.partition(found)[0]):  # a path in the repository of that address
            continue
        if ELIDED.search(found) or line.text.partition(found)[2].startswith(("…", "<", "{", "$", "%", "[")):
            continue
        kubectls = re.fullmatch(r"deploy/[\w-]+", name) and name != "deploy/chart"
        value = "." not in name and f'"{name}' in line.text  # a key or a folder that a test makes
        if not kubectls and not value and not any(ROOT.glob(name)):
            yield f"{line.where}: there is no {name}"


def constants() -> set[str]:
    """Return the words in capitals that anything but a page knows."""
    sources = (path for path in texts() if path.suffix != ".md")
    return {word for path in sources for word in CAPITALS.findall(path.read_text())}


def placeholders(page: Path, known: set[str]) -> Iterator[str]:
    """Yield what looks like a figure or a name that was to be filled in."""
    for line in prose(page):
        plain = re.sub(r"`[^`]*`", "", line.text)
        for match in PLACEHOLDER.finditer(plain):
            yield f"{line.where}: {match[0]} was left to be filled in"
        for word in CAPITALS.findall(plain):
            if word not in known | FOREIGN:
                yield f"{line.where}: nothing knows {word}: was it left to be filled in?"
    for line in code(page):
        for word in CAPITALS.findall(line.text):
            if word not in known | FOREIGN and not word.startswith("CLIENT_IP_"):
                yield f"{line.where}: nothing knows {word}: was it left to be filled in?"
