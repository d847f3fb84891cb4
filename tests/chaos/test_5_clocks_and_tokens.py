"""Clocks that jump and credentials that end."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from tests.chaos import tokens
from tests.chaos.cluster import NAME, NAMESPACE, Lab
from tests.chaos.preflight import faketime
from tests.chaos.prometheus import NOT_TRUSTED

AHEAD: Final = timedelta(days=400)
SHORT: Final = timedelta(seconds=20)


def test_a_clock_that_jumps_ahead_and_back_changes_nothing(lab: Lab) -> None:
    """The replicas' hosts are 400 days ahead for a while; the API server's time counts, and a leaf is made by it."""
    lab.node.kill_all()
    clock = lab.folder / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    usual = dict(lab.node.environment)
    lab.node.environment.update(fake)
    try:
        before = lab.started_state()
        with lab.fault("clock 400 days ahead, then back", may_raise={NOT_TRUSTED}) as fault:
            clock.write_text(f"+{AHEAD.days}d")
            rotate = [sys.executable, "-m", "webhook.cli", "certs", "rotate", "--leaf"]
            subprocess.run([*rotate, "--kubeconfig", lab.plane.kubeconfig], check=True, capture_output=True)
            lab.until(lambda: lab.state.leaf != before.leaf and lab.all_serve_the_stored_leaf(), "the leaf asked for")
            clock.write_text("+0")
            back = datetime.now(UTC)
            lab.until(lambda: passed_since(lab, back), "passes after the jump back")
        served = [line for pod in lab.node.pods for line in lab.said(pod) if "serving the leaf" in line]
        years = {json.loads(line)["time"][:4] for line in served}
        assert str((datetime.now(UTC) + AHEAD).year) in years, f"the clock did not jump: {served}"
        leaf = lab.state.leaf
        assert leaf is not None
        assert leaf.not_after < datetime.now(UTC) + timedelta(days=91)
        assert lab.state.bundle == before.bundle
    finally:
        lab.node.kill_all()
        lab.node.environment.clear()
        lab.node.environment.update(usual)
    fault.costs_nothing(within_seconds=60)


def test_tokens_that_are_renewed_are_never_missed(lab: Lab) -> None:
    """Tokens of twenty seconds, replaced after each pass: a replica that kept an old one would be refused for good."""
    lab.node.kill_all()
    lab.mount_token(token(lab, SHORT))
    with lab.fault("tokens of 20 s, renewed every 10 s", may_raise={NOT_TRUSTED}) as fault:
        for _ in range(4):
            lab.mount_token(token(lab, SHORT))
            renewed = datetime.now(UTC)
            lab.until(partial(passed_since, lab, renewed), "passes with the new token", seconds=15)
        lab.mount_token(token(lab, timedelta(hours=2)))
    fault.costs_nothing()


def test_a_token_that_is_not_renewed_stops_renewals_but_no_reviews(lab: Lab) -> None:
    """Reviews go on by what is known; the first new token heals the rest."""
    lab.node.kill_all()
    lab.mount_token(token(lab, SHORT))
    with lab.fault("token expired, renewed later", may_raise={NOT_TRUSTED}) as fault:
        lab.until(lambda: all(refused(lab, pod.name) for pod in lab.node.pods), "refusals of the token")
        time.sleep(5)
        lab.mount_token(token(lab, timedelta(hours=2)))
        fault.begins()
        renewed = datetime.now(UTC)
        lab.until(lambda: passed_since(lab, renewed), "passes with the new token")
    fault.costs_nothing(within_seconds=30)


def token(lab: Lab, life: timedelta) -> str:
    return tokens.mint(lab.plane, NAMESPACE, NAME, life=life)


def passed_since(lab: Lab, moment: datetime) -> bool:
    """Whether every replica has looked at the certificates since, and found nothing wrong."""
    return all(lab.passed_at(pod) > moment for pod in lab.node.pods)


def refused(lab: Lab, name: str) -> bool:
    (pod,) = [each for each in lab.node.pods if each.name == name]
    return any("could not be reconciled" in line and "401" in line for line in lab.said(pod))
