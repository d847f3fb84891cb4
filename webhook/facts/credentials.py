"""
How to reach an API server and as whom, read in a process of its own, which `access` starts.

The only file that imports `kubernetes`, and of that only configuration and credentials. They take 17 MB of memory, and
are not asked again for as long as the credentials are good: so they are a child's, and end with it. What the library
reads is taken from it; what it would pass over in silence, or reads in another way than kubectl, is read here or
refused by name:

- the current context is the first that a list of files names, not the last;
- a plugin's failure, and a plugin that gives both a token and a certificate;
- who is to be impersonated (`as`, `as-groups`, `as-uid`, `as-user-extra`);
- a cluster without a server, a user that is not there, providers that Kubernetes has removed.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.incluster_config import SERVICE_TOKEN_FILENAME, load_incluster_config
from kubernetes.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigNode,
    KubeConfigLoader,
    KubeConfigMerger,
)

from webhook.facts.access import SOCKS, Credentials, Impersonation, KubeConfigInvalid, Named

OWN_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
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


def read(named: Named) -> Credentials:
    """
    Return how *named* says that the API server is reached; plugins are run, nothing is sent.

    Raises:
        KubeConfigInvalid: It says nothing that can be used.

    """
    try:
        if named.kubeconfig is None and named.context is None and not os.environ.get("KUBECONFIG"):
            found = _in_cluster()
            if found is not None:
                return found
        return _from_files(named)
    except KubeConfigInvalid:
        raise
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KubeConfigInvalid(f"the kubeconfig cannot be used: {error}") from error


def main(asked: str) -> None:
    """Write the credentials for a `Named` in JSON to standard output; a terminal is left to the plugins."""
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no answer
    try:
        found = read(msgspec.json.decode(asked, type=Named))
    except KubeConfigInvalid as error:
        found = Credentials(error=str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    with os.fdopen(answer, "wb") as output:
        output.write(msgspec.json.encode(found))


# --- In a pod


def _in_cluster() -> Credentials | None:
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException:
        return None  # not in a pod
    try:
        namespace = OWN_NAMESPACE_FILE.read_text().strip()
    except OSError:
        namespace = ""
    return Credentials(
        server=configuration.host,
        authorities=_content(configuration.ssl_ca_cert),
        proxy=_environment_proxy(configuration),
        namespace=namespace,
        token_file=SERVICE_TOKEN_FILENAME,
    )


def _header(configuration: Configuration) -> str | None:
    token: str | None = configuration.get_api_key_with_prefix("BearerToken")
    return token.strip() if token else None


# --- Kubeconfigs


def _from_files(named: Named) -> Credentials:
    merged = KubeConfigMerger(named.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
    if merged.config is None:
        raise KubeConfigInvalid(f"there is no kubeconfig at {named.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION}")
    name = named.context or _current_context(merged)
    # Only OIDC's new tokens are written back; whatever is changed below stays out of the files.
    config = merged.config if _has_provider(merged, name) else copy.deepcopy(merged.config)
    context = _entry(config, "contexts", name, "context")
    for field, plural in (("cluster", "clusters"), ("user", "users")):
        which = context.get(field)
        if field == "cluster" and not which:
            raise KubeConfigInvalid(f"context {name} names no cluster")
        if which:
            _entry(config, plural, which, field)
    cluster = _entry(config, "clusters", context["cluster"], "cluster")
    user = _entry(config, "users", context["user"], "user") if context.get("user") else {}
    unknown = tuple(_look_at(name, context, cluster, user))
    if user.get("tokenFile"):
        user.pop("token", None)  # the file is the newer one: kubectl takes it first
    plugin = user.pop("exec", None)
    base = _folder(config, context.get("user") or "")
    loader = KubeConfigLoader(config, active_context=name, config_base_path=None, config_persister=merged.save_changes)
    configuration = Configuration()
    loader.load_and_set(configuration)
    if user.get("auth-provider") and not configuration.api_key:
        raise KubeConfigInvalid(f"user {context['user']}: auth-provider oidc returned no token: log in again")
    given = None if plugin is None else _run(plugin, cluster, base)
    pair = _pair(configuration, given or {})
    token = (given or {}).get("token")
    found = Credentials(
        server=configuration.host,
        authorities=_content(configuration.ssl_ca_cert),
        verifies=bool(configuration.verify_ssl),
        certificate=pair[0],
        key=pair[1],
        server_name=_text(cluster.get("tls-server-name")),
        proxy=_usable(cluster.get("proxy-url")) or _environment_proxy(configuration),
        namespace=_text(context.get("namespace")) or "",
        context=name,
        impersonation=_impersonated(user),
        # Credentials of the user's own go first, as for kubectl.
        authorization=_header(configuration) or (f"Bearer {token}" if token else None),
        expires=_text((given or {}).get("expirationTimestamp")),
        warnings=unknown,
    )
    if found.proxy is not None and urlsplit(found.proxy).scheme in SOCKS and found.server_name:
        raise KubeConfigInvalid(f"cluster {context['cluster']}: tls-server-name cannot be used with a SOCKS proxy")
    return found


def _current_context(merged: KubeConfigMerger) -> str:
    """
    Return the current context: of several files the first that names one decides, as for kubectl.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    for document in merged.config_files.values():
        name = document.get("current-context")
        if name:
            return str(name)
    raise KubeConfigInvalid("the kubeconfig has no current-context: set one with --context")


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
                raise KubeConfigInvalid(f"{field} {name} is not a mapping")
            return found
    known = sorted(str(each.value.get("name")) for each in config.value.get(plural) or ())
    raise KubeConfigInvalid(f"there is no {field} {name!r} in the kubeconfig, only {', '.join(known[:20]) or 'none'}")


def _folder(config: ConfigNode, user: str) -> Path:
    """Return the folder of the file that the *user* comes from."""
    paths = [each.path for each in config.value.get("users") or () if each.value.get("name") == user]
    return Path(paths[0] if paths else ".").resolve().parent


def _look_at(
    name: str, context: Mapping[str, Any], cluster: Mapping[str, Any], user: Mapping[str, Any]
) -> Iterator[str]:
    """Refuse what can't be used, and yield what is not known."""
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
            yield f"{whose}: {', '.join(unknown)}: unknown field, ignored"


# --- Credentials


def _run(plugin: Any, cluster: Mapping[str, Any], base: Path) -> Mapping[str, Any]:
    """
    Return what a credential plugin gives: a token, a certificate with its key, or both.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    command = plugin.get("command") if isinstance(plugin, dict) else None
    if not command:
        raise KubeConfigInvalid("exec: command is missing")
    if plugin.get("apiVersion") not in PLUGIN_VERSIONS:
        raise KubeConfigInvalid(
            f"exec {command}: apiVersion {plugin.get('apiVersion')}: must be {' or '.join(sorted(PLUGIN_VERSIONS))}"
        )
    if plugin.get("interactiveMode") == "Always" and not (sys.stdin and sys.stdin.isatty()):
        raise KubeConfigInvalid(f"exec {command}: requires a terminal (interactiveMode: Always)")
    hint = f"\n{plugin['installHint'].strip()}" if plugin.get("installHint") else ""
    if os.sep in command and not Path(command).is_absolute():
        command = str(base / command)  # relative to the kubeconfig, as its files are
    node = ConfigNode("exec", {**plugin, "command": command})
    try:
        given: Mapping[str, Any] = ExecProvider(node, str(Path.cwd()), ConfigNode("cluster", dict(cluster))).run()
    except FileNotFoundError as error:
        raise KubeConfigInvalid(f"exec {command}: program not found{hint}") from error
    except (ConfigException, OSError) as error:
        raise KubeConfigInvalid(f"exec {command}: {error}{hint}") from error
    certificate, key = given.get("clientCertificateData"), given.get("clientKeyData")
    if bool(certificate) != bool(key):
        raise KubeConfigInvalid(f"exec {command}: returned a certificate without a key, or a key without a certificate")
    if not given.get("token") and not certificate:
        raise KubeConfigInvalid(f"exec {command}: returned neither a token nor a certificate")
    return given


def _impersonated(user: Mapping[str, Any]) -> Impersonation:
    extra = user.get("as-user-extra") or {}
    return Impersonation(
        user=str(user.get("as") or ""),
        groups=tuple(map(str, user.get("as-groups") or ())),
        uid=str(user.get("as-uid") or ""),
        extra=tuple((str(key), str(value)) for key, values in extra.items() for value in values),
    )


# --- The way there


def _text(value: object) -> str | None:
    return str(value) if value else None


def _pair(configuration: Configuration, given: Mapping[str, Any]) -> tuple[bytes | None, bytes | None]:
    """Return the client's certificate and its key, PEM: the plugin's before the kubeconfig's."""
    if given.get("clientCertificateData"):
        return given["clientCertificateData"].encode(), given["clientKeyData"].encode()
    if not configuration.cert_file:
        return None, None
    return _content(configuration.cert_file), _content(configuration.key_file)


def _content(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


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
