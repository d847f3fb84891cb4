"""Our server on a real API server: how it starts, follows and relists thousands of nodes, and what pods wait for it."""

import contextlib
import json
import random
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.apiserver.deployed import render
from tests.bench.bodies import cluster
from tests.bench.compare import NODES, Effort
from tests.bench.load import ask, finish, start
from tests.bench.scale import cpu_seconds, memory
from tests.bench.servers import GENERATOR_CORE, OURS, PEERS, Target, on_core, ours, peer
from tests.parts.api import Api
from tests.parts.build import binaries
from tests.parts.kube import ControlPlane
from tests.parts.process import Ports, wait_until
from tests.serve.server import Server

NAMESPACE: Final = "client-ip-system"
CHURN_PER_SECOND: Final = 100
CHURN_SECONDS: Final = 8.0
RATE: Final = 500
RELIST_SECONDS: Final = 20.0
CREATIONS: Final = 300
OUT_OF_THE_WAY: Final = ("nice", "-n", "19", *on_core(GENERATOR_CORE))
"""
An API server that starts takes all cores that it gets: what is measured is what reviews wait for ours, not for a core.
"""
CONFIGURATION: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")


def measure(folder: Path, review: Path, effort: Effort, chance: random.Random, nodes: int = NODES) -> dict[str, Any]:
    """Return the figures of a cluster with *nodes* nodes."""
    results: dict[str, Any] = {"nodes": nodes}
    with ControlPlane("1.37", folder / "kube", prefix=OUT_OF_THE_WAY) as plane:
        api = plane.client()
        fill(plane, folder, nodes, results)
        with watching(plane, folder, results) as (target, server):
            costs = [ask(target, review, seconds=effort.seconds).cpu_seconds_per_review for _ in range(effort.rounds)]
            results["cpu_seconds"] = statistics.median(costs)
            results["quiet_longest_wait_seconds"] = ask(target, review, seconds=4, rate=RATE).latency_seconds["max"]
            results |= _churn(plane, folder, target, review)
            results |= relist(plane, target, review)
            print(f"cluster: {json.dumps(results)}", flush=True)
            results["creations"] = _creations(api, folder, target, server, chance, effort)
    return results


def fill(plane: ControlPlane, folder: Path, nodes: int, results: dict[str, Any]) -> None:
    """Create what the cluster holds; nodes by the Go writer, since thousands take a client minutes."""
    api = plane.client()
    documents = cluster(nodes)["items"]
    for name in (NAMESPACE, "istio-system"):
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for document in documents:
        if document["kind"] == "Namespace":
            api.create(document)
        elif document["kind"] == "MutatingWebhookConfiguration":
            api.create(_called_nowhere(document))
    lines = b"\n".join(_line(each) for each in documents if each["kind"] == "Node")
    (folder / "nodes.jsonl").write_bytes(lines)
    done = _nodes(plane, folder)
    print(f"{nodes} nodes created in {done['seconds']:.0f} s", flush=True)
    results["created_seconds"] = done["seconds"]


def _line(node: Mapping[str, Any]) -> bytes:
    metadata = {key: value for key, value in node["metadata"].items() if key != "resourceVersion"}
    return json.dumps({**node, "metadata": metadata}, separators=(",", ":")).encode()


def _nodes(plane: ControlPlane, folder: Path, *options: str) -> dict[str, float]:
    with (folder / "nodes.jsonl").open("rb") as lines:
        command = [str(binaries("bench")["nodes"]), "-kubeconfig", str(plane.kubeconfig), *options]
        done = subprocess.run(command, stdin=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the node writer failed: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def watching(plane: ControlPlane, folder: Path, results: dict[str, Any]) -> Iterator[tuple[Target, Server]]:
    """Run our server on the cluster until the block ends; put what its start took into *results*."""
    api = plane.client()
    for document in render("crd", "rbac"):
        api.apply(document)
    kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "client-ip-webhook")
    begun = time.monotonic()
    with ours(folder / "watching", "--kubeconfig", str(kubeconfig)) as (target, server):
        results["ready_seconds"] = time.monotonic() - begun
        results["ready_cpu_seconds"] = cpu_seconds(target.pid)
        results["ready_peak_mib"] = memory(target.pid, "VmHWM")
        yield target, server


def _churn(plane: ControlPlane, folder: Path, target: Target, review: Path) -> dict[str, Any]:
    """Nodes change steadily: what it costs alone, and what reviews wait meanwhile."""
    options = ("-rate", str(CHURN_PER_SECOND), "-duration", f"{CHURN_SECONDS:g}s")
    before, begun = cpu_seconds(target.pid), time.monotonic()
    done = _nodes(plane, folder, *options)
    share = (cpu_seconds(target.pid) - before) / (time.monotonic() - begun)
    running = start(target, review, seconds=CHURN_SECONDS, rate=RATE, seed=5)
    _nodes(plane, folder, *options)
    load = finish(running, "churn")
    return {
        "churn_per_second": done["nodes"] / done["seconds"],
        "churn_cpu_share": share,
        "churn_p99_seconds": load.latency_seconds["p99"],
        "churn_longest_wait_seconds": load.latency_seconds["max"],
    }


def relist(plane: ControlPlane, target: Target, review: Path) -> dict[str, Any]:
    """The API server comes back without its history: everything is listed again, while reviews come."""
    spent = cpu_seconds(target.pid)
    running = start(target, review, seconds=RELIST_SECONDS, rate=RATE, seed=6)
    plane.stop_api_server(crash=True)
    plane.compact()
    plane.start_api_server()  # it has counted nothing yet
    wait_until(
        lambda: plane.metric("apiserver_request_total", resource="nodes", verb="LIST") > 0, what="a relist", seconds=60
    )
    load = finish(running, "relist")
    return {
        "relist_longest_wait_seconds": load.latency_seconds["max"],
        "relist_p99_seconds": load.latency_seconds["p99"],
        "relist_cpu_seconds": cpu_seconds(target.pid) - spent,
        "peak_mib": memory(target.pid, "VmHWM"),
    }


def _creations(
    api: Api, folder: Path, target: Target, server: Server, chance: random.Random, effort: Effort
) -> dict[str, Any]:
    """Pods created one after the other, with no webhook, with ours and with the tutorial's, in shuffled blocks."""
    with contextlib.ExitStack() as stack:
        ports = Ports()
        stack.callback(ports.close)
        (tutorial,) = [each for each in PEERS if each.name == "tutorial"]
        other = stack.enter_context(peer(tutorial, folder / "tutorial", ports))
        variants: dict[str, Target | None] = {"none": None, OURS: target, "tutorial": other}
        times: dict[str, list[float]] = {name: [] for name in variants}
        number = 0
        for _ in range(max(2, effort.latency_rounds)):
            order = list(variants)
            chance.shuffle(order)
            for name in order:
                chosen = variants[name]
                if chosen is not None:
                    _register(api, chosen)
                for _ in range(CREATIONS // max(2, effort.latency_rounds)):
                    number += 1
                    begun = time.perf_counter()
                    made = api.create(_pod(f"p-{number}"), namespace="shop")
                    times[name].append(time.perf_counter() - begun)
                    patched = "sidecar.istio.io/interceptionMode" in made["metadata"].get("annotations", {})
                    if patched != (chosen is not None):
                        raise RuntimeError(f"{name}: the pod was {'' if patched else 'not '}patched")
                if chosen is not None:
                    _unregister(api)
    assert server.process.poll() is None
    return {name: _percentiles(found) for name, found in times.items()}


def _register(api: Api, target: Target) -> None:
    host, port = target.address
    url = f"https://{host}:{port}/mutate"
    for document in render("configuration", "--url", url, "--ca-file", str(target.ca)):
        api.apply(document)

    def called() -> bool:
        made = api.create(_pod("probe"), namespace="shop", dry_run=True)
        return "sidecar.istio.io/interceptionMode" in made["metadata"].get("annotations", {})

    wait_until(called, what="the API server to call it", seconds=30)


def _unregister(api: Api) -> None:
    api.delete(*CONFIGURATION, "client-ip-webhook")

    def gone() -> bool:
        made = api.create(_pod("probe"), namespace="shop", dry_run=True)
        return "sidecar.istio.io/interceptionMode" not in made["metadata"].get("annotations", {})

    wait_until(gone, what="the API server to call it no more", seconds=30)


def _pod(name: str) -> dict[str, Any]:
    containers = [{"name": "app", "image": "registry.example.com/app:1"}]
    spec = {"nodeSelector": {"pool": "general"}, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _percentiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": statistics.median(ordered), "p99": ordered[int(len(ordered) * 0.99)]}


def _called_nowhere(document: dict[str, Any]) -> dict[str, Any]:
    """Nobody serves the injector here: a call fails at once, and the pod is admitted; its selectors are what counts."""
    more = {
        "clientConfig": {"url": "https://127.0.0.1:1/inject"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 1,
    }
    return {**document, "webhooks": [{**webhook, **more} for webhook in document["webhooks"]]}
