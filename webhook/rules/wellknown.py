"""
Every label, annotation and resource name that a decision reads or writes, each with its source.

Istio's names are pinned to istio/istio 86c9f01fd735 and istio/api b8f8791d; Kubernetes' to the API reference.
"""

from typing import Final

# --- Our own names: contracts that users depend on.
PRESERVE: Final = "client-ip.dev/preserve"
"""Label on a Namespace, Pod or Service: `enabled`, `audit` or `disabled`."""
OPT_OUT_OWNER: Final = "client-ip.dev/opt-out-owner"
"""Annotation next to an opt-in label that opts out or only audits: its owner."""
OPT_OUT_UNTIL: Final = "client-ip.dev/opt-out-until"
"""Annotation next to such a label: the RFC 3339 time after which the label counts as absent."""
REASON: Final = "client-ip.dev/reason"
"""Annotation with the Reason on objects that were decided but not patched, for the policy `final-state`."""
METHOD: Final = "client-ip.dev/method"
"""Label that the webhook adds: how the client's IP is preserved."""
NODE_TPROXY: Final = "client-ip.dev/tproxy"
"""Label on a Node, set by an operator to override the rules: `supported` or `unsupported`."""
GROUP: Final = "client-ip.dev"
POLICY_API_VERSION: Final = "client-ip.dev/v1alpha1"
POLICY_KIND: Final = "ClientIPPolicy"
CONFIGURATION: Final = "client-ip-webhook"
"""The MutatingWebhookConfiguration's name: it must sort before Istio's `istio-revision-tag-…`."""
OWN_NAMESPACE: Final = "client-ip-system"

# --- Istio: https://github.com/istio/api/blob/b8f8791d/annotation/annotations.yaml
INTERCEPTION_MODE: Final = "sidecar.istio.io/interceptionMode"
PROXY_CONFIG: Final = "proxy.istio.io/config"
INJECT: Final = "sidecar.istio.io/inject"
"""Label, or annotation where the label is absent (pkg/kube/inject/inject.go:201-315)."""
INJECTED_STATUS: Final = "sidecar.istio.io/status"
TEMPLATES: Final = "inject.istio.io/templates"
INCLUDE_INBOUND_PORTS: Final = "traffic.sidecar.istio.io/includeInboundPorts"
ISTIO_INJECTION: Final = "istio-injection"
ISTIO_REV: Final = "istio.io/rev"
ISTIO_TAG: Final = "istio.io/tag"
DATAPLANE_MODE: Final = "istio.io/dataplane-mode"
PROXY_CONTAINER: Final = "istio-proxy"
MODE_ENV: Final = "ISTIO_META_INTERCEPTION_MODE"
INJECTOR_APP: Final = "sidecar-injector"
"""Value of the label `app` on every sidecar injector's configuration (templates/mutatingwebhook.yaml:54)."""
INJECTOR_SUFFIX: Final = "sidecar-injector.istio.io"
INJECTOR_CONFIGMAP: Final = "istio-sidecar-injector"
MESH_CONFIGMAP: Final = "istio"
ISTIO_SYSTEM: Final = "istio-system"
INIT_CONTAINER: Final = "istio-init"
VALIDATION_CONTAINER: Final = "istio-validation"
"""The init container that replaces istio-init if istio-cni writes the rules (injection-template.yaml:97-101)."""
ISTIO_CONTAINERS: Final = frozenset({PROXY_CONTAINER, INIT_CONTAINER, VALIDATION_CONTAINER})
DISABLE_ENVOY: Final = "DISABLE_ENVOY"
"""Set in the proxy of the template grpc-agent: an agent that runs no Envoy."""
USE_WAYPOINT: Final = "istio.io/use-waypoint"
"""Label on a Service, Namespace or Pod (https://github.com/istio/api/blob/b8f8791d/label/labels.yaml)."""
GATEWAY_DEFAULTS: Final = "gateway.istio.io/defaults-for-class"
"""Label of a ConfigMap in the root namespace: what istiod makes of every Gateway of the class it names."""
GATEWAY_CLASS: Final = "gateway.networking.k8s.io/gateway-class-name"

GATEWAY_CONTROLLERS: Final = frozenset(
    {
        "istio.io/gateway-controller",
        "openshift.io/gateway-controller/v1",
        "istio.aks.azure.com/gateway-controller",
    },
)
"""The controllerNames of GatewayClasses whose gateways are Istio's Envoys."""
NO_INGRESS_CLASSES: Final = frozenset(
    {
        "istio-waypoint",
        "istio-agentgateway-waypoint",
        "istio-east-west",
        "istio-eastwest",
        "istio-remote",
        "istio-mesh",
    },
)
"""GatewayClasses that are no ingress (pilot/pkg/config/kube/gatewaycommon/classinfo.go)."""
PROXY_OVERRIDES: Final = "proxy.istio.io/overrides"
"""Annotation: containers that Istio merges over its template when it injects (pkg/kube/inject/webhook.go)."""

# --- Alibaba Cloud: kubernetes/cloud-provider-alibaba-cloud eeb0ddc6, pkg/controller/helper/service_utils.go:78-88
BACKEND_TYPE: Final = "service.beta.kubernetes.io/backend-type"

# --- Kubernetes: https://kubernetes.io/docs/reference/labels-annotations-taints/
MIRROR_POD: Final = "kubernetes.io/config.mirror"
POD_SECURITY_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
PLACING_ANNOTATIONS: Final = (
    "openshift.io/node-selector",
    "scheduler.alpha.kubernetes.io/node-selector",
    "scheduler.alpha.kubernetes.io/defaultTolerations",
)
"""
On a Namespace: what PodNodeSelector, PodTolerationRestriction and OpenShift's own plugin add to its pods, before the
webhook is asked.
"""
HELM_NAMESPACE: Final = "meta.helm.sh/release-namespace"
"""Annotation that Helm gives what it installs."""
UNSCHEDULABLE_TAINT: Final = "node.kubernetes.io/unschedulable"

SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""The webhook never touches these, nor its own namespace."""
ISTIO_IGNORED_NAMESPACES: Final = SYSTEM_NAMESPACES | {"local-path-storage"}
"""Istio never injects into these (pkg/kube/inject/initializer.go:38-42)."""

TRANSIENT_TAINTS: Final = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
        "node.cloudprovider.kubernetes.io/uninitialized",
    }
)
"""Conditions that pass: the node may be back before the pod is placed, so they never make it infeasible."""
