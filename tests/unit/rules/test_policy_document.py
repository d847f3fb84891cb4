"""A policy's document is read whole: what it states, or every error in it with the path of its field."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from webhook.rules.nodes import NodeRule, NodeRules
from webhook.rules.placement import RuntimeClassRule
from webhook.rules.policy import (
    BUILT_IN,
    DEFAULT_TRANSIENT_TAINTS,
    Backends,
    Fallback,
    Level,
    Policy,
    PolicyException,
    PolicyMode,
)
from webhook.rules.policy_document import FieldError, PolicyInvalid, read_policy
from webhook.rules.selectors import EVERYTHING, LabelSelector
from webhook.rules.yamls import documents

ROOT = Path(__file__).parents[3]
EXPIRES = "2027-03-31T00:00:00Z"


def policy(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": name},
        "spec": {"mode": "Enforce", **spec},
    }


def waiver(**fields: Any) -> dict[str, Any]:
    full = {"name": "a", "owner": "o", "reason": "r", "expires": EXPIRES, "selector": {}, **fields}
    return {key: value for key, value in full.items() if value is not None}


def errors_of(document: dict[str, Any]) -> list[str]:
    """Return the errors, as `FIELD: MESSAGE`."""
    with pytest.raises(PolicyInvalid) as caught:
        read_policy(document)
    assert str(caught.value) == "; ".join(map(str, caught.value.errors))
    assert caught.value.stands_for.invalid == str(caught.value)
    return list(map(str, caught.value.errors))


def test_the_least_that_is_a_policy() -> None:
    assert read_policy(policy("a")) == Policy(name="a", mode=PolicyMode.ENFORCE)


def test_the_documented_default_is_the_built_in_one() -> None:
    """What `docs/policy.md` shows whole is what is in force."""
    text = (ROOT / "docs" / "policy.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    (document,) = documents(text)
    assert read_policy(document.value) == BUILT_IN


def test_every_field_counts() -> None:
    read = read_policy(
        policy(
            mode="Audit",
            priority=7,
            namespaceSelector={"matchLabels": {"a": "b"}},
            pods={"selector": {"matchExpressions": [{"key": "c", "operator": "Exists"}]}, "fallback": "XForwardedFor"},
            services={"selectors": [{"matchLabels": {"d": "e"}}, {}], "backends": "ENI"},
            podSecurity={"defaultLevel": "baseline"},
            nodes={
                "rules": [
                    {"name": "one", "osImage": "Cent*", "kernelVersion": "3.*", "tproxy": "Unsupported"},
                    {
                        "name": "two",
                        "operatingSystem": "linux",
                        "selector": {"matchLabels": {"f": "g"}},
                        "tproxy": "Supported",
                    },
                ],
                "transientTaints": ["example.com/warming-up"],
                "runtimeClasses": [
                    {"name": "vm", "runtimeClass": "*-vm", "tproxy": "Supported"},
                    {"name": "box", "runtimeClass": "box*", "tproxy": "Unsupported"},
                    {"name": "plain", "runtimeClass": "plain", "tproxy": "Node"},
                ],
            },
            exceptions=[
                waiver(
                    ticket="SEC-1", namespaceSelector={"matchLabels": {"h": "i"}}, expires="2027-03-31t01:02:03.5+02:00"
                ),
            ],
        ),
    )
    labelled = {name: LabelSelector(equal=((name, value),)) for name, value in ("ab", "de", "fg", "hi")}
    assert read == Policy(
        name="default",
        mode=PolicyMode.AUDIT,
        priority=7,
        namespace_selector=labelled["a"],
        pod_selector=LabelSelector(expressions=(("c", "Exists", frozenset()),)),
        fallback=Fallback.X_FORWARDED_FOR,
        service_selectors=(labelled["d"], EVERYTHING),
        backends=Backends.ENI,
        default_level=Level.BASELINE,
        node_rules=read.node_rules,
        runtime_classes=(
            RuntimeClassRule(name="vm", runtime_class="*-vm", supported=True),
            RuntimeClassRule(name="box", runtime_class="box*", supported=False),
            RuntimeClassRule(name="plain", runtime_class="plain", supported=None),
        ),
        exceptions=(
            PolicyException(
                name="a",
                owner="o",
                reason="r",
                ticket="SEC-1",
                namespace_selector=labelled["h"],
                expires=datetime(2027, 3, 30, 23, 2, 3, 500_000, tzinfo=UTC),
            ),
        ),
    )
    assert read.node_rules.rules == (
        NodeRule(name="one", supported=False, os_image="Cent*", kernel_version="3.*"),
        NodeRule(name="two", supported=True, operating_system="linux", selector=labelled["f"]),
    )
    fixed = BUILT_IN.node_rules.transient_taints - DEFAULT_TRANSIENT_TAINTS
    assert read.node_rules.transient_taints == fixed | {"example.com/warming-up"}, (
        "the policy's own replace the built-in"
    )


def test_rules_and_transient_taints_are_each_the_built_in_ones_where_absent() -> None:
    only_taints = read_policy(policy(nodes={"transientTaints": []})).node_rules
    assert only_taints.rules == BUILT_IN.node_rules.rules
    assert "karpenter.sh/unregistered" not in only_taints.transient_taints
    only_rules = read_policy(policy(nodes={"rules": []})).node_rules
    assert only_rules.rules == ()
    assert only_rules.transient_taints == BUILT_IN.node_rules.transient_taints
    assert read_policy(policy(nodes=None)).node_rules == BUILT_IN.node_rules


def test_null_fields_count_as_absent() -> None:
    document = policy(priority=None, namespaceSelector=None, pods=None, services=None, exceptions=None, nodes=None)
    assert read_policy({**document, "status": {"conditions": []}}) == Policy(name="default")
    nulls = policy(pods={"selector": None, "fallback": None}, services={"selectors": None, "backends": None})
    assert read_policy(nulls) == Policy(name="default")
    rule = {"name": "a", "osImage": "b", "kernelVersion": None, "selector": None, "tproxy": "Supported"}
    assert read_policy(policy(nodes={"rules": [rule], "transientTaints": None})).node_rules == NodeRules(
        rules=(NodeRule(name="a", supported=True, os_image="b"),),
        transient_taints=BUILT_IN.node_rules.transient_taints,
    )
    assert read_policy(policy(nodes={"rules": None})) == Policy(name="default")


@pytest.mark.parametrize("mode", ["Enforce", "Audit", "Disabled"])
def test_modes(mode: str) -> None:
    assert read_policy(policy(mode=mode)).mode == PolicyMode(mode)


SELECTORS = [
    pytest.param([], "", "Expected `object | null`, got `array`", id="a list"),
    pytest.param("a", "", "Expected `object | null`, got `str`", id="text"),
    pytest.param({"matchLabels": []}, ".matchLabels", "Expected `object | null`, got `array`", id="labels as a list"),
    pytest.param({"matchLabels": {"a": 1}}, ".matchLabels[...]", "Expected `str`, got `int`", id="a number"),
    pytest.param({"matchLabels": {"a": True}}, ".matchLabels[...]", "Expected `str`, got `bool`", id="a boolean"),
    pytest.param({"labels": {}}, "", "Object contains unknown field `labels`", id="an unknown field"),
    pytest.param({"matchLabels": {"a b": "c"}}, ".matchLabels[a b]", "'a b' is not a valid label key", id="no key"),
    pytest.param({"matchLabels": {"a": "b c"}}, ".matchLabels[a]", "'b c' is not a valid label value", id="no value"),
    pytest.param(
        {"matchExpressions": [{"key": "a"}]},
        ".matchExpressions[0]",
        "Object missing required field `operator`",
        id="no operator",
    ),
    pytest.param(
        {"matchExpressions": [{"key": "a", "operator": "Exists", "value": "b"}]},
        ".matchExpressions[0]",
        "Object contains unknown field `value`",
        id="value for values",
    ),
    pytest.param(
        {"matchExpressions": [{"key": "a", "operator": "In", "values": "b"}]},
        ".matchExpressions[0].values",
        "Expected `array | null`, got `str`",
        id="one value",
    ),
    pytest.param(
        {"matchExpressions": [{"key": "a", "operator": "In"}]},
        ".matchExpressions[0].values",
        "must name at least one value for In",
        id="In of nothing",
    ),
    pytest.param(
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        ".matchExpressions[0].values",
        "must be empty for Exists",
        id="Exists of something",
    ),
    pytest.param(
        {"matchExpressions": [{"key": "a", "operator": "exists"}]},
        ".matchExpressions[0].operator",
        "'exists' is not one of In, NotIn, Exists, DoesNotExist",
        id="an operator in lower case",
    ),
]


@pytest.mark.parametrize(("selector", "below", "message"), SELECTORS)
@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.namespaceSelector", lambda selector: {"namespaceSelector": selector}),
        ("spec.pods.selector", lambda selector: {"pods": {"selector": selector}}),
        ("spec.services.selectors[1]", lambda selector: {"services": {"selectors": [{}, selector]}}),
        ("spec.exceptions[0].selector", lambda selector: {"exceptions": [waiver(selector=selector)]}),
        (
            "spec.exceptions[0].namespaceSelector",
            lambda selector: {"exceptions": [waiver(namespaceSelector=selector)]},
        ),
        (
            "spec.nodes.rules[0].selector",
            lambda selector: {"nodes": {"rules": [{"name": "a", "tproxy": "Supported", "selector": selector}]}},
        ),
    ],
)
def test_a_bad_selector_wherever_it_stands(field: str, spec: Any, selector: Any, below: str, message: str) -> None:
    (error,) = errors_of(policy(**spec(selector)))
    assert error.startswith(f"{field}{below}: ")
    assert message.partition(" | ")[0] in error


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"apiVersion": "client-ip.dev/v1"}, "apiVersion: must be 'client-ip.dev/v1alpha1', not 'client-ip.dev/v1'"),
        ({"apiVersion": None}, "apiVersion: must be 'client-ip.dev/v1alpha1', not None"),
        ({"kind": ["a"]}, "kind: must be 'ClientIPPolicy', not a list"),
        ({"metadata": None}, "metadata.name: required"),
        ({"metadata": []}, "metadata: must be a mapping, not a list"),
        ({"metadata": {"name": 7}}, "metadata.name: must be a string, not a number (quote it)"),
        ({"metadata": {"name": ""}}, "metadata.name: must not be empty"),
        ({"spec": None}, "spec: required"),
        ({"spec": "a"}, "spec: must be a mapping, not a string"),
        ({"specs": {}}, "specs: unknown field"),
    ],
)
def test_errors_around_the_spec(change: dict[str, Any], error: str) -> None:
    assert error in errors_of({**policy("a"), **change})


def test_metadata_may_hold_anything_else() -> None:
    document = {**policy("a"), "metadata": {"name": "a", "labels": {"b": "c"}, "uid": "x", "managedFields": []}}
    assert read_policy(document).name == "a"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"mode": None}, "spec.mode: required: one of Enforce, Audit, Disabled"),
        ({"mode": "enforce"}, "spec.mode: 'enforce' is not one of Enforce, Audit, Disabled"),
        ({"mode": False}, "spec.mode: False is not one of Enforce, Audit, Disabled"),
        ({"mode": ["Enforce"]}, "spec.mode: a list is not one of Enforce, Audit, Disabled"),
        ({"mode": {"a": "b"}}, "spec.mode: a mapping is not one of Enforce, Audit, Disabled"),
        ({"mode": "x" * 81}, f"spec.mode: '{'x' * 79}…' is not one of Enforce, Audit, Disabled"),
        ({"mode": "x" * 80}, f"spec.mode: '{'x' * 80}' is not one of Enforce, Audit, Disabled"),
        ({"priority": "7"}, "spec.priority: must be an integer, not a string"),
        ({"priority": True}, "spec.priority: must be an integer, not a boolean"),
        ({"priority": 1.0}, "spec.priority: must be an integer, not a number"),
        ({"priority": 1_000_001}, "spec.priority: must be between -1000000 and 1000000"),
        ({"priority": -1_000_001}, "spec.priority: must be between -1000000 and 1000000"),
        ({"pods": []}, "spec.pods: must be a mapping, not a list"),
        ({"pods": {"fallback": "XFF"}}, "spec.pods.fallback: 'XFF' is not one of None, XForwardedFor"),
        ({"pods": {"selectors": []}}, "spec.pods.selectors: unknown field"),
        ({"services": {"selector": {}}}, "spec.services.selector: unknown field"),
        ({"services": {"selectors": {}}}, "spec.services.selectors: must be a list, not a mapping"),
        ({"services": {"selectors": []}}, "spec.services.selectors: must name at least one selector"),
        ({"services": {"backends": "eni"}}, "spec.services.backends: 'eni' is not one of Auto, Node, ENI"),
        (
            {"podSecurity": {"defaultLevel": "none"}},
            "spec.podSecurity.defaultLevel: 'none' is not one of privileged, baseline, restricted",
        ),
        ({"podSecurity": {"level": "baseline"}}, "spec.podSecurity.level: unknown field"),
        ({"nodes": {"rule": []}}, "spec.nodes.rule: unknown field"),
        ({"nodes": {"rules": {}}}, "spec.nodes.rules: must be a list, not a mapping"),
        ({"nodes": {"transientTaints": "a"}}, "spec.nodes.transientTaints: must be a list, not a string"),
        ({"nodes": {"transientTaints": ["a", 7]}}, "spec.nodes.transientTaints[1]: 7 is not a valid taint key"),
        ({"nodes": {"transientTaints": ["a/b/c"]}}, "spec.nodes.transientTaints[0]: 'a/b/c' is not a valid taint key"),
        ({"nodes": {"transientTaints": [None]}}, "spec.nodes.transientTaints[0]: None is not a valid taint key"),
        ({"exceptions": {}}, "spec.exceptions: must be a list, not a mapping"),
        ({"exceptions": ["a"]}, "spec.exceptions[0]: must be a mapping, not a string"),
        ({"exceptions": [None]}, "spec.exceptions[0]: must be a mapping, not null"),
        ({"1": 2}, "spec.1: unknown field"),
    ],
)
def test_errors_in_the_spec(spec: dict[str, Any], error: str) -> None:
    assert error in errors_of(policy(**spec))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": None}, "name: required"),
        ({"name": "A"}, "name: 'A' is not a DNS label (lowercase letters, digits and '-', at most 63 characters)"),
        (
            {"name": "a" * 64},
            f"name: '{'a' * 64}' is not a DNS label (lowercase letters, digits and '-', at most 63 characters)",
        ),
        ({"owner": None}, "owner: required"),
        ({"owner": " "}, "owner: must not be empty"),
        ({"reason": None}, "reason: required"),
        ({"reason": 7}, "reason: must be a string, not a number (quote it)"),
        ({"ticket": 1423}, "ticket: must be a string, not a number (quote it)"),
        ({"expires": None}, "expires: required"),
        ({"expires": ""}, "expires: must not be empty"),
        ({"expires": True}, "expires: must be a string, not a boolean (quote it)"),
        ({"expire": EXPIRES}, "expire: unknown field"),
        (
            {"selector": None},
            "must have a namespaceSelector, a selector or both (an explicit {} matches everything)",
        ),
        *(
            ({"expires": text}, f"expires: {text!r} is not an RFC 3339 time such as 2027-03-31T00:00:00Z")
            for text in (
                "2027-03-31",
                "2027-03-31 00:00:00Z",
                "2027-03-31T00:00:00",
                "2027-02-30T00:00:00Z",
                "2027-03-31T24:00:00Z",
                "2027-W13-3T00:00:00Z",
                "20270331T000000Z",
                "\u0662027-03-31T00:00:00Z",
                "never",
            )
        ),
    ],
)
def test_errors_in_an_exception(fields: dict[str, Any], error: str) -> None:
    where = "spec.exceptions[0]: " if error.startswith("must have") else "spec.exceptions[0]."
    assert errors_of(policy("a", exceptions=[waiver(**fields)])) == [f"{where}{error}"]


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        (
            {"name": "a", "tproxy": "Supported"},
            [": must have at least one of selector, osImage, kernelVersion, operatingSystem"],
        ),
        ({"name": "a", "osImage": "b"}, [".tproxy: required: one of Supported, Unsupported"]),
        ({"name": "a", "osImage": "b", "tproxy": True}, [".tproxy: True is not one of Supported, Unsupported"]),
        ({"osImage": "b", "tproxy": "Supported"}, [".name: required"]),
        (
            {"name": "a_b", "osImage": "b", "tproxy": "Supported"},
            [".name: 'a_b' is not a DNS label (lowercase letters, digits and '-', at most 63 characters)"],
        ),
        ({"name": "a", "osImage": "", "tproxy": "Supported"}, [".osImage: must not be empty"]),
        (
            {"name": "a", "kernelVersion": 7, "tproxy": "Supported"},
            [".kernelVersion: must be a string, not a number (quote it)"],
        ),
        ({"name": "a", "osImage": "b", "tproxy": "Supported", "os": "c"}, [".os: unknown field"]),
    ],
)
def test_errors_in_a_node_rule(fields: dict[str, Any], errors: list[str]) -> None:
    assert errors_of(policy(nodes={"rules": [fields]})) == [f"spec.nodes.rules[0]{error}" for error in errors]


def test_names_in_a_list_are_there_once() -> None:
    rule = {"name": "b", "osImage": "c", "tproxy": "Supported"}
    assert errors_of(policy(exceptions=[waiver(), waiver()], nodes={"rules": [rule, rule]})) == [
        "spec.exceptions[1].name: 'a' is a duplicate",
        "spec.nodes.rules[1].name: 'b' is a duplicate",
    ]


def test_what_speaks_for_the_cluster_stands_in_default_alone() -> None:
    spec = {"services": {"backends": "ENI"}, "podSecurity": {"defaultLevel": "baseline"}, "nodes": {"rules": []}}
    assert errors_of(policy("other", **spec)) == [
        "spec.services.backends: may only be set in the policy 'default'",
        "spec.podSecurity: may only be set in the policy 'default'",
        "spec.nodes: may only be set in the policy 'default'",
    ]
    assert read_policy(policy("default", **spec)).backends is Backends.ENI
    assert read_policy(policy("other", services={"selectors": [{}]})).service_selectors == (EVERYTHING,)


def test_all_errors_come_at_once() -> None:
    document = yaml.safe_load("""
apiVersion: client-ip.dev/v1
kind: ClientIPPolicies
metadata: {}
spec:
  mode: on
  priority: high
  namespaceSelector: {matchLabels: {a: 1}}
  pods: {fallback: none}
  exceptions:
  - {name: A, selector: {}}
  unknown: 1
""")
    assert [error.partition(":")[0] for error in errors_of(document)] == [
        "apiVersion",
        "kind",
        "metadata.name",
        "spec.mode",
        "spec.priority",
        "spec.namespaceSelector.matchLabels[...]",
        "spec.pods.fallback",
        "spec.exceptions[0].name",
        "spec.exceptions[0].owner",
        "spec.exceptions[0].reason",
        "spec.exceptions[0].expires",
        "spec.unknown",
    ]


def stands_for(document: dict[str, Any]) -> Policy:
    with pytest.raises(PolicyInvalid) as caught:
        read_policy(document)
    return caught.value.stands_for


def test_a_stored_policy_that_is_unusable_counts_for_what_its_namespace_selector_matches() -> None:
    selector = {"matchLabels": {"a": "b"}}
    assert stands_for(policy("x", mode="On", priority=7, namespaceSelector=selector)) == Policy(
        name="x",
        priority=7,
        namespace_selector=LabelSelector(equal=(("a", "b"),)),
        invalid="spec.mode: 'On' is not one of Enforce, Audit, Disabled",
    )


def test_it_counts_for_everything_where_that_selector_is_the_bad_part() -> None:
    broken = stands_for(policy("x", namespaceSelector={"matchLabels": {"a": 1}}, priority=7))
    assert (broken.namespace_selector, broken.priority) == (EVERYTHING, 7)
    assert broken.invalid == "spec.namespaceSelector.matchLabels[...]: Expected `str`, got `int`"
    no_spec = stands_for({**policy("x"), "spec": None})
    assert (no_spec.namespace_selector, no_spec.priority) == (EVERYTHING, 0)


def test_an_error_reads_as_field_and_message() -> None:
    assert str(FieldError("spec.mode", "required")) == "spec.mode: required"
