"""Every metric that an alert or a panel names is there: in a real `/metrics` of ours, or of the real API server."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.deployed import Deployed, eventually
from tests.monitoring.shipped import expressions, metric_names
from tests.parts.api import Api, ApiError
from tests.parts.kube import ControlPlane
from webhook.facts.scanresult import KEY, ScanResult, config_map_patch

NAMESPACE: Final = "monitored"
LABEL: Final = {"client-ip.dev/preserve": "enabled"}
REFUSED: Final = "refused"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("monitoring")
    with ControlPlane("1.37", folder / "kube", scheduler=False) as plane:
        result = folder / "result.json"
        result.write_text(config_map_patch(ScanResult(time=datetime.now(UTC)))["data"][KEY])
        running = Deployed(plane, folder / "webhook", options=("--scan-result", str(result)))
        yield running
        running.close()


def pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "a", "image": "registry.example.com/a:1"}]},
    }


def unreachable(policy: str) -> dict[str, Any]:
    """A configuration of our names whose webhook nobody answers."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"unreachable-{policy.lower()}"},
        "webhooks": [
            {
                "name": f"{policy.lower()}.client-ip.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": policy,
                "timeoutSeconds": 1,
                "clientConfig": {"url": "https://127.0.0.1:1/mutate"},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                "objectSelector": {"matchLabels": {"call": policy.lower()}},
            }
        ],
    }


def violated() -> list[dict[str, Any]]:
    """A policy of the final state's kind, which every ConfigMap violates."""
    group = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "violated.client-ip.dev"},
            "spec": {
                "failurePolicy": "Ignore",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["configmaps"],
                        }
                    ]
                },
                "validations": [{"expression": "false", "message": "as the test wants it"}],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "violated.client-ip.dev"},
            "spec": {"policyName": "violated.client-ip.dev", "validationActions": ["Audit"]},
        },
    ]


def called(api: Api, name: str, label: str) -> None:
    document = pod(name)
    document["metadata"]["labels"] = {"call": label}
    api.create(document)


def names(text: str) -> set[str]:
    """Return the names of samples, and of metrics that have none because nothing is wrong."""
    samples = (line for line in text.splitlines() if line and not line.startswith("#"))
    gauges = re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE)
    return {*gauges, *(line.split("{", 1)[0].split(" ", 1)[0] for line in samples)}


def test_every_metric_that_is_named_exists(deployed: Deployed) -> None:
    api = deployed.api
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": LABEL}})
    for document in (unreachable("Ignore"), unreachable("Fail"), *violated()):
        api.create(document)
    api.create(policy_with_an_exception())
    eventually(lambda: "client_ip_exceptions{" in deployed.server.probe("/metrics").body.decode())
    api.create(pod("decided"))
    number = iter(range(1000))

    def provoked() -> bool:
        called(api, f"fails-open-{next(number)}", "ignore")
        with pytest.raises(ApiError):
            called(api, REFUSED, "fail")
        api.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"violates-{next(number)}", "namespace": NAMESPACE},
            }
        )
        return "apiserver_validating_admission_policy_check_total" in api.text("/metrics")

    eventually(provoked)
    deployed.server.ask(b"{", path="/mutate")
    there = names(deployed.server.probe("/metrics").body.decode()) | names(api.text("/metrics"))
    wanted = {name: where for where, expression in expressions() for name in metric_names(expression)}
    # Only where certificates are kept in a Secret, which the certificate tests have.
    rotated = {name for name in wanted if name.startswith("client_ip_certificate_t")}
    assert not {name: where for name, where in wanted.items() if name not in there | rotated}


def policy_with_an_exception() -> dict[str, Any]:
    return {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "monitored"},
        "spec": {
            "mode": "Enforce",
            "exceptions": [
                {
                    "name": "ledger",
                    "selector": {"matchLabels": {"app": "ledger"}},
                    "owner": "team-ledger@example.com",
                    "reason": "reads the PROXY header instead",
                    "expires": "2099-01-01T00:00:00Z",
                }
            ],
        },
    }


def test_names_are_found_in_expressions() -> None:
    expression = 'sum by (name_of) (rate(a_total{x_y="b_c"}[5m])) / on (in_stance) b_seconds unless c_d offset 5m'
    assert metric_names(expression) == {"a_total", "b_seconds", "c_d"}


def test_there_are_metrics_to_look_for(tmp_path: Path) -> None:
    assert tmp_path.exists()
    assert len({name for _, expression in expressions() for name in metric_names(expression)}) > 15
