"""What tenants and peers without credentials send, many at once, while others create pods; and memory that is gone."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.bench import bombs
from tests.chaos.cluster import NAME, NAMESPACE, Lab
from tests.chaos.kubelet import Pod, ip
from tests.parts.api import ApiError
from tests.parts.process import ProcessError, wait_until

FLOOD_SECONDS: Final = 8
CANARY_SECONDS: Final = 10
"""It begins before the flood and ends after it."""
HOSTILE: Final = "10.231.250.1"
"""The address that floods come from."""
LOWEST: Final = ("nice", "-n", "19")
"""A flood has cores of its own in a cluster: here it takes what is left of those of who is flooded."""
LEAST_OPENED: Final = 300
"""Connections that it opens; thousands, where no other work takes its cores."""
STARVED_CALLS: Final = 20
"""Calls that may fail for each second that the replica could have run and had no core: this machine, not the flood."""
LONGEST_WAIT_MS: Final = 500
TENANT: Final = "tenant"
LONG: Final = 250_000
"""Characters of an annotation that the API server takes."""
KILLING: Final = {
    "digits": {"proxy.istio.io/config": f"interceptionMode: {'1' * LONG}x"},
    "commas": {"inject.istio.io/templates": "," * LONG},
    "a mode": {"sidecar.istio.io/interceptionMode": "x" * LONG},
    "lists in YAML": {"proxy.istio.io/config": "x: [" + "a," * (LONG // 2) + "]"},
    "merges in YAML": {"proxy.istio.io/config": "<<: [" + ",".join(f"{{a{n}: 1}}" for n in range(20_000)) + "]"},
}
"""Annotations, each of which stopped or killed a replica when it was found."""
OTHERS: Final = ("templates' names, whole", "a mode", "a label", "an environment variable", "a Service's annotation")
"""More of `tests.bench.bombs`. Long lists are not among them: the API server takes half a minute for one by itself."""
TIMES: Final = 6
HOG: Final = """
# A megabyte every two milliseconds, as a leak that grows fast; then it stays until it is killed.
import sys, time
taken = []
for _ in range(int(sys.argv[1]) >> 20):
    taken.append(bytearray(b"x" * (1 << 20)))
    time.sleep(0.002)
time.sleep(30)
"""


def outside(pod: Pod) -> Path:
    """Return a replica's folder in `/proc`, which is that of the processes outside of our namespace."""
    here = Path("/proc/self/ns/pid").readlink()
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inside = (each / "status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1]
            if inside == str(pod.process.pid) and (each / "ns" / "pid").readlink() == here:
                return each
    raise ProcessError(f"{pod.name} is not in /proc")


def most_memory(pod: Pod) -> int:
    """Return the most bytes that the process of a replica has ever had."""
    return int((outside(pod) / "status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def starved(pod: Pod) -> float:
    """Return for how many seconds a replica could have run and had no core."""
    return int((outside(pod) / "schedstat").read_text().split()[1]) / 1e9


def unhurt(lab: Lab, restarts: int) -> None:
    """Assert that no replica came near its limit, or was restarted since there were *restarts* of all."""
    assert sum(pod.restarts for pod in lab.node.pods) == restarts
    for pod in lab.node.pods:
        most = most_memory(pod)
        print(f"{pod.name}: {most >> 20} MiB at the most")
        assert most < lab.node.template.memory_bytes
        assert pod.cgroup is None or pod.cgroup.kills == 0
        assert not [line for line in lab.said(pod) if "SSL connection" in line]


def test_a_peers_flood_costs_others_nothing(lab: Lab, tmp_path: Path) -> None:
    """All kinds at once against one replica, without credentials: it keeps its memory, and nobody else waits."""
    ip("address", "add", f"{HOSTILE}/32", "dev", "lo")
    lab.started()
    port = lab.node.template.ports["webhook"]
    ca = tmp_path / "ca.crt"
    ca.write_bytes(lab.state.bundle)
    with lab.fault("a peer's flood of one replica", watched=False) as fault:
        pod, other = lab.node.pods[:2]
        restarts = sum(each.restarts for each in lab.node.pods)
        canaries = [
            python("tests.flood.canary", f"{each.address}:{port}", ca, CANARY_SECONDS, f"--name={NAME}.{NAMESPACE}.svc")
            for each in (pod, other)
        ]
        before = starved(pod)
        options = (f"--least={LEAST_OPENED}", f"--source={HOSTILE}")
        did = said(python("tests.flood.peer", f"{pod.address}:{port}", FLOOD_SECONDS, *options, prefix=LOWEST))
        heard, elsewhere = (said(each) for each in canaries)
        starving = starved(pod) - before
        lab.until(lab.all_ready, "replicas to be ready")
    print(f"flood: {did}; canary: {heard}; of the other replica: {elsewhere}; no core for {starving:.1f} s")
    unhurt(lab, restarts)
    fault.costs(failed=STARVED_CALLS * int(starving), within_seconds=60)
    assert did["opened"] > 0, did
    assert heard["failed"] == 0, heard
    # What this machine itself makes others wait meanwhile, the replica beside shows.
    assert heard["longest_ms"] < LONGEST_WAIT_MS + elsewhere["longest_ms"] + 1000 * int(starving), (heard, elsewhere)


def test_a_tenants_flood_of_dry_runs_costs_others_nothing(lab: Lab) -> None:
    """By a tenant of a namespace that is not opted in: the objects ask for it themselves, and none is stored."""
    lab.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT}})
    lab.started()
    with lab.fault("a tenant's flood of dry runs", watched=False) as fault:
        before = [starved(pod) for pod in lab.node.pods]
        restarts = sum(pod.restarts for pod in lab.node.pods)
        for _ in range(TIMES):
            for annotations in KILLING.values():
                dry_run(lab, bombs.pod(annotations))
        for name in OTHERS:
            dry_run(lab, bombs.BOMBS[name]())
        lab.until(lab.all_ready, "replicas to be ready")
        starving = sum(starved(pod) for pod in lab.node.pods) - sum(before)
    unhurt(lab, restarts)
    fault.costs(failed=STARVED_CALLS * int(starving), within_seconds=120)


def test_a_replica_without_memory_is_killed_and_the_other_one_answers(lab: Lab) -> None:
    """Something else in its container takes what it is allowed: the kernel ends the replica, the kubelet starts it."""
    lab.started()
    with lab.fault("OOM kill of one replica", watched=False) as fault:
        pod = lab.node.pods[0]
        restarts = pod.restarts
        if pod.cgroup is None:
            pod.process.signal(signal.SIGKILL)  # what the kernel does
        else:
            limit = str(lab.node.template.memory_bytes)
            hog = subprocess.Popen([*pod.cgroup.prefix(0), sys.executable, "-c", HOG, limit])
            try:
                wait_until(lambda: not pod.process.running or pod.restarts > restarts, what="the kernel to end it")
            finally:
                hog.kill()
                hog.wait()
            assert pod.cgroup.kills > 0
        lab.until(lambda: pod.restarts > restarts, "the kubelet to start it again")
        assert pod.exit_codes[-1] == -signal.SIGKILL
        lab.node.wait_ready([pod])
    fault.costs(failed=150, within_seconds=20)


def dry_run(lab: Lab, document: Mapping[str, Any]) -> None:
    """Create an object that asks to be read, and is not stored."""
    metadata = dict(document["metadata"])
    labels = {"client-ip.dev/preserve": "enabled", **metadata.get("labels", {})}
    try:
        lab.api.create({**document, "metadata": {**metadata, "labels": labels}}, namespace=TENANT, dry_run=True)
    except ApiError as error:  # it is not valid, which is said after we were asked
        if error.status not in {400, 413, 422}:
            raise


def python(module: str, *arguments: object, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start a module beside the test."""
    command = [*prefix, sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a module's end, and return what it printed."""
    printed, _ = process.communicate(timeout=FLOOD_SECONDS * 10)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found
