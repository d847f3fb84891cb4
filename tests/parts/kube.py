"""
A real control plane on this machine: etcd and kube-apiserver, and the scheduler and controllers where asked for.

All of it is built from Kubernetes' own source (`tests.parts.build`) and listens on one address only: loopback, or an
address inside a network namespace that the test made.
"""

import base64
import http.client
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from certs.authority import issue_ca, issue_leaf
from tests.parts.api import Api, ApiError
from tests.parts.build import binaries
from tests.parts.process import Ports, Process, ProcessError, wait_until

VERSIONS: Final = ("1.37", "1.33")
"""Newest and oldest minor that the suites run against."""

READY_SECONDS: Final = 120.0
CLIENTS_KEPT: Final = 32
"""Clients whose idle connections stay open: hundreds of tests share a control plane, and files are limited to 1,024."""
SERVICE_ACCOUNT_ISSUER: Final = "https://kubernetes.default.svc"
SERVICE_CIDR: Final = "10.96.0.0/16"
WRITES: Final[Mapping[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "verbs": ["get", "list", "watch"]}, {"level": "Request"}],
}
"""An audit policy: every write with its body and its admission annotations, no reads."""

CONTROLLERS: Final = (
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "replicaset-controller",
    "deployment-controller",
)
"""What turns a Deployment into pods, and pods into endpoints."""

NOT_READY_TAINT: Final = "node.kubernetes.io/not-ready"


class ControlPlane:
    """
    A running control plane; a context manager.

    >>> with ControlPlane("1.37", folder, scheduler=True) as plane:
    ...     plane.client().create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    """

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        netns: str | None = None,
        bind_address: str = "127.0.0.1",
        scheduler: bool = False,
        controllers: Sequence[str] = (),
        audit_policy: Mapping[str, Any] | None = WRITES,
        aggregator_routing: bool = False,
        feature_gates: Mapping[str, bool] | None = None,
        flags: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """
        Describe a control plane without starting it.

        Args:
            version: One of `VERSIONS`.
            folder: Where its data, keys and logs go; the test's own.
            netns: The network namespace it runs in; its loopback must be up and *bind_address* be there.
            bind_address: Where kube-apiserver listens. EndpointSlices refuse loopback addresses, so a control plane
                that calls webhooks by Service needs another one, and so a *netns*.
            scheduler: Run kube-scheduler.
            controllers: Run kube-controller-manager with these (`CONTROLLERS` will often do). With none there is
                nobody to make ServiceAccounts, so their admission plugin is off.
            audit_policy: What `audit_events` can tell; None for nothing.
            aggregator_routing: Let kube-apiserver call a webhook's Service by its EndpointSlices, without kube-proxy.
            feature_gates: Set for all components.
            flags: More flags for kube-apiserver.
            prefix: What each program is started by, such as `nice`.

        """
        self.version = version
        self.folder = folder
        self.netns = netns
        self.address = bind_address
        self.kubeconfig = folder / "admin.kubeconfig"
        self.ca_file = folder / "pki" / "ca.crt"
        self.audit_log = folder / "log" / "audit.log"
        self._ports = Ports()
        self._binaries = {**binaries("kube-1.37"), **binaries("kubectl-1.37"), **binaries(f"kube-{version}")}
        if controllers:
            self._binaries.update(binaries(f"kube-node-{version}"))
        self._scheduled = scheduler
        self._controllers = tuple(controllers)
        self._audit_policy = audit_policy
        self._aggregator_routing = aggregator_routing
        self._gates = dict(feature_gates or {})
        self._flags = tuple(flags)
        self._prefix = tuple(prefix)
        self._token = secrets.token_hex(16)
        self._clients: list[Api] = []
        self._etcd_port = 0
        self._port = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where kube-apiserver listens."""
        return f"https://{self.address}:{self._port}"

    @property
    def etcd_address(self) -> tuple[str, int]:
        """Where etcd listens: the loopback of the control plane's network namespace."""
        return "127.0.0.1", self._etcd_port

    @property
    def ca(self) -> bytes:
        """The authority that signed kube-apiserver's certificate, PEM."""
        return self.ca_file.read_bytes()

    def start(self) -> None:
        """Start everything and return when it is ready."""
        for name in ("pki", "log", "etcd"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._port, self._etcd_port, peer_port = self._ports.take(), self._ports.take(), self._ports.take()
        self._write_pki()
        write_kubeconfig(self.kubeconfig, url=self.url, ca=self.ca, token=self._token)
        self.etcd = self._process("etcd", self._etcd_flags(peer_port))
        self.api_server = self._process("kube-apiserver", self._api_server_flags())
        self.controller_manager = self._process("kube-controller-manager", self._controller_manager_flags())
        self.etcd.start()
        self.start_api_server()
        if self._scheduled:
            self.start_scheduler()
        if self._controllers:
            client = self.client()
            self.controller_manager.start()
            self.wait_until(
                lambda: client.find("v1", "ServiceAccount", "default", namespace="default"),
                what="the default ServiceAccount",
            )

    def start_scheduler(self) -> None:
        """Start kube-scheduler, where the control plane began without it."""
        self._binaries.update(binaries(f"scheduler-{self.version}"))
        self.scheduler = self._process("kube-scheduler", self._component_flags())
        self.scheduler.start()

    def stop(self) -> None:
        """Stop everything and give the ports back; data and logs stay."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        for name in ("controller_manager", "scheduler", "api_server"):
            process: Process | None = getattr(self, name, None)
            if process is not None:
                process.stop()
        etcd: Process | None = getattr(self, "etcd", None)
        if etcd is not None:
            etcd.kill()  # its data is thrown away, and an orderly end takes seconds
        self._ports.close()

    def start_api_server(self) -> None:
        """Start kube-apiserver, for the first time or again on the same port, and return when it is ready."""
        self.api_server.start()
        client = self.client()

        def ready() -> bool:
            # Ready is more than /readyz: the namespaces that every suite uses are made a moment later.
            return client.text("/readyz") == "ok" and client.find("v1", "Namespace", "default") is not None

        self.wait_until(ready, what="kube-apiserver to be ready", seconds=READY_SECONDS)

    def stop_api_server(self, *, crash: bool = False) -> None:
        """End kube-apiserver in order (it gets 5 s to see its watchers go, who won't), or as a crash would."""
        if crash:
            self.api_server.kill()
        else:
            self.api_server.stop(grace_seconds=5)

    def restart_api_server(self, *, crash: bool = False) -> None:
        """Stop and start kube-apiserver: its port, data and keys stay."""
        self.stop_api_server(crash=crash)
        self.start_api_server()

    def start_etcd(self) -> None:
        """Start etcd again on the same port, and return when the API server writes to it."""
        self.etcd.start()
        client = self.client()
        mark = {"metadata": {"annotations": {"tests/etcd-started": secrets.token_hex(8)}}}
        # Reads and /readyz may be answered from memory; only a write proves that etcd is there.
        self.wait_until(
            lambda: client.patch("v1", "Namespace", "default", mark),
            what="kube-apiserver to write to etcd",
            seconds=READY_SECONDS,
        )

    def stop_etcd(self) -> None:
        """End etcd at once, as a crash would; what it had acknowledged is kept by the kernel."""
        self.etcd.kill()

    def restart_etcd(self) -> None:
        """Stop and start etcd: its port and data stay."""
        self.stop_etcd()
        self.start_etcd()

    def compact(self) -> None:
        """Let etcd forget everything but the newest state, as the API server asks it to every five minutes."""
        connection = http.client.HTTPConnection(*self.etcd_address, timeout=30)

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            read: dict[str, Any] = json.loads(answer.read())
            if answer.status != 200:
                raise OSError(f"etcd answered {path} with {answer.status}: {read}")
            return read

        try:
            # A write of nobody's: whoever knows the state of before knows less than the newest from now on.
            mark = base64.b64encode(b"/tests/compacted").decode()
            revision = int(post("/v3/kv/put", {"key": mark, "value": mark})["header"]["revision"])
            post("/v3/kv/compaction", {"revision": revision, "physical": True})
        finally:
            connection.close()

    def wait_until(
        self,
        reached: Callable[[], object],
        *,
        what: str,
        seconds: float = 30,
    ) -> None:
        """Wait for *reached*, for as long as etcd and kube-apiserver live; refusals count as "not yet"."""
        wait_until(
            lambda: bool(reached()),
            what=what,
            seconds=seconds,
            passing=(OSError, ApiError),
            processes=(self.etcd, self.api_server),
        )

    def client(
        self,
        *,
        token: str | None = None,
        user: str | None = None,
        group: str | None = None,
        timeout_seconds: float = 30,
    ) -> Api:
        """
        Return a client: the cluster's admin, or who *token* is, or *user* (and *group*) impersonated.

        `stop` closes it.
        """
        claimed = {"Impersonate-User": user, "Impersonate-Group": group}
        made = Api(
            self.url,
            ca=self.ca_file,
            token=token or self._token,
            headers={header: value for header, value in claimed.items() if value is not None},
            netns=self.netns,
            timeout_seconds=timeout_seconds,
        )
        self._clients.append(made)
        for forgotten in self._clients[:-CLIENTS_KEPT]:
            forgotten.close()  # idle connections alone: who still has it connects again
        return made

    def service_account_token(self, namespace: str, name: str, *, audiences: Sequence[str] = ()) -> str:
        """Return a token of the ServiceAccount, made by TokenRequest as the kubelet does for a pod."""
        client = self.client()
        token: str = client.request(
            "POST",
            client.path("v1", "ServiceAccount", name, namespace=namespace, subresource="token"),
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": list(audiences), "expirationSeconds": 7200},
            },
        )["status"]["token"]
        return token

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig with which a process is the ServiceAccount, which must exist, and nobody else."""
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        write_kubeconfig(path, url=self.url, ca=self.ca, token=self.service_account_token(namespace, name))
        return path

    def program(self, name: str) -> Path:
        """Return a program of this version, such as kubectl."""
        return self._binaries[name]

    def kubectl(self, *arguments: str, text: str | None = None, kubeconfig: Path | None = None) -> str:
        """
        Run kubectl, with *text* as its input, and return what it printed.

        Raises:
            ProcessError: It failed; the message has what it said.

        """
        prefix = ("ip", "netns", "exec", self.netns) if self.netns else ()
        command = [*prefix, str(self._binaries["kubectl"]), "--kubeconfig", str(kubeconfig or self.kubeconfig)]
        environment = {**os.environ, "KUBECACHEDIR": str(self.folder / "discovered")}  # not the user's own
        done = subprocess.run(
            [*command, *arguments], input=text, capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode != 0:
            raise ProcessError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def audit_events(self, **want: object) -> list[dict[str, Any]]:
        """
        Return the audit log's events in order, or those whose fields equal *want*.

        Fields below the first level take two underscores: `audit_events(verb="create", objectRef__name="cart")`.
        The API server writes an event when it has answered: await it with `wait_until`.
        """
        if not self.audit_log.exists():
            return []
        lines = self.audit_log.read_bytes().split(b"\n")[:-1]  # without one that is only half written
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [event for event in events if all(_field(event, path) == value for path, value in want.items())]

    def audited(self, audit_id: str) -> dict[str, Any]:
        """Return the event of one request; waits until the API server has written it."""

        found: list[bytes] = []

        def written() -> bool:
            lines = self.audit_log.read_bytes().split(b"\n")[:-1] if self.audit_log.exists() else []
            found[:] = [line for line in lines if audit_id.encode() in line]
            return bool(found)

        self.wait_until(written, what=f"the audit log's event {audit_id}")
        event: dict[str, Any] = json.loads(found[-1])
        return event

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of kube-apiserver's samples called *name* that carry *labels*; 0 where there is none."""
        with self.client() as client:
            families = list(text_string_to_metric_families(client.text("/metrics")))
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def add_node(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Mapping[str, str]] = (),
        unschedulable: bool = False,
        os_image: str = "Debian GNU/Linux 13 (trixie)",
        kernel_version: str = "6.12.48+deb13-amd64",
        operating_system: str = "linux",
        kubelet_version: str = "v1.37.2",
        ready: bool = True,
    ) -> Api:
        """
        Add a Node as a kubelet would, with room for pods; return the client that did.

        Admission taints every new node not-ready; the node lifecycle controller would take that away from a ready one.
        """
        client = self.client()
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels or {})}}
        client.create({**node, "spec": {"unschedulable": unschedulable, "taints": list(taints)}})
        info = {
            "osImage": os_image,
            "kernelVersion": kernel_version,
            "operatingSystem": operating_system,
            "architecture": "amd64",
            "kubeletVersion": kubelet_version,
            "containerRuntimeVersion": "containerd://2.1.4",
        }
        room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"nodeInfo": info, "capacity": room, "allocatable": room, "conditions": conditions}
        client.patch_status("v1", "Node", name, status)
        if ready:
            client.patch("v1", "Node", name, {"spec": {"taints": [dict(taint) for taint in taints]}})
        return client

    def _process(self, binary: str, flags: Sequence[str]) -> Process:
        gates = ",".join(f"{name}={str(value).lower()}" for name, value in sorted(self._gates.items()))
        argv: list[str | Path] = [*self._prefix, self._binaries.get(binary, Path(binary)), *flags]
        if gates and binary != "etcd":
            argv.append(f"--feature-gates={gates}")
        return Process(
            f"{binary} {self.version}" if binary != "etcd" else binary,
            argv,
            log=self.folder / "log" / f"{binary}.log",
            netns=self.netns,
            folder=self.folder,
        )

    def _etcd_flags(self, peer_port: int) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{peer_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _api_server_flags(self) -> list[str]:
        pki = self.folder / "pki"
        flags = [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--bind-address={self.address}",
            f"--secure-port={self._port}",
            f"--advertise-address={self.address}",
            # No EndpointSlice for the Service `kubernetes`: those refuse loopback addresses, and nobody needs it here.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={pki}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--service-account-key-file={pki / 'sa.key'}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            "--allow-privileged",
            "--shutdown-delay-duration=0s",
            "--profiling=false",
        ]
        if not self._controllers:
            flags.append("--disable-admission-plugins=ServiceAccount")
        if self._aggregator_routing:
            flags.append("--enable-aggregator-routing=true")
        if self._audit_policy is not None:
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(self._audit_policy))
            flags += [
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self.audit_log}",
                "--audit-log-mode=blocking",
            ]
        return [*flags, *self._flags]

    def _component_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def _controller_manager_flags(self) -> list[str]:
        return [
            *self._component_flags(),
            f"--service-account-private-key-file={self.folder / 'pki' / 'sa.key'}",
            f"--root-ca-file={self.ca_file}",
            "--use-service-account-credentials=false",
            f"--controllers={','.join(self._controllers)}",
        ]

    def _write_pki(self) -> None:
        pki = self.folder / "pki"
        now, life = datetime.now(tz=UTC), timedelta(days=2)
        authority = issue_ca(organization="control plane", now=now, life=life)
        names = [self.address, "127.0.0.1", "localhost", "kubernetes.default.svc", "kubernetes"]
        leaf = issue_leaf(authority, names=list(dict.fromkeys(names)), now=now, life=life)
        self.ca_file.write_bytes(authority.certificate_pem)
        (pki / "apiserver.crt").write_bytes(leaf.certificate_pem)
        _write_secret(pki / "apiserver.key", leaf.key_pem)
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,  # the one form kube-apiserver takes a public key from
            serialization.NoEncryption(),
        )
        _write_secret(pki / "sa.key", key)
        _write_secret(pki / "tokens.csv", f'{self._token},admin,1,"system:masters"\n'.encode())


def write_kubeconfig(path: Path, *, url: str, ca: bytes, token: str) -> None:
    """Write a kubeconfig of one cluster, which it verifies, and one user."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(ca).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    _write_secret(path, json.dumps(document).encode())


def _write_secret(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _field(event: Mapping[str, Any], path: str) -> object:
    value: Any = event
    for name in path.split("__"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
