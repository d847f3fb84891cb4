"""
What a kubelet, a container runtime and a CNI plugin do for a pod, with a network namespace in place of a container.

Everything follows the Pod as the API server stored it: which init containers run, with which arguments, users and
capabilities; where the sidecar listens for its probe; which mode istio-cni is told by the annotation. So what the
injector was made to write, rightly or wrongly, is what the traffic shows.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.parts import istio
from tests.parts.api import Api
from tests.parts.kubelet import KubeletLogs
from tests.parts.process import Process, wait_until
from tests.proof import app
from tests.proof.ask import Unanswered, http_get
from tests.proof.container import environment, expanded, mount_volumes, own, privileges, security_of
from tests.proof.namespaces import CommandError, Namespace
from tests.proof.network import Node

MODE: Final = "sidecar.istio.io/interceptionMode"
READY_SECONDS: Final = 60.0
KUBELET_PORT: Final = 10250
PREFLIGHT_FLAGS: Final = ("--run-validation", "--skip-rule-apply")
"""What makes istio-iptables only check: without them its arguments are those of the rules."""
NEVER: Final = frozenset({"--network-namespace", "--cni-mode", "--cleanup-only"})
"""With these istio-iptables does not stay in the network namespace that it is started in, or does not clean it up."""


class PodError(RuntimeError):
    """A pod that did not start; the message has its log's last lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPod:
    """A pod of which everything runs."""

    namespace: str
    name: str
    netns: Namespace
    address: str
    address6: str
    stored: Mapping[str, Any]
    """The Pod as it was started."""
    processes: Mapping[str, Process]
    """By container."""

    @property
    def proxy(self) -> Process:
        """Its sidecar, or its gateway's proxy."""
        return self.processes["istio-proxy"]

    @property
    def mode(self) -> str:
        """The mode that its init container was given, which is what is in effect."""
        containers = self.stored["spec"].get("initContainers", [])
        arguments = next(
            (each["args"] for each in containers if each["name"] in {"istio-init", "istio-validation"}), None
        )
        return "no sidecar" if arguments is None else str(arguments[arguments.index("-m") + 1])

    def access_log(self) -> list[dict[str, Any]]:
        """Return the lines of Envoy's access log so far."""
        lines = self.proxy.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def sockets(self) -> list[tuple[str, str]]:
        """Return (own, peer) of its established TCP connections, as netstat shows them."""
        rows = self.netns.run("ss", "-Htn", "state", "established").splitlines()
        return [(row.split()[-2], row.split()[-1]) for row in rows]


class NodeAgent:
    """The agent of all nodes."""

    def __init__(self, api: Api, folder: Path, nodes: Mapping[str, Node], python: str) -> None:
        """
        Prepare to run pods.

        Args:
            api: Reads pods and writes their status, as kubelets do.
            folder: Where roots and logs go; any user must be able to read it.
            nodes: By the name of the Node object.
            python: For the application; any user must be able to run it.

        """
        self._api = api
        self._folder = folder
        self._nodes = nodes
        self._pods: dict[tuple[str, str], RunningPod] = {}
        self._hosts = itertools.count(10)
        self._bin = folder / "bin"
        self._bin.mkdir(mode=0o755)
        # Caches lie under homes that only their owner can enter; the sidecar is another user.
        for program in (istio.programs()["pilot-agent"], istio.envoy(), Path(app.__file__)):
            _link(program, self._bin / program.name)
        self._app = [python, "-E", str(self._bin / "app.py")]
        self._closing = contextlib.ExitStack()
        self._kubelets = {
            name: self._closing.enter_context(
                KubeletLogs(folder / "kubelet" / name, node.address, KUBELET_PORT, netns=node.namespace.name)
            )
            for name, node in nodes.items()
        }

    def run(self, namespace: str, name: str) -> RunningPod:
        """
        Start a pod where the scheduler put it, and return when it is ready.

        Raises:
            PodError: It did not start.

        """
        pod = wait_until(
            lambda: self._bound(namespace, name), what=f"kube-scheduler to place {namespace}/{name}", seconds=30
        )
        node = self._nodes[pod["spec"]["nodeName"]]
        # One count for all nodes: an address tells the same wherever the scheduler put an earlier pod.
        netns, addresses = node.add_pod(f"{namespace}-{name}", next(self._hosts))
        for setting in pod["spec"].get("securityContext", {}).get("sysctls", []):
            netns.sysctl(**{setting["name"].replace(".", "__"): setting["value"]})
        ips, host_ips = [{"ip": each} for each in addresses], [{"ip": node.address}, {"ip": node.address6}]
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": ips}
        status |= {"hostIP": node.address, "hostIPs": host_ips}
        pod = dict(self._api.patch_status("v1", "Pod", name, status, namespace=namespace))
        processes: dict[str, Process] = {}
        running = RunningPod(
            namespace=namespace,
            name=name,
            netns=netns,
            address=addresses[0],
            address6=addresses[1],
            stored=pod,
            processes=processes,
        )
        self._pods[namespace, name] = running
        self._plug_cni(running)
        for container in pod["spec"].get("initContainers", []):
            if container.get("restartPolicy") == "Always":
                processes[container["name"]] = self._start(running, container)
            else:
                self._run_to_end(running, container)
        for container in pod["spec"]["containers"]:
            processes[container["name"]] = self._start(running, container)
        for container_name, process in processes.items():
            self._kubelets[node.name].serve(namespace, name, container_name, process.log)
        conditions = ("Ready", "ContainersReady", "PodScheduled", "Initialized")
        ready = {"conditions": [{"type": each, "status": "True"} for each in conditions]}
        self._api.patch_status("v1", "Pod", name, ready, namespace=namespace)
        return running

    def stop(self, namespace: str, name: str) -> None:
        """End a pod, if it runs, and delete its object."""
        pod = self._pods.pop((namespace, name), None)
        if pod is not None:
            self._end(pod)
        self._api.delete("v1", "Pod", name, namespace=namespace, grace_seconds=0)

    def close(self) -> None:
        """End every pod; their objects stay."""
        for pod in self._pods.values():
            self._end(pod)
        self._pods.clear()
        self._closing.close()

    @staticmethod
    def _end(pod: RunningPod) -> None:
        for process in pod.processes.values():
            process.kill()  # pilot-agent drains for seconds otherwise; Envoy is of its process group
        pod.netns.delete()

    def _bound(self, namespace: str, name: str) -> dict[str, Any] | None:
        pod = self._api.get("v1", "Pod", name, namespace=namespace)
        return dict(pod) if pod["spec"].get("nodeName") in self._nodes else None

    def _plug_cni(self, pod: RunningPod) -> None:
        """
        Do what istio-cni's plugin does, for a pod whose injector left the rules to it.

        The plugin takes the mode from the annotation, whatever the proxy was started with:
        https://github.com/istio/istio/blob/86c9f01fd735/cni/pkg/plugin/sidecar_redirect.go
        """
        containers = pod.stored["spec"].get("initContainers", [])
        validation = next((each for each in containers if each["name"] == "istio-validation"), None)
        if validation is None:
            return
        arguments = [each for each in validation["args"] if each not in PREFLIGHT_FLAGS]
        refuse_to_leave(arguments)
        arguments[arguments.index("-m") + 1] = pod.stored["metadata"]["annotations"].get(MODE, "REDIRECT")
        variables = environment(pod.stored, validation)
        given = [f"{name}={value}" for name, value in variables.items()]
        command = ["env", "-i", f"PATH={os.environ['PATH']}", *given, self._bin / "pilot-agent", *arguments]
        (self._folder / "log" / f"{pod.netns.name}-istio-cni.log").write_text(pod.netns.run(*command))

    def _run_to_end(self, pod: RunningPod, container: Mapping[str, Any]) -> None:
        process = self._process(pod, container)
        process.start()
        try:
            code = process.wait(READY_SECONDS)
        finally:
            process.kill()
        if code != 0:
            raise PodError(f"{process.name} ended with {code}\n{process.tail()}")

    def _start(self, pod: RunningPod, container: Mapping[str, Any]) -> Process:
        process = self._process(pod, container)
        process.start()
        if container["name"] == "istio-proxy":
            probe = container["readinessProbe"]["httpGet"]

            def ready() -> bool:
                return http_get(pod.netns.name, pod.address, probe["port"], probe["path"]).status == 200

            process.wait_until(ready, what=f"{process.name} to be ready", passing=(Unanswered,), seconds=READY_SECONDS)
        elif container.get("ports"):
            port = container["ports"][0]["containerPort"]
            process.wait_until(lambda: _listens(pod, port), what=f"{process.name} to listen", passing=(CommandError,))
        return process

    def _process(self, pod: RunningPod, container: Mapping[str, Any]) -> Process:
        security = security_of(pod.stored, container)
        refuse_to_leave(container.get("args", []))
        label = f"{pod.netns.name}-{container['name']}"
        root = self._folder / "pods" / label
        root.mkdir(parents=True, mode=0o755)
        mount_volumes(self._api, pod.stored, container, root, self._token)
        variables = environment(pod.stored, container)
        if container["name"].startswith("istio-"):
            program = [str(self._bin / "pilot-agent")]
            self._prepare_proxy(root, variables, security)
        else:
            program = [*self._app, *(str(port["containerPort"]) for port in container.get("ports", []))]
        arguments = [expanded(each, variables) for each in container.get("args", [])]
        log = self._folder / "log" / f"{label}.log"
        log.touch()
        # Envoy opens /dev/stdout by name once more, so its user must be allowed to.
        os.chown(log, security.get("runAsUser", 0), -1)
        given = [f"{name}={value}" for name, value in {"PATH": os.environ["PATH"], "HOME": "/", **variables}.items()]
        command = ["env", "-i", *given, *privileges(security), *program, *arguments]
        return Process(label, command, log=log, netns=pod.netns.name, folder=root)

    def _prepare_proxy(self, root: Path, variables: dict[str, str], security: Mapping[str, Any]) -> None:
        """Give pilot-agent what Istio's image has: a template, Envoy, and a version."""
        template = root / "var" / "lib" / "istio" / "envoy" / "envoy_bootstrap_tmpl.json"
        template.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(istio.bootstrap(), template)
        for folder in ("etc/istio/proxy", "var/lib/istio/data"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        settings = json.loads(variables.get("PROXY_CONFIG") or "{}")
        variables["PROXY_CONFIG"] = json.dumps({**settings, "binaryPath": str(self._bin / "envoy")})
        variables["ISTIO_META_ISTIO_VERSION"] = istio.VERSION
        own(root, security)

    def _token(self, pod: dict[str, Any], audience: str) -> str:
        metadata = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        account = pod["spec"].get("serviceAccountName", "default")
        namespace = metadata["namespace"]
        answer = self._api.request(
            "POST",
            self._api.path("v1", "ServiceAccount", account, namespace=namespace, subresource="token"),
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [audience] if audience else [],
                    "boundObjectRef": bound,
                    "expirationSeconds": 7200,
                },
            },
        )
        token: str = answer["status"]["token"]
        return token


def refuse_to_leave(arguments: Sequence[str]) -> None:
    """
    Refuse to start istio-iptables where it would write rules outside the pod's network namespace.

    Raises:
        PodError: An argument is one of `NEVER`.

    """
    found = [each for each in arguments if each.split("=")[0] in NEVER]
    if found:
        raise PodError(f"arguments that must never be used here: {' '.join(found)}")


def _listens(pod: RunningPod, port: int) -> bool:
    return bool(pod.netns.run("ss", "-Hltn", f"sport = :{port}").strip())


def _link(program: Path, place: Path) -> None:
    """Put *program* where every user may run it: a built one by a hard link, where the file system allows."""
    try:
        if program.suffix == ".py":
            raise OSError("a source file's mode is its owner's business")
        place.hardlink_to(program)
    except OSError:
        shutil.copyfile(program, place)
    place.chmod(0o755)
