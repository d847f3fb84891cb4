"""The Krew plugin: a launcher, its archive and the manifest that names them (https://krew.sigs.k8s.io)."""

import hashlib
from pathlib import Path
from typing import Any, Final

import yaml

from release.archive import of_files, write

NAME: Final = "client-ip"
LAUNCHER: Final = "kubectl-client_ip"
"""kubectl writes a dash in a plugin's name as an underscore."""
PLATFORMS: Final = ("linux", "darwin")


def archive(sources: Path, out: Path, version: str, *, epoch: int) -> Path:
    """Write the plugin's archive below *out*, and return its path."""
    files = {
        LAUNCHER: ((sources / "release" / LAUNCHER).read_bytes(), 0o755),
        "LICENSE": ((sources / "LICENSE").read_bytes(), 0o644),
    }
    return write(out / f"kubectl-client_ip-{version}.tar.gz", of_files(files, epoch=epoch))


def manifest(archived: Path, version: str, *, url: str) -> dict[str, Any]:
    """Return the plugin's manifest; *url* is where the release's files are downloaded from."""
    digest = hashlib.sha256(archived.read_bytes()).hexdigest()
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": NAME},
        "spec": {
            "version": f"v{version}",
            "homepage": url,
            "shortDescription": "Show which workloads see who called them behind Istio",
            "description": (
                "Decides manifests and running workloads as the admission webhook client-ip-webhook would, says why a "
                "pod still sees 127.0.0.6, and reads from access logs what is proved.\n"
            ),
            "caveats": (
                "The plugin runs the Python package client-ip-webhook (Python 3.11 or later).\n"
                "Install it beforehand: pipx install client-ip-webhook\n"
            ),
            "platforms": [
                {
                    "selector": {"matchLabels": {"os": system}},
                    "uri": f"{url.rstrip('/')}/{archived.name}",
                    "sha256": digest,
                    "files": [{"from": LAUNCHER, "to": "."}, {"from": "LICENSE", "to": "."}],
                    "bin": LAUNCHER,
                }
                for system in PLATFORMS
            ],
        },
    }


def write_manifest(archived: Path, out: Path, version: str, *, url: str) -> Path:
    """Write the manifest below *out*, and return its path."""
    text = yaml.safe_dump(manifest(archived, version, url=url), sort_keys=False, width=1000)
    return write(out / f"{NAME}.yaml", text.encode())
