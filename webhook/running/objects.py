"""
The parts of running objects that a scan reads, decoded in one pass; and which workload a pod belongs to.

A page of a list is decoded, folded and dropped: nothing here may keep a part of it alive (`msgspec.Raw` would).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from webhook.rules import wellknown
from webhook.rules.interception import says_its_mode
from webhook.rules.objects import (
    Container,
    CronJob,
    DaemonSet,
    Deployment,
    Job,
    ObjectMeta,
    Pod,
    ReplicaSet,
    Service,
    ServiceSpec,
    StatefulSet,
    Workload,
)
from webhook.rules.pods import METHOD_TPROXY

POD_TEMPLATE_HASH: Final = "pod-template-hash"
"""
What the Deployment controller puts on its ReplicaSets' pods, and at the end of the ReplicaSets' names.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label
"""
INIT_CONTAINERS: Final = frozenset({"istio-init", "istio-validation"})
"""What Istio's injection adds beside the proxy (manifests/charts/istio-control/istio-discovery/files)."""
ENDED: Final = frozenset({"Succeeded", "Failed"})
"""Phases in which a pod's containers are gone for good."""


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Whose object it is."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class RunningMeta(ObjectMeta, frozen=True, kw_only=True, rename="camel"):
    """Metadata with what only a running object has."""

    uid: str = ""
    owner_references: list[OwnerReference] | None = None

    def controller(self) -> OwnerReference | None:
        """Return the reference of the controller that made it, or None: nobody did."""
        return next((each for each in self.owner_references or () if each.controller), None)


class PodCondition(msgspec.Struct, frozen=True, gc=False):
    """One condition of a pod."""

    type: str = ""
    status: str = ""


class PodStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a pod's status that a scan reads."""

    phase: str = ""
    conditions: list[PodCondition] | None = None

    def ready(self) -> bool:
        """Return whether the pod takes traffic."""
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions or ())


class RunningPod(Pod, frozen=True, kw_only=True, tag="Pod", tag_field="kind"):
    """A pod as it runs."""

    metadata: RunningMeta = RunningMeta()
    status: PodStatus = PodStatus()


class ManagedFields(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who wrote which fields, less those that no scan asks about."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields: "OwnedFields | None" = msgspec.field(default=None, name="fieldsV1")


class OwnedFields(msgspec.Struct, frozen=True, kw_only=True):
    """A set of fields (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management)."""

    spec: "OwnedSpec | None" = msgspec.field(default=None, name="f:spec")


class OwnedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The fields below `spec`."""

    external_traffic_policy: dict[str, object] | None = msgspec.field(default=None, name="f:externalTrafficPolicy")


class ServiceMeta(RunningMeta, frozen=True, kw_only=True, rename="camel"):
    """A Service's metadata."""

    managed_fields: list[ManagedFields] | None = None


class RunningServiceSpec(ServiceSpec, frozen=True, kw_only=True):
    """A Service's spec with the pods that it selects."""

    selector: dict[str, str] | None = None


class RunningService(Service, frozen=True, kw_only=True, tag="Service", tag_field="kind"):
    """A Service as it is stored."""

    metadata: ServiceMeta = ServiceMeta()
    spec: RunningServiceSpec = RunningServiceSpec()


class RunningNamespace(msgspec.Struct, frozen=True, kw_only=True):
    """A Namespace: what says whose it is."""

    metadata: RunningMeta = RunningMeta()


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a Job is over."""

    conditions: list[PodCondition] | None = None

    def ended(self) -> bool:
        """Return whether no pod will be made for it any more."""
        return any(each.type in {"Complete", "Failed"} and each.status == "True" for each in self.conditions or ())


class RunningDeployment(Deployment, frozen=True, kw_only=True, tag="Deployment", tag_field="kind"):
    """A Deployment as it is stored."""

    metadata: RunningMeta = RunningMeta()


class RunningStatefulSet(StatefulSet, frozen=True, kw_only=True, tag="StatefulSet", tag_field="kind"):
    """A StatefulSet as it is stored."""

    metadata: RunningMeta = RunningMeta()


class RunningDaemonSet(DaemonSet, frozen=True, kw_only=True, tag="DaemonSet", tag_field="kind"):
    """A DaemonSet as it is stored."""

    metadata: RunningMeta = RunningMeta()


class RunningReplicaSet(ReplicaSet, frozen=True, kw_only=True, tag="ReplicaSet", tag_field="kind"):
    """A ReplicaSet as it is stored."""

    metadata: RunningMeta = RunningMeta()


class RunningJob(Job, frozen=True, kw_only=True, tag="Job", tag_field="kind"):
    """A Job as it is stored."""

    metadata: RunningMeta = RunningMeta()
    status: JobStatus = JobStatus()


class RunningCronJob(CronJob, frozen=True, kw_only=True, tag="CronJob", tag_field="kind"):
    """A CronJob as it is stored."""

    metadata: RunningMeta = RunningMeta()


WORKLOADS: Final[Mapping[str, type[Workload]]] = {
    "Deployment": RunningDeployment,
    "StatefulSet": RunningStatefulSet,
    "DaemonSet": RunningDaemonSet,
    "CronJob": RunningCronJob,
    "Job": RunningJob,
    "ReplicaSet": RunningReplicaSet,
}
"""
By kind: what a workload is decoded as.

ReplicaSets are read one by one, where a pod's labels don't tell its owner.
"""


LISTED: Final = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
"""What is listed, in the order of need: a Job tells its CronJob before the pods come."""


class Key(NamedTuple):
    """A workload's place in the cluster."""

    namespace: str
    kind: str
    name: str


def top_owner(pod: RunningPod, cron_jobs: Mapping[tuple[str, str], str]) -> Key:
    """
    Return the workload that *pod* belongs to, as far as the pod itself tells; its own key where nobody made it.

    A Deployment's name is its ReplicaSet's less the pod template's hash, so that ReplicaSets need no listing.

    Args:
        pod: The pod.
        cron_jobs: The CronJob of a Job, by namespace and the Job's name.

    """
    metadata = pod.metadata
    owner = metadata.controller()
    if owner is None or owner.kind == "Node":  # the kubelet's own, from a file
        return Key(metadata.namespace, "Pod", metadata.name)
    if owner.kind == "ReplicaSet":
        suffix = "-" + (metadata.labels or {}).get(POD_TEMPLATE_HASH, "")
        if len(suffix) > 1 and owner.name.endswith(suffix):
            return Key(metadata.namespace, "Deployment", owner.name.removesuffix(suffix))
    elif owner.kind == "Job":
        cron_job = cron_jobs.get((metadata.namespace, owner.name))
        if cron_job is not None:
            return Key(metadata.namespace, "CronJob", cron_job)
    return Key(metadata.namespace, owner.kind, owner.name)


def made_again(pod: Pod) -> Pod:
    """
    Return *pod* as its maker would make it again: without what injection, the scheduler and the webhook added.

    It stands in for a pod template that can't be read: of a bare pod, and of a controller whose kind is not decided.
    """
    metadata, spec = pod.metadata, pod.spec
    annotations, labels = dict(metadata.annotations or {}), dict(metadata.labels or {})
    annotations.pop(wellknown.INJECTED_STATUS, None)
    if labels.pop(wellknown.METHOD, None) == METHOD_TPROXY:
        annotations.pop(wellknown.INTERCEPTION_MODE, None)
    return Pod(
        metadata=ObjectMeta(name=metadata.name, namespace=metadata.namespace, labels=labels, annotations=annotations),
        spec=msgspec.structs.replace(
            spec,
            node_name="",
            containers=_without_injected(spec.containers),
            init_containers=_without_injected(spec.init_containers),
        ),
    )


def _without_injected(containers: list[Container] | None) -> list[Container]:
    return [each for each in containers or () if each.name not in INIT_CONTAINERS and not says_its_mode(each)]
