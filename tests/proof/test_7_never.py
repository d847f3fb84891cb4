"""Named test 7: what must not happen, first by hand so that it is seen to hurt, then with the webhook."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.parts.api import ApiError
from tests.parts.process import wait_until
from tests.proof.ask import Unanswered, http_get
from tests.proof.conftest import Callers
from tests.proof.lab import HTTP_PORT, Lab
from tests.proof.node_agent import MODE, RunningPod
from tests.proof.observe import LOG, SOCKET, http
from tests.proof.report import Check, Report
from tests.proof.webhook import CONFIGURATIONS

CANARY: Final = {"istio.io/rev": "canary"}
INJECTOR: Final = "istio-sidecar-injector"
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
NODE: Final = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}
"""Nodes without TPROXY are another test's matter."""
RESTRICTED_POD: Final = {
    **NODE,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
}
RESTRICTED_CONTAINER: Final = {
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 1000},
}
"""What Pod Security "restricted" asks of every pod: https://kubernetes.io/docs/concepts/security/pod-security-standards/"""


@pytest.fixture(scope="module")
def canary(lab: Lab) -> None:
    """A second revision of Istio, `canary` with the tag `prod`, reinvoked IfNeeded, with istio-cni."""
    lab.canary()
    for name in ("istio-sidecar-injector-canary", "istio-revision-tag-prod"):
        lab.webhook.sees("client_ip_webhook_order_ok", 1, injector=name)


def verify(pod: RunningPod) -> int:
    """Return the exit status of `client-ip verify` over the pod's log."""
    command = [sys.executable, "-m", "webhook.cli", "verify", str(pod.proxy.log)]
    return subprocess.run(command, check=False, capture_output=True).returncode


def answered(pod: RunningPod, callers: Callers) -> str:
    """Return who the application says called, or that nothing answers."""
    try:
        told = http_get(callers.plain.netns.name, pod.address, HTTP_PORT, "/ip", seconds=2).told
    except Unanswered:
        return "no answer"
    return str(told["origin"])


def shows_redirect(check: Check, pod: RunningPod, callers: Callers, report: Report) -> None:
    """Add the rows of a pod that runs, and hides the client."""
    seen = http(pod, callers.plain.netns.name, pod.address)
    hidden = report.names.tell("127.0.0.6")
    traffic = "HTTP, pod without a sidecar → pod"
    check(traffic, pod.mode, SOCKET, expected=hidden, seen=report.names.tell(seen.peer))
    check(traffic, pod.mode, LOG, expected=hidden, seen=report.names.tell(seen.upstream_local_address))


def test_no_annotation_after_injection(lab: Lab, report: Report, callers: Callers, canary: None) -> None:
    """7a. With istio-cni a late annotation ends the pod's inbound traffic; we never add one."""
    text = """The plugin of istio-cni writes the iptables rules for the mode in the pod's annotation when the pod
    starts. If somebody changes the annotation after injection, the plugin writes TPROXY rules for a proxy that was
    injected for REDIRECT. The webhook does not change an injected pod, as the last rows show for the same pod."""
    with report.chapter("7a. Annotated after injection", text) as check:
        lab.namespace("cni", labels=CANARY)
        stored = lab.create_pod("cni", "honest", spec=NODE)
        honest = lab.agent.run("cni", "honest")
        check("as injected", honest.mode, "/ip answers", expected="127.0.0.6", seen=answered(honest, callers))
        lab.create_pod("cni", "late", spec=NODE)
        late = {"metadata": {"annotations": {MODE: "TPROXY"}}}
        lab.api.patch("v1", "Pod", "late", late, namespace="cni")
        broken = lab.agent.run("cni", "late")
        check("annotated by hand", broken.mode, "/ip answers", expected="no answer", seen=answered(broken, callers))
        lab.namespace("injected-before", preserve="enabled", labels={})
        spec = {key: value for key, value in stored["spec"].items() if key not in {"nodeName", "volumes"}}
        spec["containers"] = [_without_token(each) for each in spec["containers"]]
        spec["initContainers"] = [_without_token(each) for each in spec["initContainers"]]
        known = {name for name, _ in _mounted(stored["spec"])} - _token_volumes(stored["spec"])
        spec["volumes"] = [each for each in stored["spec"]["volumes"] if each["name"] in known]
        annotations = stored["metadata"]["annotations"]
        made = lab.create_pod("injected-before", "app", annotations=annotations, spec=spec)
        decision = lab.decision("injected-before", "app")
        check("creating it", "REDIRECT", "our decision", expected="mode-already-set", seen=decision["reason"])
        check(
            "creating it", "REDIRECT", "its annotation", expected="REDIRECT", seen=made["metadata"]["annotations"][MODE]
        )


def _token_volumes(spec: Mapping[str, Any]) -> set[str]:
    return {each["name"] for each in spec["volumes"] if each["name"].startswith("kube-api-access-")}


def _mounted(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    return [(mount["name"], mount["mountPath"]) for each in containers for mount in each.get("volumeMounts", [])]


def _without_token(container: Mapping[str, Any]) -> dict[str, Any]:
    mounts = [each for each in container.get("volumeMounts", []) if not each["name"].startswith("kube-api-access-")]
    return {**container, "volumeMounts": mounts}


def test_no_configuration_after_istios(lab: Lab, report: Report, callers: Callers) -> None:
    """7b. A configuration that sorts after Istio's preserves nothing, and says so."""
    text = """The same configuration has the name `zz-client-ip-webhook`. The API server calls it after Istio's
    configuration, which is not called again. `client-ip render` has no option for the name."""
    with report.chapter("7b. A configuration that sorts after Istio's", text) as check:
        lab.namespace("late", preserve="enabled")
        with renamed(lab, "zz-client-ip-webhook"):
            made = lab.create_pod("late", "app", spec=NODE)
            pod = lab.agent.run("late", "app")
        decision = lab.decision("late", "app")
        check("creating the pod", pod.mode, "mode of the iptables rules", expected="REDIRECT", seen=pod.mode)
        check("creating the pod", pod.mode, "our decision", expected="already-injected", seen=decision["reason"])
        warned = any("already-injected" in warning for warning in made.warnings)
        check("creating the pod", pod.mode, "the creator gets a warning", expected=True, seen=warned)
        named = any("client-ip-webhook must sort before Istio's webhooks" in warning for warning in made.warnings)
        check("creating the pod", pod.mode, "the warning names the order", expected=True, seen=named)
        check(
            "creating the pod",
            pod.mode,
            "its annotation",
            expected="none",
            seen=made["metadata"]["annotations"].get(MODE, "none"),
        )
        shows_redirect(check, pod, callers, report)
        check("its access log", pod.mode, "exit status of client-ip verify", expected=1, seen=verify(pod))
        name = [sys.executable, "-m", "webhook.cli", "render", "configuration", "--name", "zz"]
        refused = subprocess.run(name, check=False, capture_output=True).returncode
        check("client-ip render --name", "-", "exit status", expected=2, seen=refused)


@contextmanager
def renamed(lab: Lab, name: str) -> Iterator[None]:
    """Register the webhook under another name for a while."""
    ours = lab.webhook.configuration
    own = ours["metadata"]["name"]
    lab.api.delete(*CONFIGURATIONS, own)
    # The decision that reaches the audit log tells which of the two the API server knows.
    lab.api.apply({**ours, "metadata": {**ours["metadata"], "name": name}})
    _until(lab, "late", lambda labels, said: not labels and said, f"the API server to call {name}")
    # The API server calls it by its new name before the webhook itself has heard of that name.
    lab.webhook.sees("client_ip_webhook_order_ok", 0, injector=INJECTOR)
    try:
        yield
    finally:
        lab.api.delete(*CONFIGURATIONS, name)
        lab.api.apply(ours)
        _until(lab, "late", lambda labels, _: bool(labels), f"the API server to call {own}")
        lab.webhook.sees("client_ip_webhook_order_ok", 1, injector=INJECTOR)


def _until(lab: Lab, namespace: str, reached: Callable[[bool, bool], bool], what: str) -> None:
    """Wait until a pod that is not kept comes out as *reached* wants: (has our label, somebody warned of it)."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trial", "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "client-ip.example/app:1"}], **NODE},
    }

    def holds() -> bool:
        made = lab.api.create(pod, dry_run=True)
        return reached("client-ip.dev/method" in made["metadata"].get("labels", {}), bool(made.warnings))

    wait_until(holds, what=what, seconds=15, interval_seconds=0.2)


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_no_pod_is_refused_for_us(lab: Lab, report: Report, callers: Callers, canary: None, level: str) -> None:
    """7c. Where PodSecurity refuses TPROXY, the pod starts in REDIRECT and says why."""
    text = f"""With istio-cni, a sidecar needs no privileges, and a namespace that enforces `{level}` admits it. TPROXY
    needs NET_ADMIN and root: if the annotation is set by hand, the API server rejects the pod."""
    with report.chapter(f"7c. PodSecurity {level}", text) as check:
        labels = {**CANARY, ENFORCE: level}
        lab.namespace(f"{level}-by-hand", labels=labels)
        strict: dict[str, Any] = {"spec": RESTRICTED_POD, "container": RESTRICTED_CONTAINER}
        try:
            lab.create_pod(f"{level}-by-hand", "app", annotations={MODE: "TPROXY"}, **strict)
            refused, reason = "no", ""
        except ApiError as error:
            refused, reason = f"{error.status} {error.reason}", error.message
        check("TPROXY by hand", "TPROXY", "the API server rejects it", expected="403 Forbidden", seen=refused)
        named = f'violates PodSecurity "{level}:latest"' in reason and "NET_ADMIN" in reason
        check("TPROXY by hand", "TPROXY", "because of NET_ADMIN", expected=True, seen=named)
        lab.namespace(level, preserve="enabled", labels=labels)
        made = lab.create_pod(level, "app", **strict)
        pod = lab.agent.run(level, "app")
        decision = lab.decision(level, "app")
        check("with the label", pod.mode, "our decision", expected="pod-security", seen=decision["reason"])
        warned = any(level in warning for warning in made.warnings)
        check("with the label", pod.mode, "the warning names the level", expected=True, seen=warned)
        check("with the label", pod.mode, "mode of the iptables rules", expected="REDIRECT", seen=pod.mode)
        shows_redirect(check, pod, callers, report)


def test_no_pod_waits_for_us(lab: Lab, report: Report, callers: Callers) -> None:
    """7d. While the webhook is down pods start, unpatched; afterwards they are patched again."""
    text = """The webhook's server is stopped, and its configuration remains. failurePolicy is Ignore, so the API server
    admits the pod unchanged."""
    with report.chapter("7d. The webhook is down", text) as check:
        lab.namespace("down", preserve="enabled")
        lab.webhook.stop()
        try:
            pod = lab.start_pod("down", "app", spec=NODE)
        finally:
            lab.webhook.start()
        check("creating a pod meanwhile", pod.mode, "mode of the iptables rules", expected="REDIRECT", seen=pod.mode)
        method = pod.stored["metadata"]["labels"].get("client-ip.dev/method", "none")
        check("creating a pod meanwhile", pod.mode, "our label", expected="none", seen=method)
        shows_redirect(check, pod, callers, report)
        later = lab.start_pod("down", "later", spec=NODE)
        told = lab.decision("down", "later")
        check("creating a pod afterwards", later.mode, "our decision", expected="tproxy", seen=told["reason"])
        check("creating a pod afterwards", later.mode, "mode of the iptables rules", expected="TPROXY", seen=later.mode)


@pytest.mark.parametrize(
    ("namespace", "revision", "what"),
    [
        pytest.param("by-revision", "canary", "a revision", id="revision"),
        pytest.param("by-tag", "prod", "a revision's tag", id="tag"),
    ],
)
def test_other_configurations_of_istio(
    lab: Lab,
    report: Report,
    callers: Callers,
    canary: None,
    namespace: str,
    revision: str,
    what: str,
) -> None:
    """7e. Revisions, tags and reinvocationPolicy IfNeeded: called before each of them, and preserved."""
    text = f"""The namespace selects {what} (`istio.io/rev: {revision}`). Its webhook configurations have the
    reinvocationPolicy IfNeeded, and istio-cni writes the iptables rules."""
    with report.chapter(f"7e. Injected by {what}, reinvoked, with istio-cni", text) as check:
        lab.namespace(namespace, preserve="enabled", labels={"istio.io/rev": revision})
        pod = lab.start_pod(namespace, "app", spec=NODE)
        decision = lab.decision(namespace, "app")
        check("creating the pod", pod.mode, "our decision", expected="tproxy", seen=decision["reason"])
        status = json.loads(pod.stored["metadata"]["annotations"]["sidecar.istio.io/status"])
        check("creating the pod", pod.mode, "injected by revision", expected="canary", seen=status["revision"])
        seen = http(pod, callers.plain.netns.name, pod.address)
        client = report.names.tell(callers.plain.address)
        traffic = "HTTP, pod without a sidecar → pod"
        check(traffic, pod.mode, SOCKET, expected=client, seen=report.names.tell(seen.peer))
        check(traffic, pod.mode, LOG, expected=client, seen=report.names.tell(seen.upstream_local_address))
        check("its access log", pod.mode, "exit status of client-ip verify", expected=0, seen=verify(pod))
