"""
The namespace that kubectl would use, read of the kubeconfig alone: files never pay for the Kubernetes client.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from webhook.rules.yamls import YAMLInvalid, documents

DEFAULT: Final = "default"
HOME_CONFIG: Final = Path(".kube") / "config"
OWN_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubeconfigUnreadable(ValueError):  # noqa: N818  # an error's noun
    """A kubeconfig that was named can't be read, or has no such context."""


def context_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """
    Return the namespace of *context*, or of the current one; `default` where none is named.

    Of several files in KUBECONFIG the first that sets something wins, as with kubectl. In a pod without a kubeconfig
    it is the pod's own.

    Raises:
        KubeconfigUnreadable: The file, or the context, was named and is not there. What nobody named is passed over.

    """
    loaded = list(_loaded(kubeconfig))
    current = context or next((each["current-context"] for each in loaded if each.get("current-context")), None)
    for each in loaded:
        for entry in each.get("contexts") or ():
            if isinstance(entry, Mapping) and entry.get("name") == current and current:
                found = entry.get("context") or {}
                named = found.get("namespace") if isinstance(found, Mapping) else None
                return str(named) if named else DEFAULT
    if context is not None:
        raise KubeconfigUnreadable(f"no context {context!r} in the kubeconfig")
    return DEFAULT if loaded else _own_namespace()


def _loaded(kubeconfig: str | None) -> Iterator[Mapping[str, Any]]:
    named = kubeconfig or os.environ.get("KUBECONFIG")
    paths = [Path(each) for each in named.split(os.pathsep) if each] if named else [Path.home() / HOME_CONFIG]
    for path in paths:
        try:
            for document in documents(path.read_text(encoding="utf-8")):
                if isinstance(document.value, Mapping):
                    yield document.value
        except (OSError, UnicodeError, YAMLInvalid) as error:
            if kubeconfig:
                raise KubeconfigUnreadable(f"kubeconfig {path}: {getattr(error, 'strerror', '') or error}") from error


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE_FILE.read_text().strip() or DEFAULT
    except OSError:
        return DEFAULT
