"""
Will Istio inject a sidecar into this pod, and which interception mode do its pod, its proxy and its mesh ask for?

Two layers, as in Istio: the API server matches the injector's webhook by namespaceSelector and objectSelector
(manifests/charts/istio-control/istio-discovery/templates/mutatingwebhook.yaml), then istiod decides for itself
(`injectRequired`, pkg/kube/inject/inject.go:201-315). Line numbers are of istio/istio 86c9f01fd735. What stands in a
pod already is `interception`'s.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from webhook.rules import wellknown
from webhook.rules.decision import named
from webhook.rules.limits import CONFIG_LIMIT, CONFIG_NODES, TooLarge
from webhook.rules.objects import ConfigMap, MutatingWebhookConfiguration, Pod, Webhook
from webhook.rules.selectors import EVERYTHING, LabelSelector, LabelSelectorSpec, SelectorError, label_selector
from webhook.rules.yamls import YAMLExcess, documents

Labels = Mapping[str, str]

UNCAPTURED_TEMPLATES: Final = frozenset({"gateway", "grpc-simple", "grpc-agent", "waypoint", "kube-gateway"})
"""Istio's own templates that set no inbound rules: TPROXY means nothing to them, or breaks them."""
ALONE_TEMPLATES: Final = frozenset({"gateway", "waypoint", "kube-gateway"})
"""Of those, the ones whose Envoy stands alone."""
KNOWN_TEMPLATES: Final = UNCAPTURED_TEMPLATES | {"sidecar"}
_MODE_NUMBERS: Final = {0: "REDIRECT", 1: "TPROXY", 2: "NONE"}
"""mesh/v1alpha1/proxy.proto, InboundInterceptionMode."""
MODES: Final = frozenset({"REDIRECT", "TPROXY", "NONE"})
"""What Istio takes, in upper case alone (pkg/kube/inject/validate.go:91-100); it refuses a pod with any other."""


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
    inbound_ports: str = "*"
    """`global.proxy.includeInboundPorts` of the chart: what a pod without the annotation gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An interception mode that somebody asked for."""

    mode: str
    """What the sidecar template renders; empty where only the proxy's environment is set."""
    fact: str
    """Who asked."""
    environment: str = ""
    """
    What `proxyMetadata` makes of it in the proxy alone: its variables come after the template's own, so that Envoy
    takes this one while iptables does not (injection-template.yaml:313,357).
    """
    weak: bool = False
    """
    It is REDIRECT in `proxy.istio.io/config`: the zero of its enum, which is left out where ProxyConfigs are merged, so
    that the mesh's mode stays (pilot/pkg/model/proxy_config.go, mergeWithPrecedence; tests/apiserver has Istio say so).
    """


_ONLY_SIDECAR: Final = ("sidecar",)
ISTIO_DEFAULTS: Final = InjectorConfig()
DEFAULT_MODE: Final = "REDIRECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorWebhook:
    """One webhook of a sidecar injector, ready to match."""

    configuration: str
    name: str
    revision: str
    namespaces: tuple[str, ...]
    """
    Where its ConfigMaps may lie, the likeliest first.

    A webhook that names a Service has them beside it; one that has a URL (an external control plane) where its release
    was installed, which its configuration's name and Helm's annotation tell.
    """
    namespace_selector: LabelSelector
    object_selector: LabelSelector
    cause: str
    """What `explain` says where it selects a pod."""
    config: InjectorConfig = ISTIO_DEFAULTS
    """What its ConfigMap says, or Istio's defaults."""
    default: Choice | None = None
    """What the mesh of its revision asks for (`meshConfig.defaultConfig`), where that is anything but REDIRECT."""
    comes_first: bool = False
    """Whether the API server calls it before us: configurations are called in the order of their names."""
    captures: bool = True
    """Whether its sidecars capture inbound ports where a pod does not say."""
    in_a_service: bool = True
    expected: "Injection | None" = None
    """What `will_inject` says of a pod that gets its sidecar and nothing else."""

    def calls(self, namespace: Labels, labels: Labels) -> bool:
        """Return whether the API server calls it for a pod; matchConditions are taken as true."""
        return self.namespace_selector.matches(namespace) and self.object_selector.matches(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Everything known of the mesh: its injectors, each with what its ConfigMaps say."""

    injectors: tuple[InjectorWebhook, ...] = ()
    complete: bool = True
    """Whether there is no injector but these: so it is in a cluster, while files hold what somebody put in them."""

    def injector_of(self, namespace: Labels, labels: Labels) -> InjectorWebhook | None:
        """Return the first webhook that the API server calls for a pod, or None."""
        for injector in self.injectors:
            if injector.calls(namespace, labels):
                return injector
        return None


ConfigMapName: TypeAlias = tuple[str, str]
"""Namespace and name."""
T = TypeVar("T")


def mesh_of(
    injectors: Iterable[InjectorWebhook],
    configs: Mapping[ConfigMapName, InjectorConfig],
    defaults: Mapping[ConfigMapName, Choice],
    own: Iterable[str] = (),
    *,
    complete: bool = True,
) -> Mesh:
    """
    Return the mesh of *injectors*, in the order in which the API server calls them.

    Args:
        injectors: Sorted by their configurations' names.
        configs: What the `istio-sidecar-injector` ConfigMaps say.
        defaults: What the `istio` ConfigMaps ask for.
        own: The names of our own configurations: an injector comes first if any of them is called after it.
        complete: Whether there is no injector but these.

    """
    last = max(own, default=wellknown.CONFIGURATION)
    return Mesh(injectors=tuple(_completed(each, configs, defaults, last) for each in injectors), complete=complete)


def _completed(
    injector: InjectorWebhook,
    configs: Mapping[ConfigMapName, InjectorConfig],
    defaults: Mapping[ConfigMapName, Choice],
    own: str,
) -> InjectorWebhook:
    config, where = _of_revision(injector, wellknown.INJECTOR_CONFIGMAP, configs)
    default, _ = _of_revision(injector, wellknown.MESH_CONFIGMAP, defaults)
    if default is not None and default.mode in {"", DEFAULT_MODE} and not default.environment:
        default = None
    config = config or ISTIO_DEFAULTS
    whole = replace(
        injector,
        config=config,
        default=default,
        cause=f"{injector.cause}{where}",
        comes_first=injector.configuration < own,
        captures=bool(config.inbound_ports.strip()),
    )
    return replace(whole, expected=Injection(expected=True, cause=whole.cause, injector=whole))


def _of_revision(injector: InjectorWebhook, base: str, found: Mapping[ConfigMapName, T]) -> tuple[T | None, str]:
    """Return what the ConfigMap of the injector's revision says, and which of several it is."""
    name = revisioned(base, injector.revision)
    for namespace in injector.namespaces:
        if (namespace, name) in found:
            return found[namespace, name], ""
    if injector.in_a_service:
        return None, ""
    others = sorted(namespace for namespace, called in found if called == name)
    if not others:
        return None, ""
    which = f" (of {len(others)} ConfigMaps {name}, the one in {others[0]} is used)" if len(others) > 1 else ""
    return found[others[0], name], which


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


def is_ours(configuration: MutatingWebhookConfiguration) -> bool:
    """Return whether *configuration* calls this webhook, whatever somebody has named it."""
    return any(webhook.name.endswith(f".{wellknown.GROUP}") for webhook in configuration.webhooks or ())


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
        namespaces = _release_namespaces(configuration) if service is None else (service.namespace,)
        assumed = " (its matchConditions are assumed to be true)" if webhook.match_conditions else ""
        found.append(
            InjectorWebhook(
                configuration=configuration.metadata.name,
                name=webhook.name,
                revision=labels.get(wellknown.ISTIO_REV, ""),
                namespaces=namespaces,
                in_a_service=service is not None,
                namespace_selector=selectors[0],
                object_selector=selectors[1],
                cause=f"webhook {webhook.name} of {configuration.metadata.name} selects the pod{assumed}",
            ),
        )
    return tuple(found)


def _release_namespaces(configuration: MutatingWebhookConfiguration) -> tuple[str, ...]:
    """
    Return where the release of a configuration that names no Service may be installed, the likeliest first.

    Outside of istio-system Istio's charts add the namespace to its name (templates/mutatingwebhook.yaml:45-49), and
    Helm says it in an annotation.
    """
    metadata = configuration.metadata
    revision = (metadata.labels or {}).get(wellknown.ISTIO_REV, "")
    likely = [(metadata.annotations or {}).get(wellknown.HELM_NAMESPACE, "")]
    base = revisioned(wellknown.INJECTOR_CONFIGMAP, revision) + "-"
    if metadata.name.startswith(base):
        likely.append(metadata.name.removeprefix(base))
    return tuple(dict.fromkeys(each for each in (*likely, wellknown.ISTIO_SYSTEM) if each))


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
        ValueError: It is no YAML mapping or too long, or one of its fields is of another type than Istio's.

    """
    document = _mapping(_text(config_map, "config"))
    config = msgspec.convert({key: value for key, value in document.items() if value is not None}, type=_Config)
    return InjectorConfig(
        enabled=config.policy == "enabled",
        never=tuple(_selectors(config.never_inject_selector)),
        always=tuple(_selectors(config.always_inject_selector)),
        default_templates=tuple(config.default_templates) or _ONLY_SIDECAR,
        templates=frozenset(config.templates) if config.templates is not None else KNOWN_TEMPLATES,
        aliases={name: tuple(names or ()) for name, names in config.aliases.items()},
        inbound_ports=_inbound_ports(_text(config_map, "values")),
    )


def _text(config_map: ConfigMap, key: str) -> str:
    text = (config_map.data or {}).get(key, "")
    if len(text) > CONFIG_LIMIT:
        raise ValueError(f"{key}: {len(text):,} characters; the limit is {CONFIG_LIMIT:,}")
    return text


def _inbound_ports(text: str) -> str:
    """Return which inbound ports the chart's values capture where a pod does not say (injection-template.yaml:118)."""
    try:
        values = msgspec.json.decode(text or "{}", type=_Values)
    except (msgspec.MsgspecError, RecursionError):
        return "*"  # Istio writes JSON; what it can't read itself it does not inject by
    return values.global_.proxy.include_inbound_ports


class _Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    policy: str = "enabled"
    never_inject_selector: list[LabelSelectorSpec] = []
    always_inject_selector: list[LabelSelectorSpec] = []
    default_templates: list[str] = []
    templates: dict[str, Any] | None = None
    aliases: dict[str, list[str] | None] = {}


class _Proxy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    include_inbound_ports: str = "*"


class _Global(msgspec.Struct, frozen=True, kw_only=True):
    proxy: _Proxy = _Proxy()


class _Values(msgspec.Struct, frozen=True, kw_only=True):
    global_: _Global = msgspec.field(name="global", default=_Global())


def mesh_default(config_map: ConfigMap) -> Choice:
    """
    Return the interception mode in an `istio` ConfigMap's key `mesh`; REDIRECT where it names none.

    Raises:
        ValueError: It is no YAML mapping, or too long.

    """
    default = _mapping(_text(config_map, "mesh")).get("defaultConfig")
    config: Mapping[str, Any] = default if isinstance(default, Mapping) else {}
    mode = _stated_mode(config) or DEFAULT_MODE
    return Choice(mode=mode, fact=f"the mesh's default mode is {mode}", environment=_environment(config))


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


def _environment(proxy_config: Mapping[str, Any]) -> str:
    """Return what a ProxyConfig's proxyMetadata sets the mode's environment variable to."""
    metadata = proxy_config.get("proxyMetadata", proxy_config.get("proxy_metadata"))
    value = metadata.get(wellknown.MODE_ENV) if isinstance(metadata, Mapping) else None
    return value if isinstance(value, str) else ""


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
"""Of the mesh's ConfigMaps."""


def _mapping(text: str, *, max_repeated: int = MAX_REPEATED, max_nodes: int | None = None) -> Mapping[str, Any]:
    document = next(documents(text, max_repeated=max_repeated, max_nodes=max_nodes), None)
    if document is None:
        return {}
    if not isinstance(document.value, Mapping):
        raise TypeError("not a mapping")
    return document.value


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a pod will get a sidecar that captures inbound traffic, why, and what the user should hear."""

    expected: bool
    cause: str
    unknown: bool = False
    """No injector is known, and it is not known that there is none."""
    warnings: tuple[str, ...] = ()
    injector: InjectorWebhook | None = None
    """The webhook that the API server calls for it."""
    alone: bool = False
    """The proxy that a template adds is a gateway's or a waypoint's: there is no application behind it."""


def will_inject(pod: Pod, namespace_name: str, namespace: Labels, mesh: Mesh) -> Injection:
    """Return whether Istio will put a sidecar beside the pod that TPROXY can serve."""
    if pod.spec.host_network:
        return Injection(expected=False, cause="hostNetwork: Istio does not inject such pods")
    annotations = pod.metadata.annotations or {}
    if wellknown.MIRROR_POD in annotations:
        return Injection(expected=False, cause="a mirror pod of the kubelet: admission cannot change it")
    if namespace_name in wellknown.ISTIO_IGNORED_NAMESPACES:
        return Injection(expected=False, cause=f"Istio ignores the namespace {namespace_name}")
    labels = pod.metadata.labels or {}
    injector = mesh.injector_of(namespace, labels)
    if injector is None:
        # Whatever an injector's selectors are: Istio's charts leave these pods out of all of them.
        none_known = not mesh.complete and not mesh.injectors and labels.get(wellknown.INJECT) != "false"
        return Injection(expected=False, cause=_why_not_called(namespace, labels, mesh), unknown=none_known)
    config = injector.config
    refused = _refused(labels, annotations, config)
    if refused is not None:
        return Injection(expected=False, cause=refused, injector=injector)
    templates = _templates(annotations, config)
    if templates == _ONLY_SIDECAR:
        return injector.expected or Injection(expected=True, cause=injector.cause, injector=injector)
    uncaptured = _uncaptured(templates)
    if uncaptured:
        alone = uncaptured in ALONE_TEMPLATES
        cause = f"template {uncaptured} captures no inbound traffic"
        return Injection(expected=False, cause=cause, injector=injector, alone=alone)
    unknown = [repr(name) for name in dict.fromkeys(templates) if name not in config.templates]
    if not unknown:
        return Injection(expected=True, cause=injector.cause, injector=injector)
    word = "template" if len(unknown) == 1 else "templates"
    warning = f"Istio has no injection {word} {named(unknown)} and will reject the pod"
    return Injection(expected=True, cause=injector.cause, warnings=(warning,), injector=injector)


def _uncaptured(templates: tuple[str, ...]) -> str:
    """
    Return the template by which the pod's proxy captures no inbound traffic, or nothing where it does.

    Of templates that describe the proxy the last one's arguments count: templates are merged in order, and lists of
    arguments replace each other (pkg/kube/inject/inject.go, RunTemplate). `sidecar,gateway` is a gateway behind
    iptables rules, which serves nothing; `gateway,sidecar` is a sidecar. A gRPC agent runs no Envoy, whatever else.
    """
    if "grpc-agent" in templates:
        return "grpc-agent"
    last = next((name for name in reversed(templates) if name in KNOWN_TEMPLATES and name != "grpc-simple"), "")
    if last:
        return last if last in UNCAPTURED_TEMPLATES else ""
    return "grpc-simple" if "grpc-simple" in templates else ""


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
    if labels.get(wellknown.INJECT) == "false":
        return f"label {wellknown.INJECT}=false"
    if not mesh.injectors:
        return "no sidecar injector's MutatingWebhookConfiguration is known"
    if wellknown.ISTIO_INJECTION in namespace:
        value = namespace[wellknown.ISTIO_INJECTION]
        if value != "enabled":
            return f"namespace label {wellknown.ISTIO_INJECTION}={value}: no injector is called"
        return "no sidecar injector selects the pod"
    revision = namespace.get(wellknown.ISTIO_REV, labels.get(wellknown.ISTIO_REV))
    if revision is not None:
        return f"no sidecar injector of revision or tag {revision!r} selects the pod"
    ambient = wellknown.DATAPLANE_MODE in namespace or wellknown.DATAPLANE_MODE in labels
    return "ambient: no sidecar injector selects the pod" if ambient else "no sidecar injector selects the pod"


def own_choice(annotations: Labels) -> Choice | None:
    """
    Return the mode that the pod asks for itself, or None; the annotation beats proxy.istio.io/config.

    Raises:
        TooLarge: proxy.istio.io/config holds more than is read.

    """
    mode = annotations.get(wellknown.INTERCEPTION_MODE)
    text = annotations.get(wellknown.PROXY_CONFIG)
    # Most such annotations speak of other things, and reading YAML is slow.
    if text is None or ("interception" not in text.lower() and "\\" not in text):
        return None if mode is None else Choice(mode=mode, fact=f"annotation {wellknown.INTERCEPTION_MODE}={mode}")
    try:
        config = _mapping(text, max_repeated=CONFIG_NODES, max_nodes=CONFIG_NODES)
    except YAMLExcess as error:
        raise TooLarge(f"metadata.annotations[{wellknown.PROXY_CONFIG}]: {error}") from error
    except (ValueError, TypeError):
        config = {}  # Istio refuses the pod for it; a mode it does not state.
    environment = _environment(config)
    if mode is not None:
        return Choice(mode=mode, fact=f"annotation {wellknown.INTERCEPTION_MODE}={mode}", environment=environment)
    mode = _stated_mode(config)
    if mode is not None:
        fact = f"annotation {wellknown.PROXY_CONFIG} sets interceptionMode {mode}"
        return Choice(mode=mode, fact=fact, environment=environment, weak=mode == DEFAULT_MODE)
    if environment:
        fact = f"annotation {wellknown.PROXY_CONFIG} sets proxyMetadata {wellknown.MODE_ENV}={environment}"
        return Choice(mode="", fact=fact, environment=environment)
    return None
