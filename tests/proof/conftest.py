"""
The lab, once for all tests of this folder, and the report at the end.

Run it by `make proof`. Whatever is missing fails the run by name; whatever is interrupted is cleaned up.
"""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TextIO

import pytest

from tests.docs.measured import commit
from tests.parts import istio
from tests.parts.build import binaries
from tests.parts.cache import ROOT
from tests.proof import gateway, leftover, preflight
from tests.proof.lab import Lab
from tests.proof.namespaces import host_state, leftovers, run
from tests.proof.network import LOAD_BALANCER, OUTSIDE
from tests.proof.node_agent import RunningPod
from tests.proof.report import Report, table

JSON: Final = ROOT / "build" / "proof.json"
MARKDOWN: Final = ROOT / "docs" / "proof.md"
LOGS: Final = ROOT / "build" / "proof-logs"
OTHER_RUN_SECONDS: Final = 900.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REPORT: Final = pytest.StashKey[Report]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Who asks: nobody's label makes any of them special."""

    plain: RunningPod
    """A pod without a sidecar."""
    sidecar: RunningPod
    """A pod with one, so that its calls are mTLS."""
    outside: str
    """The network namespace of the client outside the cluster."""


def _interrupted(number: int, _frame: object) -> NoReturn:
    """End the run as Ctrl-C does, once: cleaning up takes seconds, and a second signal must not end that."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _wait_for_another_run() -> TextIO:
    """Return the lock, held: two runs would fight for the same names."""
    end = time.monotonic() + OTHER_RUN_SECONDS
    while True:
        lock = leftover.lock()
        if lock is not None:
            return lock
        if time.monotonic() > end:
            pytest.fail(f"another make proof has run for {OTHER_RUN_SECONDS:g} s on this machine", pytrace=False)
        time.sleep(1)


@pytest.fixture(scope="session")
def host_before() -> dict[str, list[str]]:
    """The machine's own rules, routes and interfaces before anything started."""
    lacking = preflight.missing()
    if lacking:
        pytest.fail("make proof lacks:\n  " + "\n  ".join(lacking), pytrace=False)
    return host_state()


@pytest.fixture(scope="session")
def lab(host_before: dict[str, list[str]]) -> Iterator[Lab]:
    """The lab; only one on a machine, since its namespaces have fixed names."""
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    with _wait_for_another_run():
        leftover.remove()
        folder = leftover.new_folder()
        try:
            with Lab(folder) as running:
                yield running
        finally:
            shutil.rmtree(LOGS, ignore_errors=True)
            shutil.copytree(folder / "log", LOGS)
            shutil.rmtree(folder)
    left = [each.name for each in leftovers()]
    assert not left, f"namespaces are left: {left}"
    assert host_state() == host_before, "the machine's own rules, routes or interfaces have changed"


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Where tests write what they see."""
    made = Report(f"{_versions()}; {commit()}")
    request.config.stash[REPORT] = made
    return made


def _versions() -> str:
    """Ask the programs themselves."""
    api_server, agent = binaries("kube-1.37")["kube-apiserver"], istio.programs()["pilot-agent"]
    kubernetes = run(api_server, "--version").split()[-1].removeprefix("v")
    found = re.search(r'Version:"([^"]+)"', run(agent, "version"))
    envoy = re.search(r"version: \w+/([\d.]+)/", run(istio.envoy(), "--version"))
    return f"Kubernetes {kubernetes}, Istio {found[1] if found else '?'}, Envoy {envoy[1] if envoy else '?'}"


@pytest.fixture(scope="session")
def callers(lab: Lab, report: Report) -> Callers:
    """Who asks."""
    lab.namespace("plain", labels={})
    lab.namespace("callers")
    plain = lab.start_pod("plain", "plain")
    sidecar = lab.start_pod("callers", "caller")
    report.names.add("the pod without a sidecar", plain.address, plain.address6)
    report.names.add("the caller with a sidecar", sidecar.address, sidecar.address6)
    report.names.add("Envoy", "127.0.0.6", "::6")
    for name, node in lab.network.nodes.items():
        report.names.add(name, node.address, node.address6, node.gateway)
    for _, client in OUTSIDE.values():
        report.names.add("the client outside", client)
    return Callers(plain=plain, sidecar=sidecar, outside=lab.network.client.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The application in a namespace, with its Services."""

    pod: RunningPod
    cluster_ips: tuple[str, str]


def start_app(lab: Lab, report: Report, callers: Callers, namespace: str) -> App:
    """Start the application in *namespace*, with a normal and a headless Service."""
    pod = lab.start_pod(namespace, "app")
    first, second = lab.service(namespace, "app")
    lab.service(namespace, "app", headless=True)
    for address in (first, second):
        lab.reachable(callers.plain.netns.name, address, 80)
    report.names.add(f"the application in {namespace}", pod.address, pod.address6)
    return App(pod=pod, cluster_ips=(first, second))


@pytest.fixture(scope="session")
def before(lab: Lab, report: Report, callers: Callers) -> App:
    """The application in a namespace without our label."""
    lab.namespace("before")
    return start_app(lab, report, callers, "before")


@pytest.fixture(scope="session")
def after(lab: Lab, report: Report, callers: Callers) -> App:
    """The same in a namespace with it; nothing else differs."""
    lab.namespace("after", preserve="enabled")
    return start_app(lab, report, callers, "after")


@pytest.fixture(scope="session")
def ingress(lab: Lab, report: Report, before: App, after: App) -> RunningPod:
    """A classic ingress gateway in a namespace without our label; /before and /after lead to the applications."""
    lab.namespace("ingress")
    gateway.account(lab.api, "ingress")
    gateway.install(lab.api, "ingress", {"/before": "app.before", "/after": "app.after", "/legacy": "app.legacy"})
    lab.api.create(gateway.pod("ingress", "gateway"))
    pod = lab.agent.run("ingress", "gateway")
    report.names.add("the gateway", pod.address, pod.address6)
    for path in ("/before", "/after"):
        lab.reachable(lab.network.client.name, LOAD_BALANCER, 80, path)
    return pod


@pytest.fixture(scope="module")
def centos(lab: Lab, callers: Callers, before: App, after: App) -> Iterator[None]:
    """A CentOS 7 node beside the others while a module's tests run; what they started there goes with it."""
    lab.add_node("centos", os_image="CentOS Linux 7 (Core)", kernel_version="3.10.0-1160.el7.x86_64")
    lab.webhook.sees("client_ip_nodes", 1, tproxy="unsupported")
    try:
        yield
    finally:
        lab.remove_node("centos")
        lab.webhook.sees("client_ip_nodes", 0, tproxy="unsupported")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write what was seen; the document only where everything was asked and good."""
    report = session.config.stash.get(REPORT, None)
    if report is None or not report.rows:
        return
    files = {item.path for item in session.items}
    everything = files == set(Path(__file__).parent.glob("test_*.py")) and session.testscollected == len(session.items)
    good = exitstatus == 0 and session.testscollected == len(report.chapters)
    report.write(JSON, MARKDOWN if everything and good else None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    report = config.stash.get(REPORT, None)
    if report is not None and report.rows:
        terminalreporter.section("the proof")
        terminalreporter.write_line(table(report.rows))
        terminalreporter.write_line(f"\n{len(report.rows)} rows: {JSON.relative_to(ROOT)}")
