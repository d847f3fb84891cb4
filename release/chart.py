"""The chart as a package, with the annotations that Artifact Hub reads."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from release.archive import normalised, write
from tests.parts.helm import helm_program

KINDS: Final = {
    "Added": "added",
    "Changed": "changed",
    "Deprecated": "deprecated",
    "Removed": "removed",
    "Fixed": "fixed",
    "Security": "security",
}
"""Keep a Changelog's headings, as Artifact Hub calls them: https://artifacthub.io/docs/topics/annotations/helm/"""
_VERSION: Final = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def changes(changelog: str, version: str) -> list[dict[str, str]]:
    """
    Return the entries of *version* in a changelog of the form of Keep a Changelog.

    Raises:
        KeyError: There is no such version, or it has no date.

    """
    heads = list(_VERSION.finditer(changelog))
    for number, head in enumerate(heads):
        if head["version"] == version and head["date"]:
            end = heads[number + 1].start() if number + 1 < len(heads) else len(changelog)
            return _entries(changelog[head.end() : end])
    raise KeyError(f"CHANGELOG.md has no dated section [{version}]")


def _entries(section: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    kind = ""
    for line in section.splitlines():
        if line.startswith("### "):
            kind = KINDS[line.removeprefix("### ").strip()]
        elif line.startswith("- "):
            found.append({"kind": kind, "description": line.removeprefix("- ")})
        elif line.startswith("  ") and found:
            found[-1]["description"] += " " + line.strip()
    return [{**each, "description": each["description"].replace("`", "").strip()} for each in found]


def annotations(sources: Path, version: str) -> dict[str, str]:
    """Return Artifact Hub's annotations for *version*, made of the changelog, the CRD and the built-in policy."""
    crd: dict[str, Any] = yaml.safe_load((sources / "webhook" / "cli" / "crd.yaml").read_text())
    names, served = crd["spec"]["names"], crd["spec"]["versions"][0]["name"]
    example = yaml.safe_load((sources / "examples" / "policy.yaml").read_text())
    described = {
        "kind": names["kind"],
        "version": served,
        "name": crd["metadata"]["name"],
        "displayName": "Client IP policy",
        "description": "Which pods and gateways preserve the client's IP, which nodes support it, and what is excepted",
    }
    return {
        "artifacthub.io/category": "networking",
        "artifacthub.io/license": "Apache-2.0",
        "artifacthub.io/operator": "false",
        "artifacthub.io/prerelease": "false",
        "artifacthub.io/crds": yaml.safe_dump([described], sort_keys=False),
        "artifacthub.io/crdsExamples": yaml.safe_dump([example], sort_keys=False),
        "artifacthub.io/changes": yaml.safe_dump(
            changes((sources / "CHANGELOG.md").read_text(), version), sort_keys=False, width=1000, allow_unicode=True
        ),
        "artifacthub.io/containsSecurityUpdates": str(
            any(each["kind"] == "security" for each in changes((sources / "CHANGELOG.md").read_text(), version))
        ).lower(),
    }


def package(sources: Path, out: Path, version: str, *, epoch: int) -> Path:
    """
    Package the chart of *sources* as *version*, and return its path.

    Raises:
        subprocess.CalledProcessError: helm refused.

    """
    chart = sources / "deploy" / "chart"
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    if (described["version"], described["appVersion"]) != (version, version):
        raise ValueError(f"Chart.yaml: version and appVersion must be {version}, as webhook.__version__ is")
    described["annotations"] = annotations(sources, version)
    (chart / "Chart.yaml").write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
    out.mkdir(parents=True, exist_ok=True)
    command = [str(helm_program()), "package", str(chart), "--destination", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    made = out / f"{described['name']}-{version}.tgz"
    return write(made, normalised(made.read_bytes(), epoch=epoch))
