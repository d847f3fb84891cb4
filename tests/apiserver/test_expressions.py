"""The CEL of what we ship, compiled as Kubernetes 1.30 does, with Kubernetes' own compilers."""

from typing import Any, Final

import pytest

from tests.apiserver.deployed import render
from tests.parts.expressions import mistakes

RENDERED: Final = {
    "rbac": ("rbac", "--tls-secret", "client-ip-webhook-tls"),
    "guard": ("guard", "--mode", "Deny"),
    "final state": ("final-state", "--mode", "Warn", "--deny-late-annotation"),
    "final state, policies' gateways": ("final-state", "--policy", "tests/deploy/policies.yaml"),
    "guard, all options": ("guard", "--redirect", "--controller", "system:serviceaccounts:argo-rollouts"),
}


def policies(*arguments: str) -> list[dict[str, Any]]:
    return [each for each in render(*arguments) if each["kind"] == "ValidatingAdmissionPolicy"]


@pytest.mark.parametrize("arguments", RENDERED.values(), ids=RENDERED.keys())
def test_expressions_compile_on_kubernetes_1_30(arguments: tuple[str, ...]) -> None:
    found = policies(*arguments)
    assert found
    assert mistakes(found) == []


def policy(**spec: Any) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "wrong"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}], **spec},
    }


WRONG: Final = {
    "a function of 1.33": (policy(validations=[{"expression": "isSemver('1.0.0')"}]), "isSemver"),
    "two variables of 1.32": (policy(validations=[{"expression": "{'a': 1}.all(k, v, v == 1)"}]), "reference to 'all'"),
    "a syntax error": (policy(validations=[{"expression": "object.spec."}]), "Syntax error"),
    "no bool": (policy(validations=[{"expression": "'yes'"}]), "must evaluate to bool"),
    "a field that pods have not": (policy(validations=[{"expression": "object.spec.colour == 'red'"}]), "colour"),
    "a variable that is none": (policy(validations=[{"expression": "variables.nobody == 1"}]), "nobody"),
    "the namespace in a match condition": (
        policy(matchConditions=[{"name": "n", "expression": "namespaceObject.metadata.name == 'a'"}]),
        "no namespaceObject",
    ),
    "the authorizer in an audit annotation": (
        policy(
            variables=[{"name": "may", "expression": "authorizer.path('/a').check('get').allowed()"}],
            auditAnnotations=[{"key": "may", "valueExpression": "variables.may ? 'yes' : 'no'"}],
        ),
        "no authorizer",
    ),
    "null in an audit annotation": (
        policy(auditAnnotations=[{"key": "k", "valueExpression": "true ? 'text' : null"}]),
        "auditAnnotations[0]",
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_what_does_not_compile_there_is_found(case: tuple[dict[str, Any], str]) -> None:
    document, said = case
    found = mistakes([document])
    assert found
    assert said in "\n".join(found)
