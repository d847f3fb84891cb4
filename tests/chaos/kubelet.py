"""
Stands for the kubelet and the EndpointSlice controller around our replicas, which are real processes.

Each replica runs the container's command of the rendered Deployment with an address of its own, and is probed, ended
and restarted as its pod's spec says. What the API server may call follows from that: one EndpointSlice, written when
a replica's readiness changes and at once when one is told to go.
"""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.cgroup import Cgroup, Cgroups, quantity
from tests.parts.api import Api, ApiError
from tests.parts.process import Process, ProcessError, wait_until

RELIST_SECONDS: Final = 1.0
"""How often the kubelet looks for containers that ended (its generic PLEG's relist period)."""
PROPAGATION_SECONDS: Final = 0.5
"""From a pod's new status to a new EndpointSlice: the kubelet's status write and the controller's queue."""
READY_SECONDS: Final = 60.0
TICK_SECONDS: Final = 0.05
OOM_SCORE_ADJ: Final = 996
"""
Of a container that requests less memory than it may have, and little of the node's.

https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior
"""


@dataclass(slots=True)
class Probe:
    """One probe of the pod's spec, and how it went last."""

    path: str
    port: int
    period_seconds: float
    timeout_seconds: float
    failure_threshold: int
    due: float = 0.0
    failures: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any], ports: Mapping[str, int]) -> "Probe":
        """Return the probe that *spec* describes; its defaults are the API's."""
        get = spec["httpGet"]
        return cls(
            path=get["path"],
            port=ports.get(get["port"], get["port"]),
            period_seconds=spec.get("periodSeconds", 10),
            timeout_seconds=spec.get("timeoutSeconds", 1),
            failure_threshold=spec.get("failureThreshold", 3),
        )

    def ask(self, address: str) -> bool:
        """Return whether *address* answers as it should."""
        connection = http.client.HTTPConnection(address, self.port, timeout=self.timeout_seconds)
        try:
            connection.request("GET", self.path, headers={"Connection": "close"})
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a Deployment's pods are like."""

    arguments: tuple[str, ...]
    ports: Mapping[str, int]
    probes: Mapping[str, Mapping[str, Any]]
    pre_stop_seconds: float
    grace_seconds: float
    memory_bytes: int
    """The limit."""

    @classmethod
    def of(cls, deployment: Mapping[str, Any]) -> "Template":
        """Return what the pods of *deployment* need here."""
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        return cls(
            arguments=tuple(container["args"]),
            ports={port["name"]: port["containerPort"] for port in container["ports"]},
            probes={kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")},
            pre_stop_seconds=container["lifecycle"]["preStop"]["sleep"]["seconds"],
            grace_seconds=spec["terminationGracePeriodSeconds"],
            memory_bytes=quantity(container["resources"]["limits"]["memory"]),
        )


@dataclass(slots=True)
class Pod:
    """One replica: a process, what its probes say, and where it is on its way out."""

    name: str
    address: str
    process: Process
    probes: dict[str, Probe]
    cgroup: Cgroup | None = None
    """None where the machine lets us make none."""
    ready: bool = False
    started: bool = False
    terminating: bool = False
    restarts: int = 0
    exit_codes: list[int | None] = field(default_factory=list)
    thread: threading.Thread | None = None

    @property
    def endpoint(self) -> dict[str, Any]:
        """What the EndpointSlice says of it."""
        conditions = {
            "ready": self.ready and not self.terminating,
            "serving": self.ready,
            "terminating": self.terminating,
        }
        return {"addresses": [self.address], "conditions": conditions}


class Node:
    """Where replicas run: the kubelet's loop of each, and the controller that tells the API server."""

    def __init__(
        self,
        api: Api,
        template: Template,
        *,
        namespace: str,
        service: str,
        log: Path,
        environment: Mapping[str, str],
        cgroups: Cgroups | None = None,
    ) -> None:
        self.template = template
        self.pods: list[Pod] = []
        self.ended: list[Pod] = []
        self.environment = dict(environment)
        self._cgroups = cgroups
        if cgroups is None:
            self.environment["CLIENT_IP_MEMORY_LIMIT"] = str(template.memory_bytes)
        self._api = api
        self._namespace = namespace
        self._service = service
        self._log = log
        self._starts = 0
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._written: object = None
        self._controller = threading.Thread(target=self._control, name="endpointslices")
        self._controller.start()

    # --- What tests ask for

    def run(self, replicas: int = 1) -> list[Pod]:
        """Start pods, all at once; return them at once."""
        made = [self._make() for _ in range(replicas)]
        for pod in made:
            pod.process.start()
        self.pods += made
        for pod in made:
            pod.thread = threading.Thread(target=self._sync, args=(pod,), name=pod.name)
            pod.thread.start()
        return made

    def wait_ready(self, pods: Sequence[Pod], seconds: float = READY_SECONDS) -> None:
        """Wait until the API server was told that *pods* are ready."""
        addresses = {pod.address for pod in pods}
        self.until(lambda: addresses <= self.told_ready, "replicas to be ready", seconds)

    def until(
        self, reached: Callable[[], bool], what: str, seconds: float, passing: tuple[type[Exception], ...] = ()
    ) -> None:
        """Wait for *reached*, with the replicas' last lines where it does not come: any of them may end meanwhile."""
        try:
            wait_until(reached, what=what, seconds=seconds, interval_seconds=0.1, passing=passing)
        except ProcessError as error:
            tails = "".join(f"\n--- {pod.name}\n{pod.process.tail()}" for pod in self.pods)
            raise ProcessError(f"{error}{tails}") from error

    @property
    def told_ready(self) -> set[str]:
        """The addresses that the last EndpointSlice called ready."""
        written = self._written if isinstance(self._written, list) else []
        return {address for each in written if each["conditions"]["ready"] for address in each["addresses"]}

    def delete(self, pod: Pod) -> threading.Thread:
        """Delete a pod as `kubectl delete` does: its endpoint goes at once, preStop, SIGTERM, and SIGKILL at last."""
        pod.terminating = True
        self._changed.set()
        thread = threading.Thread(target=self._end, args=(pod,), name=f"{pod.name} ends")
        thread.start()
        return thread

    def roll(self) -> None:
        """Replace every pod as the Deployment's strategy says: one more at first, none less ever."""
        ending = []
        for old in list(self.pods):
            self.wait_ready(self.run())
            ending.append(self.delete(old))
        for thread in ending:
            thread.join()

    def kill_all(self) -> None:
        """End all pods without warning, and forget them."""
        gone, self.pods = self.pods, []
        for pod in gone:
            pod.terminating = True
            pod.process.signal(signal.SIGCONT)
            pod.process.kill()
        for pod in gone:
            if pod.thread is not None:
                pod.thread.join()
            if pod.cgroup is not None:
                pod.cgroup.remove()
        self._changed.set()
        wait_until(lambda: self._written == [], what="an empty EndpointSlice")

    def close(self) -> None:
        """End everything."""
        self.kill_all()
        self._closing.set()
        self._changed.set()
        self._controller.join()

    # --- The kubelet

    def _make(self) -> Pod:
        self._starts += 1
        address = f"10.231.{1 + self._starts // 200}.{1 + self._starts % 200}"
        ip("address", "add", f"{address}/32", "dev", "lo")
        name = f"webhook-{self._starts}"
        # All pods are in one network namespace here, so each listens on its own address and not on all.
        arguments = [each.replace("listen=:", f"listen={address}:") for each in self.template.arguments]
        cgroup = None if self._cgroups is None else self._cgroups.make(name, self.template.memory_bytes)
        prefix = () if cgroup is None else cgroup.prefix(OOM_SCORE_ADJ)
        process = Process(
            name,
            [*prefix, sys.executable, "-m", "webhook.cli", *arguments],
            log=self._log / f"{name}.log",
            environment=self.environment,
        )
        probes = {kind: Probe.of(spec, self.template.ports) for kind, spec in self.template.probes.items()}
        return Pod(name, address, process, probes, cgroup)

    def _sync(self, pod: Pod) -> None:
        """Probe one pod, and restart its container where that is due, until it is told to go."""
        relist = time.monotonic() + RELIST_SECONDS
        while not pod.terminating and not self._closing.is_set():
            now = time.monotonic()
            if now >= relist:
                relist = now + RELIST_SECONDS
                if not pod.process.running:
                    self._restart(pod)
                    continue
            if not pod.started:
                pod.started = self._due(pod, "startup", now) is True
            else:
                self._probe(pod, now)
            time.sleep(TICK_SECONDS)

    def _due(self, pod: Pod, kind: str, now: float) -> bool | None:
        """Return what a probe says where it is due; None where it is not, or has not failed often enough."""
        probe = pod.probes[kind]
        if now < probe.due:
            return None
        probe.due = now + probe.period_seconds
        if probe.ask(pod.address):
            probe.failures = 0
            return True
        probe.failures += 1
        return False if probe.failures >= probe.failure_threshold else None

    def _probe(self, pod: Pod, now: float) -> None:
        ready = self._due(pod, "readiness", now)
        if ready is not None and ready != pod.ready:
            pod.ready = ready
            self._changed.set()
        if self._due(pod, "liveness", now) is False:
            pod.process.signal(signal.SIGTERM)
            try:
                pod.process.wait(self.template.grace_seconds)
            except ProcessError:
                pod.process.kill()
            self._restart(pod)

    def _restart(self, pod: Pod) -> None:
        """Start the container of a pod again; the pod and its address stay."""
        if pod.terminating:
            return
        pod.exit_codes.append(pod.process.exit_code)
        pod.ready = pod.started = False
        pod.restarts += 1
        self._changed.set()
        for probe in pod.probes.values():
            probe.due = probe.failures = 0
        pod.process.start()

    def _end(self, pod: Pod) -> None:
        time.sleep(self.template.pre_stop_seconds)
        pod.process.signal(signal.SIGTERM)
        try:
            code: int | None = pod.process.wait(self.template.grace_seconds - self.template.pre_stop_seconds)
        except ProcessError:
            code = pod.process.kill()
        pod.exit_codes.append(code)
        if pod.cgroup is not None:
            pod.cgroup.remove()
        if pod in self.pods:
            self.pods.remove(pod)
        self.ended.append(pod)
        self._changed.set()

    # --- The EndpointSlice controller

    def _control(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            self._changed.clear()
            time.sleep(PROPAGATION_SECONDS)
            endpoints = [pod.endpoint for pod in list(self.pods) if pod.started or pod.terminating]
            if endpoints == self._written:
                continue
            try:
                self._api.apply(self._slice(endpoints))
            except (OSError, ApiError):
                self._changed.set()  # the API server is away: again
                continue
            self._written = endpoints

    def _slice(self, endpoints: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        labels = {"kubernetes.io/service-name": self._service, "endpointslice.kubernetes.io/managed-by": "chaos"}
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{self._service}-1", "namespace": self._namespace, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": self.template.ports["webhook"], "protocol": "TCP"}],
            "endpoints": list(endpoints),
        }


def ip(*arguments: str) -> None:
    """Run `ip` in the network namespace that this process is in."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
