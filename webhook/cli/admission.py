"""
The ValidatingAdmissionPolicies that are shipped, as YAML beside this module: what the API server refuses or reports by
itself, whether the webhook is there or not.

The chart holds the same files and replaces the same placeholders. Expressions use what Kubernetes 1.30 knows of CEL; a
test compiles them as an API server of that version does.
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import yaml

from webhook.cli.cel import gateways
from webhook.rules.policy import Policy

FILES: Final = ("least-power", "guard", "final-state", "late-annotation")
"""Without their suffix; `make manifests` copies them into the chart."""


def source(name: str) -> str:
    """Return the text of one of `FILES`, its placeholders as they are."""
    return resources.files("webhook.cli").joinpath(f"policies/{name}.yaml").read_text()


def least_power(*, namespace: str, account: str, secret: str) -> list[dict[str, Any]]:
    """Return what keeps our ServiceAccount to `caBundle` and one Secret, where RBAC can't."""
    return _filled("least-power", {"NAMESPACE": namespace, "ACCOUNT": account, "SECRET": secret})


ACTIONS: Final[Mapping[str, Sequence[str]]] = {"Audit": ("Audit",), "Warn": ("Warn", "Audit"), "Deny": ("Deny",)}
"""What a binding does in each mode; in any of them the API server counts and audits what it finds."""


def guard(
    *, mode: str, excluded: Sequence[str], controllers: Sequence[str] = (), redirect: bool = False
) -> list[dict[str, Any]]:
    """
    Return what guards the ways to opt out, and the ClusterRole of who may take them freely.

    Args:
        mode: `Audit` or `Deny`.
        excluded: Namespaces where nobody is asked: the system's and the webhook's own.
        controllers: Users and groups beside the system's controllers whose writes were judged at their templates.
        redirect: Whether a template's own interception mode counts as an opt-out too.

    """
    values = {
        "ACTIONS": _json(ACTIONS[mode]),
        "EXCLUDED": _json(excluded),
        "CONTROLLERS": _json(controllers),
        "REDIRECT": _json(redirect),
    }
    return _filled("guard", values)


def final_state(
    *, mode: str, excluded: Sequence[str], policies: Sequence[Policy], deny_late_annotation: bool = False
) -> list[dict[str, Any]]:
    """
    Return what finds pods and gateways that should be preserved and came out otherwise.

    Args:
        mode: `Audit` or `Warn`: neither refuses anything.
        excluded: Namespaces where nothing is ours.
        policies: Those whose services.selectors say what an ingress gateway is.
        deny_late_annotation: Refuse pods whose TPROXY annotation came after injection.

    """
    values = {"ACTIONS": _json(ACTIONS[mode]), "EXCLUDED": _json(excluded), "GATEWAYS": gateways(policies)}
    late = _filled("late-annotation", values) if deny_late_annotation else []
    return [*_filled("final-state", values), *late]


def _json(value: object) -> str:
    """Return *value* as YAML, CEL and helm's toJson write it."""
    return json.dumps(value, separators=(",", ":"))


def _filled(name: str, values: Mapping[str, str]) -> list[dict[str, Any]]:
    text = source(name)
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    return list(yaml.safe_load_all(text))
