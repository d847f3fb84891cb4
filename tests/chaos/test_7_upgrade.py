"""From the previous release to this one, and back, while pods are created."""

from pathlib import Path

import webhook
from tests.chaos.cluster import Lab
from tests.chaos.prometheus import STARTING
from tests.chaos.releases import Release, previous, switch


def runs(lab: Lab, release: Release) -> bool:
    """Whether every replica is of *release*."""
    line = f'client_ip_build_info{{version="{release.version}"}}'
    return bool(lab.node.pods) and all(lab.metric(pod, line) == 1 for pod in lab.node.pods)


def test_an_upgrade_from_the_previous_release_costs_nothing_and_neither_does_the_way_back(
    lab: Lab, tmp_path: Path
) -> None:
    """The chart's objects are applied, then every pod is replaced."""
    this = Release(webhook.__version__, lab.documents, {})
    before = previous(tmp_path / "previous")
    assert before.version != this.version
    switch(lab, this, before)
    try:
        lab.node.kill_all()
        lab.started()
        assert runs(lab, before)
        with lab.fault(f"upgrade from {before.version}", may_raise=STARTING) as fault:
            switch(lab, before, this)
            lab.node.roll()
        fault.costs_nothing()
        assert runs(lab, this)
        with lab.fault(f"back to {before.version}", may_raise=STARTING) as fault:
            switch(lab, this, before)
            lab.node.roll()
        fault.costs_nothing()
        assert runs(lab, before)
    finally:
        switch(lab, before, this)
        lab.node.kill_all()
        lab.started()
    assert runs(lab, this)
