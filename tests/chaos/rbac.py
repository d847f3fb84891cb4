"""What the rendered roles grant, permission by permission, beside what the audit log saw used."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Permission:
    """One verb on one resource: in one namespace or all (""), of one name or all ("")."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str

    def __str__(self) -> str:
        resource = ".".join(filter(None, (self.resource, self.group)))
        return f"{self.verb} {resource}{f' {self.name}' if self.name else ''} in {self.namespace or 'all namespaces'}"

    def covers(self, event: Mapping[str, Any]) -> bool:
        """Return whether an audit event is what this permits."""
        on = event.get("objectRef", {})
        resource = "/".join(filter(None, (on.get("resource"), on.get("subresource"))))
        return (
            (on.get("apiGroup", ""), resource, event["verb"]) == (self.group, self.resource, self.verb)
            and self.namespace in ("", on.get("namespace", ""))
            and self.name in ("", on.get("name", ""))
        )


def permissions(documents: Iterable[Mapping[str, Any]]) -> Iterator[Permission]:
    """Yield every permission of the roles among *documents*."""
    for document in documents:
        if document["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in document["rules"]:
            parts = product(rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""]))
            for group, resource, verb, name in parts:
                yield Permission(
                    namespace=document["metadata"].get("namespace", ""),
                    group=group,
                    resource=resource,
                    verb=verb,
                    name=name,
                )


def denied(event: Mapping[str, Any], *, starts: Iterable[tuple[datetime, datetime]]) -> bool:
    """
    Return whether the API server refused the right to a request.

    Not while it *starts*: until the authorizer has read what etcd holds, it refuses everybody.
    """
    forbidden = event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    refused = forbidden or event.get("responseStatus", {}).get("code") == 403
    received = datetime.fromisoformat(event["requestReceivedTimestamp"])
    return refused and not any(begin <= received <= end for begin, end in starts)
