"""
A container of a Pod's spec as a process: its user and capabilities, environment, arguments and files, as Kubernetes
defines them (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/).

In place of a file system of its own it has a folder, which is its working directory; Istio's agent and Envoy find
everything under relative paths. In place of an image it has a program, which the caller chooses by the image's name.
"""

import base64
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.parts.api import Api

DEFAULT_USER: Final = 0
"""Images without a USER run as root, and so do Istio's where the spec does not say otherwise."""

TokenMaker = Callable[[dict[str, Any], str], str]


def privileges(security: Mapping[str, Any]) -> list[str]:
    """Return the `setpriv` command that gives a process what a container's securityContext does, and no more."""
    added = [f"+{name.lower()}" for name in security.get("capabilities", {}).get("add", [])]
    capabilities = ",".join(["-all", *added])
    command = [
        "setpriv",
        f"--reuid={security.get('runAsUser', DEFAULT_USER)}",
        f"--regid={security.get('runAsGroup', security.get('runAsUser', DEFAULT_USER))}",
        "--clear-groups",
        f"--bounding-set={capabilities}",
        f"--inh-caps={capabilities}",
    ]
    return [*command, *(["--no-new-privs"] if security.get("allowPrivilegeEscalation") is False else [])]


def security_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's securityContext with what it takes from the pod's."""
    shared = pod["spec"].get("securityContext", {})
    inherited = {name: shared[name] for name in ("runAsUser", "runAsGroup", "runAsNonRoot") if name in shared}
    return {**inherited, **container.get("securityContext", {})}


def environment(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a container's `env` gives it."""
    found: dict[str, str] = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            value = field(pod, source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            value = {"limits.cpu": "1", "limits.memory": str(1 << 30)}[source["resourceFieldRef"]["resource"]]
        elif source:
            continue  # ConfigMaps and Secrets, which Istio marks optional
        else:
            value = expanded(entry.get("value", ""), found)
        found[entry["name"]] = value
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return *text* with $(NAME) replaced where NAME is known, as `args` and `env` are."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), text)


def field(pod: Mapping[str, Any], path: str) -> str:
    """Return what the downward API gives for a fieldPath."""
    if path == "status.podIPs":
        return ",".join(each["ip"] for each in pod["status"]["podIPs"])
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.*)'\]", path)
    if keyed:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = pod["metadata"].get(path.split(".")[1], {})
        return "".join(f"{name}={json.dumps(value)}\n" for name, value in pairs.items())
    value: Any = pod
    for name in path.split("."):
        value = value.get(name, "")
    return str(value)


def mount_volumes(
    api: Api, pod: Mapping[str, Any], container: Mapping[str, Any], root: Path, token: TokenMaker
) -> None:
    """
    Lay a container's volumes out under *root*, owned by its user.

    Args:
        api: Where ConfigMaps and Secrets are read.
        pod: The Pod.
        container: One of its containers.
        root: Its folder.
        token: Makes a token for the pod and an audience.

    """
    volumes = {each["name"]: each for each in pod["spec"].get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name, data in _files(api, pod, volumes[mount["name"]], token).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
    own(root, security_of(pod, container))


def own(root: Path, security: Mapping[str, Any]) -> None:
    """Give everything under *root* to a container's user."""
    user = security.get("runAsUser", DEFAULT_USER)
    group = security.get("runAsGroup", user)
    for path in (root, *root.rglob("*")):
        os.chown(path, user, group)


def _files(api: Api, pod: Mapping[str, Any], volume: Mapping[str, Any], token: TokenMaker) -> dict[str, bytes]:
    namespace = pod["metadata"]["namespace"]
    if "projected" in volume:
        found: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            if "serviceAccountToken" in source:
                asked = source["serviceAccountToken"]
                found[asked["path"]] = token(dict(pod), asked.get("audience", "")).encode()
            else:
                found.update(_files(api, pod, source, token))
        return found
    if "configMap" in volume:
        wanted = volume["configMap"]
        stored = api.find("v1", "ConfigMap", wanted["name"], namespace=namespace)
        if stored is None:
            if wanted.get("optional"):
                return {}
            raise FileNotFoundError(f"ConfigMap {namespace}/{wanted['name']}")
        return {name: text.encode() for name, text in stored.get("data", {}).items()}
    if "secret" in volume:
        name = volume["secret"]["secretName"]
        secret = api.find("v1", "Secret", name, namespace=namespace)
        return {} if secret is None else {key: base64.b64decode(data) for key, data in secret.get("data", {}).items()}
    if "downwardAPI" in volume:
        items = volume["downwardAPI"]["items"]
        return {item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode() for item in items}
    return {}
