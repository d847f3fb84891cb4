"""
Faults that last until somebody does something about them: the alert that wakes them, and no other.

And what `client-ip doctor` says then: the path of docs/runbook.md, from the alert to the cause.
"""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from certs.authority import issue_ca
from tests.chaos.cluster import CONFIGURATION, LOADED, NAME, Lab
from tests.chaos.prometheus import BEHIND, DOWN, FAILS_OPEN, NOT_REGISTERED, NOT_TRUSTED, STARTING

FIRST: Final = "a-sidecar-injector"
FAILING: Final = 2_000
"""Calls that may fail: the fault lasts until its alert fires."""
SECONDS: Final = 180.0
FEW: Final = 6
"""Pods a second: each call that fails is a TLS handshake anew, and here they fail for as long as an alert waits."""
ABSENT: Final = {"replicas-ready", "end-to-end"}
"""Checks that fail in this lab at any time: nobody keeps the Deployment's status, and no injector is called."""
DRY_RUNS: Final = 10
"""Calls of `doctor` that may fail as well, and make no pod."""
ROLE: Final = ("rbac.authorization.k8s.io/v1", "ClusterRole", NAME)


def fires(lab: Lab, name: str) -> None:
    lab.until(lambda: lab.prometheus.firing(name), f"{name} to fire", seconds=90)


def forgotten(lab: Lab) -> None:
    """Wait until calls that failed in what was before raise no alert any more: then only those of now do."""
    lab.started()
    lab.until(lambda: FAILS_OPEN not in lab.prometheus.active(), "earlier failures to be forgotten", seconds=90)


def doctor(lab: Lab) -> set[str]:
    """Return the ids of the checks that fail, as whoever is on call sees them."""
    command = [sys.executable, "-m", "webhook.cli", "doctor", "-n", LOADED, "-o", "json"]
    done = subprocess.run(
        [*command, "--kubeconfig", str(lab.plane.kubeconfig)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    checks = [check for category in json.loads(done.stdout)["categories"] for check in category["checks"]]
    return {check["id"] for check in checks if check["result"] == "error"} - ABSENT


def test_no_replica_is_left(lab: Lab) -> None:
    forgotten(lab)
    with lab.fault("no replica left", raises={DOWN}, may_raise=STARTING, per_second=FEW) as fault:
        lab.node.kill_all()
        fires(lab, DOWN)
        found = doctor(lab)
        lab.node.wait_ready(lab.node.run(lab.replicas))
        lab.until(lab.all_serve_the_stored_leaf, "replicas to serve the stored leaf")
    fault.costs(failed=FAILING, within_seconds=SECONDS, others=DRY_RUNS)
    assert FAILS_OPEN in fault.alerts
    assert found == {"service-endpoints"}


def test_an_injector_is_called_first(lab: Lab) -> None:
    """Somebody installs one under a name that sorts before ours: no call fails, and pods come out in REDIRECT."""
    lab.started()
    first = lab.api.get("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "istio-sidecar-injector")
    first["metadata"] = {"name": FIRST, "labels": first["metadata"].get("labels", {})}
    with lab.fault("an injector that is called first", raises={BEHIND}, per_second=FEW) as fault:
        lab.api.create(first)
        try:
            fires(lab, BEHIND)
            found = doctor(lab)
        finally:
            lab.api.delete(*CONFIGURATION[:2], FIRST)
    fault.costs(failed=0, within_seconds=SECONDS, unpatched=FAILING)
    assert found == {"before-injectors"}


def test_the_webhook_configuration_stays_deleted(lab: Lab) -> None:
    """Nobody is called, and no call fails: what is not patched is in no counter of failures."""
    lab.started()
    raises, may = {NOT_REGISTERED}, {NOT_TRUSTED}
    with lab.fault("webhook configuration deleted", raises=raises, may_raise=may, per_second=FEW) as fault:
        lab.api.delete(*CONFIGURATION)
        try:
            fires(lab, NOT_REGISTERED)
            found = doctor(lab)
        finally:
            lab.api.create(lab.document("MutatingWebhookConfiguration"))
        lab.until(lab.trusted, "the caBundle to be ours again")
    fault.costs(failed=FAILING, within_seconds=SECONDS, unpatched=FAILING)
    assert found == {"configuration-present"}


def test_a_ca_bundle_of_somebody_else_that_stays(lab: Lab) -> None:
    """The permission to mend it is taken away as well, as by a role that is edited by hand."""
    forgotten(lab)
    other = issue_ca(organization="somebody else", now=datetime.now(UTC), life=timedelta(days=1))
    with lab.fault("caBundle of another CA, not replaceable", raises={NOT_TRUSTED}, per_second=FEW) as fault:
        began = datetime.now(UTC)
        role = lab.api.get(*ROLE)
        lab.api.patch(*ROLE, {"rules": [each for each in role["rules"] if not mends(each)]})
        try:
            bundle = base64.b64encode(other.certificate_pem).decode()
            webhooks = lab.api.get(*CONFIGURATION)["webhooks"]
            paths = [f"/webhooks/{index}/clientConfig/caBundle" for index in range(len(webhooks))]
            lab.api.patch(*CONFIGURATION, [{"op": "replace", "path": path, "value": bundle} for path in paths])
            fires(lab, NOT_TRUSTED)
            found = doctor(lab)
        finally:
            lab.api.patch(*ROLE, {"rules": role["rules"]})
        lab.until(lab.trusted, "the caBundle to be ours again", seconds=120)
        lab.starts.append((began, datetime.now(UTC)))  # what was refused meanwhile, was refused on purpose
    fault.costs(failed=FAILING, within_seconds=SECONDS, others=DRY_RUNS)
    assert FAILS_OPEN in fault.alerts
    assert found == {"ca-bundle-trusts-leaf"}


def mends(rule: dict[str, Any]) -> bool:
    """Whether a rule is what lets us write the caBundle."""
    return "mutatingwebhookconfigurations" in rule["resources"] and "patch" in rule["verbs"]
