"""
Will Istio inject a sidecar into this pod, and has it done so already?

Two layers, as in Istio: the API server matches the injector's webhook by namespaceSelector and objectSelector
(manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml), then istiod decides for itself
(`injectRequired`, pkg/kube/inject/inject.go:201-315). Line numbers are of istio/istio 86c9f01fd735.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from webhook.rules import wellknown
from webhook.rules.decision import named
from webhook.rules.objects import ConfigMap, Container, EnvVar, MutatingWebhookConfiguration, Pod, Webhook
from webhook.rules.selectors import EVERYTHING, LabelSelector, LabelSelectorSpec, SelectorError, label_selector
from webhook.rules.yamls import documents

Labels = Mapping[str, str]

UNCAPTURED_TEMPLATES: Final = frozenset({"gateway", "grpc-simple", "grpc-agent", "waypoint", "kube-gateway"})
"""Istio's own templates that set no inbound rules: TPROXY means nothing to them, or breaks them."""
KNOWN_TEMPLATES: Final = UNCAPTURED_TEMPLATES | {"sidecar"}
_MODE_NUMBERS: Final = {0: "REDIRECT", 1: "TPROXY", 2: "NONE"}
"""mesh/v1alpha1/proxy.proto, InboundInterceptionMode."""
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
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that stand for other templates (`resolveAliases`)."""


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
        ValueError: It is no YAML mapping, or one of its fields is of another type than Istio's.

    """
    document = _mapping((config_map.data or {}).get("config", ""))
    config = msgspec.convert({key: value for key, value in document.items() if value is not None}, type=_Config)
    return InjectorConfig(
        enabled=config.policy == "enabled",
        never=tuple(_selectors(config.never_inject_selector)),
        always=tuple(_selectors(config.always_inject_selector)),
        default_templates=tuple(config.default_templates) or _ONLY_SIDECAR,
        templates=frozenset(config.templates) if config.templates is not None else KNOWN_TEMPLATES,
        aliases={name: tuple(names or ()) for name, names in config.aliases.items()},
    )


class _Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    policy: str = "enabled"
    never_inject_selector: list[LabelSelectorSpec] = []
    always_inject_selector: list[LabelSelectorSpec] = []
    default_templates: list[str] = []
    templates: dict[str, Any] | None = None
    aliases: dict[str, list[str] | None] = {}


def mesh_default_mode(config_map: ConfigMap) -> str:
    """
    Return the interception mode in an `istio` ConfigMap's key `mesh`; REDIRECT where it names none.

    Raises:
        ValueError: It is no YAML mapping.

    """
    default = _mapping((config_map.data or {}).get("mesh", "")).get("defaultConfig")
    return (_stated_mode(default) if isinstance(default, Mapping) else None) or "REDIRECT"


def _stated_mode(proxy_config: Mapping[str, Any]) -> str | None:
    """
    Return the interception mode of a ProxyConfig.

    Protobuf's JSON takes a field by either of its names, and an enum by its number
    (https://protobuf.dev/programming-guides/json/).
    """
    mode = proxy_config.get("interceptionMode", proxy_config.get("interception_mode"))
    if isinstance(mode, int) and not isinstance(mode, bool):
        return _MODE_NUMBERS.get(mode, str(mode))
    return mode if isinstance(mode, str) else None


def _selectors(specs: Iterable[LabelSelectorSpec]) -> Iterator[LabelSelector]:
    """Yield those that istiod heeds: it passes over invalid and empty ones (inject.go:245-270)."""
    for spec in specs:
        try:
            selector = label_selector(spec)
        except SelectorError:
            continue
        if selector != EVERYTHING:
            yield selector


MAX_REPEATED: Final = 10_000
"""Anyone who may create a pod writes these texts, and other reviews wait while one is read."""


def _mapping(text: str) -> Mapping[str, Any]:
    document = next(documents(text, max_repeated=MAX_REPEATED), None)
    if document is None:
        return {}
    if not isinstance(document.value, Mapping):
        raise TypeError("no mapping")
    return document.value


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
    unknown = [repr(name) for name in dict.fromkeys(templates) if name not in config.templates]
    if not unknown:
        return Injection(expected=True, cause=injector.cause)
    word = "template" if len(unknown) == 1 else "templates"
    warning = f"Istio knows no injection {word} {named(unknown)} and will refuse the pod"
    return Injection(expected=True, cause=injector.cause, warnings=(warning,))


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
    """Return the templates that istiod renders (`selectTemplates`): an empty annotation names the template ''."""
    value = annotations.get(wellknown.TEMPLATES)
    names = config.default_templates if value is None else tuple(name.strip() for name in value.split(","))
    if not config.aliases:
        return names
    return tuple(template for name in names for template in config.aliases.get(name, (name,)))


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
    try:
        variables = msgspec.json.decode(container.env, type=list[EnvVar] | None)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""  # Nothing that the API server takes: as good as injected, so that nothing is patched.
    for variable in variables or ():
        if variable.name == wellknown.MODE_ENV:
            return variable.value or ""
    return None


def own_mode(annotations: Labels) -> tuple[str, str] | None:
    """Return the mode that the pod asks for itself and where, or None; the annotation beats proxy.istio.io/config."""
    mode = annotations.get(wellknown.INTERCEPTION_MODE)
    if mode is not None:
        return mode, f"annotation {wellknown.INTERCEPTION_MODE}={mode}"
    text = annotations.get(wellknown.PROXY_CONFIG)
    if text is None or ("interception" not in text and "\\" not in text):
        return None  # Most such annotations speak of other things, and reading YAML is slow.
    try:
        mode = _stated_mode(_mapping(text))
    except (ValueError, TypeError):
        return None  # Istio refuses the pod for it; a mode it does not state.
    return None if mode is None else (mode, f"annotation {wellknown.PROXY_CONFIG} sets interceptionMode {mode}")
