"""Which PodSecurity level a namespace enforces, and why."""

import pytest

from webhook.rules.podsecurity import enforced_because, enforced_level
from webhook.rules.policy import Level

ENFORCE = "pod-security.kubernetes.io/enforce"
LABEL = f"namespace label {ENFORCE}"
NONE = f"no label {ENFORCE}; the policy's defaultLevel is"


@pytest.mark.parametrize(
    ("labels", "default", "level", "because"),
    [
        pytest.param(
            {},
            Level.PRIVILEGED,
            "privileged",
            f"{NONE} privileged",
            id="none",
        ),
        pytest.param({}, Level.BASELINE, "baseline", f"{NONE} baseline", id="default"),
        *(
            pytest.param(
                {ENFORCE: level}, default, level, f"namespace label {ENFORCE}={level}", id=f"{level}, {default}"
            )
            for level in ("privileged", "baseline", "restricted")
            for default in Level
        ),
        *(
            pytest.param(
                {ENFORCE: level},
                Level.PRIVILEGED,
                "restricted",
                f"namespace label {ENFORCE}={level!r} is invalid, so it counts as restricted",
                id=f"invalid {level!r}",
            )
            for level in ("Privileged", "", "none")
        ),
        *(
            pytest.param(
                {ENFORCE: "baseline", f"{ENFORCE}-version": version},
                Level.PRIVILEGED,
                "baseline",
                f"namespace label {ENFORCE}=baseline",
                id=f"version {version} changes nothing",
            )
            for version in ("latest", "v1.0", "v1.24", "x")
        ),
        pytest.param(
            {"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/audit": "restricted"},
            Level.PRIVILEGED,
            "privileged",
            f"{NONE} privileged",
            id="warn and audit refuse nothing",
        ),
    ],
)
def test_the_enforced_level(labels: dict[str, str], default: Level, level: str, because: str) -> None:
    assert enforced_level(labels, default) == Level(level)
    assert enforced_because(labels, default) == because
