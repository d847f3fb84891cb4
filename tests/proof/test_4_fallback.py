"""Named test 4: where TPROXY can't be, the client in X-Forwarded-For, by the shipped EnvoyFilter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tests.parts.process import wait_until
from tests.proof.ask import KeptOpen, Unanswered, http_get
from tests.proof.conftest import App, Callers
from tests.proof.gateway import NETWORKING
from tests.proof.lab import HTTP_PORT, Lab
from tests.proof.network import OUTSIDE
from tests.proof.node_agent import RunningPod
from tests.proof.observe import SOCKET, Seen, http, tcp
from tests.proof.report import Check, Report
from tests.proof.webhook import rendered

ENVOY_ADMIN: Final = 15000
GATEWAY_PORT: Final = 8080
CLIENT: Final = OUTSIDE["node-1"][1]
FORGED: Final = "198.51.100.7"
XFF: Final = "X-Forwarded-For"
EXTERNAL: Final = "x-envoy-external-address"
PROTO: Final = "x-forwarded-proto"
NONE: Final = "none"
PATH: Final = "/legacy"
ON_CENTOS: Final = {"nodeSelector": {"kubernetes.io/hostname": "centos"}}
ON_NODE_1: Final = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}
METHOD: Final = "client-ip.dev/method"
FILTER: Final = "client-ip.x-forwarded-for"
"""The name of append-caller's filter in Envoy's configuration."""
HOPS: Final = {"xff_num_trusted_hops": 1}
SKIP: Final = {"skip_xff_append": True}
PUSH_SECONDS: Final = 15.0
TRUSTED: Final = "ingress/istio-ingressgateway"
"""The gateway of the lab, by the identity in its certificate."""
TENANT: Final = "mallory-istio"
"""A ServiceAccount as Istio would name that of a Gateway called `mallory`, in a tenant's own namespace."""


def test_fallback(
    lab: Lab,
    report: Report,
    callers: Callers,
    before: App,
    after: App,
    ingress: RunningPod,
    centos: None,
) -> None:
    """4. On CentOS, with fallback XForwardedFor: the header shows the client, behind a gateway as well."""
    text = """A pod runs on a CentOS 7 node, in a namespace whose ClientIPPolicy has `fallback: XForwardedFor`. The
    webhook gives it the label that the EnvoyFilter of
    `client-ip render envoyfilter --gateway ingress/istio-ingressgateway` selects (form append-caller).
    The filter appends the caller, unless the caller's mTLS certificate identifies it as
    the gateway. A tenant's ServiceAccount `mallory-istio` is trusted only if the filter was rendered with
    `--gateway '*/*-istio' --any-namespace`. The form use-remote-address is the setting that Alibaba Cloud documents.
    Behind a gateway, it appends the gateway, treats the gateway as the client, and changes `x-forwarded-proto` to
    https. Two more settings of Envoy were tried in addition: neither is correct for both callers and gateways.
    [fallback.md](fallback.md) says which form to use."""
    with report.chapter("4. Fallback: X-Forwarded-For", text) as check:
        _policy(lab)
        lab.namespace("legacy", preserve="enabled")
        _wait_for_policy(lab)
        pod, native = lab.start_pod("legacy", "app", spec=ON_CENTOS), lab.start_pod("legacy", "native", spec=ON_NODE_1)
        address = lab.service("legacy", "app")[0]
        tenant = _tenant(lab, report)
        _a_connection_for_each_request(lab)
        report.names.add("the application in legacy", pod.address, pod.address6)
        lab.reachable(callers.plain.netns.name, address, 80)
        lab.reachable(callers.outside, ingress.address, GATEWAY_PORT, PATH)
        told = lab.decision("legacy", "app")
        check("creating the pod", pod.mode, "our decision", expected="x-forwarded-for", seen=told["reason"])
        check("creating the pod", pod.mode, "mode of the iptables rules", expected="REDIRECT", seen=pod.mode)
        label = pod.stored["metadata"]["labels"].get(METHOD, NONE)
        check("creating the pod", pod.mode, f"label {METHOD}", expected="x-forwarded-for", seen=label)
        asked = _Asked(check, report, callers, ingress, pod, address)
        asked.without_filter()
        with KeptOpen(callers.plain.netns.name, pod.address, HTTP_PORT) as old:
            old.get("/old")
            with _filtered(lab, pod, _document("use-remote-address"), '"use_remote_address": true'):
                asked.use_remote_address()
                asked.kept_open(old)
        with _filtered(lab, pod, _document("use-remote-address", **HOPS), '"xff_num_trusted_hops": 1'):
            asked.trusted_hops()
        with _filtered(lab, pod, _document("use-remote-address", **SKIP), '"skip_xff_append": true'):
            asked.skip_append()
        any_namespace = _rendered("--gateway", "*/*-istio", "--any-namespace")
        with _filtered(lab, pod, any_namespace, FILTER):
            asked.tenant(tenant, "append-caller, --gateway '*/*-istio' --any-namespace", FORGED)
        with _filtered(lab, pod, _rendered(), FILTER):
            asked.tenant(tenant, "append-caller, no gateway named", f"{FORGED},{tenant.address}")
        with _filtered(lab, pod, _document("append-caller"), FILTER):
            asked.append_caller()
            asked.tenant(tenant, "append-caller", f"{FORGED},{tenant.address}")
            for other in (before.pod, after.pod, native):
                asked.untouched(other)


class _Asked:
    """Asks, and adds the rows of the filter in force."""

    def __init__(
        self, check: Check, report: Report, callers: Callers, ingress: RunningPod, pod: RunningPod, address: str
    ) -> None:
        self._check = check
        self._names = report.names
        self._callers = callers
        self._ingress = ingress
        self._pod = pod
        self._address = address
        self._mode = ""

    def without_filter(self) -> None:
        """The label alone changes nothing: the filter has to be there."""
        self._mode = "no filter"
        self._plain(NONE, headline=True)
        self._sidecar(NONE)
        self._gateway(CLIENT, external=CLIENT, proto="http")

    def use_remote_address(self) -> None:
        """The page's form: right without a gateway, wrong behind one."""
        self._mode = "use-remote-address"
        self._plain(self._callers.plain.address)
        self._plain(f"{FORGED},{self._callers.plain.address}", headers={XFF: FORGED})
        self._sidecar(self._callers.sidecar.address)
        self._gateway(f"{CLIENT},{self._ingress.address}", external=self._ingress.address, proto="https")

    def kept_open(self, old: KeptOpen) -> None:
        """Ask over a connection that is older than the filter."""
        headers = old.get("/old").told["headers"]
        self._row("HTTP over a connection older than the filter", XFF, NONE, headers.get(XFF.lower(), NONE))

    def trusted_hops(self) -> None:
        """The gateway is a hop to trust; so is every caller, whatever it claims."""
        self._mode = "use-remote-address, xff_num_trusted_hops: 1"
        traffic = self._plain(f"{FORGED},{self._callers.plain.address}", headers={XFF: FORGED})
        self._row(traffic[0], EXTERNAL, FORGED, _header(traffic[1], EXTERNAL))
        self._gateway(f"{CLIENT},{self._ingress.address}", external=CLIENT, proto="http")

    def skip_append(self) -> None:
        """Nobody is appended: callers without a gateway stay unknown."""
        self._mode = "use-remote-address, skip_xff_append: true"
        self._plain(NONE)
        self._gateway(CLIENT, external=self._ingress.address, proto="https")

    def append_caller(self) -> None:
        """The shipped form."""
        self._mode = "append-caller"
        caller = self._callers.plain
        self._plain(caller.address, headline=True)
        self._plain(f"{FORGED},{caller.address}", headers={XFF: FORGED})
        seen = http(self._pod, caller.netns.name, self._pod.address6)
        self._row("HTTP over IPv6, pod without a sidecar → pod", XFF, caller.address6, _header(seen, XFF))
        self._sidecar(self._callers.sidecar.address)
        self._gateway(CLIENT, external=CLIENT, proto="http")
        self._gateway(f"{FORGED},{CLIENT}", external=CLIENT, proto="http", headers={XFF: FORGED})
        by_tcp = tcp(self._pod, caller.netns.name, self._pod.address)
        self._row("TCP, which has no headers, pod without a sidecar → pod", SOCKET, "127.0.0.6", by_tcp.peer)

    def tenant(self, caller: RunningPod, mode: str, expected: str) -> None:
        """Ask as a tenant whose ServiceAccount has a gateway's name, with a forged header, over mTLS."""
        self._mode = mode
        headers = {"Host": f"{self._pod.name}.{self._pod.namespace}", XFF: FORGED}
        seen = http(self._pod, caller.netns.name, self._address, 80, headers=headers)
        how = "mTLS" if seen.is_mtls else "plaintext"
        self._row(
            f"HTTP with a forged header, a tenant's {TENANT} ({how}) → Service", XFF, expected, _header(seen, XFF)
        )

    def untouched(self, other: RunningPod) -> None:
        """A workload without the label has no such filter."""
        seen = http(other, self._callers.plain.netns.name, other.address)
        traffic = f"HTTP, pod without a sidecar → {other.namespace}/{other.name}, without the label"
        mode = f"{other.mode}, {self._mode}"
        self._check(traffic, mode, XFF, expected=NONE, seen=_header(seen, XFF))
        self._check(traffic, mode, "the filter in its Envoy", expected=False, seen=FILTER in _listeners(other))

    def _plain(
        self, expected: str, *, headers: Mapping[str, str] | None = None, headline: bool = False
    ) -> tuple[str, Seen]:
        seen = http(self._pod, self._callers.plain.netns.name, self._pod.address, headers=headers)
        forged = " with a forged header" if headers else ""
        traffic = f"HTTP{forged}, pod without a sidecar → pod"
        self._row(traffic, XFF, expected, _header(seen, XFF), headline=headline)
        self._row(traffic, SOCKET, "127.0.0.6", seen.peer)
        return traffic, seen

    def _sidecar(self, expected: str) -> None:
        caller, host = self._callers.sidecar, {"Host": f"{self._pod.name}.{self._pod.namespace}"}
        seen = http(self._pod, caller.netns.name, self._address, 80, headers=host)
        how = "mTLS" if seen.is_mtls else "plaintext"
        self._row(f"HTTP, caller with a sidecar ({how}) → Service", XFF, expected, _header(seen, XFF))

    def _gateway(self, expected: str, *, external: str, proto: str, headers: Mapping[str, str] | None = None) -> None:
        seen = http(self._pod, self._callers.outside, self._ingress.address, GATEWAY_PORT, path=PATH, headers=headers)
        forged = " with a forged header" if headers else ""
        traffic = f"HTTP{forged}, client outside → gateway → pod"
        self._row(traffic, XFF, expected, _header(seen, XFF))
        self._row(traffic, EXTERNAL, external, _header(seen, EXTERNAL))
        self._row(traffic, PROTO, proto, _header(seen, PROTO))

    def _row(self, traffic: str, check: str, expected: str, seen: str, *, headline: bool = False) -> None:
        wanted, told = self._names.tell(expected), self._names.tell(seen)
        self._check(traffic, f"REDIRECT, {self._mode}", check, expected=wanted, seen=told, headline=headline)


def _header(seen: Seen, name: str) -> str:
    return next((value for each, value in seen.headers.items() if each.lower() == name.lower()), NONE)


def _policy(lab: Lab) -> None:
    spec = {
        "mode": "Enforce",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "legacy"}},
        "pods": {"fallback": "XForwardedFor"},
    }
    metadata = {"name": "legacy"}
    lab.api.create(
        {"apiVersion": "client-ip.dev/v1alpha1", "kind": "ClientIPPolicy", "metadata": metadata, "spec": spec}
    )


def _wait_for_policy(lab: Lab) -> None:
    """Wait until the webhook decides by the policy, on a pod that is not kept."""
    containers = [{"name": "app", "image": "client-ip.example/app:1"}]
    trial: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial", "namespace": "legacy"}}
    trial["spec"] = {"containers": containers, **ON_CENTOS}

    def labelled() -> bool:
        return METHOD in lab.api.create(trial, dry_run=True)["metadata"].get("labels", {})

    wait_until(labelled, what="the webhook to decide by the policy legacy", seconds=15, interval_seconds=0.2)


def _a_connection_for_each_request(lab: Lab) -> None:
    """Let caller and gateway make a new connection for each request: old ones keep the filters that they had."""
    pool = {"http": {"maxRequestsPerConnection": 1}}
    # Not for the application's own sidecar, which would then close its connections to the application too.
    host = "app.legacy.svc.cluster.local"
    spec = {"host": host, "exportTo": ["."], "trafficPolicy": {"connectionPool": pool}}
    for namespace in ("callers", "ingress", "tenant"):
        metadata = {"name": "legacy", "namespace": namespace}
        lab.api.create({"apiVersion": NETWORKING, "kind": "DestinationRule", "metadata": metadata, "spec": spec})


def _tenant(lab: Lab, report: Report) -> RunningPod:
    """Return a tenant's pod with a sidecar, in a namespace of its own, as the ServiceAccount `TENANT`."""
    lab.namespace("tenant")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": TENANT, "namespace": "tenant"}}
    lab.api.create(account)
    pod = lab.start_pod("tenant", "mallory", spec={"serviceAccountName": TENANT})
    report.names.add("the tenant", pod.address, pod.address6)
    return pod


def _rendered(*options: str) -> dict[str, Any]:
    (document,) = rendered("envoyfilter", *options)
    return document


def _document(form: str, **settings: object) -> dict[str, Any]:
    """Return the EnvoyFilter that `render` prints, with more *settings* of the connection manager."""
    document = _rendered("--envoyfilter-form", form, "--gateway", TRUSTED)
    if settings:
        document["spec"]["configPatches"][0]["patch"]["value"]["typed_config"].update(settings)
    return document


def _listeners(pod: RunningPod) -> str:
    return http_get(pod.netns.name, "127.0.0.1", ENVOY_ADMIN, "/config_dump?resource=dynamic_listeners").body


@contextmanager
def _filtered(lab: Lab, pod: RunningPod, document: Mapping[str, Any], mark: str) -> Iterator[None]:
    """Apply an EnvoyFilter until *pod*'s Envoy has *mark* in a listener; then take it away, until it is gone there."""
    metadata = document["metadata"]

    def pushed(*, there: bool) -> bool:
        listeners = _listeners(pod)
        return (mark in listeners) is there and '"warming_state"' not in listeners

    what = f"the EnvoyFilter with {mark}"
    lab.api.apply(document)
    try:
        wait_until(
            lambda: pushed(there=True), what=f"{what} to reach {pod.name}", passing=(Unanswered,), seconds=PUSH_SECONDS
        )
        yield
    finally:
        lab.api.delete(document["apiVersion"], document["kind"], metadata["name"], namespace=metadata["namespace"])
    wait_until(
        lambda: pushed(there=False), what=f"{what} to leave {pod.name}", passing=(Unanswered,), seconds=PUSH_SECONDS
    )
