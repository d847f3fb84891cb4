"""
`python -m tests.bench.large [SHAPE ...]`: what one replica needs where the cluster's objects are many, or large.

Prints the rows of a table in docs/operations.md. Each shape is a real API server; its objects are written into etcd,
since creating them would take longer than all else. `client-ip serve` must become ready, and what it had at the most is
read. How long reviews would wait is measured beside it (`following`), at the start and when all is listed again.
"""

import argparse
import base64
import http.client
import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.apiserver.deployed import render
from tests.bench.behind import NAMESPACE
from tests.bench.scale import cpu_seconds, memory
from tests.docs.measured import commit
from tests.parts.kube import ControlPlane
from tests.parts.process import wait_until
from tests.serve.server import Server
from webhook.rules import wellknown

Document = dict[str, Any]
READY_SECONDS: Final = 600.0
BATCH_BYTES: Final = 1 << 20
"""Of one transaction; etcd takes 1.5 MiB and 128 operations."""
BATCH: Final = 100
RELISTS: Final = 3


def _namespaces(number: int, size: int) -> Iterator[tuple[str, Document]]:
    for each in range(number):
        name = f"tenant-{each:05d}"
        metadata = {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": f"team-{each % 100}"}}
        annotations = {"example.com/notes": "x" * (size - 400)}
        document = _object("v1", "Namespace", {**metadata, "annotations": annotations})
        yield f"/registry/namespaces/{name}", {**document, "spec": {"finalizers": ["kubernetes"]}}


def _nodes(number: int, size: int) -> Iterator[tuple[str, Document]]:
    for place in range(number):
        name = f"node-{place:05d}"
        labels = {"kubernetes.io/os": "linux", "kubernetes.io/hostname": name, "pool": f"pool-{place % 20}"}
        images = [
            {"names": [f"registry.example.com/{'x' * 80}/{n}:1"], "sizeBytes": n} for n in range(size // 2 // 130)
        ]
        info = {"osImage": "Ubuntu 24.04.1 LTS", "kernelVersion": "6.8.0-1015-generic", "operatingSystem": "linux"}
        document = _object("v1", "Node", {"name": name, "labels": labels, "annotations": {"notes": "x" * (size // 2)}})
        yield f"/registry/minions/{name}", {**document, "spec": {}, "status": {"nodeInfo": info, "images": images}}


def _policies(number: int, exceptions: int) -> Iterator[tuple[str, Document]]:
    for each in range(number):
        waived = [
            {
                "name": f"app-{n}",
                "selector": {"matchLabels": {"app": f"app-{n}"}},
                "owner": f"team-{n}@example.com",
                "reason": "reads the PROXY header instead, until its next release",
                "ticket": f"SEC-{n}",
                "expires": "2099-03-31T00:00:00Z",
            }
            for n in range(exceptions)
        ]
        name = f"policy-{each:03d}"
        spec = {"namespaceSelector": {"matchLabels": {"team": f"team-{each}"}}, "mode": "Enforce", "exceptions": waived}
        document = _object(wellknown.POLICY_API_VERSION, wellknown.POLICY_KIND, {"name": name, "generation": 1})
        yield f"/registry/client-ip.dev/clientippolicies/{name}", {**document, "spec": spec}


def _object(api_version: str, kind: str, metadata: Document) -> Document:
    stamped = {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}
    return {"apiVersion": api_version, "kind": kind, "metadata": stamped}


Shape = Callable[[], Iterator[tuple[str, Document]]]
SHAPES: Final[Mapping[str, tuple[str, Shape]]] = {
    "many-namespaces": ("10,000 namespaces of 3 KB", lambda: _namespaces(10_000, 3_000)),
    "large-namespaces": ("450 namespaces of 250 KB", lambda: _namespaces(450, 250_000)),
    "large-nodes": ("5,000 nodes of 100 KB", lambda: _nodes(5_000, 100_000)),
    "policies": ("500 policies with 200 exceptions each", lambda: _policies(500, 200)),
}


def _put(address: tuple[str, int], objects: Iterator[tuple[str, Document]]) -> int:
    connection = http.client.HTTPConnection(*address, timeout=120)
    batch: list[Document] = []
    number = size = 0

    def send() -> None:
        connection.request("POST", "/v3/kv/txn", json.dumps({"success": batch}))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"etcd answered {answer.status}: {text[:300]!r}")
        batch.clear()

    for key, document in objects:
        value = json.dumps(document, separators=(",", ":")).encode()
        put = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value).decode()}
        if batch and (size + len(value) > BATCH_BYTES or len(batch) == BATCH):
            send()
            size = 0
        batch.append({"request_put": put})
        size += len(value)
        number += 1
    send()
    connection.close()
    return number


def measure(shape: str) -> Document:
    """Return the figures of one shape: MiB, seconds of CPU, and milliseconds of CPU."""
    with tempfile.TemporaryDirectory(prefix="client-ip-large-") as name:
        folder = Path(name)
        with ControlPlane("1.37", folder / "kube", audit_policy=None) as plane:
            api = plane.client()
            for each in (NAMESPACE, "istio-system"):
                api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}})
            for document in render("crd", "rbac"):
                api.apply(document)
            number = _put(plane.etcd_address, SHAPES[shape][1]())
            plane.restart_api_server(crash=True)  # it has read none of them one by one
            kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "client-ip-webhook")
            found = _served(kubeconfig, folder) | _followed(kubeconfig)
    known = found["namespaces"] if "namespaces" in shape else found["nodes"] + found["policies"]
    assert known >= number, found
    return found


def _served(kubeconfig: Path, folder: Path) -> Document:
    with Server(folder / "serve", "--kubeconfig", str(kubeconfig), start_seconds=READY_SECONDS) as server:
        pid = server.process.pid
        wait_until(lambda: server.probe("/readyz").status == 200, what="ready", seconds=READY_SECONDS)
        # Policies are not waited for by readiness, and are all there with the next look.
        server.probe("/metrics")
        return {"peak_mib": memory(pid, "VmHWM"), "rss_mib": memory(pid, "VmRSS"), "cpu_seconds": cpu_seconds(pid)}


def _followed(kubeconfig: Path) -> Document:
    command = [sys.executable, "-m", "tests.bench.following", str(kubeconfig)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found: Document = json.loads(process.stdout.readline())
        longest = 0.0
        for _ in range(RELISTS):
            process.stdin.write("again\n")
            process.stdin.flush()
            longest = max(longest, json.loads(process.stdout.readline())["longest_ms"])
        peak = memory(process.pid, "VmHWM")
        process.stdin.close()
    return {**found, "relist_ms": longest, "followed_peak_mib": peak}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", choices=[*SHAPES, []], help="(default: all)")
    print(f"measured at {commit()}")
    for shape in parser.parse_args().shapes or SHAPES:
        found = measure(shape)
        print(
            f"| {SHAPES[shape][0]} | {found['peak_mib']:.0f} MiB | {found['rss_mib']:.0f} MiB | "
            f"{found['cpu_seconds']:.1f} s | {found['longest_ms']:.1f} ms | {found['relist_ms']:.1f} ms |"
        )
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
