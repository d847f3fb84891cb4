"""
How to reach an API server and as whom: a kubeconfig as kubectl takes it, or the pod that this runs in.

The only file that imports `kubernetes`, and of that only configuration and credentials (its model classes cost
126 MB). What the library reads is taken from it; what it would pass over in silence, or reads in another way than
kubectl, is read here or refused by name:

- the current context is the first that a list of files names, not the last;
- a plugin's failure, and a plugin that gives both a token and a certificate;
- who is to be impersonated (`as`, `as-groups`, `as-uid`, `as-user-extra`);
- a cluster without a server, a user that is not there, providers that Kubernetes has removed.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import copy
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigNode,
    KubeConfigLoader,
    KubeConfigMerger,
)

log: Final = logging.getLogger(__name__)

OWN_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SOCKS: Final = frozenset({"socks5", "socks5h"})
"""Proxies that are told the name of the API server and look it up themselves, as Go's client has it."""
CLUSTER_FIELDS: Final = frozenset(
    {
        "certificate-authority",
        "certificate-authority-data",
        "disable-compression",
        "extensions",
        "insecure-skip-tls-verify",
        "proxy-url",
        "server",
        "tls-server-name",
    }
)
USER_FIELDS: Final = frozenset(
    {
        "as",
        "as-groups",
        "as-uid",
        "as-user-extra",
        "auth-provider",
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "exec",
        "extensions",
        "password",
        "token",
        "tokenFile",
        "username",
    }
)
PLUGIN_VERSIONS: Final = frozenset({"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"})


class KubeConfigInvalid(ValueError):  # noqa: N818  # an error's noun
    """There is no kubeconfig, or it can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impersonation:
    """Whom the API server is asked to take us for; it must allow that (the verb `impersonate`)."""

    user: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """
        The request's headers.

        https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
        """
        if not self.user:
            return ()
        headers = [("Impersonate-User", self.user), *(("Impersonate-Group", group) for group in self.groups)]
        headers += [("Impersonate-Uid", self.uid)] if self.uid else []
        return (*headers, *((f"Impersonate-Extra-{_header_name(key)}", value) for key, value in self.extra))


NOBODY_ELSE: Final = Impersonation()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was named: the kubeconfig and context (None: as kubectl and pods have them), and whom to impersonate."""

    kubeconfig: str | None = None
    context: str | None = None
    impersonation: Impersonation = NOBODY_ELSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one API server is reached, and as whom, until *expires*."""

    server: str
    tls: ssl.SSLContext
    server_name: str | None = None
    """What its certificate must name, where that is not the server's host."""
    proxy: str | None = None
    namespace: str = ""
    """Of the context, or of the pod that this runs in; empty where it names none."""
    context: str = ""
    """The kubeconfig's context; empty in a pod."""
    impersonation: Impersonation = NOBODY_ELSE
    authorization: Callable[[], str | None] = lambda: None
    """Returns the header's value as it is now; reads files, so it blocks."""
    expires: datetime | None = None
    """When the credentials must be asked for anew; None where nobody says."""


def access(source: Source) -> Access:
    """
    Return how *source* says that the API server is reached; plugins are run, nothing is sent.

    Raises:
        KubeConfigInvalid: It says nothing that can be used.

    """
    try:
        if source.kubeconfig is None and source.context is None and not os.environ.get("KUBECONFIG"):
            found = _in_cluster(source)
            if found is not None:
                return found
        return _from_files(source)
    except KubeConfigInvalid:
        raise
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KubeConfigInvalid(f"the kubeconfig can't be used: {error}") from error


# --- In a pod


def _in_cluster(source: Source) -> Access | None:
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        return None  # not in a pod
    try:
        namespace = OWN_NAMESPACE_FILE.read_text().strip()
    except OSError:
        namespace = ""
    return Access(
        server=configuration.host,
        tls=_tls(configuration),
        proxy=_environment_proxy(configuration),
        namespace=namespace,
        impersonation=_checked(source.impersonation),
        # The library reads the projected token again every minute.
        authorization=lambda: _header(configuration),
    )


def _header(configuration: Configuration) -> str | None:
    token: str | None = configuration.get_api_key_with_prefix("BearerToken")
    return token.strip() if token else None


# --- Kubeconfigs


def _from_files(source: Source) -> Access:
    merged = KubeConfigMerger(source.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
    if merged.config is None:
        raise KubeConfigInvalid(f"there is no kubeconfig at {source.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION}")
    name = source.context or _current_context(merged)
    # Only OIDC's new tokens are written back; whatever is changed below stays out of the files.
    config = merged.config if _has_provider(merged, name) else copy.deepcopy(merged.config)
    context = _entry(config, "contexts", name, "context")
    for field, plural in (("cluster", "clusters"), ("user", "users")):
        named = context.get(field)
        if field == "cluster" and not named:
            raise KubeConfigInvalid(f"context {name} names no cluster")
        if named:
            _entry(config, plural, named, field)
    cluster = _entry(config, "clusters", context["cluster"], "cluster")
    user = _entry(config, "users", context["user"], "user") if context.get("user") else {}
    _look_at(name, context, cluster, user)
    if user.get("tokenFile"):
        user.pop("token", None)  # the file is the newer one: kubectl takes it first
    plugin = user.pop("exec", None)
    base = _folder(config, context.get("user") or "")
    loader = KubeConfigLoader(config, active_context=name, config_base_path=None, config_persister=merged.save_changes)
    configuration = Configuration()
    loader.load_and_set(configuration)
    if user.get("auth-provider") and not configuration.api_key:
        raise KubeConfigInvalid(f"user {context['user']}: auth-provider oidc gave no token: log in again")
    given = None if plugin is None else _run(plugin, cluster, base)
    impersonation = source.impersonation if source.impersonation.user else _impersonated(user)
    found = Access(
        server=configuration.host,
        tls=_tls(configuration, given),
        server_name=cluster.get("tls-server-name") or None,
        proxy=_usable(cluster.get("proxy-url")) or _environment_proxy(configuration),
        namespace=context.get("namespace") or "",
        context=name,
        impersonation=_checked(replace(impersonation, groups=source.impersonation.groups or impersonation.groups)),
        authorization=lambda: _header(configuration),
    )
    if found.proxy is not None and urlsplit(found.proxy).scheme in SOCKS and found.server_name:
        raise KubeConfigInvalid(f"cluster {context['cluster']}: tls-server-name can't be had through a SOCKS proxy")
    if given is None:
        return found
    token = given.get("token")
    own = f"Bearer {token}" if token else None
    # Credentials of the user's own go first, as for kubectl.
    return replace(
        found, authorization=lambda: _header(configuration) or own, expires=_time(given.get("expirationTimestamp"))
    )


def _current_context(merged: KubeConfigMerger) -> str:
    """
    Return the current context: of several files the first that names one decides, as for kubectl.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    for document in merged.config_files.values():
        name = document.get("current-context")
        if name:
            return str(name)
    raise KubeConfigInvalid("the kubeconfig has no current-context: name one (--context)")


def _has_provider(merged: KubeConfigMerger, context: str) -> bool:
    user = _entry(merged.config, "contexts", context, "context").get("user")
    return user is not None and "auth-provider" in _entry(merged.config, "users", user, "user")


def _entry(config: ConfigNode, plural: str, name: str, field: str) -> dict[str, Any]:
    """Return the contexts', clusters' or users' entry called *name*, as a mapping that the library reads too."""
    for each in config.value.get(plural) or ():
        if each.value.get("name") == name:
            found = each.value.get(field)
            if found is None:
                found = each.value[field] = {}
            if not isinstance(found, dict):
                raise KubeConfigInvalid(f"{field} {name} is no mapping")
            return found
    known = sorted(str(each.value.get("name")) for each in config.value.get(plural) or ())
    raise KubeConfigInvalid(f"there is no {field} {name!r} in the kubeconfig, only {', '.join(known[:20]) or 'none'}")


def _folder(config: ConfigNode, user: str) -> Path:
    """Return the folder of the file that the *user* comes from."""
    paths = [each.path for each in config.value.get("users") or () if each.value.get("name") == user]
    return Path(paths[0] if paths else ".").resolve().parent


def _look_at(name: str, context: Mapping[str, Any], cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    """Refuse what can't be used, and name what is not known."""
    if not cluster.get("server"):
        raise KubeConfigInvalid(f"cluster {context['cluster']} of context {name} has no server")
    if cluster.get("insecure-skip-tls-verify") and (
        cluster.get("certificate-authority") or cluster.get("certificate-authority-data")
    ):
        raise KubeConfigInvalid(
            f"cluster {context['cluster']}: certificate-authority and insecure-skip-tls-verify contradict each other"
        )
    provider = user.get("auth-provider")
    if provider and user.get("exec"):
        raise KubeConfigInvalid(f"user {context['user']}: auth-provider and exec contradict each other")
    if isinstance(provider, dict) and provider.get("name") != "oidc":
        raise KubeConfigInvalid(
            f"user {context['user']}: auth-provider {provider.get('name')} was removed in Kubernetes 1.26: "
            "use its plugin (exec)"
        )
    for whose, fields, known in (
        (f"cluster {context['cluster']}", cluster, CLUSTER_FIELDS),
        (f"user {context.get('user')}", user, USER_FIELDS),
    ):
        unknown = sorted(set(fields) - known)
        if unknown:
            log.warning("kubeconfig: %s: %s: unknown field, ignored", whose, ", ".join(unknown))


# --- Credentials


def _run(plugin: Any, cluster: Mapping[str, Any], base: Path) -> Mapping[str, Any]:
    """
    Return what a credential plugin gives: a token, a certificate with its key, or both.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    command = plugin.get("command") if isinstance(plugin, dict) else None
    if not command:
        raise KubeConfigInvalid("exec: there is no command")
    if plugin.get("apiVersion") not in PLUGIN_VERSIONS:
        raise KubeConfigInvalid(
            f"exec {command}: apiVersion {plugin.get('apiVersion')}: must be {' or '.join(sorted(PLUGIN_VERSIONS))}"
        )
    if plugin.get("interactiveMode") == "Always" and not (sys.stdin and sys.stdin.isatty()):
        raise KubeConfigInvalid(f"exec {command}: it needs a person at a terminal (interactiveMode: Always)")
    hint = f"\n{plugin['installHint'].strip()}" if plugin.get("installHint") else ""
    if os.sep in command and not Path(command).is_absolute():
        command = str(base / command)  # relative to the kubeconfig, as its files are
    node = ConfigNode("exec", {**plugin, "command": command})
    try:
        given: Mapping[str, Any] = ExecProvider(node, str(Path.cwd()), ConfigNode("cluster", dict(cluster))).run()
    except FileNotFoundError as error:
        raise KubeConfigInvalid(f"exec {command}: no such program{hint}") from error
    except (ConfigException, OSError) as error:
        raise KubeConfigInvalid(f"exec {command}: {error}{hint}") from error
    certificate, key = given.get("clientCertificateData"), given.get("clientKeyData")
    if bool(certificate) != bool(key):
        raise KubeConfigInvalid(f"exec {command}: it gave a certificate without its key, or a key alone")
    if not given.get("token") and not certificate:
        raise KubeConfigInvalid(f"exec {command}: it gave neither a token nor a certificate")
    return given


def _time(text: object) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(str(text)).astimezone(UTC)


def _impersonated(user: Mapping[str, Any]) -> Impersonation:
    extra = user.get("as-user-extra") or {}
    return Impersonation(
        user=user.get("as") or "",
        groups=tuple(user.get("as-groups") or ()),
        uid=user.get("as-uid") or "",
        extra=tuple((key, value) for key, values in extra.items() for value in values),
    )


def _checked(impersonation: Impersonation) -> Impersonation:
    if not impersonation.user and (impersonation.groups or impersonation.uid or impersonation.extra):
        raise KubeConfigInvalid("groups can only be impersonated with a user (--as, or `as` in the kubeconfig)")
    for name, value in impersonation.headers:
        if not (value.isascii() and value.isprintable()):
            raise KubeConfigInvalid(f"{name}: {value!r} can't be sent in a header")
    return impersonation


def _header_name(key: str) -> str:
    """Return *key* as it goes into a header's name: lower case, and what a name can't hold by percent."""
    return quote(key.lower(), safe="!#$&'*+-.^_`|~")


# --- The way there


def _tls(configuration: Configuration, given: Mapping[str, Any] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if given is not None and given.get("clientCertificateData"):
        with _file(given["clientCertificateData"] + "\n" + given["clientKeyData"]) as pair:
            context.load_cert_chain(pair)
    elif configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


@contextmanager
def _file(text: str) -> Iterator[str]:
    """Hold *text* in a file that nobody else can read, for as long as OpenSSL needs to load it."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name


def _environment_proxy(configuration: Configuration) -> str | None:
    """Return the proxy of HTTPS_PROXY and NO_PROXY, as the library reads them."""
    if not configuration.proxy or should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
        return None
    return _usable(configuration.proxy)


def _usable(proxy: str | None) -> str | None:
    if not proxy:
        return None
    parts = urlsplit(proxy)
    if parts.scheme not in {"http", *SOCKS} or not parts.hostname:
        shown = proxy if not parts.password else proxy.replace(parts.password, "…")
        raise KubeConfigInvalid(f"proxy {shown}: write http://HOST:PORT or socks5://HOST:PORT")
    return proxy
