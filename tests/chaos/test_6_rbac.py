"""What our ServiceAccount was allowed and what it asked for, over all that happened before: so this runs last."""

from typing import Final

import pytest

from tests.chaos.cluster import USER, Lab
from tests.chaos.rbac import Permission, denied, permissions

POLICY: Final = {
    "apiVersion": "client-ip.dev/v1alpha1",
    "kind": "ClientIPPolicy",
    "metadata": {"name": "chaos"},
    "spec": {"mode": "Audit", "namespaceSelector": {"matchLabels": {"nobody": "here"}}},
}
EXPECTED_UNUSED: Final[dict[Permission, str]] = {
    Permission(
        namespace="", group="gateway.networking.k8s.io", resource="gatewayclasses", verb="watch", name=""
    ): "this cluster has no Gateway API: what can't be listed is not watched",
}
"""Permissions that no test can use, each with its reason."""


@pytest.fixture(scope="module")
def events(lab: Lab) -> list[dict[str, object]]:
    lab.started()
    lab.api.create(POLICY)

    def accepted() -> bool:
        found = lab.api.get("client-ip.dev/v1alpha1", "ClientIPPolicy", "chaos")
        return any(each["type"] == "Accepted" for each in found.get("status", {}).get("conditions", ()))

    lab.until(accepted, "the policy's status")
    return lab.plane.audit_events(user__username=USER)


def test_no_request_of_ours_was_denied(lab: Lab, events: list[dict[str, object]]) -> None:
    assert len(events) > 1000
    refused = {(event["verb"], event["requestURI"]) for event in events if denied(event, starts=lab.starts)}
    assert refused == set()


def test_no_permission_was_granted_in_vain(lab: Lab, events: list[dict[str, object]]) -> None:
    granted = list(permissions(lab.documents))
    assert len(granted) > 20
    unused = {each for each in granted if not any(each.covers(event) for event in events)}
    assert {str(each) for each in unused} == {str(each) for each in EXPECTED_UNUSED}
