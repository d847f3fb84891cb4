"""
How an API server is reached and as whom, until the credentials expire.

`credentials` reads it, in a child that ends: of the Kubernetes client library nothing stays in memory. A few texts come
back, and what follows from them is made here: the TLS context, and the header that authorizes.
"""

import logging
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from certs.memoryfile import memory_file

log: Final = logging.getLogger(__name__)

SOCKS: Final = frozenset({"socks5", "socks5h"})
"""Proxies that are told the name of the API server and look it up themselves, as Go's client has it."""


class KubeConfigInvalid(ValueError):  # noqa: N818  # an error's noun
    """There is no kubeconfig, or it can't be used."""


class Impersonation(msgspec.Struct, frozen=True, kw_only=True):
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
    """When the credentials must be requested again; None if they have no expiry."""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is asked to read."""

    kubeconfig: str | None = None
    context: str | None = None


class Credentials(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it read."""

    error: str = ""
    """Why there is nothing else."""
    warnings: tuple[str, ...] = ()
    server: str = ""
    authorities: bytes | None = None
    """CA certificates, PEM; None: those that the system trusts."""
    verifies: bool = True
    certificate: bytes | None = None
    """The client's own, PEM."""
    key: bytes | None = None
    """Its key; None where it stands with the certificate."""
    server_name: str | None = None
    proxy: str | None = None
    namespace: str = ""
    context: str = ""
    impersonation: Impersonation = NOBODY_ELSE
    authorization: str | None = None
    token_file: str | None = None
    """What a token is read from, each time that one is needed."""
    expires: str | None = None


_ROOT: Final = str(Path(__file__).resolve().parents[2])
"""Where this package lies: the child is of the same version."""
_CHILD: Final = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from webhook.facts.credentials import main; main(sys.argv[1])"
)


def access(source: Source) -> Access:
    """
    Return how *source* says that the API server is reached; plugins are run, nothing is sent.

    Raises:
        KubeConfigInvalid: It says nothing that can be used.

    """
    found = _read_apart(Named(kubeconfig=source.kubeconfig, context=source.context))
    for warning in found.warnings:
        log.warning("kubeconfig: %s", warning)
    own = source.impersonation if source.impersonation.user else found.impersonation
    impersonation = msgspec.structs.replace(own, groups=source.impersonation.groups or own.groups)
    try:
        return Access(
            server=found.server,
            tls=_tls(found),
            server_name=found.server_name,
            proxy=found.proxy,
            namespace=found.namespace,
            context=found.context,
            impersonation=_checked(impersonation),
            authorization=_authorization(found),
            expires=_time(found.expires),
        )
    except KubeConfigInvalid:
        raise
    except (OSError, ValueError) as error:
        raise KubeConfigInvalid(f"the kubeconfig cannot be used: {error}") from error


def _read_apart(named: Named) -> Credentials:
    # `-P`: what lies in the folder where somebody calls us is none of our modules.
    command = [sys.executable, "-P", "-c", _CHILD, msgspec.json.encode(named).decode()]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        log.warning("cannot start a process that reads the credentials (%s); the server reads them itself", error)
        from webhook.facts import credentials  # noqa: PLC0415  # which imports what is to stay out

        return credentials.read(named)
    try:
        found = msgspec.json.decode(done.stdout, type=Credentials)
    except msgspec.MsgspecError as error:
        raise KubeConfigInvalid(f"the process that reads the kubeconfig ended with status {done.returncode}") from error
    if found.error:
        raise KubeConfigInvalid(found.error)
    return found


def _authorization(found: Credentials) -> Callable[[], str | None]:
    if found.token_file is None:
        return lambda: found.authorization
    file = Path(found.token_file)

    def read() -> str:
        token = file.read_text().strip()
        if not token:
            raise OSError(f"{file} is empty")
        return f"Bearer {token}"

    return read


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _checked(impersonation: Impersonation) -> Impersonation:
    if not impersonation.user and (impersonation.groups or impersonation.uid or impersonation.extra):
        raise KubeConfigInvalid("groups can only be impersonated with a user (--as, or `as` in the kubeconfig)")
    for name, value in impersonation.headers:
        if not (value.isascii() and value.isprintable()):
            raise KubeConfigInvalid(f"{name}: {value!r} cannot be sent in a header")
    return impersonation


def _header_name(key: str) -> str:
    """Return *key* as it goes into a header's name: lower case, and what a name can't hold by percent."""
    return quote(key.lower(), safe="!#$&'*+-.^_`|~")


def _tls(found: Credentials) -> ssl.SSLContext:
    with _file(found.authorities) as authorities, _file(found.certificate) as certificate, _file(found.key) as key:
        context = ssl.create_default_context(cafile=authorities)
        if not found.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    return context


@contextmanager
def _file(content: bytes | None) -> Iterator[str | None]:
    """Yield a path that OpenSSL can load *content* from; None for nothing."""
    if content is None:
        yield None
        return
    with memory_file(content, "credentials") as path:
        yield path
