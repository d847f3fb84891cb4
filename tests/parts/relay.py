"""
A real API server behind an HTTP server of ours, which may refuse or hold what it passes on.

What is refused is refused as an overloaded API server does: 429 with Retry-After, and a Status. The rest is answered by
the API server itself, but for watches: nothing happens in them, and they end with the relay.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.parts.api import Api
from tests.parts.kube import ControlPlane

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Passed:
    """A request as it came."""

    method: str
    path: str
    at: float
    """Monotonic."""
    refused: bool


def nothing(method: str, path: str) -> int | None:
    """Refuse nothing."""
    return None


@dataclass
class Relay:
    """
    Passes requests on to a control plane as its admin; a context manager.

    `refuse` is asked of each request: the seconds of Retry-After, or None to let it pass. `held` is called before it is
    passed on, and may wait.
    """

    plane: ControlPlane
    folder: Path
    refuse: Callable[[str, str], int | None] = nothing
    held: Callable[[str, str], None] = lambda method, path: None
    passed: list[Passed] = field(default_factory=list)

    def __enter__(self) -> Self:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                relay._answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # http.server names them

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._api: Api = self.plane.client(timeout_seconds=60)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="relay")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of it, in *folder*."""
        host, port = self._server.server_address[:2]
        path = self.folder / "relay.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "relay", "cluster": {"server": f"http://{host!s}:{port}"}}],
            "users": [{"name": "admin", "user": {}}],
            "contexts": [{"name": "relay", "context": {"cluster": "relay", "user": "admin"}}],
            "current-context": "relay",
        }
        path.write_text(json.dumps(document))
        return path

    def writes(self, below: str) -> list[Passed]:
        """Return the writes to paths below *below*, in order."""
        return [each for each in self.passed if each.method in WRITES and each.path.startswith(below)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else None
        self.held(handler.command, handler.path)
        with self._lock:
            seconds = self.refuse(handler.command, handler.path)
            self.passed.append(Passed(handler.command, handler.path, time.monotonic(), seconds is not None))
        headers = {"Content-Type": "application/json"}
        if seconds is not None:
            status, headers["Retry-After"] = 429, str(seconds)
            refusal = {"kind": "Status", "apiVersion": "v1", "message": "too many requests", "code": 429}
            answer = json.dumps(refusal).encode()
        elif "watch=true" in handler.path:
            self._closing.wait(60)
            status, answer = 200, b""
        else:
            real = self._api._exchange(handler.command, handler.path, body, handler.headers.get("Content-Type"))
            status, answer = real.status, real.body
        with contextlib.suppress(OSError):  # the client has gone
            _send(handler, status, headers, answer)


def _send(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], answer: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer)
