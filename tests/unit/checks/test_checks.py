"""What no test can break on a real API server: clocks, old versions, other clouds; and how findings are told."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from webhook.checks import cluster, groups, platform, reach
from webhook.checks.check import Check, Finding, Group, Level, as_json, error, ok, run, skipped, warning, worst
from webhook.checks.evidence import READS, Document, Evidence
from webhook.checks.probe import Probe
from webhook.rules.policy import Level as PodSecurityLevel, Policies, Policy
from webhook.rules.snapshot import Snapshot

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EVIDENCE = Evidence(at=NOW, server_version="v1.37.2", server_date=NOW)


def found(group: Group, evidence: Evidence) -> dict[str, Finding]:
    (checked,) = run([group], evidence)
    return {each.check.id: each.finding for each in checked.checked}


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("v1.30.0", Level.OK),
        ("v1.37.2", Level.OK),
        ("v1.29.15-eks-1234", Level.ERROR),
        ("v2.0.0", Level.OK),
        ("v1.31+", Level.OK),
        ("", Level.ERROR),
        ("unknown", Level.ERROR),
    ],
)
def test_the_oldest_kubernetes_is_1_30(version: str, level: Level) -> None:
    assert found(cluster.GROUP, replace(EVIDENCE, server_version=version))["api-version"].level is level


def test_an_old_version_ends_its_group() -> None:
    told = found(cluster.GROUP, replace(EVIDENCE, server_version="v1.20.0"))
    assert told["clock"] == skipped("not checked, because api-version failed")


@pytest.mark.parametrize(("apart", "level"), [(0, Level.OK), (59, Level.OK), (61, Level.WARNING), (-61, Level.WARNING)])
def test_clocks_may_be_a_minute_apart(apart: int, level: Level) -> None:
    evidence = replace(EVIDENCE, server_date=NOW + timedelta(seconds=apart))
    assert found(cluster.GROUP, evidence)["clock"].level is level


def test_an_api_server_without_a_date_is_not_judged() -> None:
    assert found(cluster.GROUP, replace(EVIDENCE, server_date=None))["clock"].level is Level.SKIPPED


def node(provider: str, **labels: str) -> Document:
    return {"metadata": {"name": "n", "labels": {key.replace("__", "/"): value for key, value in labels.items()}}} | {
        "spec": {"providerID": provider}
    }


def hints(nodes: Sequence[Document], daemon_sets: Sequence[str] = (), port: int = 8443) -> str:
    deployment = {
        "metadata": {"name": "client-ip-webhook"},
        "spec": {"template": {"spec": {"containers": [{"ports": [{"name": "webhook", "containerPort": port}]}]}}},
    }
    objects: dict[str, list[Document]] = {
        "nodes": list(nodes),
        "daemon-sets": [{"metadata": {"name": name}} for name in daemon_sets],
        "own-deployment": [deployment],
    }
    return "\n".join(reach.platform_hints(replace(EVIDENCE, objects=objects)))


@pytest.mark.parametrize(
    ("provider", "daemon_sets", "port", "says", "not_says"),
    [
        ("gce://p/z/n", (), 8443, "webhook.port: 10250", "EKS"),
        ("gce://p/z/n", (), 10250, "NO_PROXY", "GKE"),
        ("aws:///z/i", ("cilium",), 8443, "hostNetwork: true", "security group"),
        ("aws:///z/i", ("aws-node",), 8443, "security group", "hostNetwork"),
        ("azure:///s", (), 8443, "network security group", "GKE"),
        ("", ("konnectivity-agent",), 8443, "konnectivity-agent", "EKS"),
        ("", (), 8443, "NO_PROXY", "konnectivity"),
    ],
)
def test_dropped_packets_have_the_platforms_own_fix(
    provider: str, daemon_sets: Sequence[str], port: int, says: str, not_says: str
) -> None:
    told = hints([node(provider)], daemon_sets, port)
    assert says in told
    assert not_says not in told


def probed(**fields: Any) -> Finding:
    return found(reach.GROUP, replace(EVIDENCE, probe=Probe(namespace="shop", **fields)))["end-to-end"]


def pod(*, method: str = "", mode: str = "") -> dict[str, Any]:
    env = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode}]
    containers = [{"name": "istio-proxy", "env": env}] if mode else []
    return {
        "metadata": {"labels": {"client-ip.dev/method": method} if method else {}},
        "spec": {"containers": [{"name": "app"}], "initContainers": containers},
    }


@pytest.mark.parametrize(
    ("fields", "level", "says"),
    [
        ({"pod": pod(method="tproxy", mode="TPROXY")}, Level.OK, "runs in TPROXY mode"),
        ({"pod": pod(method="tproxy", mode="REDIRECT")}, Level.ERROR, "runs in REDIRECT mode"),
        ({"pod": pod(method="tproxy")}, Level.ERROR, "no sidecar was injected"),
        ({"pod": pod(mode="REDIRECT")}, Level.ERROR, "did not mark"),
        ({"pod": pod()}, Level.ERROR, "did not mark"),
        ({"status": 403, "message": "403: pods is forbidden"}, Level.SKIPPED, "rejected by another component (403)"),
        (
            {"status": 400, "message": '400: admission webhook "x" does not support dry run'},
            Level.SKIPPED,
            "a webhook that does not support dry runs",
        ),
        (
            {"status": 500, "message": '500: failed calling webhook "pods.namespace.client-ip.dev": refused'},
            Level.ERROR,
            "rejects pods because it cannot call the webhook",
        ),
        ({"message": "no namespace is opted in"}, Level.SKIPPED, "no namespace is opted in"),
    ],
)
def test_what_a_dry_run_shows(fields: dict[str, Any], level: Level, says: str) -> None:
    told = probed(**fields)
    assert told.level is level
    assert says in told.says


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"fail_open": 0.0, "seconds": 0.01}, "counted no failed call"),
        ({"fail_open": 1.0, "seconds": 2.0}, "packets are dropped"),
        ({"fail_open": 1.0, "seconds": 0.01}, "the call was refused"),
        ({"fail_open": None, "seconds": 2.0}, "cannot be read"),
    ],
)
def test_why_the_webhook_was_not_reached(fields: dict[str, Any], hint: str) -> None:
    assert hint in probed(pod=pod(), **fields).hint


def with_level(level: PodSecurityLevel) -> Snapshot:
    policy = Policy(name="default", default_level=level)
    return Snapshot(policies=Policies((policy,), policy))


@pytest.mark.parametrize(
    ("check", "evidence", "level"),
    [
        ("aks", replace(EVIDENCE, objects={"nodes": [node("azure:///x")]}), Level.OK),
        ("aks", EVIDENCE, Level.SKIPPED),
        (
            "gke-autopilot",
            replace(EVIDENCE, objects={"nodes": [node("gce://x", cloud_google_com="x")]}),
            Level.SKIPPED,
        ),
        (
            "gke-autopilot",
            replace(
                EVIDENCE, objects={"nodes": [node("gce://x", **{"cloud.google.com/gke-provisioning": "standard"})]}
            ),
            Level.WARNING,
        ),
        ("openshift", replace(EVIDENCE, groups=frozenset({"security.openshift.io/v1"})), Level.WARNING),
        (
            "openshift",
            replace(
                EVIDENCE,
                groups=frozenset({"security.openshift.io/v1"}),
                snapshot=with_level(PodSecurityLevel.RESTRICTED),
            ),
            Level.OK,
        ),
        ("terway", EVIDENCE, Level.SKIPPED),
    ],
)
def test_platforms(check: str, evidence: Evidence, level: Level) -> None:
    assert found(platform.GROUP, evidence)[check].level is level


def test_ids_are_unique_and_every_read_that_is_named_exists() -> None:
    checks = [check for group in groups.GROUPS for check in group.checks]
    ids = [check.id for check in checks]
    assert len(ids) == len(set(ids))
    assert {name for check in checks for name in check.reads} <= set(READS)
    assert set(READS) == {name for check in checks for name in check.reads}, "nothing is read for nobody"


def test_every_check_has_its_section_in_the_documentation() -> None:
    from tests.parts.cache import ROOT

    page = (ROOT / "docs" / "doctor.md").read_text()
    for group in groups.GROUPS:
        assert f"\n## {group.name}\n" in page
        for check in group.checks:
            assert f"\n### {check.id}\n" in page


def _says(finding: Finding, _: Evidence) -> Finding:
    return finding


def test_findings_are_told_in_linkerds_shape() -> None:
    checks = tuple(
        Check(id=name, description=f"about {name}", ask=partial(_says, finding))
        for name, finding in (("a", ok("fine")), ("b", warning("odd", "look")), ("c", error("broken", "mend")))
    )
    told = run([Group("group", checks)], EVIDENCE)
    assert worst(told) is Level.ERROR
    assert as_json(told) == {
        "success": False,
        "categories": [
            {
                "categoryName": "group",
                "checks": [
                    {"id": "a", "description": "about a", "result": "success", "message": "fine"},
                    {
                        "id": "b",
                        "description": "about b",
                        "result": "warning",
                        "message": "odd",
                        "hint": "look",
                        "documentation": "docs/doctor.md#b",
                    },
                    {
                        "id": "c",
                        "description": "about c",
                        "result": "error",
                        "error": "broken",
                        "hint": "mend",
                        "documentation": "docs/doctor.md#c",
                    },
                ],
            }
        ],
    }
