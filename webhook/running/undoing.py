"""
What undoes our work in a cluster: Services that we made Local, and workloads whose pods we decided.

Pure: pages of lists go in, a plan comes out. Only what bears our label `client-ip.dev/method` is ours. Opting out does
none of this: a Service stays Local until somebody says Cluster, and a pod keeps its mode for as long as it lives.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from webhook.rules import wellknown
from webhook.rules.optin import Preserve, preserve
from webhook.rules.pods import METHOD_HEADER, METHOD_TPROXY
from webhook.rules.services import LOCAL, METHOD_LOCAL
from webhook.running.objects import Key, RunningPod, RunningService, top_owner
from webhook.running.restart import restart_command

SERVICES_OF_OURS: Final = f"{wellknown.METHOD}={METHOD_LOCAL}"
PODS_OF_OURS: Final = f"{wellknown.METHOD} in ({METHOD_TPROXY},{METHOD_HEADER})"
CLUSTER: Final = "Cluster"
_NO_JOBS: Final[Mapping[tuple[str, str], str]] = {}
"""Jobs are named themselves: they can't be restarted, whatever made them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalService:
    """A Service that our label says we made Local, and that is Local still."""

    namespace: str
    name: str
    opted_in: bool
    """Whether the webhook would make it Local again at its next write."""

    def patch(self, *, opt_out: bool) -> dict[str, Any]:
        """
        Return the merge patch that undoes it.

        Args:
            opt_out: Label the Service so that it stays as it is.

        """
        labels: dict[str, str | None] = {wellknown.METHOD: None}
        if opt_out:
            labels[wellknown.PRESERVE] = str(Preserve.DISABLED)
        metadata = {"labels": labels, "annotations": {wellknown.REASON: None}}
        return {"metadata": metadata, "spec": {"externalTrafficPolicy": CLUSTER}}

    def command(self, *, opt_out: bool) -> str:
        """Return the command that does the same."""
        patch = shlex.quote(msgspec.json.encode(self.patch(opt_out=opt_out)).decode())
        where = f"-n {shlex.quote(self.namespace)}"
        return f"kubectl patch service {shlex.quote(self.name)} {where} --type merge -p {patch}"


@dataclass(slots=True)
class Undoing:
    """What is to be undone, as pages come in."""

    namespaces: Mapping[str, Mapping[str, str]]
    """Labels by namespace, as far as they are known."""
    services: list[LocalService] = field(default_factory=list)
    pods: dict[Key, int] = field(default_factory=dict)
    """How many pods of each workload we decided."""

    def take_service(self, service: RunningService) -> None:
        """Take in a Service that bears our label."""
        metadata = service.metadata
        if (
            service.spec.external_traffic_policy != LOCAL
            or (metadata.labels or {}).get(wellknown.METHOD) != METHOD_LOCAL
        ):
            return
        own = preserve(metadata.labels)
        asked = own if own is not None else preserve(self.namespaces.get(metadata.namespace))
        self.services.append(
            LocalService(namespace=metadata.namespace, name=metadata.name, opted_in=asked is Preserve.ENABLED)
        )

    def take_pod(self, pod: RunningPod) -> None:
        """Take in a pod that bears our label."""
        key = top_owner(pod, _NO_JOBS)
        self.pods[key] = self.pods.get(key, 0) + 1

    def restarts(self) -> Iterator[str]:
        """Yield a command for each workload, or a comment where none makes its pods anew."""
        for key in sorted(self.pods):
            command = restart_command(key.kind, key.namespace, key.name)
            count = self.pods[key]
            pods = f"{count} pod{'s' if count > 1 else ''}"
            called = " ".join(f"{key.kind} {key.namespace}/{key.name}".split())
            yield f"{command}  # {pods}" if command else f"# {called} ({pods}): delete the pods, or create it again"


def standing(services: Iterable[LocalService], *, opt_out: bool) -> list[LocalService]:
    """Return the Services that stay Cluster once they are: those that are opted in would be Local again."""
    return [each for each in services if opt_out or not each.opted_in]
