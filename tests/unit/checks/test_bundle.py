"""A bundle holds what was read, and nothing that must not leave a cluster; it is read back as it was written."""

import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from webhook.checks.bundle import BundleInvalid, read_bundle, write_bundle
from webhook.checks.check import as_json, run
from webhook.checks.evidence import Certificates, Document, Evidence, snapshot_of
from webhook.checks.groups import GROUPS
from webhook.checks.probe import Probe
from webhook.cli.doctor import command

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HIDDEN = "hunter2"


def pod(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": HIDDEN, "kept": "yes"},
        },
        "spec": {
            "nodeName": "worker-7",
            "containers": [
                {
                    "name": "istio-proxy",
                    "args": ["--token", HIDDEN],
                    "command": [HIDDEN],
                    "env": [
                        {"name": "PASSWORD", "value": HIDDEN},
                        {"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"},
                    ],
                }
            ],
        },
    }


def evidence() -> Evidence:
    objects: dict[str, list[Document]] = {
        "own-pods": [pod("client-ip-webhook-1", "client-ip-system"), pod("ledger-0", "bank")],
        "nodes": [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-7"}}],
    }
    return Evidence(
        at=NOW,
        server_version="v1.37.2",
        server_date=NOW,
        groups=frozenset({"v1", "apps/v1"}),
        objects=objects,
        snapshot=snapshot_of(objects, "client-ip-system"),
        unread={"own-secret": "no permission to get secrets"},
        certificates=Certificates(leaf_not_after=NOW, names=frozenset({"a", "b"}), trusted_by={"x": True}),
        probe=Probe(namespace="bank", pod=pod("probe", "bank"), seconds=0.5, fail_open=1.0),
        expected={"webhooks": []},
    )


def written(path: Path, **options: Any) -> str:
    write_bundle(
        path,
        evidence(),
        client="0.2.0",
        metrics={"client-ip-webhook-1": b"client_ip_ready 1\n"},
        logs={"client-ip-webhook-1": b'{"message": "watching worker-7 in bank"}\n'},
        **options,
    )
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        return "\n".join(archive.getnames()) + "\n" + b"\n".join(file.read() for file in files if file).decode()


def test_it_holds_objects_metrics_logs_and_versions(tmp_path: Path) -> None:
    text = written(tmp_path / "b.tgz")
    for kept in ("objects/nodes.json", "metrics/client-ip-webhook-1.txt", "client_ip_ready 1", "watching", '"0.2.0"'):
        assert kept in text


def test_it_holds_no_environment_no_arguments_and_nothing_that_was_applied(tmp_path: Path) -> None:
    text = written(tmp_path / "b.tgz")
    assert HIDDEN not in text
    assert "PASSWORD" in text
    assert "TPROXY" in text, "the proxy's mode is what it is about"


def test_names_can_be_left_out_everywhere(tmp_path: Path) -> None:
    text = written(tmp_path / "b.tgz", redact_names=True)
    for name in ("worker-7", "ledger-0", "bank"):
        assert name not in text
    assert "client-ip-webhook-1" in text, "our own names tell nothing about anybody"
    assert text.count("name-") > 4


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path / "b.tgz")
    read = read_bundle(tmp_path / "b.tgz")
    assert read.certificates == evidence().certificates
    assert read.probe is not None
    assert (read.probe.mode, read.probe.fail_open) == ("TPROXY", 1.0)
    assert as_json(run(GROUPS, read)) == as_json(run(GROUPS, evidence()))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00"])
def test_what_is_no_bundle_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(content)
    with pytest.raises(BundleInvalid, match="not a bundle of client-ip doctor"):
        read_bundle(path)


def test_the_command_reads_a_bundle_and_says_what_is_wrong(tmp_path: Path) -> None:
    written(tmp_path / "b.tgz")
    done = CliRunner().invoke(command, ["--state", str(tmp_path / "b.tgz"), "-o", "short"])
    assert "configuration-present: there is no MutatingWebhookConfiguration" in done.stdout
    assert "see docs/doctor.md#configuration-present" in done.stdout
    assert "api-version" not in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--state", "/nonexistent.tgz"], "No such file"),
        (["--wait", "soon"], "is not a duration"),
        (["--redact-names"], "needs --bundle"),
        (["--state", "x.tgz", "--wait", "1m"], "cannot be combined"),
    ],
)
def test_options_that_do_not_fit_are_said(options: list[str], says: str) -> None:
    done = CliRunner().invoke(command, options)
    assert done.exit_code == 2
    assert says in done.output
