"""What the last scan left, as metrics: read when somebody asks, as it stands then."""

import json
from pathlib import Path

from tests.serve.server import Server

POLICY = """
apiVersion: client-ip.dev/v1alpha1
kind: ClientIPPolicy
metadata: {name: default}
spec:
  mode: Enforce
  exceptions:
  - name: ledger
    selector: {matchLabels: {app: ledger}}
    owner: team-ledger@example.com
    reason: reads the PROXY header instead
    expires: "2099-01-01T00:00:00Z"
"""
LAST = "client_ip_scan_last_success_timestamp_seconds"


def outcome(**more: object) -> str:
    return json.dumps({"format": "client-ip-scan-result/v1", "time": "2026-01-02T03:04:05Z", **more})


def test_the_outcome_of_the_last_scan_is_shown(tmp_path: Path, cluster: str) -> None:
    policy, result = tmp_path / "policy.yaml", tmp_path / "result.json"
    policy.write_text(POLICY)
    options = ("--state", cluster, "--state", str(policy), "--drain-seconds", "0", "--scan-result", str(result))
    with Server(tmp_path / "run", *options) as server:
        text = server.probe("/metrics").body.decode()
        assert f"\n{LAST} 0.0\n" in text
        assert "client_ip_scan_workloads{" not in text
        assert 'state="unused"' not in text
        unused = {"default": 1, "of-nobody": 7}
        result.write_text(outcome(workloads={"restart": 12, "at-risk": 3}, unusedExceptions=unused))
        text = server.probe("/metrics").body.decode()
        assert f"\n{LAST} 1.767323045e+09\n" in text
        assert 'client_ip_scan_workloads{state="restart"} 12.0' in text
        assert 'client_ip_scan_workloads{state="at-risk"} 3.0' in text
        assert 'client_ip_scan_workloads{state="preserved"} 0.0' in text
        assert 'client_ip_exceptions{policy="default",state="unused"} 1.0' in text
        assert "of-nobody" not in text
        result.write_text(outcome(workloads={"restart": "twelve"}))
        text = server.probe("/metrics").body.decode()
        assert f"\n{LAST} 0.0\n" in text
        server.probe("/metrics")
        assert server.stop() == 0
        assert server.log.read_text().count("does not contain the outcome of a scan") == 1


def test_without_a_scan_there_is_no_metric_of_one(tmp_path: Path, cluster: str) -> None:
    with Server(tmp_path, "--state", cluster, "--drain-seconds", "0") as server:
        assert "client_ip_scan" not in server.probe("/metrics").body.decode()
        assert server.stop() == 0
