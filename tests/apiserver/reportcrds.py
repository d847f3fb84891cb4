"""
The CRDs of the two report APIs, by their published schemas.

OpenReports: github.com/openreports/reports-api v0.2.1, config/crd/openreports.io_reports.yaml. PolicyReport v1alpha2:
kyverno/kyverno 111e07b, config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml. The same fields and rules, less the
descriptions; what an API server prunes or refuses by the one, it does by the other.
"""

from collections.abc import Mapping
from typing import Any, Final

from webhook.running.as_report import OPEN_REPORTS, ReportAPI

_TEXT: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_STATUS: Final = {"type": "string", "enum": ["pass", "fail", "warn", "error", "skip"]}


def _object(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), **more}


def _list(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), **more}


_ATOMIC: Final = {"x-kubernetes-map-type": "atomic"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_REFERENCE: Final = _object(
    dict.fromkeys(("apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"), _TEXT), **_ATOMIC
)
_ATOMIC_LIST: Final = {"x-kubernetes-list-type": "atomic"}
_REQUIREMENT: Final = _object(
    {"key": _TEXT, "operator": _TEXT, "values": _list(_TEXT, **_ATOMIC_LIST)}, required=["key", "operator"]
)
_SELECTOR: Final = _object({"matchExpressions": _list(_REQUIREMENT, **_ATOMIC_LIST), "matchLabels": _TEXTS}, **_ATOMIC)
_TIMESTAMP: Final = _object(
    {"nanos": {"type": "integer", "format": "int32"}, "seconds": {"type": "integer", "format": "int64"}},
    required=["nanos", "seconds"],
)
_RESULT: Final = _object(
    {
        "category": _TEXT,
        "message": _TEXT,
        "policy": _TEXT,
        "properties": _TEXTS,
        "resourceSelector": _SELECTOR,
        "resources": _list(_REFERENCE),
        "result": _STATUS,
        "rule": _TEXT,
        "scored": {"type": "boolean"},
        "severity": {"type": "string", "enum": ["critical", "high", "low", "medium", "info"]},
        "source": _TEXT,
        "timestamp": _TIMESTAMP,
    },
    required=["policy"],
)
_LIMITS: Final = _object({"maxResults": _INTEGER, "statusFilter": _list(_STATUS)})


def schema(api: ReportAPI) -> dict[str, Any]:
    """Return the schema of an API's namespaced kind."""
    properties: dict[str, Any] = {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "results": _list(_RESULT),
        "scope": _REFERENCE,
        "scopeSelector": _SELECTOR,
        "summary": _object(dict.fromkeys(("error", "fail", "pass", "skip", "warn"), _INTEGER)),
    }
    if api is OPEN_REPORTS:
        properties["source"] = _TEXT
        properties["configuration"] = _object({"limits": _LIMITS}, required=["limits"])
    return _object(properties)


def crd(api: ReportAPI) -> dict[str, Any]:
    """Return the CustomResourceDefinition of an API's namespaced kind."""
    version = {
        "name": api.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema(api)},
    }
    names = {
        "kind": api.kind,
        "listKind": f"{api.kind}List",
        "plural": api.plural,
        "singular": api.kind.lower(),
    }
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1111"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{api.plural}.{api.group}", "annotations": approved if "k8s.io" in api.group else {}},
        "spec": {"group": api.group, "names": names, "scope": "Namespaced", "versions": [version]},
    }
