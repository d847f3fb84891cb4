"""
Istio's own programs, charts and files, and Envoy.

Everything is of one release of the module istio.io/istio (`go/istio/go.mod`): its go.sum speaks for the charts that
the module embeds, for the bootstrap template and the Gateway API's CRDs as it does for the code. Envoy is the wheel
that `requirements/envoy.txt` names, upstream's build without Istio's extensions.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.parts.build import binaries, files
from tests.parts.wheels import wheels

PART: Final = "istio-1.31"
VERSION: Final = "1.31.0"


def programs() -> dict[str, Path]:
    """Return `pilot-discovery`, `pilot-agent` and `render`, built where they are missing."""
    return binaries(PART)


def envoy() -> Path:
    """Return Envoy."""
    return wheels("envoy") / "envoy" / "_bin" / "envoy"


def bootstrap() -> Path:
    """Return the template of Envoy's first configuration, which pilot-agent fills in."""
    return files(PART)["envoy_bootstrap.json"]


def gateway_api_crds() -> list[dict[str, Any]]:
    """Return the Gateway API's CustomResourceDefinitions of the standard channel."""
    paths = sorted(files(PART)["gateway-api"].glob("*.yaml"))
    documents = [each for path in paths for each in yaml.safe_load_all(path.read_text())]
    return [each for each in documents if each and each["kind"] == "CustomResourceDefinition"]


def charts(operator: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """
    Return what `istioctl manifest generate -f` prints for an IstioOperator spec.

    Args:
        operator: The spec.
        folder: Where the document may be written.

    """
    document = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": operator}
    path = folder / "istio-operator.json"
    path.write_text(json.dumps(document))
    done = subprocess.run([programs()["render"], path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"render: {done.stderr.strip()}")
    return [each for each in yaml.load_all(done.stdout, Loader=_Loader) if each]


_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
