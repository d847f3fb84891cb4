"""
Reads a ClientIPPolicy document: every error at once, each with the path of its field.

Unknown fields are errors here (the API server prunes them from stored objects). The CRD in
`webhook/cli/crd.yaml` makes the same checks with its schema and CEL; tests hold the two together.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from webhook.rules import wellknown
from webhook.rules.ends import read_time
from webhook.rules.nodes import NodeRule, NodeRules
from webhook.rules.placement import RuntimeClassRule
from webhook.rules.policy import (
    BUILT_IN,
    DEFAULT_NAME,
    Backends,
    Fallback,
    Level,
    Policy,
    PolicyException,
    PolicyMode,
)
from webhook.rules.selectors import (
    EVERYTHING,
    LabelSelector,
    LabelSelectorSpec,
    Requirement,
    SelectorError,
    label_selector,
    valid_label_key,
)

E = TypeVar("E", bound=StrEnum)

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label: what exceptions and node rules are called."""
PRIORITY_LIMIT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class PolicyInvalid(ValueError):  # noqa: N818  # the domain's own word, as in Reason `policy-invalid`
    """
    A document that is no usable policy.

    *stands_for* is what it counts as where it is stored all the same: its priority, and what its namespaceSelector
    matches, or everything where that is the bad part.
    """

    def __init__(self, errors: tuple[FieldError, ...], stands_for: Policy) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors
        self.stands_for = stands_for


def read_policy(document: Mapping[str, Any]) -> Policy:
    """
    Return the policy that *document* (a decoded YAML or JSON object) states.

    Raises:
        PolicyInvalid: With every error in it.

    """
    errors: list[FieldError] = []
    top = _Fields(document, "", errors)
    top.constant("apiVersion", wellknown.POLICY_API_VERSION)
    top.constant("kind", wellknown.POLICY_KIND)
    name = top.child("metadata").text("name", required=True)
    spec = top.child("spec", required=True)
    top.ignore("status")
    top.refuse_unknown()
    policy = _spec(name, spec)
    if not errors:
        return policy
    bad = any(error.field.startswith("spec.namespaceSelector") for error in errors)
    stands_for = Policy(
        name=name or DEFAULT_NAME,
        priority=policy.priority,
        namespace_selector=EVERYTHING if bad else policy.namespace_selector,
        invalid="; ".join(map(str, errors)),
    )
    raise PolicyInvalid(tuple(errors), stands_for)


def _spec(name: str, spec: "_Fields") -> Policy:
    is_default = name == DEFAULT_NAME
    pods, services = spec.child("pods"), spec.child("services")
    pod_security, nodes = spec.child("podSecurity"), spec.child("nodes")
    if not is_default:
        for owner, key in ((services, "backends"), (spec, "podSecurity"), (spec, "nodes")):
            if owner.has(key):
                owner.error(key, f"may only be set in the policy {DEFAULT_NAME!r}")
    policy = Policy(
        name=name,
        mode=spec.choice("mode", PolicyMode, required=True) or PolicyMode.DISABLED,
        priority=spec.integer("priority", limit=PRIORITY_LIMIT),
        namespace_selector=spec.selector("namespaceSelector"),
        pod_selector=pods.selector("selector"),
        fallback=pods.choice("fallback", Fallback) or Fallback.NONE,
        service_selectors=_service_selectors(services),
        exceptions=tuple(_exception(each) for each in spec.items("exceptions", unique="name")),
        backends=services.choice("backends", Backends) or Backends.AUTO,
        default_level=pod_security.choice("defaultLevel", Level) or Level.PRIVILEGED,
        node_rules=_node_rules(nodes) if spec.has("nodes") else BUILT_IN.node_rules,
        runtime_classes=_runtime_classes(nodes),
    )
    for part in (pods, services, pod_security, nodes, spec):
        part.refuse_unknown()
    return policy


def _service_selectors(services: "_Fields") -> tuple[LabelSelector, ...]:
    if not services.has("selectors"):
        return BUILT_IN.service_selectors
    found = services.sequence("selectors")
    if not found:
        services.error("selectors", "must name at least one selector")
    return tuple(services.compile(each, f"selectors[{number}]") for number, each in enumerate(found))


def _exception(fields: "_Fields") -> PolicyException:
    if not fields.has("namespaceSelector") and not fields.has("selector"):
        fields.error("", "must have a namespaceSelector, a selector or both (an explicit {} matches everything)")
    exception = PolicyException(
        name=fields.text("name", required=True, pattern=NAME),
        owner=fields.text("owner", required=True),
        reason=fields.text("reason", required=True),
        ticket=fields.text("ticket"),
        expires=fields.time("expires"),
        namespace_selector=fields.selector("namespaceSelector"),
        selector=fields.selector("selector"),
    )
    fields.refuse_unknown()
    return exception


def _node_rules(nodes: "_Fields") -> NodeRules:
    transient = wellknown.TRANSIENT_TAINTS | BUILT_IN.node_rules.transient_taints
    if nodes.has("transientTaints"):
        transient = wellknown.TRANSIENT_TAINTS | frozenset(_taint_keys(nodes))
    if not nodes.has("rules"):
        return NodeRules(rules=BUILT_IN.node_rules.rules, transient_taints=transient)
    return NodeRules(
        rules=tuple(_node_rule(each) for each in nodes.items("rules", unique="name")),
        transient_taints=transient,
    )


def _runtime_classes(nodes: "_Fields") -> tuple[RuntimeClassRule, ...]:
    if not nodes.has("runtimeClasses"):
        return BUILT_IN.runtime_classes
    return tuple(_runtime_class(each) for each in nodes.items("runtimeClasses", unique="name"))


def _runtime_class(fields: "_Fields") -> RuntimeClassRule:
    word = fields.choice("tproxy", _RuntimeWord, required=True)
    rule = RuntimeClassRule(
        name=fields.text("name", required=True, pattern=NAME),
        runtime_class=fields.text("runtimeClass", required=True),
        supported={_RuntimeWord.SUPPORTED: True, _RuntimeWord.UNSUPPORTED: False}.get(word or _RuntimeWord.NODE),
    )
    fields.refuse_unknown()
    return rule


def _taint_keys(nodes: "_Fields") -> Iterable[str]:
    for number, key in enumerate(nodes.sequence("transientTaints")):
        if isinstance(key, str) and valid_label_key(key):
            yield key
        else:
            nodes.error(f"transientTaints[{number}]", f"{_shown(key)} is not a valid taint key")


def _node_rule(fields: "_Fields") -> NodeRule:
    patterns = ("selector", "osImage", "kernelVersion", "operatingSystem")
    if not any(fields.has(pattern) for pattern in patterns):
        fields.error("", f"must have at least one of {', '.join(patterns)}")
    word = fields.choice("tproxy", _Word, required=True)
    rule = NodeRule(
        name=fields.text("name", required=True, pattern=NAME),
        supported=word is _Word.SUPPORTED,
        selector=fields.selector("selector"),
        os_image=fields.glob("osImage"),
        kernel_version=fields.glob("kernelVersion"),
        operating_system=fields.glob("operatingSystem"),
    )
    fields.refuse_unknown()
    return rule


class _Word(StrEnum):
    SUPPORTED = "Supported"
    UNSUPPORTED = "Unsupported"


class _RuntimeWord(StrEnum):
    SUPPORTED = "Supported"
    UNSUPPORTED = "Unsupported"
    NODE = "Node"


class _Fields:
    """One mapping of the document: takes fields out of it, and notes every error with its path."""

    def __init__(self, value: Any, path: str, errors: list[FieldError]) -> None:
        self._path = path
        self._errors = errors
        self._known: set[str] = set()
        self._value: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self._value = value
        elif value is not None:
            self.error("", f"must be a mapping, not {_kind(value)}")

    def has(self, key: str) -> bool:
        return self._get(key) is not None

    def error(self, key: str, message: str) -> None:
        """Note that the field *key* (this mapping itself where it is empty) is wrong."""
        self._errors.append(FieldError(self._below(key), message))

    def refuse_unknown(self) -> None:
        """Note every field that nobody asked for."""
        for key in self._value:
            if key not in self._known:
                self.error(str(key), "unknown field")

    def ignore(self, key: str) -> None:
        self._get(key)

    def constant(self, key: str, wanted: str) -> None:
        if self._get(key) != wanted:
            self.error(key, f"must be {wanted!r}, not {_shown(self._get(key))}")

    def child(self, key: str, *, required: bool = False) -> "_Fields":
        """Return the mapping *key*; fields below it are refused only where it is told to."""
        value = self._get(key)
        if value is None and required:
            self.error(key, "required")
        return _Fields(value, self._below(key), self._errors)

    def sequence(self, key: str) -> list[Any]:
        value = self._get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.error(key, f"must be a list, not {_kind(value)}")
        return []

    def items(self, key: str, *, unique: str) -> list["_Fields"]:
        """Return the mappings of the list *key*, whose field *unique* tells them apart."""
        seen: set[Any] = set()
        found = []
        for number, each in enumerate(self.sequence(key)):
            if isinstance(each, Mapping) and isinstance(each.get(unique), str):
                if each[unique] in seen:
                    self.error(f"{key}[{number}].{unique}", f"{each[unique]!r} is a duplicate")
                seen.add(each[unique])
            if each is None:
                self.error(f"{key}[{number}]", "must be a mapping, not null")
            found.append(_Fields(each, self._below(f"{key}[{number}]"), self._errors))
        return found

    def text(self, key: str, *, required: bool = False, pattern: re.Pattern[str] | None = None) -> str:
        value = self._get(key)
        if value is None:
            if required:
                self.error(key, "required")
            return ""
        if not isinstance(value, str):
            self.error(key, f"must be a string, not {_kind(value)} (quote it)")
            return ""
        if required and not value.strip():
            self.error(key, "must not be empty")
        elif pattern is not None and pattern.fullmatch(value) is None:
            self.error(key, f"{value!r} is not a DNS label (lowercase letters, digits and '-', at most 63 characters)")
        return value

    def glob(self, key: str) -> str | None:
        """Return a pattern; an empty one would match no node that is known."""
        return self.text(key, required=True) if self.has(key) else None

    def integer(self, key: str, *, limit: int) -> int:
        value = self._get(key)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            self.error(key, f"must be an integer, not {_kind(value)}")
            return 0
        if abs(value) > limit:
            self.error(key, f"must be between -{limit} and {limit}")
            return 0
        return value

    def choice(self, key: str, choices: type[E], *, required: bool = False) -> E | None:
        value = self._get(key)
        if value is None:
            if required:
                self.error(key, f"required: one of {', '.join(choices)}")
            return None
        if isinstance(value, str) and value in {str(each) for each in choices}:
            return choices(value)
        self.error(key, f"{_shown(value)} is not one of {', '.join(choices)}")
        return None

    def time(self, key: str) -> datetime:
        """Return an RFC 3339 time; where it is none, the error is noted and the past returned."""
        text = self.text(key, required=True)
        try:
            if text:
                return read_time(text)
        except ValueError as error:
            self.error(key, str(error))
        return datetime.min.replace(tzinfo=UTC)

    def selector(self, key: str) -> LabelSelector:
        value = self._get(key)
        return EVERYTHING if value is None else self.compile(value, key)

    def compile(self, value: Any, key: str) -> LabelSelector:
        """Return the LabelSelector that *value* states; where it is none, the error is noted."""
        try:
            spec = msgspec.convert(value, type=_StrictSelector)
            return label_selector(
                LabelSelectorSpec(match_labels=spec.match_labels, match_expressions=spec.expressions()),
            )
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            self.error(key + where.rstrip("`"), message)
        except SelectorError as error:
            self.error(f"{key}.{error.field}", error.message)
        return EVERYTHING

    def _get(self, key: str) -> Any:
        self._known.add(key)
        return self._value.get(key)

    def _below(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path and key else self._path or key


class _StrictRequirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    operator: str
    values: list[str] | None = None


class _StrictSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_StrictRequirement] | None = None

    def expressions(self) -> list[Requirement]:
        return [
            Requirement(key=each.key, operator=each.operator, values=each.values)
            for each in self.match_expressions or ()
        ]


def _shown(value: Any) -> str:
    """Return *value* as an error shows it: what is long or deep is only named."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:79] + "…")
    return _kind(value) if isinstance(value, Mapping | list) else repr(value)


def _kind(value: Any) -> str:
    return {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a mapping",
    }.get(type(value), type(value).__name__)
