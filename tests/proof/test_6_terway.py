"""Named test 6: Terway's ENI backends, where the load balancer talks to pods and the Service stays as it is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from tests.proof import gateway
from tests.proof.ask import Unanswered, http_get
from tests.proof.conftest import App
from tests.proof.lab import Lab
from tests.proof.network import OUTSIDE
from tests.proof.report import Report

NAMESPACE: Final = "terway"
BACKEND_TYPE: Final = "service.beta.kubernetes.io/backend-type"
"""Alibaba Cloud's controller manager reads it: `eni` for pods as backends, `ecs` for nodes."""
POD_PORT: Final = 8080
XFF: Final = "X-Forwarded-For as the application reads it"


def test_eni_backends_need_no_local(lab: Lab, report: Report, after: App) -> None:
    """6. With ENI backends the Service stays as it is, and the application finds the client all the same."""
    text = """If Terway gives pods network interfaces of the cloud, the load balancer sends traffic directly to the
    gateway's pods, without kube-proxy. `externalTrafficPolicy` then has no effect, and the webhook does not change it.
    The webhook recognizes this by the Service's annotation, or by Terway's DaemonSet. In this lab, the DaemonSet is
    only an object, and the client takes the place of the load balancer: it sends to the pod's address, as such a load
    balancer would."""
    with report.chapter("6. Terway: ENI backends", text) as check:
        lab.namespace(NAMESPACE, preserve="enabled")

        def row(name: str, what: str, *, mode: str, reason: str, annotations: Mapping[str, str]) -> dict[str, Any]:
            service = _service(lab, name, annotations)
            told = lab.decision(NAMESPACE, name, resource="services")
            check(what, mode, "externalTrafficPolicy", expected=mode, seen=service["spec"]["externalTrafficPolicy"])
            check(what, mode, "our decision", expected=reason, seen=told["reason"])
            return service

        row("of-nodes", "a gateway's Service, Terway not found", mode="Local", reason="local", annotations={})
        row(
            "annotated",
            f"a gateway's Service annotated {BACKEND_TYPE}: eni",
            mode="Cluster",
            reason="eni-backend",
            annotations={BACKEND_TYPE: "eni"},
        )
        with _terway(lab):
            service = row(
                "of-pods",
                "a gateway's Service, Terway found",
                mode="Cluster",
                reason="eni-backend",
                annotations={},
            )
            row(
                "opted-for-nodes",
                f"a gateway's Service annotated {BACKEND_TYPE}: ecs, Terway found",
                mode="Local",
                reason="local",
                annotations={BACKEND_TYPE: "ecs"},
            )
        gateway.account(lab.api, NAMESPACE)
        lab.api.create(gateway.pod(NAMESPACE, "gateway"))
        pod = lab.agent.run(NAMESPACE, "gateway")
        report.names.add("the gateway with ENI backends", pod.address, pod.address6)
        client = lab.network.client.name
        node_address, node_port = OUTSIDE["node-1"][0], service["spec"]["ports"][0]["nodePort"]
        for traffic, address, port, expected in (
            ("HTTP to the gateway's pod, as an ENI backend", pod.address, POD_PORT, OUTSIDE["node-1"][1]),
            (
                "HTTP to the same Service's NodePort, for comparison",
                node_address,
                node_port,
                lab.network.nodes["node-1"].gateway,
            ),
        ):
            lab.reachable(client, address, port, "/after")
            try:
                seen = str(http_get(client, address, port, "/after").told["headers"].get("x-forwarded-for"))
            except Unanswered:
                seen = "no answer"
            check(traffic, "Cluster", XFF, expected=report.names.tell(expected), seen=report.names.tell(seen))


def _service(lab: Lab, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Make a gateway's Service and return it as stored."""
    document = gateway.classic_service(NAMESPACE)
    document["metadata"] |= {"name": name, "annotations": dict(annotations)}
    for port in document["spec"]["ports"]:
        del port["nodePort"]
    return dict(lab.api.create(document))


@contextmanager
def _terway(lab: Lab) -> Iterator[None]:
    """Let the cluster have Terway's DaemonSet; the server asks for it when it starts."""
    labels = {"app": "terway"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "terway", "image": "terway:1"}]}}
    metadata = {"name": "terway-eniip", "namespace": "kube-system"}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    lab.api.create({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec})
    lab.webhook.restart()
    try:
        yield
    finally:
        lab.api.delete("apps/v1", "DaemonSet", "terway-eniip", namespace="kube-system")
        lab.webhook.restart()
