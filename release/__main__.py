"""
Make a release of the commit that is checked out: wheel, sdist, chart, bill of materials, Krew plugin, checksums.

    python -m release [--out FOLDER] [--url URL] [--source URL]
"""

import argparse
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import webhook
from release import bill, chart, krew, packages
from release.archive import write
from release.commit import Commit, head, uncommitted
from tests.parts.cache import ROOT

SUMS: Final = "SHA256SUMS"


def make(commit: Commit, out: Path, *, url: str, source: str) -> list[Path]:
    """Make everything below *out*, which is emptied first; return the files' paths."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    version = webhook.__version__
    with tempfile.TemporaryDirectory(prefix="client-ip-release-") as scratch:
        work = Path(scratch)
        sources = commit.export(work / "sources")
        _say("wheel and sdist")
        made = [*packages.build(sources, out, epoch=commit.epoch)]
        _say("bill of materials")
        made.append(bill.write_bill(sources, work, out / "sbom.cdx.json"))
        _say("chart")
        made.append(chart.package(sources, out, version, epoch=commit.epoch))
        _say("Krew plugin")
        plugin = krew.archive(sources, out, version, epoch=commit.epoch)
        made.append(plugin)
        if url:
            made.append(krew.write_manifest(plugin, out, version, url=url))
        else:
            _say("no --url: the Krew manifest, which names where the release is downloaded from, is left out")
    made.append(write(out / "image.args", _image_arguments(commit, version, source).encode()))
    sums = "".join(f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in sorted(made))
    made.append(write(out / SUMS, sums.encode()))
    return made


def _image_arguments(commit: Commit, version: str, source: str) -> str:
    """Return the image's build arguments, a line each, as in `docker build $(cat dist/image.args) .`."""
    created = datetime.fromtimestamp(commit.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"VERSION": version, "REVISION": commit.revision, "CREATED": created, "SOURCE": source}
    return "".join(f"--build-arg {name}={value}\n" for name, value in given.items() if value)


def _say(line: str) -> None:
    print(f"release: {line} …" if not line.startswith("no ") else f"release: {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and make the release."""
    parser = argparse.ArgumentParser(
        prog="python -m release",
        description="Make a release of the commit that is checked out.",
        epilog="Example: make release RELEASE='--url https://example.com/releases/v0.2.0'",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go; emptied first [dist]")
    parser.add_argument("--url", default="", help="where the files will be downloaded from (for the Krew manifest)")
    parser.add_argument("--source", default="", help="where the sources are (a label of the image)")
    options = parser.parse_args(arguments)
    for line in uncommitted():
        print(f"release: not committed, so not in it: {line[3:]}", file=sys.stderr)
    for path in make(head(), options.out, url=options.url, source=options.source):
        print(path)


if __name__ == "__main__":
    main()
