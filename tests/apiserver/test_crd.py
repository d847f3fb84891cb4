"""The CRD on a real API server: what it refuses our own reader refuses too, at the same field."""

import copy
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.apiserver.deployed import eventually, render
from tests.parts.api import Api, ApiError
from tests.parts.kube import ControlPlane
from webhook.rules import wellknown
from webhook.rules.policy_document import PolicyInvalid, read_policy

CRD = ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "clientippolicies.client-ip.dev")
EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.yaml"


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """A client of a cluster that has the CRD."""
    (document,) = render("crd")
    client = control_plane.client()
    client.apply(document)
    # A CRD's schema is in force a moment after it is stored.
    eventually(lambda: _try(client, policy(mode="Sometimes")) is not None, seconds=60)
    yield client
    client.delete(*CRD)
    eventually(lambda: client.find(*CRD) is None)


def _try(client: Api, document: dict[str, Any]) -> str | None:
    """Return why the API server refuses *document*, as far as its schema and rules go; None where it does not."""
    try:
        client.create(document, dry_run=True)
    except ApiError as error:
        return None if error.status == 404 else str(error)
    return None


def policy(name: str = "default", **spec: Any) -> dict[str, Any]:
    api_version, kind = wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {"mode": "Enforce", **spec}}


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [{"name": "old", "tproxy": "Unsupported", **fields}]}


def exception(**fields: Any) -> dict[str, Any]:
    whole = {
        "name": "legacy",
        "owner": "team-a",
        "reason": "a kernel module is missing",
        "expires": "2027-01-31T00:00:00Z",
        "selector": {"matchLabels": {"app": "old"}},
        **fields,
    }
    return {key: value for key, value in whole.items() if value is not None}


def selector(**requirement: Any) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "app", **requirement}]}


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no mode": (policy(mode=None), "spec.mode", "spec.mode"),
    "an unknown mode": (policy(mode="Sometimes"), "spec.mode", "spec.mode"),
    "a priority that is no number": (policy(priority="high"), "spec.priority", "spec.priority"),
    "a priority beyond the bounds": (policy(priority=1_000_001), "spec.priority", "spec.priority"),
    "nodes outside the default policy": (policy("team", nodes=rule(osImage="A*")), "spec.nodes", "spec.nodes"),
    "podSecurity outside the default policy": (
        policy("team", podSecurity={"defaultLevel": "baseline"}),
        "spec.podSecurity",
        "spec.podSecurity",
    ),
    "backends outside the default policy": (
        policy("team", services={"backends": "ENI"}),
        "spec.services",
        "spec.services.backends",
    ),
    "an unknown fallback": (policy(pods={"fallback": "Maybe"}), "spec.pods.fallback", "spec.pods.fallback"),
    "In without values": (
        policy(namespaceSelector=selector(operator="In")),
        "spec.namespaceSelector.matchExpressions[0]",
        "spec.namespaceSelector.matchExpressions[0]",
    ),
    "Exists with values": (
        policy(pods={"selector": selector(operator="Exists", values=["a"])}),
        "spec.pods.selector.matchExpressions[0]",
        "spec.pods.selector.matchExpressions[0]",
    ),
    "an unknown operator": (
        policy(namespaceSelector=selector(operator="Gt", values=["1"])),
        "spec.namespaceSelector.matchExpressions[0].operator",
        "spec.namespaceSelector.matchExpressions[0].operator",
    ),
    "no selectors of Services": (
        policy(services={"selectors": []}),
        "spec.services.selectors",
        "spec.services.selectors",
    ),
    "unknown backends": (policy(services={"backends": "Pods"}), "spec.services.backends", "spec.services.backends"),
    "an unknown level": (
        policy(podSecurity={"defaultLevel": "strict"}),
        "spec.podSecurity.defaultLevel",
        "spec.podSecurity.defaultLevel",
    ),
    "a node rule that matches by nothing": (policy(nodes=rule()), "spec.nodes.rules[0]", "spec.nodes.rules[0]"),
    "a node rule without a name": (
        policy(nodes={"rules": [{"osImage": "A*", "tproxy": "Supported"}]}),
        "spec.nodes.rules[0].name",
        "spec.nodes.rules[0].name",
    ),
    "an unknown support": (
        policy(nodes=rule(osImage="A*", tproxy="Maybe")),
        "spec.nodes.rules[0].tproxy",
        "spec.nodes.rules[0].tproxy",
    ),
    "two node rules of one name": (
        policy(nodes={"rules": [*rule(osImage="A*")["rules"], *rule(osImage="B*")["rules"]]}),
        "spec.nodes.rules[1]",
        "spec.nodes.rules[1]",
    ),
    "an exception without an owner": (
        policy(exceptions=[exception(owner=None)]),
        "spec.exceptions[0].owner",
        "spec.exceptions[0].owner",
    ),
    "an exception without an end": (
        policy(exceptions=[exception(expires=None)]),
        "spec.exceptions[0].expires",
        "spec.exceptions[0].expires",
    ),
    "an end that is no time": (
        policy(exceptions=[exception(expires="next year")]),
        "spec.exceptions[0].expires",
        "spec.exceptions[0].expires",
    ),
    "an exception of nothing": (
        policy(exceptions=[exception(selector=None)]),
        "spec.exceptions[0]",
        "spec.exceptions[0]",
    ),
    "a name that is no label": (
        policy(exceptions=[exception(name="Not A Label")]),
        "spec.exceptions[0].name",
        "spec.exceptions[0].name",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_what_the_api_server_refuses_our_reader_refuses_at_the_same_field(
    api: Api,
    case: tuple[dict[str, Any], str, str],
) -> None:
    document, theirs, ours = case
    document = copy.deepcopy(document)
    document["spec"] = {key: value for key, value in document["spec"].items() if value is not None}
    with pytest.raises(ApiError) as refusal:
        api.create(document)
    assert refusal.value.status == 422
    assert theirs in str(refusal.value)
    with pytest.raises(PolicyInvalid) as read:
        read_policy(document)
    assert ours in str(read.value)


def test_a_policy_without_a_spec_is_refused(api: Api) -> None:
    document = {**policy(), "spec": None}
    del document["spec"]
    with pytest.raises(ApiError, match=r"spec: Required value"):
        api.create(document)


RIGHT = {
    "the smallest": policy(mode="Disabled"),
    "a selector of everything": policy("team", namespaceSelector={}, priority=-5),
    "all of the default policy": policy(
        podSecurity={"defaultLevel": "restricted"},
        services={"backends": "ENI", "selectors": [{"matchLabels": {"istio": "ingressgateway"}}]},
        nodes={**rule(kernelVersion="3.10.*"), "transientTaints": ["example.com/starting"]},
        exceptions=[exception(ticket="OPS-1"), exception(name="second", expires="2027-01-31T08:00:00.5+08:00")],
    ),
}


@pytest.mark.parametrize("document", RIGHT.values(), ids=RIGHT.keys())
def test_what_our_reader_takes_the_api_server_takes(api: Api, document: dict[str, Any]) -> None:
    read_policy(document)
    api.create(document, dry_run=True)


def test_the_example_is_taken_by_both(api: Api) -> None:
    found = list(yaml.safe_load_all(EXAMPLE.read_text()))
    assert found
    for document in found:
        read_policy(document)
        api.create(document, dry_run=True)


def test_fields_that_nobody_knows_are_named(api: Api) -> None:
    document = policy(fallback="XForwardedFor")  # belongs below spec.pods
    made = api.request(
        "POST",
        api.path(wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND),
        body=document,
        query={"dryRun": "All", "fieldValidation": "Warn"},
    )
    assert any('unknown field "spec.fallback"' in warning for warning in made.warnings)
    with pytest.raises(PolicyInvalid, match=r"spec\.fallback"):
        read_policy(document)


def test_kubectl_shows_mode_priority_fallback_and_acceptance(control_plane: ControlPlane, api: Api) -> None:
    name = f"shown-{secrets.token_hex(3)}"
    api.create(policy(name, priority=7, pods={"fallback": "XForwardedFor"}))
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Valid",
        "message": "in force",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    ending = {**condition, "type": "ExceptionsEnding", "reason": "Ending", "message": "legacy ends"}
    api.patch_status(wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND, name, {"conditions": [condition, ending]})
    head, row = control_plane.kubectl("get", "cip", name).splitlines()
    assert re.split(r" {2,}", head) == [
        *("NAME", "MODE", "PRIORITY", "FALLBACK", "ACCEPTED", "EXCEPTIONS ENDING", "AGE"),
    ]
    assert row.split()[:6] == [name, "Enforce", "7", "XForwardedFor", "True", "Ending"]
    explained = control_plane.kubectl("explain", "clientippolicy.spec.exceptions.owner")
    assert "Who is responsible for the exception." in explained
