"""Replicas that start together where nothing is yet."""

import time
from typing import Final

from certs.bundle import parse_bundle
from tests.chaos.cluster import NAMESPACE, SECRET, Lab
from tests.chaos.prometheus import STARTING

REPLICAS: Final = 5
ROUNDS: Final = 10
BOUND_SECONDS: Final = 30.0


def test_five_replicas_that_start_at_once_agree_on_one_ca(lab: Lab) -> None:
    """Ten times: no Secret and no caBundle before, one CA in both after, and every replica ready."""
    took, conflicts = [], 0
    for _ in range(ROUNDS):
        lab.reset()
        assert lab.api.list("v1", "Secret", namespace=NAMESPACE) == []
        assert set(lab.bundles) == {b""}
        began = time.monotonic()
        pods = lab.node.run(REPLICAS)
        lab.until(lab.all_ready, "all replicas to be ready")
        took.append(time.monotonic() - began)
        (secret,) = lab.api.list("v1", "Secret", namespace=NAMESPACE)
        assert secret["metadata"]["name"] == SECRET
        assert len(lab.state.authorities) == 1
        assert len(parse_bundle(lab.state.bundle).certificates) == 1
        assert lab.all_serve_the_stored_leaf()
        conflicts += sum(int(lab.metric(pod, 'client_ip_certificate_actions_total{action="conflict"}')) for pod in pods)
    assert conflicts > 0, "replicas never met: this was no race"
    with lab.fault(f"bootstrap race, {REPLICAS} replicas, {ROUNDS} times", may_raise=STARTING) as fault:
        fault.took(max(took))
    lab.node.kill_all()
    fault.costs_nothing()
    assert max(took) < BOUND_SECONDS
