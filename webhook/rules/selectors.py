"""
LabelSelectors, node selector requirements and tolerations, matched as Kubernetes matches them.

Knows no nodes and no pods: only labels, taints and the strings that select them. The rules are those of
https://github.com/kubernetes/apimachinery/blob/v0.37.2/pkg/labels/selector.go and
https://github.com/kubernetes/component-helpers/blob/v0.37.2/scheduling/corev1/nodeaffinity/nodeaffinity.go
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from webhook.rules.limits import CACHED_CHARACTERS

INT64: Final = 1 << 63
_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_CANONICAL_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9]++(?:[-_.]++[A-Za-z0-9]++)*+", re.ASCII)
_CHARACTERS: Final = re.compile(r"[-.a-z0-9]++", re.ASCII)


class SelectorError(ValueError):
    """A selector that Kubernetes would refuse; *field* is the path below the selector."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class Requirement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One expression of a selector, as the API spells it."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelectorSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A metav1.LabelSelector as the API spells it."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """
    A LabelSelector ready to match; the empty one matches everything.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
    """

    equal: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, frozenset[str]], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* satisfy every part; NotIn and DoesNotExist also match absent keys."""
        for key, value in self.equal:
            if labels.get(key) != value:
                return False
        for key, operator, values in self.expressions:
            present = key in labels
            if operator == "In":
                if not present or labels[key] not in values:
                    return False
            elif operator == "NotIn":
                if present and labels[key] in values:
                    return False
            elif present is not (operator == "Exists"):
                return False
        return True

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.equal]
        for key, operator, values in self.expressions:
            listed = ", ".join(sorted(values))
            parts.append(
                {"Exists": key, "DoesNotExist": f"!{key}"}.get(operator, f"{key} {operator} [{listed}]"),
            )
        return ", ".join(parts) or "everything"


EVERYTHING: Final = LabelSelector()


def label_selector(spec: LabelSelectorSpec | None) -> LabelSelector:
    """
    Compile *spec*; None is `{}`, which is how the API server defaults a webhook's selectors.

    Raises:
        SelectorError: An operator, its values, a key or a value that the API server refuses.

    """
    if spec is None:
        return EVERYTHING
    expressions = []
    for key, value in (spec.match_labels or {}).items():
        _check_key(key, f"matchLabels[{key}]")
        _check_value(value, f"matchLabels[{key}]")
    for number, expression in enumerate(spec.match_expressions or ()):
        where = f"matchExpressions[{number}]"
        _check_key(expression.key, f"{where}.key")
        values = frozenset(expression.values or ())
        if expression.operator in {"In", "NotIn"}:
            if not values:
                raise SelectorError(f"{where}.values", f"must name at least one value for {expression.operator}")
            for value in sorted(values):
                _check_value(value, f"{where}.values")
        elif expression.operator in {"Exists", "DoesNotExist"}:
            if values:
                raise SelectorError(f"{where}.values", f"must be empty for {expression.operator}")
        else:
            raise SelectorError(
                f"{where}.operator",
                f"{expression.operator!r} is not one of In, NotIn, Exists, DoesNotExist",
            )
        expressions.append((expression.key, expression.operator, values))
    return LabelSelector(tuple(sorted((spec.match_labels or {}).items())), tuple(expressions))


def _check_key(key: str, field: str) -> None:
    if not valid_label_key(key):
        raise SelectorError(field, f"{key!r} is not a valid label key")


def _check_value(value: str, field: str) -> None:
    if not valid_label_value(value):
        raise SelectorError(field, f"{value!r} is not a valid label value")


def valid_label_key(key: str) -> bool:
    """Return whether *key* is a qualified name: an optional DNS subdomain, a slash, a name of at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (0 < len(prefix) <= 253 and _is_subdomain(prefix)):
        return False
    return len(name) <= 63 and _NAME.fullmatch(name) is not None


def _is_subdomain(text: str) -> bool:
    r"""
    Return whether *text* is `[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*`, in one pass.

    A pod may have thousands of keys of 253 characters, and a pattern takes a step or two for each character.
    """
    if _CHARACTERS.fullmatch(text) is None or text[0] in "-." or text[-1] in "-.":
        return False
    return ".." not in text and ".-" not in text and "-." not in text


def valid_label_value(value: str) -> bool:
    """Return whether *value* is a label value: empty, or a name of at most 63 characters."""
    return value == "" or (len(value) <= 63 and _NAME.fullmatch(value) is not None)


def parse_int64(text: str) -> int | None:
    """
    Read *text* as Go's strconv.ParseInt(text, 10, 64) does; None where Go returns an error.

    Python's own `int` also takes spaces, underscores and other scripts' digits.
    """
    if len(text) > 400 or _INTEGER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if -INT64 <= number < INT64 else None


def requirement_is_valid(requirement: Requirement) -> bool:
    """
    Return whether *requirement* survives labels.NewRequirement; one that doesn't voids its own term alone.

    https://github.com/kubernetes/apimachinery/blob/v0.37.2/pkg/labels/selector.go (NewRequirement)
    """
    parts = (requirement.key, requirement.operator, *(requirement.values or ()))
    if len(parts) <= _CACHED_PARTS and len("".join(parts)) <= CACHED_CHARACTERS:
        return _is_valid_cached(*parts)
    return _is_valid(*parts)


_CACHED_PARTS: Final = 8


def _is_valid(key: str, operator: str, *values: str) -> bool:
    match operator:
        case "In" | "NotIn":
            fits = bool(values)
        case "Exists" | "DoesNotExist":
            fits = not values
        case "Gt" | "Lt":
            fits = len(values) == 1 and parse_int64(values[0]) is not None
        case _:
            fits = False
    return fits and valid_label_key(key) and all(map(valid_label_value, values))


_is_valid_cached: Final = lru_cache(maxsize=1024)(_is_valid)


class Taint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A taint of a node, as the API spells it."""

    key: str = ""
    value: str = ""
    effect: str = ""


class Toleration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A toleration of a pod, as the API spells it."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


def tolerates(toleration: Toleration, *, key: str, value: str, effect: str) -> bool:
    """
    Return whether *toleration* tolerates the taint, as ToleratesTaint does.

    An empty effect or key matches all effects or keys; Gt and Lt compare canonical integers only.
    https://github.com/kubernetes/component-helpers/blob/v0.37.2/scheduling/corev1/helpers.go
    """
    if toleration.effect and toleration.effect != effect:
        return False
    if toleration.key and toleration.key != key:
        return False
    match toleration.operator:
        case "" | "Equal":
            return toleration.value == value
        case "Exists":
            return True
        case "Gt" | "Lt":
            bound, number = parse_canonical(toleration.value), parse_canonical(value)
            if bound is None or number is None:
                return False
            return number > bound if toleration.operator == "Gt" else number < bound
        case _:
            return False


def parse_canonical(text: str) -> int | None:
    """Read *text* as tolerations' Gt and Lt do: no plus sign, no leading zeros, no minus zero."""
    return parse_int64(text) if len(text) <= 20 and _CANONICAL_INTEGER.fullmatch(text) else None
