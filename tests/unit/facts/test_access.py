"""How an API server is reached: what a child reads, and what is made of it here."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml
from kubernetes.config import incluster_config

from certs.authority import issue_ca
from webhook.facts import access as facts_access, credentials
from webhook.facts.access import Access, Credentials, Impersonation, KubeConfigInvalid, Named, Source, access


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """A kubeconfig with a token, and with a user who is another one."""
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443", "odd": 1}}],
        "users": [{"name": "u", "user": {"token": "abc", "as": 7, "as-groups": ["a", 8]}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def assert_read(found: Access) -> None:
    """What the kubeconfig says was read."""
    assert (found.server, found.namespace, found.context) == ("https://127.0.0.1:6443", "shop", "here")
    assert found.authorization() == "Bearer abc"
    assert found.impersonation == Impersonation(user="7", groups=("a", "8"))


def test_a_child_reads_it(kubeconfig: str, caplog: pytest.LogCaptureFixture) -> None:
    assert_read(access(Source(kubeconfig=kubeconfig)))
    assert caplog.messages == ["kubeconfig: cluster c: odd: unknown field, ignored"]


def test_where_no_child_can_be_started_it_is_read_here(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert_read(access(Source(kubeconfig=kubeconfig)))


def test_a_child_that_ends_without_a_word_is_an_error(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_access, "_CHILD", "raise SystemExit(3)")
    with pytest.raises(KubeConfigInvalid, match="ended with status 3"):
        access(Source(kubeconfig=kubeconfig))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigInvalid, match="there is no kubeconfig at"):
        access(Source(kubeconfig=str(tmp_path / "absent")))


def test_groups_need_a_user(kubeconfig: str) -> None:
    Path(kubeconfig).write_text(Path(kubeconfig).read_text().replace("as: 7", "as: ''"))
    with pytest.raises(KubeConfigInvalid, match="groups can only be impersonated with a user"):
        access(Source(kubeconfig=kubeconfig))


def test_in_a_pod_the_token_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its projected token is replaced long before it expires, and its CA comes along."""
    token, authorities = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first\n")
    authorities.write_bytes(issue_ca(organization="o", now=datetime.now(UTC), life=timedelta(days=1)).certificate_pem)
    for module in (incluster_config, credentials):
        monkeypatch.setattr(module, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authorities))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")  # what is changed here is not changed in a child
    found = access(Source(impersonation=Impersonation(user="jane")))
    assert (found.server, found.context, found.impersonation.user) == ("https://[fd00::1]:443", "", "jane")
    assert len(found.tls.get_ca_certs()) == 1
    assert found.authorization() == "Bearer first"
    token.write_text("second\n")
    assert found.authorization() == "Bearer second"
    token.write_text("")
    with pytest.raises(OSError, match="is empty"):
        found.authorization()


def test_what_is_read_survives_the_way_from_the_child() -> None:
    """Keys are bytes, and what is not there stays away."""
    whole = Credentials(server="https://a", certificate=b"\x00\xff", key=None, token_file="/t", expires="2026-01-01")
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Credentials) == whole
    assert msgspec.json.decode(msgspec.json.encode(Named()), type=Named) == Named()
