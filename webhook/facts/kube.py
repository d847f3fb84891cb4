"""
The API server over aiohttp: requests and watches as bytes.

Where it is and as whom it is asked, `access` says. Errors become those of `certs.kube`, so that one client serves
the facts and the certificates.
"""

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypedDict
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec

from certs.kube import ConflictError, KubeError, KubeObject, NotFoundError, RefusedError, UnavailableError
from webhook.facts.access import NOBODY_ELSE, SOCKS, Access, Impersonation, KubeConfigInvalid, Source, access

log: Final = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 30.0
TOKEN_SECONDS: Final = 30.0
"""How long a token is used before its source is asked again: projected ones are replaced long before they expire."""
SILENCE_SECONDS: Final = 120.0
"""A watch brings a bookmark about once a minute; one that is silent for longer is taken for dead."""
MAX_EVENT_BYTES: Final = 16 << 20
"""etcd holds no object of over 1.5 MiB, and JSON makes few of them ten times as large."""
WEBHOOKS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
JSON_PATCH: Final = "application/json-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"


class GoneError(KubeError):
    """410: the version is no longer kept; list again."""

    def __init__(self, message: str, *, resume: str = "") -> None:
        super().__init__(message)
        self.resume = resume
        """Of a list in pages: the token that goes on all the same, with objects as they are by now."""


class BusyError(UnavailableError):
    """429 or 503 with Retry-After: come back later."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class _Way(TypedDict, total=False):
    ssl: ssl.SSLContext
    server_hostname: str | None
    proxy: str
    proxy_headers: dict[str, str]


@dataclass(slots=True)
class KubeClient:
    """One connection pool to one API server, with credentials that are renewed."""

    source: Source
    access: Access
    server_time: datetime | None = None
    _session: aiohttp.ClientSession | None = None
    _token: str | None = None
    _token_at: float = field(default=float("-inf"))
    _refused_token: bool = False
    _lost: tuple[type[Exception], ...] = (aiohttp.ClientError, TimeoutError, OSError)
    """Exceptions of a connection that cannot be established or is lost."""

    def another(self) -> "KubeClient":
        """Return a client of the same API server, with the same credentials and connections of its own."""
        return KubeClient(self.source, self.access)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> bytes:
        """
        Return the answer's body.

        Raises:
            KubeError: The API server did not grant it, or did not answer.

        """
        data = None if body is None else msgspec.json.encode(body)
        for attempt in (1, 2):
            headers = await self._headers()
            if data is not None:
                headers.append(("Content-Type", content_type))
            try:
                async with self._open().request(
                    method,
                    self._url(path),
                    params=query,
                    data=data,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
                    **self._way(),
                ) as response:
                    answer = await response.read()
                    self._hear(response)
                    if response.status == 401 and attempt == 1:
                        self._refused_token = True
                        continue  # it may have been replaced
                    if response.status >= 400:
                        raise _error(method, response.status, answer, content_type, response.headers.get("Retry-After"))
                    return answer
            except self._lost as error:
                raise UnavailableError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        raise AssertionError("the second attempt returns or raises")

    async def watch(self, path: str, query: Mapping[str, str], opened: Callable[[], None]) -> AsyncIterator[bytes]:
        """
        Yield the watch's events, one JSON text each, until the API server ends it; *opened* is told when it begins.

        Raises:
            KubeError: Gone where the version is too old; Unavailable where the connection is lost.

        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=SILENCE_SECONDS)
        headers = await self._headers()
        try:
            async with self._open().get(
                self._url(path), params={**query, "watch": "true"}, headers=headers, timeout=timeout, **self._way()
            ) as response:
                self._hear(response)
                if response.status >= 400:
                    self._refused_token = self._refused_token or response.status == 401
                    raise _error("GET", response.status, await response.read(), "")
                opened()
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > MAX_EVENT_BYTES:
                        raise UnavailableError(f"watch {path}: an event is larger than {MAX_EVENT_BYTES} bytes")
                    for line in lines:
                        yield line
        except self._lost as error:
            raise UnavailableError(f"watch {path}: {str(error) or type(error).__name__}") from error

    async def stream(
        self, path: str, query: Mapping[str, str] | None = None, *, silence_seconds: float | None = SILENCE_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """
        Yield the answer's bytes as they come, such as a container's log.

        Args:
            path: What is asked for.
            query: Its parameters.
            silence_seconds: How long nothing may come; None for ever, where a log is followed.

        Raises:
            KubeError: The API server did not grant it, or the connection was lost.

        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence_seconds)
        for attempt in (1, 2):
            headers = await self._headers()
            try:
                async with self._open().get(
                    self._url(path), params=query, headers=headers, timeout=timeout, **self._way()
                ) as response:
                    self._hear(response)
                    if response.status == 401 and attempt == 1:
                        self._refused_token = True
                        continue  # it may have been replaced
                    if response.status >= 400:
                        raise _error("GET", response.status, await response.read(), "")
                    async for chunk in response.content.iter_any():
                        yield chunk
                    return
            except self._lost as error:
                raise UnavailableError(f"GET {path}: {str(error) or type(error).__name__}") from error

    # --- What certs asks for (certs.kube.KubeApi)

    async def get_secret(self, namespace: str, name: str) -> KubeObject:
        """Read a Secret."""
        return _object(await self.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}"))

    async def create_secret(self, namespace: str, secret: KubeObject) -> KubeObject:
        """Create a Secret; Conflict where it exists."""
        return _object(await self.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body=secret))

    async def replace_secret(self, namespace: str, name: str, secret: KubeObject) -> KubeObject:
        """Replace a Secret if its resourceVersion is still the stored one, else Conflict."""
        return _object(await self.request("PUT", f"/api/v1/namespaces/{namespace}/secrets/{name}", body=secret))

    async def get_mutating_webhook_configuration(self, name: str) -> KubeObject:
        """Read a MutatingWebhookConfiguration."""
        return _object(await self.request("GET", f"{WEBHOOKS}/{name}"))

    async def patch_mutating_webhook_configuration(
        self, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> KubeObject:
        """Apply a JSON patch; Conflict where a `test` fails."""
        patched = await self.request("PATCH", f"{WEBHOOKS}/{name}", body=list(operations), content_type=JSON_PATCH)
        return _object(patched)

    @property
    def namespace(self) -> str:
        """Of the kubeconfig's context, or of the pod that this runs in; empty where it names none."""
        return self.access.namespace

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._connector(), trust_env=False)
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        proxy = self.access.proxy
        if proxy is None or urlsplit(proxy).scheme not in SOCKS:
            return aiohttp.TCPConnector(limit=0)
        import aiohttp_socks  # noqa: PLC0415  # for those who have such a proxy

        self._lost += (
            aiohttp_socks.ProxyError,
            aiohttp_socks.ProxyConnectionError,
            aiohttp_socks.ProxyTimeoutError,
        )
        # Go's client lets the proxy look names up, whichever of the two words stands there.
        connector: aiohttp.TCPConnector = aiohttp_socks.ProxyConnector.from_url(
            urlsplit(proxy)._replace(scheme="socks5").geturl(), rdns=True, limit=0
        )
        return connector

    def _way(self) -> _Way:
        """Return what each request is told of the way: certificates may be new ones by now."""
        way: _Way = {"ssl": self.access.tls, "server_hostname": self.access.server_name}
        proxy = self.access.proxy
        if proxy is not None and urlsplit(proxy).scheme not in SOCKS:
            # Apart from its URL, which errors show.
            parts = urlsplit(proxy)
            way["proxy"] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            if parts.username is not None:
                credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                told = base64.b64encode(credentials.encode()).decode()
                way["proxy_headers"] = {"Proxy-Authorization": f"Basic {told}"}
        return way

    def _url(self, path: str) -> str:
        return f"{self.access.server.rstrip('/')}{path}"

    async def _headers(self) -> list[tuple[str, str]]:
        if self._refused_token or time.monotonic() - self._token_at > TOKEN_SECONDS:
            # In a thread: token files and exec plugins block.
            renew, self._refused_token = self._refused_token, False
            self._token = await asyncio.to_thread(self._current_token, renew=renew)
            self._token_at = time.monotonic()
        own = [("Authorization", self._token)] if self._token else []
        # Inflating a page would keep the event loop for as long as decoding it.
        return [("Accept-Encoding", "identity"), *own, *self.access.impersonation.headers]

    def _current_token(self, *, renew: bool) -> str | None:
        """Return the header's value; everything is read anew where the API server refused it or it has expired."""
        expires = self.access.expires
        if renew or (expires is not None and expires <= datetime.now(UTC) + timedelta(seconds=TOKEN_SECONDS)):
            try:
                self.access = access(self.source)
            except KubeConfigInvalid as error:
                raise UnavailableError(f"credentials cannot be renewed: {error}") from error
        try:
            return self.access.authorization()
        except OSError as error:
            raise UnavailableError(f"credentials cannot be read: {error}") from error

    def _hear(self, response: aiohttp.ClientResponse) -> None:
        date = response.headers.get("Date")
        if date is not None:
            self.server_time = parsedate_to_datetime(date).astimezone(UTC)


def connect(kubeconfig: str | None, context: str | None, impersonation: Impersonation = NOBODY_ELSE) -> KubeClient:
    """
    Return a client of the kubeconfig's cluster, or of the one that this pod runs in; nothing is sent yet.

    Raises:
        KubeConfigInvalid: There is neither, or it can't be used.

    """
    source = Source(kubeconfig=kubeconfig, context=context, impersonation=impersonation)
    return KubeClient(source, access(source))


def _object(answer: bytes) -> KubeObject:
    document: KubeObject = msgspec.json.decode(answer)
    return document


class _ListMeta(msgspec.Struct, frozen=True, rename={"resume": "continue"}):
    resume: str = ""


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    reason: str = ""
    metadata: _ListMeta = _ListMeta()


def _error(method: str, status: int, answer: bytes, content_type: str, retry_after: str | None = None) -> KubeError:
    try:
        told = msgspec.json.decode(answer, type=_Status)
    except msgspec.MsgspecError:
        told = _Status(message=answer[:200].decode(errors="replace"))
    text = f"{status}: {told.message}"
    # A JSON patch whose `test` fails is answered with 422.
    if status == 409 or (status == 422 and method == "PATCH" and content_type == JSON_PATCH):
        return ConflictError(text)
    if status == 404:
        return NotFoundError(text)
    if status == 410:
        return GoneError(text, resume=told.metadata.resume)
    if status in {429, 503} and retry_after is not None and retry_after.isdecimal():
        return BusyError(text, retry_after_seconds=float(retry_after[:6]))
    if status in {401, 408, 429} or status >= 500:
        return UnavailableError(text)
    return RefusedError(text)
