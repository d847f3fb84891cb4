"""The control plane goes away, and somebody deletes or damages what the webhook needs."""

import base64
import time
from datetime import UTC, datetime
from typing import Final

from certs.lifecycle import State
from tests.chaos.cluster import CONFIGURATION, NAMESPACE, SECRET, Lab
from tests.chaos.prometheus import FAILS_OPEN, NOT_TRUSTED

AWAY_SECONDS: Final = 3.0


def test_the_api_server_restarts(lab: Lab) -> None:
    """Creations fail while it is away, ours is not what fails them; then it calls us as before."""
    with lab.fault("API server restart", may_raise={FAILS_OPEN, NOT_TRUSTED}) as fault:
        fault.forget_counters(lab.counters())
        began = datetime.now(UTC)
        lab.plane.restart_api_server()
        lab.until(lab.patches, "the API server to call us again")
        lab.starts.append((began, datetime.now(UTC)))
    fault.costs(failed=100, within_seconds=30, not_created=True)


def test_etcd_restarts(lab: Lab) -> None:
    """Creations fail or wait while it is away; decisions need no etcd."""
    with lab.fault("etcd restart", may_raise={NOT_TRUSTED}) as fault:
        lab.plane.stop_etcd()
        time.sleep(AWAY_SECONDS)
        lab.plane.start_etcd()
        lab.until(lab.patches, "the API server to call us again")
    fault.costs(failed=0, within_seconds=30, not_created=True)


def test_a_deleted_secret_comes_back(lab: Lab) -> None:
    """Replicas put back what they serve."""
    lab.started()
    before = lab.state
    with lab.fault("Secret deleted", may_raise={NOT_TRUSTED}) as fault:
        lab.api.delete("v1", "Secret", SECRET, namespace=NAMESPACE)
        lab.until(lambda: same(lab, before), "the same certificates again")
    fault.costs_nothing(within_seconds=20)


def test_a_corrupted_secret_is_repaired(lab: Lab) -> None:
    """A certificate and a key that nobody can read are replaced by what replicas remember."""
    lab.started()
    before = lab.state
    with lab.fault("Secret corrupted", may_raise={NOT_TRUSTED}) as fault:
        garbage = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nnot one").decode()
        data = {"tls.crt": garbage, "tls.key": garbage, "ca.key": garbage}
        lab.api.patch("v1", "Secret", SECRET, {"data": data}, namespace=NAMESPACE)
        lab.until(lambda: same(lab, before), "the same certificates again")
    fault.costs_nothing(within_seconds=20)


def test_an_emptied_ca_bundle_is_filled(lab: Lab) -> None:
    """Until then the API server trusts nobody, and admits pods unpatched."""
    with lab.fault("caBundle emptied", may_raise={NOT_TRUSTED}) as fault:
        webhooks = lab.api.get(*CONFIGURATION)["webhooks"]
        paths = [f"/webhooks/{index}/clientConfig/caBundle" for index in range(len(webhooks))]
        lab.api.patch(*CONFIGURATION, [{"op": "remove", "path": path} for path in paths])
        lab.until(lab.trusted, "the caBundle to be ours again")
    fault.costs(failed=HEAL_CALLS, within_seconds=HEAL_SECONDS)


def test_a_webhook_configuration_that_is_deleted_and_made_again_is_trusted_again(lab: Lab) -> None:
    """Pods are not patched while it does not exist, and not before its caBundle is filled."""
    with lab.fault("webhook configuration deleted, created again after 3 s", may_raise={NOT_TRUSTED}) as fault:
        lab.api.delete(*CONFIGURATION)
        time.sleep(AWAY_SECONDS)
        lab.api.create(lab.document("MutatingWebhookConfiguration"))
        lab.until(lab.trusted, "the caBundle to be ours again")
    fault.costs(failed=HEAL_CALLS, within_seconds=AWAY_SECONDS + HEAL_SECONDS, unpatched=HEAL_CALLS + 300)


HEAL_SECONDS: Final = 15.0
HEAL_CALLS: Final = 900


def same(lab: Lab, before: State) -> bool:
    now = lab.state
    return (now.leaf, now.bundle) == (before.leaf, before.bundle) and lab.all_serve_the_stored_leaf()
