"""
A small synchronous client of the Kubernetes API: JSON in, JSON out, warnings kept.

It verifies the server's certificate and knows kinds from discovery alone, so custom resources need nothing here.
A client of a control plane in a network namespace makes its sockets inside that namespace and can stay outside.
"""

import ctypes
import http.client
import json
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

CLONE_NEWNET: Final = 0x40000000
FIELD_MANAGER: Final = "tests"
PATCH_TYPES: Final = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_WARNING: Final = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


class Reply(dict[str, Any]):
    """An API object, with what the server said beside it."""

    warnings: tuple[str, ...] = ()
    status: int = 200
    audit_id: str = ""
    """By which the audit log calls the request."""


class ApiError(Exception):
    """A refusal by the API server."""

    def __init__(self, status: int, reason: str, message: str, warnings: tuple[str, ...], audit_id: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.warnings = warnings
        self.audit_id = audit_id


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the objects of one kind live."""

    prefix: str
    plural: str
    namespaced: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the Warning headers."""
        joined = ", ".join(self.headers.get_all("Warning", []))
        return tuple(re.sub(r"\\(.)", r"\1", text) for text in _WARNING.findall(joined))

    @property
    def audit_id(self) -> str:
        """The header Audit-ID."""
        return self.headers.get("Audit-ID", "")


class Api:
    """
    A client with one identity; threads may share it.

    >>> api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    >>> api.get("v1", "Pod", "cart", namespace="shop")["spec"]
    >>> api.apply(policy).warnings
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | str,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        netns: str | None = None,
        timeout_seconds: float = 30,
    ) -> None:
        """
        Make a client; nothing is sent yet.

        Args:
            url: `https://HOST:PORT`.
            ca: The file of the authorities that it trusts, and no others.
            token: The bearer token.
            headers: Sent with each request, such as `Impersonate-User`.
            netns: The network namespace to connect in.
            timeout_seconds: For each read and write.

        """
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port or 443)
        self._context = ssl.create_default_context(cafile=str(ca))
        self._headers = {"Accept": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._headers.update(headers or {})
        self._netns = netns
        self._timeout = timeout_seconds
        self._idle: list[http.client.HTTPSConnection] = []
        self._lock = threading.Lock()
        self._resources: dict[tuple[str, str], Resource] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def get(self, api_version: str, kind: str, name: str, *, namespace: str | None = None) -> Reply:
        """Return one object."""
        return self.request("GET", self.path(api_version, kind, name, namespace=namespace))

    def find(self, api_version: str, kind: str, name: str, *, namespace: str | None = None) -> Reply | None:
        """Return one object, or None where there is none."""
        try:
            return self.get(api_version, kind, name, namespace=namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return the objects of a kind, of all namespaces or one."""
        chosen = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {name: value for name, value in chosen.items() if value is not None}
        found = self.request("GET", self.path(api_version, kind, namespace=namespace), query=query)
        items: list[dict[str, Any]] = found["items"]
        return items

    def create(self, document: Mapping[str, Any], *, namespace: str | None = None, dry_run: bool = False) -> Reply:
        """Create an object (in *namespace* where it names none) and return it as stored."""
        path = self._path_of(document, namespace, named=False)
        return self.request("POST", path, body=document, query=_options(dry_run=dry_run))

    def replace(
        self,
        document: Mapping[str, Any],
        *,
        namespace: str | None = None,
        dry_run: bool = False,
        subresource: str = "",
    ) -> Reply:
        """Update an object (PUT) and return it as stored."""
        path = self._path_of(document, namespace, named=True) + (f"/{subresource}" if subresource else "")
        return self.request("PUT", path, body=document, query=_options(dry_run=dry_run))

    def apply(
        self,
        document: Mapping[str, Any],
        *,
        namespace: str | None = None,
        field_manager: str = FIELD_MANAGER,
        force: bool = True,
        dry_run: bool = False,
    ) -> Reply:
        """Apply an object on the server's side."""
        query = {**_options(dry_run=dry_run), "fieldManager": field_manager, "force": "true" if force else "false"}
        path = self._path_of(document, namespace, named=True)
        return self.request("PATCH", path, body=document, query=query, content_type=PATCH_TYPES["apply"])

    def patch(
        self,
        api_version: str,
        kind: str,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        patch_type: str | None = None,
        dry_run: bool = False,
    ) -> Reply:
        """Patch an object; a list is a JSON patch, a mapping a merge patch, unless *patch_type* says otherwise."""
        content = PATCH_TYPES[patch_type or ("merge" if isinstance(patch, Mapping) else "json")]
        path = self.path(api_version, kind, name, namespace=namespace, subresource=subresource)
        return self.request("PATCH", path, body=patch, query=_options(dry_run=dry_run), content_type=content)

    def patch_status(
        self,
        api_version: str,
        kind: str,
        name: str,
        status: Mapping[str, Any],
        *,
        namespace: str | None = None,
    ) -> Reply:
        """Merge *status* into an object's status, as its controller would."""
        return self.patch(api_version, kind, name, {"status": status}, namespace=namespace, subresource="status")

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        *,
        namespace: str | None = None,
        grace_seconds: int | None = None,
    ) -> Reply:
        """Delete one object; without *grace_seconds* as the kind's default says."""
        query = {} if grace_seconds is None else {"gracePeriodSeconds": str(grace_seconds)}
        return self.request("DELETE", self.path(api_version, kind, name, namespace=namespace), query=query)

    def text(self, path: str) -> str:
        """Return what a path serves, such as `/metrics`, as text."""
        return self._checked("GET", path, None, None).body.decode()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Reply:
        """
        Send a request of any kind and return the object in its answer.

        Raises:
            ApiError: The server refused it.
            OSError: There was no answer.

        """
        target = f"{path}?{urlencode(query)}" if query else path
        answer = self._checked(method, target, None if body is None else json.dumps(body).encode(), content_type)
        reply = Reply(json.loads(answer.body))
        reply.warnings = answer.warnings
        reply.status = answer.status
        reply.audit_id = answer.audit_id
        return reply

    def path(
        self,
        api_version: str,
        kind: str,
        name: str | None = None,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """Return where an object or all of its kind live."""
        resource = self._resource(api_version, kind)
        parts = [resource.prefix]
        if resource.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [resource.plural, *(quote(part, safe="") for part in (name, subresource) if part is not None)]
        return "/".join(parts)

    def _path_of(self, document: Mapping[str, Any], namespace: str | None, *, named: bool) -> str:
        metadata = document["metadata"]
        where = metadata.get("namespace") or namespace
        api_version, kind = document["apiVersion"], document["kind"]
        if self._resource(api_version, kind).namespaced and where is None:
            where = "default"
        return self.path(api_version, kind, metadata["name"] if named else None, namespace=where)

    def _resource(self, api_version: str, kind: str) -> Resource:
        if (api_version, kind) not in self._resources:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for each in self.request("GET", prefix)["resources"]:
                if "/" not in each["name"]:
                    found = Resource(prefix, each["name"], each["namespaced"])
                    self._resources[api_version, each["kind"]] = found
        try:
            return self._resources[api_version, kind]
        except KeyError:
            raise ApiError(404, "NotFound", f"{api_version} serves no {kind}", ()) from None

    def _checked(self, method: str, target: str, body: bytes | None, content_type: str | None) -> Answer:
        answer = self._exchange(method, target, body, content_type)
        if answer.status >= 400:
            reason, message = "", answer.body.decode(errors="replace")
            if answer.headers.get_content_type() == "application/json":
                told = json.loads(answer.body)
                reason, message = told.get("reason", ""), told.get("message", "")
            raise ApiError(answer.status, reason, message, answer.warnings, answer.audit_id)
        return answer

    def _exchange(self, method: str, target: str, body: bytes | None, content_type: str | None) -> Answer:
        connection = self._connection()
        headers = {**self._headers, **({"Content-Type": content_type} if body is not None and content_type else {})}
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"{method} {target}: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def _connection(self) -> http.client.HTTPSConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                made = _Connection(self._address, self._context, self._netns, self._timeout)
                made.connect()
                return made
            # Something to read before anything was asked is the end of the connection: the server went away.
            if connection.sock is not None and not _readable(connection.sock):
                return connection
            connection.close()


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class _Connection(http.client.HTTPSConnection):
    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        netns: str | None,
        timeout_seconds: float,
    ) -> None:
        super().__init__(*address, context=context, timeout=timeout_seconds)
        self._tls = context
        self._place = netns

    def connect(self) -> None:
        plain = connect((self.host, self.port), netns=self._place, timeout_seconds=self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def connect(address: tuple[str, int], *, netns: str | None, timeout_seconds: float | None) -> socket.socket:
    """Connect to *address*, inside the network namespace called *netns* if one is given."""
    return _made_in(netns, lambda: socket.create_connection(address, timeout_seconds))


def listen(address: tuple[str, int], *, netns: str | None = None) -> socket.socket:
    """Listen on *address*, inside the network namespace called *netns* if one is given."""
    return _made_in(netns, lambda: socket.create_server(address))


def _made_in(netns: str | None, make: Callable[[], socket.socket]) -> socket.socket:
    """
    Return the socket that *make* makes, inside the network namespace called *netns* if one is given.

    A socket stays in the namespace that it was made in, and a namespace belongs to a thread: so a thread of its own
    goes there, makes it, and ends.
    """
    if netns is None:
        return make()
    made: list[socket.socket | Exception] = []

    def enter_and_make() -> None:
        try:
            _enter(netns)
            made.append(make())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, Exception):
        raise result
    return result


def _enter(netns: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    try:
        if libc.setns(place, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), netns)
    finally:
        os.close(place)


def _options(*, dry_run: bool) -> dict[str, str]:
    return {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
