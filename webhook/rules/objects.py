"""
The parts of Kubernetes objects that decisions read, decoded in one pass; everything else is skipped.

Unknown fields pass, since APIs grow. Pods, Services and workloads are one tagged union on `kind`, which is how a
request's object is decoded without a look at it first.
"""

from typing import Final, TypeAlias

import msgspec

from webhook.rules.nodes import NodeSelectorTerm
from webhook.rules.selectors import LabelSelectorSpec, Toleration


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of an object's metadata that a decision reads."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


NO_METADATA: Final = ObjectMeta()
"""What an object that states none is decoded with."""


class EnvVar(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A container's environment variable; `valueFrom` is never what carries the interception mode."""

    name: str = ""
    value: str | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A container's name; the rest is left undecoded, since only that of Istio's own containers is ever read."""

    name: str = ""
    env: msgspec.Raw = msgspec.Raw(b"null")
    args: msgspec.Raw = msgspec.Raw(b"null")
    security_context: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="securityContext")


class NodeSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The required node affinity's alternatives."""

    node_selector_terms: list[NodeSelectorTerm] | None = None


class NodeAffinity(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's node affinity; preferences forbid no node and are skipped."""

    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod's affinity; only that to nodes counts here."""

    node_affinity: NodeAffinity | None = None


class PodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of a pod's spec that a decision reads."""

    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    host_network: bool | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    runtime_class_name: str | None = None

    def terms(self) -> list[NodeSelectorTerm] | None:
        """Return the required node affinity's terms; None means that there is no requirement at all."""
        node_affinity = self.affinity.node_affinity if self.affinity is not None else None
        if node_affinity is None or node_affinity.required is None:
            return None
        return node_affinity.required.node_selector_terms or []


class Pod(msgspec.Struct, frozen=True, kw_only=True, tag="Pod", tag_field="kind"):
    """A Pod, or a workload's pod template in its place."""

    metadata: ObjectMeta = NO_METADATA
    spec: PodSpec = PodSpec()


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a Service's spec that a decision reads."""

    type: str = "ClusterIP"
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    external_traffic_policy: str = msgspec.field(default="", name="externalTrafficPolicy")
    load_balancer_class: str | None = msgspec.field(default=None, name="loadBalancerClass")
    allocates_node_ports: bool | None = msgspec.field(default=None, name="allocateLoadBalancerNodePorts")
    health_check_node_port: int = msgspec.field(default=0, name="healthCheckNodePort")


class Service(msgspec.Struct, frozen=True, kw_only=True, tag="Service", tag_field="kind"):
    """A Service."""

    metadata: ObjectMeta = NO_METADATA
    spec: ServiceSpec = ServiceSpec()


class PodTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """The template that a controller makes pods from."""

    metadata: ObjectMeta | None = None
    spec: PodSpec = PodSpec()


class TemplateSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a workload's spec that a decision reads."""

    template: PodTemplate = PodTemplate()


class _Workload(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    metadata: ObjectMeta = NO_METADATA
    spec: TemplateSpec = TemplateSpec()

    def template(self) -> PodTemplate:
        return self.spec.template


class Deployment(_Workload, frozen=True, kw_only=True, tag="Deployment"):
    """A Deployment."""


class StatefulSet(_Workload, frozen=True, kw_only=True, tag="StatefulSet"):
    """A StatefulSet."""


class DaemonSet(_Workload, frozen=True, kw_only=True, tag="DaemonSet"):
    """A DaemonSet."""


class ReplicaSet(_Workload, frozen=True, kw_only=True, tag="ReplicaSet"):
    """A ReplicaSet."""


class Job(_Workload, frozen=True, kw_only=True, tag="Job"):
    """A Job."""


class _JobTemplate(msgspec.Struct, frozen=True, kw_only=True):
    spec: TemplateSpec = TemplateSpec()


class _CronJobSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    job_template: _JobTemplate = _JobTemplate()


class CronJob(msgspec.Struct, frozen=True, kw_only=True, tag="CronJob", tag_field="kind"):
    """A CronJob."""

    metadata: ObjectMeta = NO_METADATA
    spec: _CronJobSpec = _CronJobSpec()

    def template(self) -> PodTemplate:
        """Return the template of the pods that its jobs make."""
        return self.spec.job_template.spec.template


Workload: TypeAlias = Deployment | StatefulSet | DaemonSet | ReplicaSet | Job | CronJob
Reviewed: TypeAlias = Pod | Service | Deployment | StatefulSet | DaemonSet | ReplicaSet | Job | CronJob
"""What a request's object may be."""


class Shaped(msgspec.Struct, frozen=True, kw_only=True):
    """An object of any other kind that holds pod templates: the pods that it makes (`templates`)."""

    metadata: ObjectMeta = NO_METADATA
    pods: tuple[Pod, ...] = ()


GROUPS: Final = {
    "Pod": "",
    "Service": "",
    "Deployment": "apps",
    "StatefulSet": "apps",
    "DaemonSet": "apps",
    "ReplicaSet": "apps",
    "Job": "batch",
    "CronJob": "batch",
}
"""The API group of each reviewed kind; all are version v1."""


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A Namespace: only its labels count."""

    metadata: ObjectMeta = NO_METADATA


class WebhookRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a webhook is called for."""

    operations: list[str] | None = None
    api_groups: list[str] | None = None
    api_versions: list[str] | None = None
    resources: list[str] | None = None
    scope: str | None = None


class ServiceReference(msgspec.Struct, frozen=True, kw_only=True):
    """The Service behind a webhook."""

    namespace: str = ""
    name: str = ""


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the API server reaches a webhook; its namespace is where the injector's ConfigMaps lie."""

    service: ServiceReference | None = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One webhook of a MutatingWebhookConfiguration."""

    name: str = ""
    rules: list[WebhookRule] | None = None
    client_config: ClientConfig = ClientConfig()
    namespace_selector: LabelSelectorSpec | None = None
    object_selector: LabelSelectorSpec | None = None
    match_conditions: list[dict[str, str]] | None = None


class MutatingWebhookConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A MutatingWebhookConfiguration."""

    metadata: ObjectMeta = NO_METADATA
    webhooks: list[Webhook] | None = None


class GatewayClassSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who makes the gateways of a GatewayClass."""

    controller_name: str = ""


class GatewayClass(msgspec.Struct, frozen=True, kw_only=True):
    """A GatewayClass of the Gateway API."""

    metadata: ObjectMeta = NO_METADATA
    spec: GatewayClassSpec = GatewayClassSpec()


class ConfigMap(msgspec.Struct, frozen=True, kw_only=True):
    """A ConfigMap's text."""

    metadata: ObjectMeta = NO_METADATA
    data: dict[str, str] | None = None
