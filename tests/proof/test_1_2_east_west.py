"""Named tests 1 and 2: pod to pod, before and after the label on the namespace."""

from collections.abc import Callable
from typing import Final

from tests.proof.conftest import App, Callers
from tests.proof.lab import HTTP_PORT, Lab
from tests.proof.observe import SOCKET, Seen, add_rows, http, tcp
from tests.proof.report import Check, Report

HEADLINES: Final = ("HTTP, caller with a sidecar (mTLS) → Service", "TCP, pod without a sidecar → Service")


def test_redirect_hides_the_client(lab: Lab, report: Report, callers: Callers, before: App) -> None:
    """1. Without the label the application sees 127.0.0.6, and so do its socket and the access log."""
    text = """The namespace does not have the webhook's label, and Istio injects its pods as usual. Envoy connects to
    the application from 127.0.0.6 (`::6` for IPv6), whoever the caller is."""
    with report.chapter("1. East-west before: REDIRECT", text) as check:
        ask_everything(check, lab, report, callers, before, preserved=False)


def test_tproxy_shows_the_client(lab: Lab, report: Report, callers: Callers, after: App) -> None:
    """2. With the label on the namespace, and nothing else changed, it sees who called."""
    text = """The same Pod and Services are in a namespace with the label `client-ip.dev/preserve: enabled`. The webhook
    added one annotation before Istio injected the sidecar. The iptables rules, the proxy's privileges and its listeners
    are based on this annotation."""
    with report.chapter("2. East-west after: TPROXY", text) as check:
        told = lab.decision("after", "app")
        check("creating the pod", after.pod.mode, "our decision", expected="tproxy", seen=told["reason"])
        ask_everything(check, lab, report, callers, after, preserved=True)


def ask_everything(check: Check, lab: Lab, report: Report, callers: Callers, app: App, *, preserved: bool) -> None:
    """Ask in every way, and add the rows."""
    pod, mode, names = app.pod, app.pod.mode, report.names
    check(
        "creating the pod",
        mode,
        "mode of the iptables rules",
        expected="TPROXY" if preserved else "REDIRECT",
        seen=mode,
    )

    def hidden(address: str) -> str:
        if preserved:
            return address
        return "::6" if ":" in address else "127.0.0.6"

    plain, sidecar = callers.plain, callers.sidecar
    (headless,) = {
        address
        for each in lab.api.list(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            namespace=pod.namespace,
            label_selector="kubernetes.io/service-name=app-headless",
        )
        if each["addressType"] == "IPv4"
        for endpoint in each["endpoints"]
        for address in endpoint["addresses"]
    }
    host = {"Host": f"app.{pod.namespace}"}
    headless_host = {"Host": f"app-headless.{pod.namespace}:{HTTP_PORT}"}
    clear: tuple[tuple[str, str, Callable[[], Seen]], ...] = (
        ("HTTP, pod without a sidecar → pod", plain.address, lambda: http(pod, plain.netns.name, pod.address)),
        (
            "HTTP, pod without a sidecar → Service",
            plain.address,
            lambda: http(pod, plain.netns.name, app.cluster_ips[0], 80),
        ),
        (
            "HTTP, pod without a sidecar → headless Service",
            plain.address,
            lambda: http(pod, plain.netns.name, headless),
        ),
        ("HTTP, client outside → pod", "203.0.113.50", lambda: http(pod, callers.outside, pod.address)),
        ("TCP, pod without a sidecar → pod", plain.address, lambda: tcp(pod, plain.netns.name, pod.address)),
        ("TCP, pod without a sidecar → Service", plain.address, lambda: tcp(pod, plain.netns.name, app.cluster_ips[0])),
        (
            "HTTP over IPv6, pod without a sidecar → pod",
            plain.address6,
            lambda: http(pod, plain.netns.name, pod.address6),
        ),
        (
            "HTTP over IPv6, pod without a sidecar → Service",
            plain.address6,
            lambda: http(pod, plain.netns.name, app.cluster_ips[1], 80),
        ),
        (
            "TCP over IPv6, pod without a sidecar → pod",
            plain.address6,
            lambda: tcp(pod, plain.netns.name, pod.address6),
        ),
    )
    mtls: tuple[tuple[str, Callable[[], Seen]], ...] = (
        (
            "HTTP, caller with a sidecar (mTLS) → Service",
            lambda: http(pod, sidecar.netns.name, app.cluster_ips[0], 80, headers=host),
        ),
        (
            "HTTP, caller with a sidecar (mTLS) → headless Service",
            lambda: http(pod, sidecar.netns.name, headless, headers=headless_host),
        ),
        ("TCP, caller with a sidecar (mTLS) → Service", lambda: tcp(pod, sidecar.netns.name, app.cluster_ips[0])),
    )
    asked = [(traffic, client, ask(), "plaintext") for traffic, client, ask in clear]
    asked += [(traffic, sidecar.address, ask(), "mTLS") for traffic, ask in mtls]
    both = http(pod, sidecar.netns.name, app.cluster_ips[1], 80, headers=host)
    forged = http(pod, plain.netns.name, pod.address, headers={"X-Forwarded-For": "198.51.100.7"})
    for traffic, client, seen, how in asked:
        headline = traffic in HEADLINES
        add_rows(check, names, traffic, mode, seen, expected=hidden(client), headline=headline)
        check(traffic, mode, "how it reached the sidecar", expected=how, seen="mTLS" if seen.is_mtls else "plaintext")
    # Envoy chooses among a dual-stack pod's addresses itself.
    traffic = "HTTP over IPv6, caller with a sidecar (mTLS) → Service"
    either, expected6 = hidden(sidecar.address), hidden(sidecar.address6)
    add_rows(check, names, traffic, mode, both, expected=either, expected6=expected6)
    traffic = "HTTP with a forged X-Forwarded-For, pod without a sidecar → pod"
    check(traffic, mode, SOCKET, expected=names.tell(hidden(plain.address)), seen=names.tell(forged.peer))
    check(
        traffic,
        mode,
        "the access log's downstream_remote_address, which proves nothing",
        expected="198.51.100.7:0",
        seen=forged.log["downstream_remote_address"],
    )
