"""Start, reload, drain, stop: what an operator sees."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from certs.authority import issue_ca, issue_leaf
from tests.serve.server import POD, Server, review


def test_sigterm_drains_with_connection_close_and_then_stops(tmp_path: Path, cluster: str) -> None:
    with Server(tmp_path, "--state", cluster, "--drain-seconds", "1.5") as server:
        connection = server.connect()
        assert "Connection" not in server.ask(review(POD), connection=connection).headers
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("draining")
        ready = server.probe("/readyz")
        assert (ready.status, ready.body) == (503, b"shutting down\n")
        answer = server.ask(review(POD), connection=connection)
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"
        assert server.ask(review(POD)).status == 200
        assert server.process.wait(10) == 0
        connection.close()


def test_changed_files_are_read_again_and_bad_ones_change_nothing(tmp_path: Path, cluster: str) -> None:
    state = tmp_path / "state"
    shutil.copytree(cluster, state)
    pinned = {**POD, "spec": {**POD["spec"], "nodeSelector": {"pool": "legacy"}}}
    with Server(tmp_path / "run", "--state", str(state)) as server:
        assert server.ask(review(pinned)).response["auditAnnotations"]["reason"] == "incompatible-nodes"
        nodes = state / "nodes.yaml"
        text = nodes.read_text()
        nodes.write_text(
            text.replace("CentOS Linux 7 (Core)", "Ubuntu 24.04")
            .replace("3.10.0", "6.8.0")
            .replace(".el7.", ".ubuntu.")
        )
        server.wait_for_log("reloaded changed files")
        assert server.ask(review(pinned)).response["auditAnnotations"]["reason"] == "tproxy"
        nodes.write_text(text + "\n- [")
        server.wait_for_log("nodes.yaml:")
        assert server.ask(review(pinned)).response["auditAnnotations"]["reason"] == "tproxy"


def test_mounted_certificates_are_followed_and_a_bad_pair_changes_nothing(tmp_path: Path, cluster: str) -> None:
    now = datetime.now(UTC)
    life = timedelta(days=1)
    ca = issue_ca(organization="test", now=now, life=life)
    first, second = (issue_leaf(ca, names=["127.0.0.1"], now=now, life=life) for _ in range(2))
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(first.certificate_pem)
    key.write_bytes(first.key_pem)
    options = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with Server(tmp_path, "--state", cluster, *options) as server:
        server.ca.write_bytes(ca.certificate_pem)
        assert first.fingerprint[:16] in server.probe("/readyz").body.decode()
        connection = server.connect()
        assert server.ask(review(POD), connection=connection).status == 200
        certificate.write_bytes(second.certificate_pem)
        server.wait_for_log("the previous certificate stays in use")
        assert server.ask(review(POD)).status == 200
        key.write_bytes(second.key_pem)
        server.wait_for_log("serving the certificate in")
        assert second.fingerprint[:16] in server.probe("/readyz").body.decode()
        assert server.ask(review(POD)).status == 200
        assert server.ask(review(POD), connection=connection).status == 200
        connection.close()


def test_json_log_lines_are_json_and_no_review_makes_one(tmp_path: Path, cluster: str) -> None:
    with Server(tmp_path, "--state", cluster, "--drain-seconds", "0") as server:
        before = server.log.read_text()
        for _ in range(5):
            server.ask(review(POD))
        assert server.log.read_text() == before
    with Server(tmp_path / "json", "--state", cluster, "--log-format", "json", "--drain-seconds", "0") as server:
        lines = server.log.read_text().splitlines()
        assert json.loads(lines[0])["level"] == "info"


def test_every_option_can_come_from_the_environment(tmp_path: Path, cluster: str) -> None:
    environment = {**os.environ, "CLIENT_IP_STATE": cluster, "CLIENT_IP_DRAIN_SECONDS": "0"}
    with Server(tmp_path, environment=environment) as server:
        assert server.ask(review(POD)).response["auditAnnotations"]["reason"] == "tproxy"
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10


WRONG = {
    "no certificate": (["--state", "."], "use one of: --tls-cert with --tls-key, --tls-self-signed, --tls-secret"),
    "half a pair": (["--state", ".", "--tls-cert", "a"], "--tls-cert and --tls-key must be used together"),
    "a port that is none": (["--listen", "localhost"], "is not HOST:PORT"),
    "a state that is not there": (["--tls-self-signed", "--state", "nowhere"], "no such file or folder"),
    "state and cluster": (["--tls-self-signed", "--state", ".", "--context", "a"], "--state cannot be combined with"),
    "an option that is none": (["--frobnicate"], "No such option"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options_end_with_exit_2_and_a_clear_line(options: list[str], message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "webhook.cli", "serve", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.startswith("client-ip serve: ")
    assert "Traceback" not in ended.stderr


def test_an_address_in_use_is_said(tmp_path: Path, cluster: str) -> None:
    with Server(tmp_path, "--state", cluster) as server:
        command = ["serve", "--state", cluster, "--tls-self-signed", "--listen", f"127.0.0.1:{server.address[1]}"]
        ended = subprocess.run(
            [sys.executable, "-m", "webhook.cli", *command, "--probe-listen", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr
    assert "Traceback" not in ended.stderr
