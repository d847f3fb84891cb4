"""Releases as they were built: the previous one, kept as wheel and chart, and this one."""

import os
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chaos.cluster import NAME, NAMESPACE, Lab
from tests.chaos.kubelet import Template
from tests.parts.helm import helm_program

KEPT: Final = Path(__file__).parent / "previous"


@dataclass(frozen=True, slots=True)
class Release:
    """What its chart renders by default, and what its processes find their code by."""

    version: str
    documents: list[dict[str, Any]]
    environment: Mapping[str, str]

    def document(self, kind: str) -> dict[str, Any]:
        """Return its only object of *kind*."""
        (found,) = [each for each in self.documents if each["kind"] == kind]
        return found


def previous(folder: Path) -> Release:
    """Return the previous release, its wheel unpacked below *folder*."""
    (wheel,) = KEPT.glob("*.whl")
    (chart,) = KEPT.glob("*.tgz")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    command = [str(helm_program()), "template", NAME, str(chart), "--namespace", NAMESPACE]
    printed = subprocess.run([*command, "--kube-version", "1.30.0"], check=True, capture_output=True, text=True).stdout
    documents = [each for each in yaml.safe_load_all(printed) if each]
    # Its code comes first, and the checkout's, where `python -m` would look, not at all.
    return Release(wheel.name.split("-")[1], documents, {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"})


def switch(lab: Lab, old: Release, new: Release) -> None:
    """Do what `helm upgrade` does: apply what *new* has and take away what *old* alone has; pods are to be rolled."""
    order = {"CustomResourceDefinition": 0, "MutatingWebhookConfiguration": 2}
    for document in sorted(new.documents, key=lambda each: order.get(each["kind"], 1)):
        lab.api.apply(document)
    kept = {_key(each) for each in new.documents}
    for document in old.documents:
        if _key(document) not in kept:
            metadata = document["metadata"]
            lab.api.delete(
                document["apiVersion"], document["kind"], metadata["name"], namespace=metadata.get("namespace")
            )
    lab.node.template = Template.of(new.document("Deployment"))
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        lab.node.environment.pop(name, None)
    lab.node.environment.update(new.environment)
    assert not {"PYTHONPATH", "PYTHONSAFEPATH"} & os.environ.keys()


def _key(document: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]
