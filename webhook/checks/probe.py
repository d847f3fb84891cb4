"""
The probe: a pod that is created by dry run, and what came of it.

Nothing is stored: the API server runs its whole admission chain, and gives the pod back as it would have been.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from webhook.rules import wellknown

NAME: Final = "client-ip-doctor-"
"""The start of the pod's name (generateName)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What two dry runs showed."""

    namespace: str
    pod: Mapping[str, Any] | None = None
    """The pod in the API server's response; None if it was rejected."""
    status: int = 0
    """The HTTP status of a refusal."""
    message: str = ""
    """The API server's words of a refusal, or why nothing was tried."""
    seconds: float = 0.0
    """How long the second create took: the first pays for connections."""
    fail_open: float | None = None
    """Increase of the API server's counter of failed calls to the webhook in the second create; None: unreadable."""
    failing_error: str = ""

    @property
    def method(self) -> str:
        """The label that our webhook adds."""
        labels = ((self.pod or {}).get("metadata") or {}).get("labels") or {}
        return str(labels.get(wellknown.METHOD, ""))

    @property
    def mode(self) -> str:
        """The mode that the injected proxy runs in; empty without a proxy."""
        spec = (self.pod or {}).get("spec") or {}
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            if container.get("name") == wellknown.PROXY_CONTAINER:
                for variable in container.get("env") or ():
                    if variable.get("name") == wellknown.MODE_ENV:
                        return str(variable.get("value", ""))
        return ""


def pod_document(namespace: str, *, node: str = "") -> dict[str, Any]:
    """
    Return the pod that is tried: one that PodSecurity's strictest level admits, with requests, for quotas.

    Args:
        namespace: Where it would be.
        node: A node to pin it to, so that nodes do not speak against it; none where it is empty.

    """
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    resources = {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}}
    selector = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "client-ip-doctor"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "pause",
                    "image": "pause:3.10",
                    "securityContext": restricted,
                    "resources": resources,
                }
            ],
            **selector,
        },
    }
