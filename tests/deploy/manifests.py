"""
What the chart renders, by the real helm; and `deploy/install.yaml`, which is what it renders by default.

    python -m tests.deploy.manifests       (make manifests)
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.parts.cache import ROOT
from tests.parts.helm import helm_program
from webhook.cli import admission, envoyfilter

CHART: Final = ROOT / "deploy" / "chart"
INSTALL: Final = ROOT / "deploy" / "install.yaml"
RELEASE: Final = "client-ip-webhook"
NAMESPACE: Final = "client-ip-system"
OLDEST: Final = "1.30.0"
"""The oldest Kubernetes that the chart takes."""
CRD: Final = ROOT / "webhook" / "cli" / "crd.yaml"
CHARTED_CRD: Final = CHART / "files" / "crd.yaml"

HEADER: Final = f"""\
# client-ip-webhook, whole: `kubectl apply --server-side -f install.yaml`. Made from deploy/chart by `make manifests`.
# Uninstall: docs/operations.md; deleting this file's objects deletes the CRD, and with it every ClientIPPolicy.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/name: {RELEASE}
    pod-security.kubernetes.io/enforce: restricted
"""
"""Helm makes the namespace itself (--create-namespace), kubectl does not."""


class HelmError(RuntimeError):
    """Helm refused; the message is what it said."""


def helm(*arguments: str | Path, kubeconfig: Path | None = None, version: str | None = None) -> str:
    """
    Run helm, of *version* or the one in use, and return what it printed.

    Raises:
        HelmError: It failed.

    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBECONFIG"))}
    if kubeconfig is not None:
        environment |= {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "discovered")}
    command = [str(helm_program(version)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise HelmError(done.stderr.strip())
    return done.stdout


def template(values: Mapping[str, Any] | None = None, *, namespace: str = NAMESPACE) -> str:
    """Return what the chart renders with *values* in place of its own."""
    command: list[str | Path] = ["template", RELEASE, CHART, "--namespace", namespace, "--kube-version", OLDEST]
    return helm(*command, *settings(values or {}))


def settings(values: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the options that give helm *values*, whole lists and maps at the last level."""
    options = []
    for key, value in values.items():
        where = f"{path}{key.replace('.', chr(92) + '.')}"
        if isinstance(value, Mapping) and value:
            options += settings(value, f"{where}.")
        else:
            options += ["--set-json", f"{where}={json.dumps(value)}"]
    return options


def documents(text: str) -> list[dict[str, Any]]:
    """Return the objects in a YAML stream."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def render(values: Mapping[str, Any] | None = None, *, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
    """Return the objects that the chart renders."""
    return documents(template(values, namespace=namespace))


def only(objects: list[dict[str, Any]], kind: str, name: str = RELEASE) -> dict[str, Any]:
    """Return the one object of *kind* and *name*."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def charted_files() -> dict[str, str]:
    """Return what the chart holds of the command's own files, by name."""
    policies = {f"{name}.yaml": admission.source(name) for name in admission.FILES}
    return {**policies, "append-caller.lua": envoyfilter.lua()}


def install_manifest() -> str:
    """Return what `deploy/install.yaml` must be: without the empty lines that Helm 4 leaves at ends of documents."""
    return HEADER + re.sub(r"\n+(?=---\n|\Z)", "\n", template())


def main() -> None:
    """Write the files that are made from others."""
    CHARTED_CRD.write_text(CRD.read_text())
    for name, text in charted_files().items():
        (CHART / "files" / name).write_text(text)
    INSTALL.write_text(install_manifest())


if __name__ == "__main__":
    main()
