"""Replicas that come, go, crash and hang while pods are created."""

import signal
import time

from tests.chaos.cluster import Lab
from tests.chaos.prometheus import STARTING

SETTLE_SECONDS = 5.0


def test_a_rolling_restart_costs_nothing(lab: Lab) -> None:
    """Every pod is replaced, as the Deployment's strategy says."""
    with lab.fault("rolling restart of all replicas", may_raise=STARTING) as fault:
        before = {pod.name for pod in lab.node.pods}
        ended = len(lab.node.ended)
        lab.node.roll()
        assert before.isdisjoint({pod.name for pod in lab.node.pods})
    fault.costs_nothing()
    assert [pod.exit_codes for pod in lab.node.ended[ended:]] == [[0]] * len(before)


def test_a_replica_that_crashes_costs_little(lab: Lab) -> None:
    """Until its endpoint is gone half of the new connections are refused; the container starts again by itself."""
    with lab.fault("SIGKILL of one replica", may_raise=STARTING) as fault:
        pod = lab.node.pods[0]
        pod.process.signal(signal.SIGKILL)
        lab.until(lambda: pod.restarts == 1, "the kubelet to start it again")
        lab.node.wait_ready([pod])
    fault.costs(failed=150, within_seconds=15)


def test_a_replica_that_hangs_costs_little(lab: Lab) -> None:
    """Until its probe fails and its endpoint is gone; what waits for it is admitted after the timeout."""
    with lab.fault("SIGSTOP of one replica") as fault:
        pod = lab.node.pods[0]
        pod.process.signal(signal.SIGSTOP)
        lab.until(lambda: pod.address not in lab.node.told_ready, "its endpoint to be gone")
        fault.over()
        time.sleep(SETTLE_SECONDS)
        pod.process.signal(signal.SIGCONT)
        lab.node.wait_ready([pod])
    fault.costs(failed=300, within_seconds=15)
