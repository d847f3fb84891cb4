"""
The lab: a control plane at an address of its own, the chart's objects in it, replicas behind its Service, and a load.

All of it is inside the namespaces that `python -m tests.chaos` made.
"""

import base64
import contextlib
import http.client
import signal
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.bundle import parse_bundle
from certs.lifecycle import State
from certs.secret import read_secret, write_secret
from tests.chaos import tokens
from tests.chaos.cgroup import Cgroups, cgroups
from tests.chaos.etcd import take_pods
from tests.chaos.kubelet import Node, Pod, Template, ip
from tests.chaos.load import PER_SECOND, Call, Load
from tests.chaos.prometheus import FAILS_OPEN, Prometheus, Watched
from tests.chaos.report import Row
from tests.parts.api import ApiError
from tests.parts.cache import ROOT
from tests.parts.helm import helm_program
from tests.parts.kube import ControlPlane

ADDRESS: Final = "10.231.0.1"
NAMESPACE: Final = "client-ip-system"
NAME: Final = "client-ip-webhook"
SECRET: Final = "client-ip-webhook-tls"
CONFIGURATION: Final = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", NAME)
ENTRY: Final = "pods.namespace.client-ip.dev"
USER: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
LOADED: Final = "shop"
MOUNTED: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds who it is."""
OURS: Final[Mapping[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [USER]}, {"level": "None"}],
}
"""An audit policy: every request of our ServiceAccount and nothing else."""
LEAD_SECONDS: Final = 1.5
"""Load before the fault and after it was healed."""
LEAST_OF_LOAD: Final = 1 / 2
"""Of the pods that are to be created in a second, so that figures mean something: a busy machine makes fewer."""


def charted() -> list[dict[str, Any]]:
    """Return what the chart renders with its default values."""
    command = [
        str(helm_program()),
        "template",
        NAME,
        str(ROOT / "deploy" / "chart"),
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.30.0",
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [each for each in yaml.load_all(printed, Loader=yaml.CSafeLoader) if each]


class Lab:
    """The running lab; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents = charted()
        self.rows: list[Row] = []
        self.starts: list[tuple[datetime, datetime]] = []
        """When the API server was starting again."""
        self.no_cgroups = ""
        """Why replicas have no cgroup with a memory limit each; empty where they have."""
        self.plane = ControlPlane(
            "1.37", folder / "kube", bind_address=ADDRESS, audit_policy=OURS, aggregator_routing=True
        )
        self._open: contextlib.ExitStack | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            ip("link", "set", "lo", "up")
            ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
            stack.enter_context(self.plane)
            self.api = self.plane.client()
            self._install()
            self.mount_token(tokens.mint(self.plane, NAMESPACE, NAME, life=timedelta(hours=2)))
            template = Template.of(self.document("Deployment"))
            made = stack.enter_context(cgroups())
            self.no_cgroups = made if isinstance(made, str) else ""
            host, port = self.plane.url.removeprefix("https://").split(":")
            environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
            self.node = Node(
                self.plane.client(),
                template,
                namespace=NAMESPACE,
                service=NAME,
                log=self.folder / "log",
                environment=environment,
                cgroups=made if isinstance(made, Cgroups) else None,
            )
            stack.callback(self.node.close)
            token = (self.folder / "kube" / "pki" / "tokens.csv").read_text().split(",")[0]
            self.load = Load(self.plane.url, ca=self.plane.ca_file, token=token, namespace=LOADED)
            stack.callback(self.load.stop)
            self.prometheus = Prometheus(
                self.folder / "prometheus",
                api_server=self.plane.url,
                ca=self.plane.ca_file,
                token=token,
                pods=lambda: self.node.pods,
            )
            stack.callback(self.prometheus.close)
            self.prometheus.start()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open is not None:
            self._open.close()

    # --- What the chart brings

    def document(self, kind: str) -> dict[str, Any]:
        """Return the chart's only object of *kind*."""
        (found,) = [each for each in self.documents if each["kind"] == kind]
        return found

    @property
    def replicas(self) -> int:
        """How many the chart runs."""
        number: int = self.document("Deployment")["spec"]["replicas"]
        return number

    def _install(self) -> None:
        for name in (NAMESPACE, "istio-system"):
            self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LOADED, "labels": labels}})
        # kube-system may be a moment late.
        self.plane.wait_until(lambda: self.api.find("v1", "Namespace", "kube-system"), what="kube-system")
        for document in sorted(self.documents, key=lambda each: each["kind"] != "CustomResourceDefinition"):
            self.api.apply(document)
        for document in yaml.safe_load_all((ROOT / "examples" / "cluster" / "istio.yaml").read_text()):
            self.api.apply(_never_called(document), namespace="istio-system")
        self.plane.add_node("node-1")

    def mount_token(self, token: str) -> None:
        """Put *token* where pods find it, as the kubelet does: whole, and in one step."""
        MOUNTED.mkdir(parents=True, exist_ok=True)
        (MOUNTED / "ca.crt").write_bytes(self.plane.ca)
        (MOUNTED / "namespace").write_text(NAMESPACE)
        new = MOUNTED / "..token"
        new.write_text(token)
        new.rename(MOUNTED / "token")

    # --- Certificates, as stored and as served

    @property
    def secret(self) -> dict[str, Any] | None:
        """The Secret that replicas share."""
        return self.api.find("v1", "Secret", SECRET, namespace=NAMESPACE)

    @property
    def state(self) -> State:
        """What the Secret holds."""
        return read_secret(self.secret).state

    @property
    def bundles(self) -> list[bytes]:
        """The caBundle of each of our webhooks; of none where there is no configuration."""
        found = self.api.find(*CONFIGURATION)
        webhooks = [] if found is None else found["webhooks"]
        return [base64.b64decode(each["clientConfig"].get("caBundle", "")) for each in webhooks]

    def trusted(self) -> bool:
        """Return whether every caBundle is what the Secret says."""
        bundles, bundle = self.bundles, self.state.bundle
        return bool(bundle) and bool(bundles) and set(bundles) == {bundle}

    def served(self, pod: Pod) -> str:
        """Return the SHA-256 of the certificate that *pod* serves to a new client."""
        pem = ssl.get_server_certificate((pod.address, self.node.template.ports["webhook"]), timeout=5)
        return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()

    def all_serve_the_stored_leaf(self) -> bool:
        """Return whether the Secret has a leaf, all replicas serve it, and all caBundles trust it."""
        leaf = self.state.leaf
        return (
            leaf is not None and self.trusted() and {self.served(pod) for pod in self.node.pods} == {leaf.fingerprint}
        )

    def all_ready(self) -> bool:
        """Return whether every replica says so itself."""
        return all(pod.probes["readiness"].ask(pod.address) for pod in self.node.pods)

    def authorities(self) -> int:
        """Return how many CAs the caBundles hold, of the one that holds most."""
        return max((len(parse_bundle(bundle).certificates) for bundle in self.bundles), default=0)

    def reset(self, state: State | None = None) -> None:
        """Take everything of ours away but the chart's objects; put *state* into the Secret where one is given."""
        self.node.kill_all()
        if self.secret is not None:
            self.api.delete("v1", "Secret", SECRET, namespace=NAMESPACE)
        if self.api.find(*CONFIGURATION) is not None:
            self.api.delete(*CONFIGURATION)
        self.api.create(self.document("MutatingWebhookConfiguration"))
        if state is not None:
            made = write_secret(None, state, namespace=NAMESPACE, name=SECRET, organization=NAME)
            self.api.create(made)

    def started(self) -> list[Pod]:
        """Run as many replicas as the chart does, if they do not already; return when they work."""
        if not self.node.pods:
            self.node.wait_ready(self.node.run(self.replicas))
        self.until(self.all_serve_the_stored_leaf, "replicas to serve the stored leaf")
        self.until(self.patches, "the API server to call us")
        return list(self.node.pods)

    def started_state(self) -> State:
        """Return what the Secret holds once replicas work."""
        self.started()
        return self.state

    def metric(self, pod: Pod, line: str) -> float:
        """Return the value of a replica's metric with the name and labels of *line*; 0 where there is none."""
        connection = http.client.HTTPConnection(pod.address, self.node.template.ports["probes"], timeout=5)
        try:
            connection.request("GET", "/metrics", headers={"Connection": "close"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return next((float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(f"{line} ")), 0.0)

    def passed_at(self, pod: Pod) -> datetime:
        """Return when a replica's last faultless look at the certificates ended."""
        moment = self.metric(pod, 'client_ip_certificate_timestamp_seconds{of="last-pass"}')
        return datetime.fromtimestamp(moment, UTC)

    def said(self, pod: Pod) -> list[str]:
        """Return the lines of a replica's log."""
        return pod.process.log.read_text(errors="replace").splitlines()

    def patches(self) -> bool:
        """Return whether a pod that is created now is patched."""
        containers = [{"name": "app", "image": "registry.example.com/app:1"}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {"containers": containers}}
        made = self.api.create(pod, namespace=LOADED, dry_run=True)
        return "sidecar.istio.io/interceptionMode" in made["metadata"].get("annotations", {})

    def until(self, reached: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait for *reached*, with the replicas' last lines where it does not come."""
        self.node.until(lambda: bool(reached()), what, seconds, passing=(OSError, ApiError))

    # --- Figures

    def counters(self) -> Counter[str]:
        """Return the API server's own counts of our failed calls."""
        found: Counter[str] = Counter()
        for line in self.api.text("/metrics").splitlines():
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            if name in FAILURES and f'name="{ENTRY}"' in labels:
                found[name] += int(float(value))
        return found

    @contextlib.contextmanager
    def fault(
        self,
        name: str,
        *,
        raises: Collection[str] = (),
        may_raise: Collection[str] = (),
        per_second: float = PER_SECOND,
        watched: bool = True,
    ) -> Iterator["Fault"]:
        """
        Create pods while something breaks inside the context, and add the row of figures.

        The load runs before and after what happens inside. Where calls failed, the alert of that must fire.

        Args:
            name: What the table calls it.
            raises: Alerts that must fire, in addition.
            may_raise: Alerts that may, or may not; no others do.
            per_second: Pods that are created.
            watched: Whether Prometheus looks; not where the machine has no core to spare for it.

        """
        self.started()
        take_pods(self.plane.etcd_address, LOADED)
        fault = Fault(name, self.counters(), per_second)
        self.load.start(per_second)
        begun = time.monotonic()
        try:
            time.sleep(LEAD_SECONDS)
            seen = Watched(self.prometheus) if watched else None
            if seen is None:
                self.prometheus.process.signal(signal.SIGSTOP)
            fault.began = time.monotonic()
            yield fault
            fault.over()
            time.sleep(LEAD_SECONDS)
        finally:
            calls = self.load.stop()
            self.prometheus.process.signal(signal.SIGCONT)
        seconds = time.monotonic() - begun
        held = take_pods(self.plane.etcd_address, LOADED)
        fault.count(calls, held, self.counters(), seconds)
        row = fault.row
        assert row is not None
        self.rows.append(row)
        if seen is None:
            return
        open_failed = {FAILS_OPEN} if row.failed and FAILS_OPEN not in may_raise else set()
        alerts = seen.over(required={*raises, *open_failed}, allowed=may_raise)
        self.rows[-1] = fault.row = replace(row, alerts=alerts)


FAILURES: Final = frozenset(
    {"apiserver_admission_webhook_fail_open_count", "apiserver_admission_webhook_rejection_count"}
)


class Fault:
    """What happens while a fault lasts."""

    def __init__(self, name: str, before: Counter[str], per_second: float) -> None:
        self.name = name
        self._per_second = per_second
        self.began = 0.0
        self.healed = 0.0
        self.row: Row | None = None
        self.said: Counter[str] = Counter()
        """What creations that failed were told."""
        self._before = before
        self._earlier = 0

    @property
    def alerts(self) -> tuple[str, ...]:
        """What Prometheus fired, once it is over."""
        assert self.row is not None
        return self.row.alerts

    def forget_counters(self, until_now: Counter[str]) -> None:
        """Note what an API server that ends had counted: the next one begins at nothing."""
        self._earlier += (until_now - self._before).total()
        self._before = Counter()

    def begins(self) -> None:
        """Note that it begins now, and not where the context was entered."""
        self.began = time.monotonic()

    def begins_at(self, moment: datetime) -> None:
        """Note that it begins at a moment of the wall clock."""
        self.began = time.monotonic() + (moment - datetime.now(UTC)).total_seconds()

    def over(self) -> None:
        """Note that everything is as it should be; only the first time counts."""
        self.healed = self.healed or time.monotonic()

    def took(self, seconds: float) -> None:
        """Note how long it took where that was measured elsewhere."""
        self.healed = self.began + seconds

    def costs_nothing(self, *, within_seconds: float = 120) -> None:
        """Assert that no call failed and no pod was missed, and that it healed in time."""
        self.costs(failed=0, within_seconds=within_seconds)

    def costs(
        self,
        *,
        failed: int,
        within_seconds: float,
        unpatched: int | None = None,
        not_created: bool = False,
        others: int = 0,
    ) -> None:
        """
        Assert that it cost no more than that, and that the figures agree with one another.

        Args:
            failed: Calls of the webhook that may fail.
            within_seconds: When it must have healed.
            unpatched: Pods that may go unpatched; as many as calls may fail, where it is not given, and each for one.
            not_created: Whether creations may fail: the API server itself was away.
            others: Calls for somebody else's requests that may have failed too, such as doctor's dry runs.

        """
        row = self.row
        assert row is not None
        assert row.failed <= failed, row
        assert row.healed_seconds <= within_seconds, row
        if not_created:
            assert row.unpatched <= failed, row
            return
        assert row.not_created == 0, self.said
        assert row.per_second >= LEAST_OF_LOAD * self._per_second, row
        if unpatched is None:
            assert row.unpatched <= row.failed <= row.unpatched + others, row
        else:
            assert row.failed <= row.unpatched <= unpatched, row

    def count(self, calls: list[Call], held: Mapping[str, bool], after: Counter[str], seconds: float) -> None:
        """Make the row of what was called, what etcd held and what the API server counted."""
        answered = [call for call in calls if call.status is not None]
        created = {call.name for call in answered if call.status == 201}
        assert created <= held.keys(), f"created and not in etcd: {sorted(created - held.keys())[:5]}"
        unpatched = {name for name, patched in held.items() if not patched}
        self.said.update(call.said for call in calls if call.status != 201)
        healed = max([self.healed, *(call.ended for call in calls if call.name in unpatched or call.status != 201)])
        self.row = Row(
            fault=self.name,
            calls=len(answered),
            failed=self._earlier + (after - self._before).total(),
            unpatched=len(unpatched),
            healed_seconds=round(healed - self.began, 1),
            not_created=len(calls) - len(created),
            per_second=len(calls) / seconds,
        )


def _never_called(document: dict[str, Any]) -> dict[str, Any]:
    """
    Return an injector's configuration that selects pods as Istio's does, and that the API server never calls.

    Our decisions do not evaluate the injector's matchConditions, so for them it injects; and nothing needs to answer.
    """
    for webhook in document.get("webhooks", ()):
        webhook["matchConditions"] = [{"name": "never", "expression": "false"}]
        webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"]}
        webhook["clientConfig"] = {"url": f"https://{ADDRESS}:1/inject"}
    return document
