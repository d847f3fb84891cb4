"""A `client-ip serve` process of its own, on free loopback ports, and a client that trusts just its CA."""

import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from webhook.server.review import decode_response

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 20.0


@dataclass(slots=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def response(self) -> dict[str, Any]:
        """The AdmissionReview's response, its patch decoded."""
        return decode_response(self.body)


class Server:
    """The process, from start to end."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        start_seconds: float = START_SECONDS,
        self_signed: bool = True,
        python: str | Path = sys.executable,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.log = folder / "log"
        self._start_seconds = start_seconds
        command = [
            *prefix,
            *(str(python), "-m", "webhook.cli", "serve"),
            *("--listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0"),
            *options,
        ]
        if self_signed and "--tls-cert" not in options:
            command += ["--tls-self-signed", "--ca-out", str(self.ca)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        self.address, self.probes = self._addresses()

    def _addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        deadline = time.monotonic() + self._start_seconds
        pattern = re.compile(r"https://([^/]+):(\d+)/mutate, probes and metrics on http://([^:]+):(\d+)")
        while time.monotonic() < deadline and self.process.poll() is None:
            found = pattern.search(self.log.read_text())
            if found is not None:
                host, port, probe_host, probe_port = found.groups()
                return (host, int(port)), (probe_host, int(probe_port))
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the server's CA alone."""
        return ssl.create_default_context(cafile=str(self.ca))

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection of its own."""
        return http.client.HTTPSConnection(*self.address, context=self.context(), timeout=10)

    def ask(
        self,
        body: bytes | Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        path: str = "/mutate?timeout=2s",
        connection: http.client.HTTPSConnection | None = None,
    ) -> Answer:
        """Send one review and return the answer."""
        own = connection or self.connect()
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        own.request("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})
        answer = own.getresponse()
        read = Answer(answer.status, dict(answer.getheaders()), answer.read())
        if connection is None:
            own.close()
        return read

    def probe(self, path: str) -> Answer:
        """Ask the probes' listener."""
        connection = http.client.HTTPConnection(*self.probes, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        read = Answer(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return read

    def metric(self, line: str) -> float:
        """Return the value of the metric whose name and labels are *line*; 0 where there is none."""
        for each in self.probe("/metrics").body.decode().splitlines():
            name, _, value = each.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0

    def wait_for_log(self, text: str, seconds: float = 15.0) -> None:
        """Wait until the log holds *text*."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if text in self.log.read_text():
                return
            time.sleep(0.02)
        raise AssertionError(f"no {text!r} in the log:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def review(
    reviewed: Mapping[str, Any] | None,
    *,
    kind: Sequence[str] = ("", "v1", "Pod"),
    namespace: str = "shop",
    operation: str = "CREATE",
    **more: Any,
) -> dict[str, Any]:
    """Return an AdmissionReview as the API server sends it."""
    group, version, name = kind
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": group, "version": version, "kind": name},
            "namespace": namespace,
            "operation": operation,
            "object": reviewed,
            "oldObject": None,
            "dryRun": False,
            **more,
        },
    }


POD: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "httpbin", "namespace": "shop"},
    "spec": {
        "nodeSelector": {"pool": "general"},
        "containers": [{"name": "httpbin", "image": "docker.io/mccutchen/go-httpbin"}],
    },
}
