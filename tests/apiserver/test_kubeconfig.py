"""Kubeconfigs as people have them, on a real API server: behind proxies, with plugins, merged, as somebody else."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.kube import KubeError, UnavailableError
from tests.cli.command import run
from tests.parts.kube import ControlPlane
from tests.parts.proxies import Proxy, connect as http_connect, socks5
from webhook.facts.access import Impersonation, KubeConfigInvalid
from webhook.facts.cluster import open_cluster
from webhook.facts.kube import connect

VARIANTS_ARE_SLOW: Final = True

NAME: Final = "kubernetes.default.svc"
"""In the API server's certificate, and resolved by nobody here but the proxies."""
REVIEW: Final = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


class People:
    """A CA of clients' certificates."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "people")])
        self.certificate = self._sign(self.name, self.key, ca=True)

    def pair(self, user: str, group: str) -> tuple[str, str]:
        """Return the certificate and key of *user*, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = ((NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, user))
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._sign(subject, key, ca=False).decode(), encoded.decode()

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder if ca else builder.add_extension(usage, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def plane(people: People, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that takes the certificates of `people`."""
    folder = tmp_path_factory.mktemp("people")
    authority = folder / "clients.crt"
    authority.write_bytes(people.certificate)
    with ControlPlane("1.37", folder / "kube", flags=[f"--client-ca-file={authority}"]) as running:
        yield running


class Config:
    """A kubeconfig of one context, to be changed by the test."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.document: dict[str, Any] = yaml.safe_load(plane.kubeconfig.read_text())
        self.port = int(plane.url.rpartition(":")[2])
        self.file = folder / "config"
        self.folder = folder

    @property
    def cluster(self) -> dict[str, Any]:
        return self.document["clusters"][0]["cluster"]  # type: ignore[no-any-return]

    @property
    def user(self) -> dict[str, Any]:
        return self.document["users"][0]["user"]  # type: ignore[no-any-return]

    @property
    def context(self) -> dict[str, Any]:
        return self.document["contexts"][0]["context"]  # type: ignore[no-any-return]

    def write(self) -> str:
        self.file.write_text(yaml.safe_dump(self.document))
        return str(self.file)

    def plugin(self, body: str, **more: Any) -> Path:
        """Let a program give the credentials: *body* is Python that prints them; return what it counts its runs in."""
        runs = self.folder / "runs"
        program = self.folder / "plugin.py"
        program.write_text(
            f"import json, os, pathlib, sys\nruns = pathlib.Path({str(runs)!r})\n"
            "count = int(runs.read_text()) + 1 if runs.exists() else 1\nruns.write_text(str(count))\n"
            "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
            "def give(**status):\n"
            "    print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': status}))\n"
            f"{body}\n"
        )
        version = "client.authentication.k8s.io/v1"
        given = {"apiVersion": version, "command": sys.executable, "args": [str(program)], "interactiveMode": "Never"}
        self.user.clear()
        self.user["exec"] = {**given, **more}
        return runs

    def token(self) -> str:
        token: str = self.user["token"]
        return token


@pytest.fixture
def config(plane: ControlPlane, tmp_path: Path) -> Config:
    return Config(plane, tmp_path)


def whoami(kubeconfig: str, *, times: int = 1, **how: Any) -> list[dict[str, Any]]:
    """Return whom the API server takes us for, asked *times* on one client."""

    async def ask() -> list[dict[str, Any]]:
        client = connect(kubeconfig, how.get("context"), how.get("impersonation", Impersonation()))
        try:
            found = []
            for _ in range(times):
                answer = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=REVIEW)
                found.append(msgspec.json.decode(answer)["status"]["userInfo"])
            return found
        finally:
            await client.close()

    return asyncio.run(ask())


def user_of(kubeconfig: str, **how: Any) -> str:
    name: str = whoami(kubeconfig, **how)[0]["username"]
    return name


# --- Proxies


@pytest.mark.parametrize(
    ("speak", "scheme"),
    [(http_connect, "http"), (socks5, "socks5"), (socks5, "socks5h")],
    ids=["http", "socks5", "socks5h"],
)
@pytest.mark.parametrize("credentials", [None, ("me", "p@ss")], ids=["open", "with a password"])
def test_everything_goes_through_the_proxy(
    config: Config, speak: Any, scheme: str, credentials: tuple[str, str] | None
) -> None:
    with Proxy(speak, {NAME: "127.0.0.1"}, credentials) as proxy:
        told = "me:p%40ss@" if credentials else ""
        config.cluster.update(
            {"server": f"https://{NAME}:{config.port}", "proxy-url": f"{scheme}://{told}{proxy.address}"}
        )
        kubeconfig = config.write()
        assert user_of(kubeconfig) == "admin"

        async def read() -> tuple[int, bytes, list[bytes]]:
            async with open_cluster(kubeconfig) as cluster:
                pages = [page async for page in cluster.pages("/api/v1/namespaces", limit=2)]
                stream = b"".join([chunk async for chunk in cluster.stream("/version")])
                query = {"timeoutSeconds": "1"}
                return (
                    len(pages),
                    stream,
                    [each async for each in cluster.client.watch("/api/v1/namespaces", query, lambda: None)],
                )

        pages, stream, events = asyncio.run(read())
        assert (pages, b"gitVersion" in stream, len(events)) == (2, True, 4)
        assert set(proxy.asked) == {f"{NAME}:{config.port}"}


@pytest.mark.parametrize(("speak", "scheme"), [(http_connect, "http"), (socks5, "socks5")], ids=["http", "socks5"])
def test_a_proxy_that_refuses_is_named(config: Config, speak: Any, scheme: str) -> None:
    with Proxy(speak, {}, ("me", "secret")) as proxy:
        config.cluster.update({"proxy-url": f"{scheme}://me:wrong@{proxy.address}"})
        with pytest.raises(UnavailableError) as caught:
            whoami(config.write())
    assert "wrong" not in str(caught.value)
    assert "407" in str(caught.value) or "uthentication" in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_away_is_named(config: Config, scheme: str) -> None:
    config.cluster.update({"proxy-url": f"{scheme}://127.0.0.1:1"})
    with pytest.raises(UnavailableError):
        whoami(config.write())


@pytest.mark.slow
def test_the_environments_proxy_counts_as_for_kubectl(plane: ControlPlane, config: Config) -> None:
    with Proxy(http_connect, {NAME: "127.0.0.1"}) as proxy:
        config.cluster["server"] = f"https://{NAME}:{config.port}"
        options = ("--kubeconfig", config.write(), "pod/nobody")
        environment = {"HTTPS_PROXY": f"http://{proxy.address}"}
        said = run("verify", *options, environment=environment, code=2).stderr
        assert "no Pod nobody in namespace default" in said
        assert proxy.asked == [f"{NAME}:{config.port}"]
        run("verify", *options, environment={**environment, "NO_PROXY": f"other,{NAME}"}, code=1)
        assert len(proxy.asked) == 1


def test_a_proxy_of_the_kubeconfig_beats_no_proxy(config: Config) -> None:
    with Proxy(http_connect, {NAME: "127.0.0.1"}) as proxy:
        config.cluster.update({"server": f"https://{NAME}:{config.port}", "proxy-url": f"http://{proxy.address}"})
        run("verify", "--kubeconfig", config.write(), "pod/nobody", environment={"NO_PROXY": "*"}, code=2)
        assert proxy.asked


# --- The server's name


def test_the_servers_name_is_the_one_that_is_told(config: Config) -> None:
    with Proxy(http_connect, {"apiserver.example": "127.0.0.1"}) as proxy:
        config.cluster.update(
            {
                "server": f"https://apiserver.example:{config.port}",
                "proxy-url": f"http://{proxy.address}",
            }
        )
        with pytest.raises(UnavailableError, match="certificate"):
            whoami(config.write())
        config.cluster["tls-server-name"] = "kubernetes"
        assert user_of(config.write()) == "admin"
    del config.cluster["proxy-url"]
    config.cluster.update({"server": f"https://127.0.0.1:{config.port}", "tls-server-name": "other.example"})
    with pytest.raises(UnavailableError, match="certificate"):
        whoami(config.write())
    config.cluster["tls-server-name"] = NAME
    assert user_of(config.write()) == "admin"


# --- Plugins


def test_a_plugins_token_is_used(config: Config) -> None:
    token = config.token()
    runs = config.plugin(f"give(token={token!r})")
    assert [each["username"] for each in whoami(config.write(), times=3)] == ["admin"] * 3
    assert runs.read_text() == "1"


def test_a_plugins_certificate_is_used(config: Config, people: People) -> None:
    certificate, key = people.pair("carol", "friends")
    config.plugin(f"give(clientCertificateData={certificate!r}, clientKeyData={key!r})")
    (found,) = whoami(config.write())
    assert (found["username"], "friends" in found["groups"]) == ("carol", True)


def test_a_plugin_may_give_both(config: Config, people: People) -> None:
    """The library takes the token alone, and the proxy in front of many API servers wants the certificate too."""
    certificate, key = people.pair("carol", "friends")
    config.plugin(f"give(token='nobody', clientCertificateData={certificate!r}, clientKeyData={key!r})")
    assert user_of(config.write()) == "carol"  # the API server looks at the certificate first


def test_a_plugin_is_asked_again_where_its_credentials_are_refused(config: Config, people: People) -> None:
    """With certificates as well: the connections of the old one are not used any more."""
    stranger = People().pair("mallory", "friends")
    friend = people.pair("carol", "friends")
    runs = config.plugin(
        f"pair = {stranger!r} if count == 1 else {friend!r}\ngive(clientCertificateData=pair[0], clientKeyData=pair[1])"
    )
    assert [each["username"] for each in whoami(config.write(), times=2)] == ["carol"] * 2
    assert runs.read_text() == "2"


def test_a_plugin_is_asked_again_when_its_credentials_expire(config: Config) -> None:
    token = config.token()
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    runs = config.plugin(f"give(token={token!r}, expirationTimestamp={soon!r})")
    whoami(config.write())
    assert runs.read_text() == "2"


def test_a_plugin_is_told_of_the_cluster(config: Config) -> None:
    token = config.token()
    config.plugin(
        f"assert info['spec']['cluster']['server'].startswith('https://')\ngive(token={token!r})",
        provideClusterInfo=True,
    )
    assert user_of(config.write()) == "admin"


def test_a_plugin_beside_the_kubeconfig_is_found(config: Config) -> None:
    token = config.token()
    config.plugin("")
    program = config.folder / "login"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    program.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
    program.chmod(0o700)
    config.user["exec"] |= {"command": "./login", "args": None}
    assert user_of(config.write()) == "admin"


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        ("sys.exit('log in first')", {}, "log in first"),
        ("print('no JSON')", {}, "failed to decode process output"),
        ("give()", {}, "returned neither a token nor a certificate"),
        ("give(clientCertificateData='x')", {}, "returned a certificate without a key"),
        (
            "give(token='x')",
            {"command": "no-such-login", "installHint": "get it there"},
            "program not found\nget it there",
        ),
        ("give(token='x')", {"command": None}, "command is missing"),
        ("give(token='x')", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "must be client.authentication"),
        ("give(token='x')", {"interactiveMode": "Always"}, "requires a terminal"),
    ],
)
def test_a_plugin_that_gives_nothing_is_named(config: Config, body: str, more: dict[str, Any], said: str) -> None:
    config.plugin(body, **more)
    assert said in run("verify", "--kubeconfig", config.write(), "pod/a", code=2).stderr


# --- Tokens and certificates in files


def test_a_token_file_is_read_again_where_its_token_is_refused(config: Config) -> None:
    token = config.user.pop("token")
    file = config.folder / "token"
    file.write_text("old")
    config.user.update({"tokenFile": "token", "token": "older"})
    kubeconfig = config.write()

    async def ask() -> list[bool]:
        async with open_cluster(kubeconfig) as cluster:
            done = []
            for content in ("old", token):
                file.write_text(content)
                try:
                    await cluster.get("/api/v1/namespaces")
                except KubeError:
                    done.append(False)
                else:
                    done.append(True)
            return done

    assert asyncio.run(ask()) == [False, True]


@pytest.mark.parametrize("as_data", [True, False])
def test_client_certificates_are_used(config: Config, people: People, *, as_data: bool) -> None:
    config.user.clear()
    for name, value in zip(("client-certificate", "client-key"), people.pair("dave", "friends"), strict=True):
        if as_data:
            config.user[f"{name}-data"] = base64.b64encode(value.encode()).decode()
        else:
            (config.folder / name).write_text(value)
            config.user[name] = name  # relative to the kubeconfig
    assert user_of(config.write()) == "dave"


def test_an_unverified_server_is_reached_where_that_is_asked_for(config: Config) -> None:
    del config.cluster["certificate-authority-data"]
    with pytest.raises(UnavailableError, match="certificate"):
        whoami(config.write())
    config.cluster["insecure-skip-tls-verify"] = True
    assert user_of(config.write()) == "admin"


def test_oidc_gives_its_token_and_nothing_else_is_written_back(plane: ControlPlane, config: Config) -> None:
    """Any signed token does; the API server knows its own."""
    plane.client().apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "oidc"}})
    token = plane.service_account_token("default", "oidc")
    config.user.clear()
    config.user["auth-provider"] = {"name": "oidc", "config": {"id-token": token, "idp-issuer-url": "https://idp"}}
    before = config.write()
    text = config.file.read_text()
    assert user_of(before) == "system:serviceaccount:default:oidc"
    config.user["auth-provider"]["config"]["id-token"] = "no token"
    with pytest.raises(KubeConfigInvalid, match="auth-provider oidc returned no token: log in again"):
        connect(config.write(), None)
    assert yaml.safe_load(text)["users"][0]["user"]["auth-provider"]["config"]["id-token"] == token


# --- Several files


def test_a_list_of_files_is_merged_as_kubectl_does(plane: ControlPlane, config: Config, people: People) -> None:
    """The first file that says something decides, paths are of their own file, and files may be missing."""
    away = config.folder / "away"
    away.mkdir()
    (away / "ca.crt").write_bytes(plane.ca)
    certificate, key = people.pair("erin", "friends")
    (away / "erin.crt").write_text(certificate)
    (away / "erin.key").write_text(key)
    second = {
        "current-context": "test",
        "clusters": [{"name": "b", "cluster": {"server": plane.url, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "b", "user": {"client-certificate": "erin.crt", "client-key": "./erin.key"}}],
        "contexts": [{"name": "test", "context": {"cluster": "nowhere"}}],
    }
    (away / "config").write_text(yaml.safe_dump(second))
    config.document["current-context"] = "mixed"
    config.document["contexts"].append({"name": "mixed", "context": {"cluster": "b", "user": "b", "namespace": "ns"}})
    merged = ":".join([str(config.folder / "missing"), config.write(), str(away / "config")])
    assert user_of(merged) == "erin"
    assert user_of(merged, context="test") == "admin"  # the second file's context of that name does not count
    command = [str(plane.program("kubectl")), "auth", "whoami", "-o", "json"]
    environment = {**os.environ, "KUBECONFIG": merged, "KUBECACHEDIR": str(away / "discovered")}
    told = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    assert json.loads(told)["status"]["userInfo"]["username"] == "erin"
    said = run("verify", "pod/nobody", environment={"KUBECONFIG": merged}, code=1).stderr
    assert 'User "erin" cannot get resource "pods"' in said
    assert 'in the namespace "ns"' in said


# --- As somebody else


def test_somebody_else_is_impersonated(config: Config) -> None:
    impersonation = Impersonation(user="alice", groups=("devs", "ops"))
    (found,) = whoami(config.write(), impersonation=impersonation)
    assert found["username"] == "alice"
    assert set(found["groups"]) >= {"devs", "ops"}
    said = run("verify", "--kubeconfig", config.write(), "--as", "alice", "--as-group", "devs", "pod/a", code=1).stderr
    assert 'User "alice" cannot get resource "pods"' in said
    run("verify", "--kubeconfig", config.write(), "--as", "a", "--as-group", "system:masters", "pod/a", code=2)


def test_the_kubeconfigs_own_impersonation_counts(config: Config) -> None:
    config.user.update(
        {
            "as": "bob",
            "as-groups": ["devs"],
            "as-uid": "42",
            "as-user-extra": {"example.com/Team": ["red", "blue"]},
        }
    )
    (found,) = whoami(config.write())
    assert (found["username"], found["uid"]) == ("bob", "42")
    assert "devs" in found["groups"]
    assert found["extra"]["example.com/team"] == ["red", "blue"]
    assert user_of(config.write(), impersonation=Impersonation(user="carol")) == "carol"  # the command line goes first


# --- What can't be used


def change(config: Config, where: str, **fields: Any) -> None:
    getattr(config, where).update(fields)


@pytest.mark.parametrize(
    ("where", "fields", "said"),
    [
        ("context", {"cluster": ""}, "context test names no cluster"),
        ("context", {"cluster": "gone"}, "there is no cluster 'gone' in the kubeconfig, only test"),
        ("context", {"user": "gone"}, "there is no user 'gone' in the kubeconfig, only test"),
        ("document", {"current-context": "gone"}, "there is no context 'gone' in the kubeconfig, only test"),
        ("document", {"current-context": ""}, "the kubeconfig has no current-context: set one with --context"),
        ("document", {"contexts": None}, "there is no context 'test' in the kubeconfig, only none"),
        ("cluster", {"server": ""}, "cluster test of context test has no server"),
        ("cluster", {"insecure-skip-tls-verify": True}, "contradict each other"),
        ("cluster", {"proxy-url": "https://proxy:3128"}, "write http://HOST:PORT or socks5://HOST:PORT"),
        ("cluster", {"proxy-url": "proxy:3128"}, "write http://HOST:PORT or socks5://HOST:PORT"),
        ("cluster", {"proxy-url": "ftp://me:secret@proxy"}, "proxy ftp://me:…@proxy: write"),
        (
            "cluster",
            {"proxy-url": "socks5://127.0.0.1:1080", "tls-server-name": "a"},
            "tls-server-name cannot be used with a SOCKS proxy",
        ),
        ("user", {"auth-provider": {"name": "azure"}}, "auth-provider azure was removed in Kubernetes 1.26"),
        ("user", {"auth-provider": {"name": "gcp"}}, "auth-provider gcp was removed in Kubernetes 1.26"),
        ("user", {"as-groups": ["devs"]}, "groups can only be impersonated with a user"),
        ("user", {"as": "a\nb"}, "cannot be sent in a header"),
        ("cluster", {"certificate-authority": "gone.crt", "certificate-authority-data": ""}, "gone.crt"),
    ],
)
def test_what_cant_be_used_is_refused_by_name(config: Config, where: str, fields: dict[str, Any], said: str) -> None:
    change(config, where, **fields)
    if fields.get("certificate-authority-data") == "":
        del config.cluster["certificate-authority-data"]
    with pytest.raises(KubeConfigInvalid) as caught:
        connect(config.write(), None)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "just text", "[1]", "{a: b: c}", "contexts: 5", "current-context: 5"])
def test_what_is_no_kubeconfig_is_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    assert "no cluster: " in run("verify", "--kubeconfig", str(file), "pod/a", code=2).stderr
    assert "there is no kubeconfig at" in run("verify", "--kubeconfig", f"{file}.gone", "pod/a", code=2).stderr


def test_fields_that_nobody_knows_are_named(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    config.cluster["proxy-uri"] = "http://127.0.0.1:1"
    assert user_of(config.write()) == "admin"
    assert "cluster test: proxy-uri: unknown field, ignored" in caplog.text
