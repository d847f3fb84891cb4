"""Named test 5: a client outside, through the gateway's Service, real kube-proxy and a gateway, to the application."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.parts.process import ProcessError, wait_until
from tests.proof import gateway
from tests.proof.ask import Unanswered, http_get
from tests.proof.conftest import App
from tests.proof.lab import PRESERVE, Lab
from tests.proof.network import LOAD_BALANCER, OUTSIDE
from tests.proof.node_agent import RunningPod
from tests.proof.observe import SOCKET, Seen, http, logged, without_port
from tests.proof.report import Check, Report

SERVICE: Final = "istio-ingressgateway"
XFF: Final = "X-Forwarded-For as the application reads it"
GATEWAY_LOG: Final = "the gateway's downstream_remote_address"
SETTLE_SECONDS: Final = 15.0
EDGE_ADDRESS: Final = "192.0.2.101"


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A way from the client to the gateway."""

    name: str
    address: str
    port: int
    tls_name: str | None = None


PATHS: Final = (
    Path(name="HTTP to the load balancer's address", address=LOAD_BALANCER, port=80),
    Path(name="HTTPS to the load balancer's address", address=LOAD_BALANCER, port=443, tls_name=gateway.HOST),
    Path(name="HTTP to node-1's NodePort", address=OUTSIDE["node-1"][0], port=gateway.HTTP_NODE_PORT),
    Path(
        name="HTTPS to node-1's NodePort",
        address=OUTSIDE["node-1"][0],
        port=gateway.HTTPS_NODE_PORT,
        tls_name=gateway.HOST,
    ),
)
NO_GATEWAY: Final = Path(
    name="HTTP to the NodePort of node-2, which has no gateway pod",
    address=OUTSIDE["node-2"][0],
    port=gateway.HTTP_NODE_PORT,
)


def test_cluster_hides_the_client(lab: Lab, report: Report, ingress: RunningPod, before: App, after: App) -> None:
    """5a. `externalTrafficPolicy: Cluster`: the gateway takes the node for the client, and so does the application."""
    text = """The gateway's namespace does not have the webhook's label, so its Service has the API server's default:
    `Cluster`. kube-proxy replaces the client's address with that of the node. TPROXY for the application does not help,
    because its peer is the gateway."""
    with report.chapter("5a. North-south before: Cluster", text) as check:
        service = stored(lab, SERVICE)
        check("the gateway's Service", "Cluster", "externalTrafficPolicy", expected="Cluster", seen=policy(service))
        node = lab.network.nodes["node-1"].gateway
        ask_all_ways(check, lab, report, ingress, (before, after), mode="Cluster", client=node)
        seen = forwarded_for(lab, NO_GATEWAY, "/after")
        other = report.names.tell(lab.network.nodes["node-2"].address)
        check(NO_GATEWAY.name, "Cluster", XFF, expected=other, seen=report.names.tell(seen))


def test_local_shows_the_client(lab: Lab, report: Report, ingress: RunningPod, before: App, after: App) -> None:
    """5b. The label on the gateway's namespace: at its next write the Service is Local, and the client is shown."""
    text = """The gateway's namespace is opted in. At the Service's next update, of any kind, the webhook makes it
    `Local`. kube-proxy then keeps the client's address, and the gateway sends it in X-Forwarded-For. The application's
    peer is still the gateway (TPROXY) or Envoy (REDIRECT), so both changes are needed. A node without a gateway pod
    drops this traffic. A load balancer's health check removes such nodes; clients of a NodePort must avoid them
    themselves."""
    with report.chapter("5b. North-south after: Local", text) as check:
        lab.api.patch("v1", "Namespace", "ingress", {"metadata": {"labels": {PRESERVE: "enabled"}}})
        service = written_until_local(lab)
        check("the gateway's Service", "Local", "externalTrafficPolicy", expected="Local", seen=policy(service))
        told = lab.decision("ingress", SERVICE, resource="services", verb="patch")
        check("the gateway's Service", "Local", "our decision", expected="local", seen=told["reason"])
        client = OUTSIDE["node-1"][1]
        ask_all_ways(check, lab, report, ingress, (before, after), mode="Local", client=client)
        check(NO_GATEWAY.name, "Local", XFF, expected="no answer", seen=settled(lab, NO_GATEWAY, "no answer"))
        for name, status in (("node-1", 200), ("node-2", 503)):
            seen = health(lab, OUTSIDE[name][0], service["spec"]["healthCheckNodePort"])
            check(f"the load balancer's health check of {name}", "Local", "HTTP status", expected=status, seen=seen)
        document = gateway.classic_service("ingress", service_type="NodePort")
        document["metadata"]["name"] = "by-node-port"
        for port in document["spec"]["ports"]:
            del port["nodePort"]
        warnings = " ".join(lab.api.create(document, dry_run=True).warnings)
        warned = "nodes without a gateway pod drop traffic" in warnings
        check(
            "a gateway's Service of type NodePort",
            "Local",
            "the user who applies it gets a warning",
            expected=True,
            seen=warned,
        )


def test_local_for_gateway_api(lab: Lab, report: Report, ingress: RunningPod, after: App) -> None:
    """5c. A Gateway of the Gateway API: Istio makes its Deployment and Service, and the webhook makes that Local."""
    text = """A Gateway of class `istio` is in an opted-in namespace. Istio creates its Deployment and Service. The
    Service was `Local` when it was created, and istiod, which applies it without the field, does not change that."""
    with report.chapter("5c. North-south through a Gateway of the Gateway API", text) as check:
        gateway.gateway_api(lab.api, "ingress", "edge", "app", backend_namespace="after")
        lab.plane.wait_until(
            lambda: lab.api.find("v1", "Service", "edge-istio", namespace="ingress"),
            what="istiod to make the Service edge-istio",
        )
        service = stored(lab, "edge-istio")
        check("Istio's own Service", "Local", "externalTrafficPolicy", expected="Local", seen=policy(service))
        told = lab.decision("ingress", "edge-istio", resource="services", verb="patch")
        check("Istio's own Service", "Local", "our decision", expected="local", seen=told["reason"])
        pod = run_deployment(lab, "ingress", "gateway.networking.k8s.io/gateway-name=edge")
        report.names.add("the Gateway edge", pod.address, pod.address6)
        gateway.set_address(lab.api, "ingress", "edge-istio", EDGE_ADDRESS)
        client = report.names.tell(OUTSIDE["node-1"][1])
        for path in (
            Path(name="HTTP to the Gateway's address", address=EDGE_ADDRESS, port=80),
            Path(name="HTTPS to the Gateway's address", address=EDGE_ADDRESS, port=443, tls_name=gateway.HOST),
        ):
            settled(lab, path, OUTSIDE["node-1"][1])
            seen = ask(lab, after.pod, path, "/")
            check(path.name, "Local", XFF, expected=client, seen=report.names.tell(seen.origin))
            peer = report.names.tell(pod.address)
            check(path.name, "Local", SOCKET, expected=peer, seen=report.names.tell(seen.peer))
        check(
            "Istio's own Service, some time later",
            "Local",
            "externalTrafficPolicy",
            expected="Local",
            seen=policy(stored(lab, "edge-istio")),
        )


def ask_all_ways(
    check: Check,
    lab: Lab,
    report: Report,
    ingress: RunningPod,
    apps: tuple[App, App],
    *,
    mode: str,
    client: str,
) -> None:
    """Ask by each path for each application, and add the rows."""
    names, asked = report.names, []
    for path in PATHS:
        for app, prefix in zip(apps, ("/before", "/after"), strict=True):
            settled(lab, path, client, prefix)
            asked.append((path, app, ask(lab, app.pod, path, prefix)))
    for path, app, seen in asked:
        traffic = f"{path.name}, to the application in {app.pod.mode} mode"
        read = names.tell(seen.headers["x-forwarded-for"])
        check(traffic, mode, XFF, expected=names.tell(client), seen=read, headline=path is PATHS[1] and app is apps[1])
        line = gateway_line(ingress, seen)
        heard = names.tell(without_port(line["downstream_remote_address"]))
        check(traffic, mode, GATEWAY_LOG, expected=names.tell(client), seen=heard)
        peer = names.tell("127.0.0.6" if app.pod.mode == "REDIRECT" else ingress.address)
        check(traffic, mode, SOCKET, expected=peer, seen=names.tell(seen.peer))
    forged = ask(lab, apps[1].pod, PATHS[0], "/after", headers={"X-Forwarded-For": "198.51.100.7"})
    check(
        "HTTP with a forged X-Forwarded-For to the load balancer's address",
        mode,
        "the last entry of X-Forwarded-For, which the gateway wrote",
        expected=names.tell(client),
        seen=names.tell(forged.headers["x-forwarded-for"].split(",")[-1]),
    )


def ask(lab: Lab, pod: RunningPod, path: Path, prefix: str, *, headers: Mapping[str, str] | None = None) -> Seen:
    """Ask once from outside."""
    return http(
        pod,
        lab.network.client.name,
        path.address,
        path.port,
        path=prefix,
        tls_name=path.tls_name,
        headers=headers,
    )


def forwarded_for(lab: Lab, path: Path, prefix: str) -> str:
    """Return what the application reads in X-Forwarded-For, or that no answer came."""
    try:
        answer = http_get(lab.network.client.name, path.address, path.port, prefix, tls_name=path.tls_name, seconds=2)
        return str(answer.told["headers"].get("x-forwarded-for", "nothing"))
    except Unanswered:
        return "no answer"


def settled(lab: Lab, path: Path, wanted: str, prefix: str = "/after") -> str:
    """Return what the application reads, once it is *wanted*: kube-proxy takes a moment; else what it reads last."""
    found = ""

    def reached() -> bool:
        nonlocal found
        found = forwarded_for(lab, path, prefix)
        return found == wanted

    try:
        wait_until(reached, what=wanted, seconds=SETTLE_SECONDS, interval_seconds=0.2)
    except ProcessError:
        return found
    return found


def gateway_line(ingress: RunningPod, seen: Seen) -> Mapping[str, Any]:
    """Return the gateway's log line of the request that the application's sidecar logged: both have its id."""
    wanted = seen.log["request_id"]
    return logged(ingress, lambda line: line.get("request_id") == wanted)


def written_until_local(lab: Lab) -> dict[str, Any]:
    """Write to the Service as a person would: the label reaches the webhook a moment later."""

    def write() -> dict[str, Any] | None:
        touched = {"metadata": {"annotations": {"client-ip.example/touched": "yes"}}}
        service = lab.api.patch("v1", "Service", SERVICE, touched, namespace="ingress")
        return dict(service) if policy(service) == "Local" else None

    return wait_until(write, what="the Service to be Local", seconds=10, interval_seconds=0.2)


def stored(lab: Lab, name: str) -> dict[str, Any]:
    """Return a gateway's Service."""
    return dict(lab.api.get("v1", "Service", name, namespace="ingress"))


def policy(service: Mapping[str, Any]) -> str:
    """Return a Service's externalTrafficPolicy."""
    return str(service["spec"].get("externalTrafficPolicy"))


def health(lab: Lab, address: str, port: int) -> int:
    """Return what kube-proxy tells a load balancer of a node."""
    return http_get(lab.network.client.name, address, port, "/healthz").status


def run_deployment(lab: Lab, namespace: str, selector: str) -> RunningPod:
    """Run the pod that a Deployment makes."""

    def name() -> str | None:
        pods = lab.api.list("v1", "Pod", namespace=namespace, label_selector=selector)
        return pods[0]["metadata"]["name"] if pods else None

    return lab.agent.run(namespace, wait_until(name, what=f"a pod {selector}", seconds=20))
