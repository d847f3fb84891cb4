"""Certificates that change under load, when they are due and when somebody asks: no call may notice."""

import subprocess
import sys

from certs.lifecycle import State
from tests.chaos.cluster import NAME, NAMESPACE, Lab
from tests.chaos.prometheus import NOT_TRUSTED
from tests.chaos.seeds import settings, soon, with_ca_due, with_leaf_due

WANTED = settings(NAME, NAMESPACE)
START_SECONDS = 15.0
"""Until replicas have started and the load runs."""


def rotate(lab: Lab, *options: str) -> None:
    command = [sys.executable, "-m", "webhook.cli", "certs", "rotate", *options]
    subprocess.run([*command, "--kubeconfig", str(lab.plane.kubeconfig)], check=True, capture_output=True)


def rotated(lab: Lab, before: State) -> bool:
    """Whether a new CA signed what all replicas serve."""
    state = lab.state
    is_new = state.authorities[0].certificate != before.authorities[0].certificate
    return is_new and state.issuer == state.authorities[0] and lab.all_serve_the_stored_leaf()


def test_a_leaf_that_is_due_is_renewed_unnoticed(lab: Lab) -> None:
    due = soon(START_SECONDS)
    state = with_leaf_due(WANTED, due)
    lab.reset(state)
    with lab.fault("leaf renewal") as fault:
        assert state.leaf is not None
        assert lab.served(lab.node.pods[0]) == state.leaf.fingerprint, "renewed before the load began"
        fault.begins_at(due)
        lab.until(lambda: lab.state.leaf != state.leaf and lab.all_serve_the_stored_leaf(), "a new leaf everywhere")
    fault.costs_nothing(within_seconds=30)
    assert lab.state.authorities[0].certificate == state.authorities[0].certificate


def test_a_ca_that_is_due_is_rotated_unnoticed(lab: Lab) -> None:
    due = soon(START_SECONDS)
    state = with_ca_due(WANTED, due)
    lab.reset(state)
    with lab.fault("CA rotation") as fault:
        assert lab.authorities() == 1, "rotated before the load began"
        fault.begins_at(due)
        lab.until(lambda: lab.authorities() == 2, "the new CA in every caBundle beside the old one")
        lab.until(lambda: rotated(lab, state), "a leaf of the new CA everywhere", seconds=120)
    fault.costs_nothing(within_seconds=90)
    assert lab.authorities() == 2, "the old CA is trusted until its last leaf expires"


def test_certs_rotate_costs_nothing(lab: Lab) -> None:
    lab.started()
    before = lab.state
    with lab.fault("certs rotate", may_raise={NOT_TRUSTED}) as fault:
        rotate(lab)
        lab.until(lambda: rotated(lab, before), "a leaf of the new CA everywhere", seconds=120)
    fault.costs_nothing(within_seconds=90)


def test_certs_rotate_drop_old_costs_nothing(lab: Lab) -> None:
    lab.started()
    before = lab.state
    with lab.fault("certs rotate --drop-old", may_raise={NOT_TRUSTED}) as fault:
        rotate(lab, "--drop-old")
        lab.until(lambda: rotated(lab, before), "a leaf of the new CA everywhere", seconds=120)
        lab.until(lambda: lab.authorities() == 1 and lab.trusted(), "old CAs to be distrusted", seconds=120)
    fault.costs_nothing(within_seconds=180)
    old = {authority.certificate for authority in before.authorities}
    assert old.isdisjoint({authority.certificate for authority in lab.state.authorities})
