"""
Will Istio inject a sidecar into this pod, and has it done so already?

Two layers, as in Istio: the API server matches the injector's webhook by namespaceSelector and objectSelector
(manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml), then istiod decides for itself
(`injectRequired`, pkg/kube/inject/inject.go:201-315). Line numbers are of istio/istio 86c9f01fd735.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from webhook.rules import wellknown
from webhook.rules.objects import ConfigMap, Container, EnvVar, MutatingWebhookConfiguration, Pod, Webhook
from webhook.rules.selectors import LabelSelector, LabelSelectorSpec, SelectorError, label_selector

Labels = Mapping[str, str]

UNCAPTURED_TEMPLATES: Final = frozenset({"gateway", "grpc-simple", "grpc-agent", "waypoint", "kube-gateway"})
"""Istio's own templates that set no inbound rules: TPROXY means nothing to them, or breaks them."""
KNOWN_TEMPLATES: Final = UNCAPTURED_TEMPLATES | {"sidecar"}
MODES: Final = frozenset({"REDIRECT", "TPROXY", "NONE"})
"""What Istio takes, in upper case alone (pkg/kube/inject/validate.go:91-100); it refuses a pod with any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorWebhook:
    """One webhook of a sidecar injector, ready to match."""

    configuration: str
    name: str
    revision: str
    namespace: str
    namespace_selector: LabelSelector
    object_selector: LabelSelector
    cause: str
    """What `explain` says where it selects a pod."""

    def calls(self, namespace: Labels, labels: Labels) -> bool:
        """Return whether the API server calls it for a pod; matchConditions are taken as true."""
        return self.namespace_selector.matches(namespace) and self.object_selector.matches(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorConfig:
    """What the injector's ConfigMap says; the defaults are Istio's own, for where it can't be read."""

    enabled: bool = True
    never: tuple[LabelSelector, ...] = ()
    always: tuple[LabelSelector, ...] = ()
    default_templates: tuple[str, ...] = ("sidecar",)
    templates: frozenset[str] = KNOWN_TEMPLATES


_ONLY_SIDECAR: Final = ("sidecar",)
ISTIO_DEFAULTS: Final = InjectorConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Everything known of the mesh: its injectors, their ConfigMaps, its default interception mode."""

    injectors: tuple[InjectorWebhook, ...] = ()
    configs: Mapping[tuple[str, str], InjectorConfig]
    """By namespace and ConfigMap name."""
    default_modes: Mapping[str, str]
    """`meshConfig.defaultConfig.interceptionMode` by the name of its ConfigMap."""

    def injector_of(self, namespace: Labels, labels: Labels) -> InjectorWebhook | None:
        """Return the first webhook that the API server calls for a pod, or None."""
        for injector in self.injectors:
            if injector.calls(namespace, labels):
                return injector
        return None

    def config_of(self, injector: InjectorWebhook) -> InjectorConfig:
        """Return the ConfigMap's word for *injector*, or Istio's defaults."""
        if not self.configs:
            return ISTIO_DEFAULTS
        name = revisioned(wellknown.INJECTOR_CONFIGMAP, injector.revision)
        return self.configs.get((injector.namespace, name), ISTIO_DEFAULTS)

    def default_mode(self, revision: str = "") -> str:
        """Return the mode that the mesh gives a pod which asks for none."""
        return self.default_modes.get(revisioned(wellknown.MESH_CONFIGMAP, revision), "REDIRECT")


def revisioned(name: str, revision: str) -> str:
    """Return the ConfigMap's name for *revision*: the default one has no suffix."""
    return name if revision in {"", "default"} else f"{name}-{revision}"


def is_injector(configuration: MutatingWebhookConfiguration) -> bool:
    """
    Return whether *configuration* is a sidecar injector's.

    By the label that all of Istio's charts set, or by the webhooks' names where a managed mesh leaves it out.
    """
    labels = configuration.metadata.labels or {}
    return labels.get("app") == wellknown.INJECTOR_APP or any(
        webhook.name.endswith(wellknown.INJECTOR_SUFFIX) for webhook in configuration.webhooks or ()
    )


def injector_webhooks(configuration: MutatingWebhookConfiguration) -> tuple[InjectorWebhook, ...]:
    """Return the webhooks of an injector's *configuration* that are called when a pod is created."""
    labels = configuration.metadata.labels or {}
    found = []
    for webhook in configuration.webhooks or ():
        if not _called_for_pods(webhook):
            continue
        try:
            selectors = label_selector(webhook.namespace_selector), label_selector(webhook.object_selector)
        except SelectorError:
            continue  # The API server would not have stored it.
        service = webhook.client_config.service
        assumed = " (its matchConditions taken as true)" if webhook.match_conditions else ""
        found.append(
            InjectorWebhook(
                configuration=configuration.metadata.name,
                name=webhook.name,
                revision=labels.get(wellknown.ISTIO_REV, ""),
                namespace=service.namespace if service is not None else wellknown.ISTIO_SYSTEM,
                namespace_selector=selectors[0],
                object_selector=selectors[1],
                cause=f"webhook {webhook.name} of {configuration.metadata.name} selects it{assumed}",
            ),
        )
    return tuple(found)


def _called_for_pods(webhook: Webhook) -> bool:
    return any(
        {"*", "CREATE"} & set(rule.operations or ())
        and {"*", ""} & set(rule.api_groups or ())
        and {"*", "v1"} & set(rule.api_versions or ())
        and {"*", "*/*", "pods", "pods/*"} & set(rule.resources or ())
        and rule.scope != "Cluster"
        for rule in webhook.rules or ()
    )


def injector_config(config_map: ConfigMap) -> InjectorConfig:
    """
    Return what an `istio-sidecar-injector` ConfigMap's key `config` says.

    Raises:
        ValueError: It is no YAML mapping, or one of its selectors is invalid.

    """
    document = _mapping((config_map.data or {}).get("config", ""))
    templates = document.get("templates")
    names = frozenset(map(str, templates)) if isinstance(templates, Mapping) else KNOWN_TEMPLATES
    aliases = document.get("aliases")
    if isinstance(aliases, Mapping):
        names |= frozenset(map(str, aliases))
    return InjectorConfig(
        enabled=document.get("policy", "enabled") != "disabled",
        never=_selectors(document.get("neverInjectSelector")),
        always=_selectors(document.get("alwaysInjectSelector")),
        default_templates=tuple(map(str, document.get("defaultTemplates") or ("sidecar",))),
        templates=names,
    )


def mesh_default_mode(config_map: ConfigMap) -> str:
    """
    Return the interception mode in an `istio` ConfigMap's key `mesh`; REDIRECT where it names none.

    Raises:
        ValueError: It is no YAML mapping.

    """
    default = _mapping((config_map.data or {}).get("mesh", "")).get("defaultConfig")
    mode = default.get("interceptionMode") if isinstance(default, Mapping) else None
    return mode if isinstance(mode, str) and mode else "REDIRECT"


def _selectors(value: Any) -> tuple[LabelSelector, ...]:
    specs = msgspec.convert(value or [], type=list[LabelSelectorSpec])
    return tuple(label_selector(spec) for spec in specs)


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise TypeError("no mapping")
    return document


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a pod will get a sidecar that captures inbound traffic, why, and what the user should hear."""

    expected: bool
    cause: str
    warnings: tuple[str, ...] = ()


def will_inject(pod: Pod, namespace_name: str, namespace: Labels, mesh: Mesh) -> Injection:
    """Return whether Istio will put a sidecar beside the pod that TPROXY can serve."""
    if pod.spec.host_network:
        return Injection(expected=False, cause="hostNetwork: Istio never injects it")
    annotations = pod.metadata.annotations or {}
    if wellknown.MIRROR_POD in annotations:
        return Injection(expected=False, cause="a mirror pod of the kubelet's: admission can't change it")
    if namespace_name in wellknown.ISTIO_IGNORED_NAMESPACES:
        return Injection(expected=False, cause=f"Istio ignores the namespace {namespace_name}")
    labels = pod.metadata.labels or {}
    injector = mesh.injector_of(namespace, labels)
    if injector is None:
        return Injection(expected=False, cause=_why_not_called(namespace, labels, mesh))
    config = mesh.config_of(injector)
    refused = _refused(labels, annotations, config)
    if refused is not None:
        return Injection(expected=False, cause=refused)
    templates = _templates(annotations, config)
    if templates == _ONLY_SIDECAR:
        return Injection(expected=True, cause=injector.cause)
    uncaptured = sorted(UNCAPTURED_TEMPLATES.intersection(templates))
    if uncaptured:
        return Injection(expected=False, cause=f"template {uncaptured[0]} captures no inbound traffic")
    unknown = [name for name in templates if name not in config.templates]
    warnings = tuple(f"Istio knows no injection template {name!r} and will refuse the pod" for name in unknown)
    return Injection(expected=True, cause=injector.cause, warnings=warnings)


def _refused(labels: Labels, annotations: Labels, config: InjectorConfig) -> str | None:
    """
    Return why istiod says no, or None; rules 3 to 5 of injectRequired.

    The label, even empty or invalid, beats the annotation.
    """
    value = labels.get(wellknown.INJECT)
    where = "label"
    if value is None:
        value, where = annotations.get(wellknown.INJECT), "annotation"
    if value == "true":
        return None
    if value == "false":
        return f"{where} {wellknown.INJECT}=false"
    for selector in config.never:
        if selector.matches(labels):
            return "the injector's neverInjectSelector matches"
    for selector in config.always:
        if selector.matches(labels):
            return None
    return None if config.enabled else "the injector's policy is disabled"


def _templates(annotations: Labels, config: InjectorConfig) -> tuple[str, ...]:
    value = annotations.get(wellknown.TEMPLATES)
    if not value:
        return config.default_templates
    return tuple(name.strip() for name in value.split(","))


def _why_not_called(namespace: Labels, labels: Labels, mesh: Mesh) -> str:
    if not mesh.injectors:
        return "no sidecar injector's MutatingWebhookConfiguration is known"
    if labels.get(wellknown.INJECT) == "false":
        return f"label {wellknown.INJECT}=false"
    if wellknown.ISTIO_INJECTION in namespace:
        value = namespace[wellknown.ISTIO_INJECTION]
        if value != "enabled":
            return f"namespace label {wellknown.ISTIO_INJECTION}={value}: no injector is called"
        return "no sidecar injector selects it"
    revision = namespace.get(wellknown.ISTIO_REV, labels.get(wellknown.ISTIO_REV))
    if revision is not None:
        return f"no sidecar injector of revision or tag {revision!r} selects it"
    ambient = wellknown.DATAPLANE_MODE in namespace or wellknown.DATAPLANE_MODE in labels
    return "ambient: no sidecar injector selects it" if ambient else "no sidecar injector selects it"


def injected_mode(pod: Pod) -> tuple[str | None, str] | None:
    """
    Return the mode that an injected pod's proxy has (None where it does not say) and the fact, or None: not injected.

    An `istio-proxy` container without the mode's environment variable is a user's customisation, which Istio merges.
    """
    for containers in (pod.spec.init_containers, pod.spec.containers):
        for container in containers or ():
            mode = _mode_env(container) if container.name == wellknown.PROXY_CONTAINER else None
            if mode is not None:
                return mode, f"container {wellknown.PROXY_CONTAINER} runs with {wellknown.MODE_ENV}={mode}"
    if wellknown.INJECTED_STATUS in (pod.metadata.annotations or {}):
        return None, f"annotation {wellknown.INJECTED_STATUS} is there"
    return None


def _mode_env(container: Container) -> str | None:
    variables = msgspec.json.decode(container.env, type=list[EnvVar] | None)
    for variable in variables or ():
        if variable.name == wellknown.MODE_ENV:
            return variable.value or ""
    return None


def own_mode(annotations: Labels) -> tuple[str, str] | None:
    """Return the mode that the pod asks for itself and where, or None; the annotation beats proxy.istio.io/config."""
    mode: Any = annotations.get(wellknown.INTERCEPTION_MODE)
    if mode is not None:
        return mode, f"annotation {wellknown.INTERCEPTION_MODE}={mode}"
    if wellknown.PROXY_CONFIG not in annotations:
        return None
    try:
        mode = _mapping(annotations[wellknown.PROXY_CONFIG]).get("interceptionMode")
    except (ValueError, TypeError):
        return None  # Istio refuses the pod for it; a mode it does not state.
    if isinstance(mode, str):
        return mode, f"annotation {wellknown.PROXY_CONFIG} sets interceptionMode {mode}"
    return None
