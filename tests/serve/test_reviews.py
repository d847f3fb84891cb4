"""The server answers the API server: patches, reasons, and never `allowed: false`."""

import concurrent.futures
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.serve.server import POD, Server, review


def test_a_pod_that_can_be_tproxy_gets_the_annotation_and_the_label(server: Server) -> None:
    response = server.ask(review(POD)).response
    assert response == {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": [
            {
                "op": "add",
                "path": "/metadata/annotations",
                "value": {"sidecar.istio.io/interceptionMode": "TPROXY"},
            },
            {"op": "add", "path": "/metadata/labels", "value": {"client-ip.dev/method": "tproxy"}},
        ],
        "auditAnnotations": {
            "reason": "tproxy",
            "mode": "enforce",
            "outcome": "preserved",
            "policy": "default",
            "cause": "all feasible nodes support TPROXY",
        },
    }


def test_a_pod_that_cannot_is_warned_of_in_one_line(server: Server) -> None:
    pod = {**POD, "spec": {**POD["spec"], "nodeSelector": {"pool": "legacy"}}}
    response = server.ask(review(pod)).response
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert warning.startswith("client IP lost (incompatible-nodes): no feasible node supports TPROXY (1 in total)")
    assert len(warning) <= 200


def test_a_workload_is_warned_of_and_never_patched(server: Server) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"template": template},
    }
    response = server.ask(review(deployment, kind=("apps", "v1", "Deployment"))).response
    assert "patch" not in response
    assert response["auditAnnotations"]["reason"] == "mixed-nodes"
    assert len(response["warnings"]) == 1


def test_a_service_that_leaves_local_is_overruled_with_a_warning(server: Server) -> None:
    def gateway(policy: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "gw", "namespace": "edge", "labels": {"istio": "ingressgateway"}},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy},
        }

    asked = review(
        gateway("Cluster"),
        kind=("", "v1", "Service"),
        namespace="edge",
        operation="UPDATE",
        oldObject=gateway("Local"),
    )
    response = server.ask(asked).response
    assert response["patch"][0] == {"op": "add", "path": "/spec/externalTrafficPolicy", "value": "Local"}
    assert response["warnings"] == [
        "externalTrafficPolicy stays Local: label the Service client-ip.dev/preserve=disabled to choose Cluster",
    ]


def test_many_connections_at_once_are_all_answered(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.ask(review(POD)).response["allowed"], range(200)))
    assert answers == [True] * 200


def test_a_connection_serves_many_reviews(server: Server) -> None:
    connection = server.connect()
    for _ in range(20):
        answer = server.ask(review(POD), connection=connection)
        assert answer.status == 200
        assert "Connection" not in answer.headers
    connection.close()


def test_reviews_are_counted_by_what_was_asked_and_decided(server: Server) -> None:
    name = (
        'client_ip_reviews_total{dry_run="true",kind="Pod",mode="enforce",operation="CREATE",'
        'patched="true",reason="tproxy"}'
    )
    before = server.metric(name)
    server.ask(review(POD, dryRun=True))
    assert server.metric(name) == before + 1
    assert server.metric("client_ip_review_duration_seconds_count") > 0
    assert server.metric('client_ip_nodes{tproxy="supported"}') == 2
    assert server.metric('client_ip_nodes{tproxy="unsupported"}') == 2
    assert server.metric('client_ip_webhook_order_ok{injector="istio-sidecar-injector"}') == 1


def test_probes_answer(server: Server) -> None:
    assert server.probe("/healthz").body == b"ok\n"
    ready = server.probe("/readyz")
    assert ready.status == 200
    assert ready.body.startswith(b"ok\ncertificate ")


def test_metrics_tell_what_ends(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def at(days: int) -> str:
        return (now + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")

    said = {"owner": "team-shop", "reason": "old", "selector": {"matchLabels": {"app": "a"}}}
    exceptions = [{"name": f"e{days}", "expires": at(days), **said} for days in (-9, -1, 3, 90, 91, 92)]
    ends = {"a": ("audit", -1), "b": ("disabled", 3), "c": ("", 90), "d": ("enabled", -1)}
    state = [
        {
            "apiVersion": "client-ip.dev/v1alpha1",
            "kind": "ClientIPPolicy",
            "metadata": {"name": "shop"},
            "spec": {"mode": "Enforce", "exceptions": exceptions},
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "labels": {"client-ip.dev/preserve": value} if value else {},
                    "annotations": {"client-ip.dev/opt-out-until": at(days)},
                },
            }
            for name, (value, days) in ends.items()
        ),
    ]
    (tmp_path / "state.yaml").write_text("\n---\n".join(map(json.dumps, state)))
    with Server(tmp_path / "run", "--state", str(tmp_path / "state.yaml"), "--drain-seconds", "0") as server:
        counts = {
            state: server.metric(f'client_ip_exceptions{{policy="shop",state="{state}"}}')
            for state in ("live", "ending", "ended")
        }
        assert counts == {"live": 3, "ending": 1, "ended": 2}
        counts = {
            state: server.metric(f'client_ip_namespace_opt_outs{{state="{state}"}}')
            for state in ("live", "ending", "ended")
        }
        assert counts == {"live": 1, "ending": 1, "ended": 1}
        name = "client_ip_namespace_opt_out_ended_timestamp_seconds"
        ended = server.metric(f'{name}{{namespace="a"}}')
        assert ended == (now - timedelta(days=1)).replace(microsecond=0).timestamp()
        assert server.metric(f'{name}{{namespace="d"}}') == 0
        assert server.stop() == 0
