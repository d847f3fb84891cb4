"""Named test 8: `client-ip verify` over the logs that the lab's sidecars wrote, in both of Istio's formats."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.parts.process import wait_until
from tests.proof.ask import http_get, tcp_ask
from tests.proof.conftest import App, Callers, start_app
from tests.proof.istiod import TEXT_LOG
from tests.proof.lab import HTTP_PORT, TCP_PORT, Lab
from tests.proof.network import LOAD_BALANCER
from tests.proof.node_agent import RunningPod
from tests.proof.observe import LOG_SECONDS
from tests.proof.report import Check, Names, Report

FORGED: Final = "198.51.100.7"
PATHS: Final = ("/verify-plain", "/verify-forged", "/verify-mtls", "/verify-outside")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What `client-ip verify -o json` said of a pod and its log."""

    status: int
    told: dict[str, Any]

    @classmethod
    def of_run(cls, lab: Lab, *arguments: str) -> Self:
        """Run the command where the API server can be reached."""
        place = ("ip", "netns", "exec", lab.network.control.name)
        command = [*place, sys.executable, "-m", "webhook.cli", "verify", "-o", "json", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if not done.stdout:
            raise AssertionError(f"client-ip verify {' '.join(arguments)}: {done.stderr}")
        return cls(status=done.returncode, told=json.loads(done.stdout))

    def of(self, path: str) -> dict[str, Any]:
        """Return what it said of the request to *path*."""
        requests: list[dict[str, Any]] = self.told["requests"]
        return next(each for each in requests if each["path"] == path)

    def of_tcp(self) -> dict[str, Any]:
        """Return what it said of the last TCP connection."""
        requests: list[dict[str, Any]] = self.told["requests"]
        return next(each for each in reversed(requests) if each["path"] is None)


def test_verify_reads_json(lab: Lab, report: Report, callers: Callers, before: App, after: App, tmp_path: Path) -> None:
    """8a. The applications of parts 1 and 2, whose mesh logs in JSON."""
    text = """`client-ip verify pod/NAME` reads the pods of chapters 1 and 2, and the JSON access logs of their
    sidecars, through the API server and the kubelets. The verdict is based on `upstream_local_address`.
    `downstream_remote_address` follows a forged X-Forwarded-For, and proves nothing."""
    with report.chapter("8a. client-ip verify, access logs in JSON", text) as check:
        for app in (before, after):
            judge(check, report.names, lab, callers, app, tmp_path)


def test_verify_reads_text(lab: Lab, report: Report, callers: Callers, tmp_path: Path) -> None:
    """8b. The same applications under a Telemetry that asks for Istio's default text format."""
    text = """The same for namespaces with a Telemetry resource that selects Istio's default text format."""
    with report.chapter("8b. client-ip verify, access logs in text", text) as check:
        for namespace, preserve in (("text-before", None), ("text-after", "enabled")):
            lab.namespace(namespace, preserve=preserve)
            spec = {"accessLogging": [{"providers": [{"name": TEXT_LOG}]}]}
            metadata = {"name": "text", "namespace": namespace}
            lab.api.create(
                {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": metadata, "spec": spec}
            )
            app = start_app(lab, report, callers, namespace)
            judge(check, report.names, lab, callers, app, tmp_path)


def test_verify_proves_nothing_by_a_gateway(report: Report, ingress: RunningPod, callers: Callers) -> None:
    """8c. A gateway's log has no inbound requests: nothing is proved, and that is no success."""
    text = """A gateway's log has only requests to other pods. The log of the application's own sidecar is needed."""
    with report.chapter("8c. client-ip verify, a gateway's access log", text) as check:
        http_get(callers.outside, LOAD_BALANCER, 80, "/after")
        command = [sys.executable, "-m", "webhook.cli", "verify", str(ingress.proxy.log)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said = "is inbound" in done.stderr and done.stderr.startswith("nothing proved")
        check("the log of the gateway", "-", "exit status", expected=1, seen=done.returncode)
        check("the log of the gateway", "-", "says that nothing is proved", expected=True, seen=said)


def judge(check: Check, names: Names, lab: Lab, callers: Callers, app: App, folder: Path) -> None:
    """Ask an application in each way, let `client-ip verify` judge its log, and add the rows."""
    pod, preserved = app.pod, app.pod.mode == "TPROXY"
    seen, of_file = verified(lab, callers, app, folder)
    whose = f"{pod.namespace}/{pod.name}"
    verdict = "preserved" if preserved else "lost"
    for traffic, found, client in (
        ("HTTP, pod without a sidecar", seen.of("/verify-plain"), callers.plain.address),
        ("HTTP with a forged X-Forwarded-For, pod without a sidecar", seen.of("/verify-forged"), callers.plain.address),
        ("HTTP, caller with a sidecar (mTLS)", seen.of("/verify-mtls"), callers.sidecar.address),
        ("HTTP, client outside", seen.of("/verify-outside"), "203.0.113.50"),
        ("TCP, pod without a sidecar", seen.of_tcp(), callers.plain.address),
    ):
        peer = names.tell(client if preserved else "127.0.0.6")
        what = f"{traffic} → {whose}"
        check(what, pod.mode, "verdict", expected=verdict, seen=found["verdict"])
        check(what, pod.mode, "the peer in the output", expected=peer, seen=names.tell(found["peer"]))
    forged = seen.of("/verify-forged")["downstreamRemoteAddress"]
    what = f"HTTP with a forged X-Forwarded-For, pod without a sidecar → {whose}"
    check(
        what,
        pod.mode,
        "downstream_remote_address, which must not affect the verdict",
        expected=f"{FORGED}:0",
        seen=forged,
    )
    what = f"the whole log of {whose}"
    others = {each["verdict"] for each in seen.told["requests"]} - {verdict}
    check(what, pod.mode, "other verdicts", expected="none", seen=", ".join(sorted(others)) or "none")
    check(what, pod.mode, "the pod's mode", expected=pod.mode, seen=seen.told["pods"][0]["mode"])
    check(what, pod.mode, "exit status", expected=0 if preserved else 1, seen=seen.status)
    same = (seen.status, seen.told["counts"], seen.told["pods"])
    alone = (of_file.status, of_file.told["counts"], of_file.told["pods"])
    check(what, pod.mode, "the log file gives the same result as the API server", expected=True, seen=alone == same)


def verified(lab: Lab, callers: Callers, app: App, folder: Path) -> tuple[Verified, Verified]:
    """Ask, wait for the log, and run the command over it: through the API server, and over its file."""
    pod, plain, sidecar = app.pod, callers.plain.netns.name, callers.sidecar.netns.name
    asks: tuple[Callable[[], object], ...] = (
        lambda: http_get(plain, pod.address, HTTP_PORT, "/verify-plain"),
        lambda: http_get(plain, pod.address, HTTP_PORT, "/verify-forged", headers={"X-Forwarded-For": FORGED}),
        lambda: http_get(sidecar, app.cluster_ips[0], 80, "/verify-mtls", headers={"Host": f"app.{pod.namespace}"}),
        lambda: http_get(callers.outside, pod.address, HTTP_PORT, "/verify-outside"),
        lambda: tcp_ask(plain, pod.address, TCP_PORT),
    )
    for ask in asks:
        ask()
    log = pod.proxy.log

    def written() -> bool:
        lines = [line for line in log.read_text(errors="replace").splitlines() if f"{pod.address}:{TCP_PORT}" in line]
        return bool(lines) and all(path in log.read_text(errors="replace") for path in PATHS)

    wait_until(written, what=f"the access log of {pod.namespace}/{pod.name} to tell of all", seconds=LOG_SECONDS)
    stored = folder / f"{pod.namespace}.json"
    stored.write_text(json.dumps(lab.api.get("v1", "Pod", pod.name, namespace=pod.namespace)))
    cluster = ("--kubeconfig", str(lab.plane.kubeconfig), "-n", pod.namespace, f"pod/{pod.name}")
    return Verified.of_run(lab, *cluster), Verified.of_run(lab, "--pod", str(stored), str(log))
