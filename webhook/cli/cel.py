"""
LabelSelectors as CEL, which ValidatingAdmissionPolicies judge by: `variables.labels` of the object, `variables.around`
of its namespace.

Keys and values are those that the API server takes in selectors, so that no quoting of theirs is needed.
The chart's template `webhook.celSelector` writes the same text.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from webhook.rules.policy import Policy
from webhook.rules.selectors import EVERYTHING, LabelSelector

GATEWAYS_LIMIT: Final = 50_000
"""Characters of the expression for gateways: hundreds of selectors. The API server evaluates it for each Service."""


def gateways(policies: Iterable[Policy]) -> str:
    """Return the expression that is true of a Service which one of *policies* takes for an ingress gateway."""
    # A policy's own order changes nothing here, and a text that stays the same is not applied anew.
    return " || ".join(dict.fromkeys(_gateways(each) for each in policies if each.service_selectors)) or "false"


def _gateways(policy: Policy) -> str:
    any_of = " || ".join(selected(each, "labels") for each in policy.service_selectors)
    if policy.namespace_selector == EVERYTHING:
        return any_of
    return f"{selected(policy.namespace_selector, 'around')} && ({any_of})"


def selected(selector: LabelSelector, labels: str) -> str:
    """Return the expression that is true where *selector* matches `variables.LABELS`."""
    return " && ".join(_terms(selector, f"variables.{labels}")) or "true"


def _terms(selector: LabelSelector, labels: str) -> Iterator[str]:
    for key, value in sorted(selector.equal):
        yield _one_of(labels, key, [value])
    for key, operator, values in selector.expressions:
        there = _one_of(labels, key, sorted(values)) if values else f"{_text(key)} in {labels}"
        yield f"!({there})" if operator in {"NotIn", "DoesNotExist"} else f"({there})"


def _one_of(labels: str, key: str, values: list[str]) -> str:
    return f"({_text(key)} in {labels} && {labels}[{_text(key)}] in {_text(values)})"


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
