"""
What `client-ip scan` of a large cluster takes: CPU and memory, on pages that a real API server wrote.

    python -m tests.bench.scanning [--pods N]

One namespace is made on a real API server, with injected pods as Istio leaves them, and its pages are recorded. A
server beside it replays them for as many namespaces as are wanted, over TLS, under other names; all else it hands on.
It writes the figures into docs/performance.md. `--reports N` measures what reports of N namespaces cost.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, TCPConnector, web

from tests.apiserver.reportcrds import crd
from tests.bench.bodies import cluster
from tests.bench.replayed import DEPLOYMENTS, PODS_EACH, deployment, injected_pod
from tests.bench.scale import memory
from tests.docs.measured import commit
from tests.parts.api import Api
from tests.parts.cache import ROOT
from tests.parts.kube import ControlPlane, write_kubeconfig
from webhook.facts.cluster import open_cluster
from webhook.rules.decision import Outcome, Reason
from webhook.running.as_report import OPEN_REPORTS
from webhook.running.findings import Row, Scope, fingerprint
from webhook.running.publishing import Publisher, Written
from webhook.running.verdicts import Advice, Verdict

RECORDED: Final = "bench-00000"
"""The namespace that is recorded; its name is as long as each that it is replayed under."""
PAGE: Final = 500
NODES: Final = 1_000
GOAL_SECONDS: Final = 60.0
GOAL_MIB: Final = 150.0
DOCUMENT: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- scan: written by python -m tests.bench.scanning -->", "<!-- scan: end -->")


@dataclass(slots=True)
class Recording:
    """Pages of one namespace, as the API server wrote them, and how many namespaces they stand for."""

    pods: list[bytes]
    deployments: bytes
    copies: int
    sent: int = 0
    """Bytes of pods' pages."""

    def page(self, what: str, number: int) -> bytes:
        """Return page *number* of the list of all namespaces."""
        pages = self.pods if what == "pods" else [self.deployments]
        total = self.copies * len(pages)
        name = f"bench-{number // len(pages):05}"
        token = json.dumps(str(number + 1) if number + 1 < total else "")
        left = (total - number - 1) * (PAGE if what == "pods" else DEPLOYMENTS)
        metadata = f'"metadata":{{"resourceVersion":"1","continue":{token},"remainingItemCount":{left}}}'
        text = re.sub(rb'"metadata":\{[^{}]*\}', metadata.encode(), pages[number % len(pages)], count=1)
        text = text.replace(RECORDED.encode(), name.encode())
        self.sent += len(text) if what == "pods" else 0
        return text


def record(api: Api, copies: int) -> Recording:
    """Make the namespace on the API server and return what it writes of it."""
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled", "team": "bench"}
    for number in range(copies):
        name = f"bench-{number:05}"
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for number in range(DEPLOYMENTS):
        made = api.create(deployment(number), namespace=RECORDED)
        for each in range(PODS_EACH):
            pod = injected_pod(made, each)
            api.create(pod, namespace=RECORDED)
            api.patch_status("v1", "Pod", pod["metadata"]["name"], pod["status"], namespace=RECORDED)
    pods: list[bytes] = []
    query = {"limit": str(PAGE)}
    while True:
        page = api.request("GET", f"/api/v1/namespaces/{RECORDED}/pods", query=query)
        pods.append(_compact(page))
        if not page["metadata"].get("continue"):
            break
        query["continue"] = page["metadata"]["continue"]
    listed = api.request("GET", f"/apis/apps/v1/namespaces/{RECORDED}/deployments")
    return Recording(pods, _compact(listed), copies)


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


@contextlib.contextmanager
def replaying(plane: ControlPlane, recording: Recording) -> Iterator[Path]:
    """Serve the recording, and all else from the real API server, in a thread; yield the kubeconfig of it."""
    token = json.loads(plane.kubeconfig.read_text())["users"][0]["user"]["token"]
    trusted = ssl.create_default_context(cafile=str(plane.ca_file))
    ready, loop = threading.Event(), asyncio.new_event_loop()
    port = 0

    async def handle(request: web.Request) -> web.Response:
        what = request.path.rpartition("/")[2]
        if what in {"pods", "deployments"} and "/namespaces/" not in request.path:
            body = recording.page(what, int(request.query.get("continue", "0")))
            return web.Response(body=body, content_type="application/json")
        async with (
            ClientSession(connector=TCPConnector(ssl=trusted)) as session,
            session.request(
                request.method,
                plane.url + request.path_qs,
                data=await request.read(),
                headers={"Authorization": f"Bearer {token}"},
            ) as answer,
        ):
            body = await answer.read()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    async def start() -> web.AppRunner:
        nonlocal port
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(plane.folder / "pki" / "apiserver.crt", plane.folder / "pki" / "apiserver.key")
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        ready.set()
        return runner

    runner = loop.create_task(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(30)
    path = plane.folder / "replay.kubeconfig"
    write_kubeconfig(path, url=f"https://127.0.0.1:{port}", ca=plane.ca, token=token)
    try:
        yield path
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(runner.result().cleanup())
        loop.close()


def measure(plane: ControlPlane, pods: int) -> dict[str, Any]:
    """Return what a scan of *pods* pods takes: a process of its own, its CPU and its peak."""
    api = plane.client()
    for document in cluster(NODES)["items"]:
        if document["kind"] != "Namespace":
            _make(api, document)
    recording = record(api, max(pods // (DEPLOYMENTS * PODS_EACH), 1))
    with replaying(plane, recording) as kubeconfig:
        begun = time.monotonic()
        output = plane.folder / "scan.json"
        command = [sys.executable, "-m", "webhook.cli", "scan", "--kubeconfig", str(kubeconfig), "-o", "json"]
        process = subprocess.Popen([*command, "--output-file", str(output)], stderr=subprocess.PIPE)
        peak = 0.0
        while True:
            # Not rusage's: that counts what this process had when it forked.
            with contextlib.suppress(OSError, ValueError):
                peak = max(peak, memory(process.pid, "VmHWM"))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.stderr.read() if process.stderr is not None else ""
        seconds = time.monotonic() - begun
    found = json.loads(output.read_text())
    assert found["counts"]["pods"] == recording.copies * DEPLOYMENTS * PODS_EACH
    return {
        "pods": found["counts"]["pods"],
        "workloads": found["counts"]["workloads"],
        "rows": len(found["rows"]),
        "megabytes": recording.sent / 1e6,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "seconds": seconds,
        "peak_mib": peak,
    }


def _make(api: Api, document: dict[str, Any]) -> None:
    if document["kind"] == "MutatingWebhookConfiguration":
        for webhook in document["webhooks"]:
            webhook["clientConfig"] = {"url": "https://127.0.0.1:1/inject"}
            webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore"}
            webhook["timeoutSeconds"] = 1
            webhook["matchConditions"] = [{"name": "never", "expression": "false"}]
    status = document.pop("status", None)
    document["metadata"].pop("resourceVersion", None)
    api.create(document)
    if status is not None:
        api.patch_status(document["apiVersion"], document["kind"], document["metadata"]["name"], status)
        api.patch("v1", "Node", document["metadata"]["name"], {"spec": {"taints": document["spec"].get("taints", [])}})


def reports(plane: ControlPlane, namespaces: int) -> dict[str, Any]:
    """Return what reports of *namespaces* namespaces with five rows each cost: the first run, and one after it."""
    api = plane.client()
    api.create(crd(OPEN_REPORTS))
    plane.wait_until(lambda: api.request("GET", OPEN_REPORTS.path()) is not None, what="the report API")
    names = [f"report-{number:05}" for number in range(namespaces)]
    for name in names:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    verdict = Verdict(outcome=Outcome.LOST, reason=Reason.POD_SECURITY, cause="level restricted")
    rows = [_row(name, number, verdict) for name in names for number in range(5)]

    async def publish() -> Written:
        async with open_cluster(str(plane.kubeconfig)) as opened:
            scope = Scope(source="bench")
            return await Publisher(opened, OPEN_REPORTS).publish(rows, scope, at=datetime.now(UTC))

    found: dict[str, Any] = {"namespaces": namespaces}
    for run in ("first", "second"):
        begun, spent = time.monotonic(), time.process_time()
        written = asyncio.run(publish())
        assert written.failed == []
        writes = written.created + written.updated + written.pruned
        found[run] = {
            "writes": writes,
            "seconds": time.monotonic() - begun,
            "cpu_seconds": time.process_time() - spent,
        }
    found["bytes"] = sum(len(_compact(each)) for each in api.request("GET", OPEN_REPORTS.path())["items"])
    return found


def _row(namespace: str, number: int, verdict: Verdict) -> Row:
    name = f"web-{number}"
    return Row(
        fingerprint=fingerprint(namespace, "Deployment", name, verdict.reason),
        namespace=namespace,
        kind="Deployment",
        name=name,
        uid="0d4e6d2a-0000-4000-8000-000000000000",
        advice=Advice.CHANGE,
        reason=verdict.reason,
        policy="default",
        owner="team-a",
        now=verdict,
        after=verdict,
    )


def text(scan: dict[str, Any], written: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    first, second = written["first"], written["second"]
    return f"""## Scanning a cluster

`python -m tests.bench.scanning`, {datetime.now(UTC):%Y-%m-%d}: `client-ip scan -o json` of pages that a real API \
server wrote, replayed over TLS; {NODES:,} nodes; {commit()}.

| pods | workloads | read | CPU (goal {GOAL_SECONDS:.0f} s) | peak memory (goal {GOAL_MIB:.0f} MiB) |
|---|---|---|---|---|
| {scan["pods"]:,} | {scan["workloads"]:,} | {scan["megabytes"]:,.0f} MB | {scan["cpu_seconds"]:.1f} s \
| {scan["peak_mib"]:.0f} MiB |

A page of {PAGE} pods is decoded, folded into counts and dropped; what is kept grows with workloads, not with pods.

Reports of {written["namespaces"]:,} namespaces, five rows in each ({written["bytes"] / 1e6:.1f} MB in all), at most \
five writes a second:

| run | writes | time | CPU of the writer |
|---|---|---|---|
| the first | {first["writes"]:,} | {first["seconds"]:.0f} s | {first["cpu_seconds"]:.1f} s |
| the next, nothing changed | {second["writes"]:,} | {second["seconds"]:.1f} s | {second["cpu_seconds"]:.1f} s |
"""


def write(section: str) -> None:
    """Put the section into the document, in place of the former one."""
    before, _, rest = DOCUMENT.read_text().partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    DOCUMENT.write_text(before.rstrip("\n") + f"\n\n{MARKS[0]}\n\n{section}\n{MARKS[1]}\n" + after.lstrip("\n"))


def main() -> None:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=100_000)
    parser.add_argument("--reports", type=int, default=1_000, metavar="N")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="client-ip-bench-") as folder,
        ControlPlane("1.37", Path(folder), audit_policy=None) as plane,
    ):
        scan = measure(plane, chosen.pods)
        print(json.dumps(scan), flush=True)
        written = reports(plane, chosen.reports)
        print(json.dumps(written), flush=True)
    if chosen.pods >= 100_000 and chosen.reports >= 1_000:
        write(text(scan, written))
    met = scan["cpu_seconds"] <= GOAL_SECONDS and scan["peak_mib"] <= GOAL_MIB
    sys.exit(0 if met else "a goal was missed")


if __name__ == "__main__":
    main()
