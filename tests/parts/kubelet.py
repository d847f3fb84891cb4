"""
The part of a kubelet that `kubectl logs` needs: containers' logs over TLS, asked by the API server.

Which containers there are is the test's word; that the pod exists, who may read its log and on which node it is asked
for is the API server's own. The path and its parameters are those of the kubelet's server:
https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/server/server.go
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from certs.authority import issue_ca, issue_leaf
from tests.parts.api import Api, listen

POLL_SECONDS: Final = 0.02


@dataclass(slots=True)
class ContainerLog:
    """One container's log: a file as the container wrote it, or in the runtime's format with a time for each line."""

    file: Path
    cri: bool
    ended: bool = False
    """The container has ended: whoever follows has seen it all."""

    def write(self, *lines: str, at: datetime | None = None) -> None:
        """Append lines as the container runtime does."""
        stamp = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with self.file.open("a") as file:
            file.writelines(f"{stamp} stdout F {line}\n" for line in lines)


class KubeletLogs:
    """A server of containers' logs; a context manager."""

    def __init__(self, folder: Path, address: str, port: int, *, netns: str | None = None) -> None:
        """
        Describe it.

        Args:
            folder: For its certificate, and for the logs that `container` makes.
            address: Where it listens: the node's InternalIP.
            port: The node's kubelet port.
            netns: The network namespace that it listens in.

        """
        self.folder = folder
        self.port = port
        self.asked: list[dict[str, str]] = []
        """The parameters of each request, with its path."""
        self.logs: dict[tuple[str, str, str], ContainerLog] = {}
        self._address = address
        self._netns = netns
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        now, life = datetime.now(UTC), timedelta(days=1)
        leaf = issue_leaf(
            issue_ca(organization="kubelet", now=now, life=life), names=[self._address], now=now, life=life
        )
        pair = self.folder / "kubelet.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(leaf.certificate_pem + leaf.key_pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
        pair.unlink()
        self._server = _Server(self, listen((self._address, self.port), netns=self._netns), context)
        self._thread = threading.Thread(target=self._server.serve_forever, name="kubelet", args=(POLL_SECONDS,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve(self, namespace: str, pod: str, container: str, file: Path) -> ContainerLog:
        """Serve a file that a process writes."""
        return self._keep(namespace, pod, container, ContainerLog(file, cri=False))

    def container(self, namespace: str, pod: str, container: str) -> ContainerLog:
        """Make a container's log in the runtime's format, to be written by the test."""
        file = self.folder / f"{namespace}_{pod}_{container}.log"
        file.touch()
        return self._keep(namespace, pod, container, ContainerLog(file, cri=True))

    def join(self, api: Api, node: str) -> None:
        """Let the API server ask here for the logs of *node*'s pods."""
        addresses = [{"type": "InternalIP", "address": self._address}]
        endpoint = {"kubeletEndpoint": {"Port": self.port}}
        api.patch_status("v1", "Node", node, {"addresses": addresses, "daemonEndpoints": endpoint})

    def _keep(self, namespace: str, pod: str, container: str, log: ContainerLog) -> ContainerLog:
        self.logs[namespace, pod, container] = log
        return log

    def lines(self, log: ContainerLog, query: dict[str, str]) -> Iterator[bytes]:
        """Yield what the kubelet would: from *sinceSeconds* on, and with *follow* until the container ends."""
        since = query.get("sinceSeconds")
        begin = datetime.now(UTC) - timedelta(seconds=int(since)) if since is not None else None
        rest = b""
        with log.file.open("rb") as file:
            while not self._closing.is_set():
                ended = log.ended
                data = rest + file.read()
                *lines, rest = data.split(b"\n")
                for line in lines:
                    if not log.cri:
                        yield line + b"\n"
                        continue
                    stamp, _, _, text = line.split(b" ", 3)
                    if begin is None or datetime.fromisoformat(stamp.decode()) >= begin:
                        yield text + b"\n"
                if query.get("follow") != "true" or ended:
                    yield rest
                    return
                time.sleep(POLL_SECONDS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, kubelet: KubeletLogs, listener: Any, context: ssl.SSLContext) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_address = listener.getsockname()
        self.kubelet = kubelet
        self._tls = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the request's own thread: a handshake must not keep others waiting.
        with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as tls:
            _Handler(tls, client_address, self)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        kubelet = server.kubelet
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        kubelet.asked.append({"path": parts.path, **query})
        _, place, *names = parts.path.split("/")
        log = kubelet.logs.get((names[0], names[1], names[2])) if len(names) == 3 else None
        if place != "containerLogs" or log is None:
            self._answer(404, f"no such container: {parts.path}\n".encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in kubelet.lines(log, query):
            if line:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class' name
        pass
