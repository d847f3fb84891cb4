"""
The API server's own word on the CEL of ValidatingAdmissionPolicies, in the environment of an older version.

A Go program (`tests/parts/go/kube137/cmd/expressions`) compiles them with Kubernetes' own compilers.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.parts.build import binaries

OLDEST: Final = "1.30"
"""ValidatingAdmissionPolicy is v1 since then."""
_VARIABLE: Final = re.compile(r"variables\.(\w+)")


def mistakes(policies: Sequence[Mapping[str, Any]], version: str = OLDEST) -> list[str]:
    """Return what an API server of *version*, or kube-controller-manager's type checker, has against *policies*."""
    program = binaries("expressions-1.37")["expressions"]
    done = subprocess.run([program, version], input=json.dumps(policies), capture_output=True, text=True, check=True)
    found = [f"{each['policy']} {each['field']}: {each['message']}" for each in json.loads(done.stdout)["errors"]]
    return [*found, *(trap for policy in policies for trap in _traps(policy))]


def _traps(policy: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield what compiles and fails when it runs.

    The namespace is not known to match conditions (pkg/admission/plugin/policy/generic/policy_dispatcher.go hands them
    none), nor the authorizer to messages and audit annotations (validating/plugin.go, expressionOptionalVars), whatever
    way they come to it.
    """
    spec, name = policy["spec"], policy["metadata"]["name"]
    for condition in spec.get("matchConditions", ()):
        if "namespaceObject" in condition["expression"]:
            yield f"{name} matchConditions {condition['name']}: there is no namespaceObject"
    variables = {each["name"]: each["expression"] for each in spec.get("variables", ())}
    texts = [each["valueExpression"] for each in spec.get("auditAnnotations", ())]
    texts += [each.get("messageExpression", "") for each in spec["validations"]]
    for text in texts:
        if "authorizer." in _unfolded(text, variables):
            yield f"{name}: there is no authorizer in {text!r}"


def _unfolded(text: str, variables: Mapping[str, str]) -> str:
    """Return *text* with all that it reads by variables."""
    return " ".join([text, *(_unfolded(variables[name], variables) for name in set(_VARIABLE.findall(text)))])
