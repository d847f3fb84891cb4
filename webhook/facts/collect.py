"""
How Kubernetes objects become a Snapshot: knows, for each kind, which fact of the Snapshot it is.

Files and the watch both feed a Collector; it keeps what it was given and makes a frozen Snapshot when asked. Objects
that no decision reads are refused by `takes`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from webhook.rules import nulls, wellknown
from webhook.rules.limits import NAMESPACE_LABELS
from webhook.rules.nodes import Node, NodeIndex, NodeIndexBuilder
from webhook.rules.objects import (
    ConfigMap,
    GatewayClass,
    MutatingWebhookConfiguration,
    Namespace,
    ObjectMeta,
    Reviewed,
)
from webhook.rules.optin import OptOut, Preserve, opt_out, preserve
from webhook.rules.oversize import excess_of, object_within
from webhook.rules.placement import RuntimeClass
from webhook.rules.policy import Policies, Policy, policies
from webhook.rules.policy_document import PolicyInvalid, read_policy
from webhook.rules.sidecar import (
    Choice,
    InjectorConfig,
    InjectorWebhook,
    injector_config,
    injector_webhooks,
    is_injector,
    is_ours,
    mesh_default,
    mesh_of,
)
from webhook.rules.snapshot import Network, Snapshot

log: Final = logging.getLogger(__name__)

TERWAY_DAEMON_SETS: Final = frozenset({"terway-eniip", "terway-eni", "terway"})
TERWAY_CONFIG_MAP: Final = "eni-config"
KUBE_SYSTEM: Final = "kube-system"

KINDS: Final = frozenset(
    {
        ("v1", "Node"),
        ("v1", "Namespace"),
        ("v1", "ConfigMap"),
        ("apps/v1", "DaemonSet"),
        ("node.k8s.io/v1", "RuntimeClass"),
        ("node.k8s.io/v1beta1", "RuntimeClass"),
        ("gateway.networking.k8s.io/v1", "GatewayClass"),
        ("gateway.networking.k8s.io/v1beta1", "GatewayClass"),
        ("gateway.networking.k8s.io/v1alpha2", "GatewayClass"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1beta1", "MutatingWebhookConfiguration"),
        (wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND),
    }
)
"""By apiVersion and kind: what a Collector makes facts of; dumps may have older versions, which say the same."""


class FactError(ValueError):
    """An object that is no fact: *field* is its path below the object, empty where it is the whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def decode(raw: Mapping[str, Any] | bytes, kind: Any) -> Any:
    """
    Return *raw* (JSON, or what YAML reads as) as *kind*; nulls are read as the API server reads them.

    Raises:
        FactError: With the path of the field.

    """
    try:
        return nulls.decoder(kind)(raw if isinstance(raw, bytes) else msgspec.json.encode(raw))
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise FactError(where.rstrip("`").lstrip("."), message) from error
    except OverflowError as error:
        raise FactError("", "a number that exceeds 64 bits") from error
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise FactError("", str(error)) from error


def decode_reviewed(raw: Mapping[str, Any]) -> tuple[Any, str]:
    """
    Return *raw* as what the webhook makes of it, and what of it is too much to be read (`Request.excess`).

    Raises:
        FactError: With the path of the field.

    """
    try:
        text, excess = object_within(msgspec.json.encode(raw))
    except (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError):
        return decode(raw, Reviewed), ""  # which says what is wrong
    return decode(text, Reviewed), excess


def decode_counted(raw: Mapping[str, Any], kind: Any) -> tuple[Any, str]:
    """
    Return *raw*, which is read for more than a decision, as *kind*, and what of it is too much for one.

    Raises:
        FactError: With the path of the field.

    """
    try:
        text = msgspec.json.encode(raw)
        excess = excess_of(text)
    except (msgspec.MsgspecError, RecursionError, OverflowError, UnicodeError):
        return decode(raw, kind), ""  # which says what is wrong
    return decode(text, kind), excess


READ_ANNOTATIONS: Final = (*wellknown.PLACING_ANNOTATIONS, wellknown.OPT_OUT_UNTIL, wellknown.OPT_OUT_OWNER)
"""Of a namespace."""


def kept_of(namespace: Namespace) -> Namespace:
    """Return what is kept of *namespace*: its name, its labels, and the annotations that are read."""
    metadata = namespace.metadata
    annotations = metadata.annotations or {}
    labels = _NOT_KEPT if _is_beyond(metadata.labels) else metadata.labels
    read: dict[str, str] = {name: annotations[name] for name in READ_ANNOTATIONS if name in annotations}
    return Namespace(metadata=ObjectMeta(name=metadata.name, labels=labels, annotations=read or None))


_NOT_KEPT: Final = {"": ""}
"""Stands for labels that are too many to be kept; no key is empty."""


def _is_beyond(labels: Mapping[str, str] | None) -> bool:
    if not labels:
        return False
    return labels == _NOT_KEPT or sum(len(key) + len(value) for key, value in labels.items()) > NAMESPACE_LABELS


def read_stored_policy(document: Mapping[str, Any]) -> tuple[Policy, PolicyInvalid | None]:
    """Return the policy that *document* is, or that stands for it where it is unusable, with what is wrong."""
    try:
        return read_policy(document), None
    except PolicyInvalid as error:
        return error.stands_for, error


def read_config_map(config_map: ConfigMap) -> InjectorConfig | Choice | None:
    """
    Return what an injector's or the mesh's ConfigMap says; None for any other.

    Raises:
        FactError: It can't be read.

    """
    name = config_map.metadata.name
    try:
        if _is_named(name, wellknown.INJECTOR_CONFIGMAP):
            return injector_config(config_map)
        if _is_named(name, wellknown.MESH_CONFIGMAP) and "mesh" in (config_map.data or {}):
            return mesh_default(config_map)
    except (ValueError, TypeError) as error:
        raise FactError("data", str(error)) from error
    return None


@dataclass(slots=True)
class Collector:
    """The facts as they are known now."""

    own_namespace: str = wellknown.OWN_NAMESPACE
    from_files: bool = False
    """Files hold what somebody put in them: what is not there may be in the cluster all the same."""
    joining: bool = False
    """What is put is applied on top of what is known: a Namespace's labels join those that it has."""
    nodes_synced: bool = True
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    node_selected: dict[str, str] = field(default_factory=dict)
    """Namespaces whose pods PodNodeSelector or PodTolerationRestriction changes, with the annotation that says so."""
    opt_outs: dict[str, OptOut] = field(default_factory=dict)
    """Namespaces whose label is less than `enabled` and has an end beside it."""
    stored_policies: dict[str, Policy] = field(default_factory=dict)
    policy_errors: dict[str, PolicyInvalid] = field(default_factory=dict)
    injectors: dict[str, tuple[InjectorWebhook, ...]] = field(default_factory=dict)
    own_configurations: set[str] = field(default_factory=set)
    """The webhook configurations that call us."""
    injector_configs: dict[tuple[str, str], InjectorConfig] = field(default_factory=dict)
    mesh_defaults: dict[tuple[str, str], Choice] = field(default_factory=dict)
    """By namespace and ConfigMap name, as the injectors' are."""
    runtime_classes: dict[str, RuntimeClass] = field(default_factory=dict)
    gateway_classes: frozenset[str] = frozenset()
    """Those of Istio's controllers that make ingress gateways."""
    terway: str = ""
    _namespaces: Mapping[str, Mapping[str, str]] | None = None
    """As the last snapshot has them; None where they have changed since."""
    _builder: NodeIndexBuilder | None = None
    _nodes: NodeIndex | None = None
    _policies: Policies = field(default_factory=Policies)

    def takes(self, api_version: str, kind: str, namespace: str = "", name: str = "") -> bool:
        """Return whether an object is a fact; of ConfigMaps and DaemonSets a few are."""
        if kind == "ConfigMap":
            is_terways = (namespace, name) == (KUBE_SYSTEM, TERWAY_CONFIG_MAP)
            return is_terways or any(
                _is_named(name, base) for base in (wellknown.INJECTOR_CONFIGMAP, wellknown.MESH_CONFIGMAP)
            )
        if kind == "DaemonSet":
            return namespace == KUBE_SYSTEM and name in TERWAY_DAEMON_SETS
        return (api_version, kind) in KINDS

    def put(self, api_version: str, kind: str, raw: Mapping[str, Any] | bytes) -> None:
        """
        Take an object in, in place of the one of its name.

        Raises:
            FactError: It is no such object; nothing changes.

        """
        match kind:
            case "Node":
                self.put_node(decode(raw, Node))
            case "Namespace":
                self.put_namespace(decode(raw, Namespace))
            case "ConfigMap":
                self.put_config_map(decode(raw, ConfigMap))
            case "GatewayClass":
                self.put_gateway_class(decode(raw, GatewayClass))
            case "RuntimeClass":
                self.put_runtime_class(decode(raw, RuntimeClass))
            case "DaemonSet":
                self.put_daemon_set(decode(raw, Namespace))
            case "MutatingWebhookConfiguration":
                self.put_configuration(decode(raw, MutatingWebhookConfiguration))
            case wellknown.POLICY_KIND:
                document = msgspec.json.decode(raw) if isinstance(raw, bytes) else raw
                self.put_policy(document)
            case _:
                raise FactError("kind", f"{api_version} {kind} is not an object that the webhook uses")

    # --- Nodes

    @property
    def builder(self) -> NodeIndexBuilder:
        """The nodes as they stand, to be changed; made anew where the policy's rules have changed."""
        if self._builder is None:
            self._builder = NodeIndexBuilder(self._policies.default.node_rules)
        return self._builder

    def put_node(self, node: Node) -> None:
        """Take a node in."""
        if self.builder.put(node):
            self._nodes = None

    def remove_node(self, name: str) -> None:
        """Forget a node."""
        if self.builder.remove(name):
            self._nodes = None

    def next_nodes(self, base: NodeIndex) -> NodeIndexBuilder:
        """Return what to build the next index with: from *base* where the policy's rules are still its own."""
        rules = self._policies.default.node_rules
        return NodeIndexBuilder(rules, base if base.rules == rules else None)

    def replace_nodes(self, builder: NodeIndexBuilder) -> None:
        """Take *builder*'s nodes in place of all that are known: a relist is built beside what is in use."""
        self._builder, self._nodes = builder, None

    # --- Namespaces

    def put_namespace(self, namespace: Namespace) -> None:
        """Take a namespace in; one whose labels are too many to be kept counts as unknown."""
        if _is_beyond(namespace.metadata.labels):
            log.warning(
                "namespace %s has more than %d characters of labels: it counts as unknown",
                namespace.metadata.name,
                NAMESPACE_LABELS,
            )
            self.remove_namespace(namespace.metadata.name)
            return
        known = self.namespaces.get(namespace.metadata.name, {}) if self.joining else {}
        labels = {**known, **(namespace.metadata.labels or {})}
        # The API server always sets this one: manifests leave it out.
        labels.setdefault(wellknown.NAMESPACE_NAME, namespace.metadata.name)
        self.namespaces[namespace.metadata.name] = labels
        self._namespaces = None
        annotations = namespace.metadata.annotations or {}
        out = opt_out(annotations) if preserve(labels) is not Preserve.ENABLED else None
        if out is not None:
            self.opt_outs[namespace.metadata.name] = out
        else:
            self.opt_outs.pop(namespace.metadata.name, None)
        said = next((name for name in wellknown.PLACING_ANNOTATIONS if annotations.get(name)), None)
        if said is not None:
            self.node_selected[namespace.metadata.name] = said
        elif not self.joining:
            self.node_selected.pop(namespace.metadata.name, None)

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace."""
        self.namespaces.pop(name, None)
        self._namespaces = None
        self.node_selected.pop(name, None)
        self.opt_outs.pop(name, None)

    # --- Policies

    def put_policy(self, document: Mapping[str, Any]) -> None:
        """Take a policy in; one that is unusable counts as invalid for what it matches."""
        self.put_read_policy(*read_stored_policy(document))

    def put_read_policy(self, policy: Policy, error: PolicyInvalid | None) -> None:
        """Take in what a policy's document was read as."""
        if error is None:
            self.policy_errors.pop(policy.name, None)
        else:
            self.policy_errors[policy.name] = error
        self.stored_policies[policy.name] = policy
        self._use_policies()

    def remove_policy(self, name: str) -> None:
        """Forget a policy."""
        self.stored_policies.pop(name, None)
        self.policy_errors.pop(name, None)
        self._use_policies()

    @property
    def rules_changed(self) -> bool:
        """Whether the nodes must be classified anew: the default policy's rules are no longer those of the index."""
        return self._builder is not None and self._builder.rules != self._policies.default.node_rules

    @property
    def policies(self) -> Policies:
        """The policies in force."""
        return self._policies

    def _use_policies(self) -> None:
        self._policies = policies(self.stored_policies)

    # --- The mesh

    def put_configuration(self, configuration: MutatingWebhookConfiguration) -> None:
        """Take a webhook configuration in; only sidecar injectors count, and our own."""
        if is_ours(configuration):
            self.own_configurations.add(configuration.metadata.name)
        else:
            self.own_configurations.discard(configuration.metadata.name)
        if is_injector(configuration):
            self.injectors[configuration.metadata.name] = injector_webhooks(configuration)
        else:
            self.injectors.pop(configuration.metadata.name, None)

    def configurations(self) -> set[str]:
        """Return the names of the webhook configurations that count."""
        return {*self.injectors, *self.own_configurations}

    def remove_configuration(self, name: str) -> None:
        """Forget a webhook configuration."""
        self.injectors.pop(name, None)
        self.own_configurations.discard(name)

    def put_config_map(self, config_map: ConfigMap) -> None:
        """
        Take a ConfigMap in: an injector's, the mesh's or Terway's; others are no facts.

        Raises:
            FactError: It can't be read; nothing changes.

        """
        self.put_read_config_map(config_map.metadata, read_config_map(config_map))

    def put_read_config_map(self, metadata: ObjectMeta, read: InjectorConfig | Choice | None) -> None:
        """Take in what a ConfigMap was read as."""
        place = metadata.namespace, metadata.name
        if isinstance(read, InjectorConfig):
            self.injector_configs[place] = read
        elif isinstance(read, Choice):
            self.mesh_defaults[place] = read
        elif place == (KUBE_SYSTEM, TERWAY_CONFIG_MAP):
            self.terway = self.terway or f"ConfigMap {KUBE_SYSTEM}/{TERWAY_CONFIG_MAP}"

    def remove_config_map(self, namespace: str, name: str) -> None:
        """Forget a ConfigMap."""
        self.injector_configs.pop((namespace, name), None)
        self.mesh_defaults.pop((namespace, name), None)

    def put_gateway_class(self, gateway_class: GatewayClass) -> None:
        """Take a GatewayClass in: only those of Istio's controllers count."""
        name = gateway_class.metadata.name
        istios = gateway_class.spec.controller_name in wellknown.GATEWAY_CONTROLLERS
        if istios and name not in wellknown.NO_INGRESS_CLASSES:
            self.gateway_classes |= {name}
        else:
            self.gateway_classes -= {name}

    def remove_gateway_class(self, name: str) -> None:
        """Forget a GatewayClass."""
        self.gateway_classes -= {name}

    def put_runtime_class(self, runtime_class: RuntimeClass) -> None:
        """Take a RuntimeClass in."""
        self.runtime_classes = {**self.runtime_classes, runtime_class.metadata.name: runtime_class}

    def remove_runtime_class(self, name: str) -> None:
        """Forget a RuntimeClass."""
        self.runtime_classes = {key: each for key, each in self.runtime_classes.items() if key != name}

    def put_daemon_set(self, daemon_set: Namespace) -> None:
        """Take a DaemonSet in: only Terway's own counts."""
        metadata = daemon_set.metadata
        if metadata.namespace == KUBE_SYSTEM and metadata.name in TERWAY_DAEMON_SETS:
            self.terway = f"DaemonSet {KUBE_SYSTEM}/{metadata.name}"

    # --- The Snapshot

    def snapshot(self) -> Snapshot:
        """
        Return the facts, frozen.

        Where the default policy's node rules have changed, the caller gives new nodes first (`replace_nodes`): until
        then the last index stays in use.
        """
        if self._nodes is None:
            self._nodes = self.builder.freeze()
        if self._namespaces is None:
            self._namespaces = dict(self.namespaces)  # one copy for all that changed since the last snapshot
        return Snapshot(
            policies=self._policies,
            nodes=self._nodes,
            nodes_synced=self.nodes_synced,
            namespaces=self._namespaces,
            opt_outs=dict(self.opt_outs),
            mesh=mesh_of(
                _in_order(self.injectors),
                self.injector_configs,
                self.mesh_defaults,
                self.own_configurations,
                complete=not self.from_files,
            ),
            runtime_classes=self.runtime_classes,
            gateway_classes=self.gateway_classes,
            network=Network(terway=self.terway),
            own_namespace=self.own_namespace,
        )


def _is_named(name: str, base: str) -> bool:
    return name == base or name.startswith(f"{base}-")


def _in_order(injectors: Mapping[str, Iterable[InjectorWebhook]]) -> tuple[InjectorWebhook, ...]:
    """The API server calls configurations in the order of their names."""
    return tuple(webhook for name in sorted(injectors) for webhook in injectors[name])
