"""
`client-ip verify KIND/NAME`: pods and their sidecars' logs through a real API server.

The API server asks the kubelet of the pod's node; here that is a server of the test, which speaks the kubelet's
protocol. Who may read what, which pods a selector selects and how a stream ends is the API server's own.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import pod
from tests.cli.command import BIN, ROOT, run
from tests.parts.api import Api
from tests.parts.kube import ControlPlane, write_kubeconfig
from tests.parts.kubelet import ContainerLog, KubeletLogs
from tests.parts.process import ports, wait_until

VARIANTS_ARE_SLOW: Final = True

LOGS: Final = ROOT / "tests" / "unit" / "accesslogs"
PRESERVED: Final = (LOGS / "tproxy.text.log").read_text().splitlines()[2]
LOST: Final = (LOGS / "redirect.json.log").read_text().splitlines()[2]
OUTBOUND: Final = (LOGS / "gateway.text.log").read_text().splitlines()[2]
PROXY: Final[Mapping[str, Any]] = {
    "name": "istio-proxy",
    "image": "p",
    "env": [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "TPROXY"}],
}
RULES: Final[Mapping[str, Any]] = {
    "name": "istio-init",
    "image": "p",
    "args": ["istio-iptables", "-m", "TPROXY", "-i", "*", "-b", "*"],
}
INJECTED: Final = {"sidecar.istio.io/status": "{}"}


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeletLogs]:
    """A node whose containers' logs are served here."""
    with ports() as taken, KubeletLogs(tmp_path_factory.mktemp("kubelet"), "127.0.0.1", taken.take()) as running:
        api = control_plane.add_node("verify-node")
        running.join(api, "verify-node")
        yield running
        api.delete("v1", "Node", "verify-node")


class Shop:
    """A namespace, with pods whose sidecars' logs the test writes."""

    def __init__(self, plane: ControlPlane, kubelet: KubeletLogs, name: str) -> None:
        self.plane, self.kubelet, self.name = plane, kubelet, name
        self.api: Api = plane.client()

    def pod(
        self, name: str, *, native: bool = False, status: Mapping[str, Any] | None = None, **more: Any
    ) -> ContainerLog:
        """Make a pod that runs, with a sidecar; return its sidecar's log."""
        made = pod(name, nodeName="verify-node")
        made["metadata"] |= {"labels": {"app": "reviews"}, "annotations": dict(INJECTED), **more}
        made["spec"]["initContainers"] = [dict(RULES)]
        proxy = {**PROXY, "restartPolicy": "Always"} if native else dict(PROXY)
        made["spec"]["initContainers" if native else "containers"].append(proxy)
        self.api.create(made, namespace=self.name)
        running = {"phase": "Running", "podIP": "10.88.0.11", "podIPs": [{"ip": "10.88.0.11"}]}
        self.api.patch_status("v1", "Pod", name, running if status is None else status, namespace=self.name)
        return self.kubelet.container(self.name, name, "istio-proxy")

    def make(self, kind: str, api_version: str = "apps/v1", name: str = "reviews", **spec: Any) -> dict[str, Any]:
        """Make something whose selector selects the pods."""
        labels = {"app": "reviews"}
        template = {"metadata": {"labels": labels}, "spec": pod("reviews")["spec"]}
        whole = {"selector": {"matchLabels": labels}, "template": template, **spec}
        document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": whole}
        return self.api.create(document, namespace=self.name)

    def verify(self, *arguments: str, code: int, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command against the cluster."""
        options = ("--kubeconfig", str(kubeconfig or self.plane.kubeconfig), "-n", self.name)
        return run("verify", *options, *arguments, code=code)


@pytest.fixture
def shop(control_plane: ControlPlane, kubelet: KubeletLogs, namespace: str) -> Shop:
    return Shop(control_plane, kubelet, namespace)


def test_every_replica_is_read(shop: Shop) -> None:
    shop.make("Deployment")
    shop.pod("reviews-1").write(PRESERVED, OUTBOUND)
    shop.pod("reviews-2", native=True).write("2026-11-23T14:43:02Z\tinfo\tready", PRESERVED)
    injected = "injected mode TPROXY (container istio-proxy runs with ISTIO_META_INTERCEPTION_MODE=TPROXY)"
    seen = "GET /ip  10.88.0.30:32786        the application's socket showed the caller, 10.88.0.30"
    assert shop.verify("deploy/reviews", code=0).stdout.splitlines() == [
        f"{shop.name}/reviews-1: {injected}",
        f"{shop.name}/reviews-2: {injected}",
        f"VERDICT    POD{' ' * (len(shop.name) + 9)}REQUEST  UPSTREAM_LOCAL_ADDRESS  WHY",
        f"preserved  {shop.name}/reviews-1  {seen}",
        f"preserved  {shop.name}/reviews-2  {seen}",
        "2 preserved, 0 lost, 0 unknown",
    ]


def test_one_replica_that_loses_it_is_enough(shop: Shop) -> None:
    shop.make("Deployment")
    shop.pod("reviews-1").write(PRESERVED)
    shop.pod("reviews-2").write(LOST)
    told = json.loads(shop.verify("-o", "json", "deploy/reviews", code=1).stdout)
    assert told["counts"] == {"preserved": 1, "lost": 1, "unknown": 0}
    assert [(each["pod"], each["file"], each["line"]) for each in told["requests"]] == [
        (f"{shop.name}/reviews-1", "pod/reviews-1", 1),
        (f"{shop.name}/reviews-2", "pod/reviews-2", 1),
    ]
    assert [each["mode"] for each in told["pods"]] == ["TPROXY", "TPROXY"]


@pytest.mark.slow
def test_whatever_makes_pods_may_be_named(shop: Shop) -> None:
    shop.pod("reviews-1").write(PRESERVED)
    shop.make("Deployment")
    shop.make("ReplicaSet")
    shop.make("DaemonSet")
    shop.make("StatefulSet", serviceName="reviews")
    ports = [{"port": 80}]
    shop.api.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "reviews"},
            "spec": {"selector": {"app": "reviews"}, "ports": ports},
        },
        namespace=shop.name,
    )
    for name in ("deploy/reviews", "rs/reviews", "ds/reviews", "statefulset/reviews", "svc/reviews", "pods/reviews-1"):
        assert shop.verify(name, code=0).stdout.splitlines()[-1] == "1 preserved, 0 lost, 0 unknown"
    # A pod that is named twice is read once.
    assert shop.verify("pod/reviews-1", "deploy/reviews", code=0).stdout.splitlines()[-1].startswith("1 preserved")


def test_selectors_by_expressions_are_asked_as_they_are(shop: Shop) -> None:
    shop.make(
        "Deployment",
        selector={
            "matchLabels": {"app": "reviews"},
            "matchExpressions": [
                {"key": "app", "operator": "In", "values": ["reviews", "other"]},
                {"key": "track", "operator": "NotIn", "values": ["canary"]},
                {"key": "app", "operator": "Exists"},
                {"key": "gone", "operator": "DoesNotExist"},
            ],
        },
    )
    shop.pod("reviews-1").write(PRESERVED)
    shop.pod("reviews-2", labels={"app": "reviews", "track": "canary"}).write(LOST)
    shop.pod("reviews-3", labels={"app": "reviews", "gone": ""}).write(LOST)
    assert shop.verify("deploy/reviews", code=0).stdout.splitlines()[-1] == "1 preserved, 0 lost, 0 unknown"


@pytest.mark.slow
def test_a_cron_jobs_pods_are_those_of_its_jobs(shop: Shop) -> None:
    template = {"spec": {**pod("reviews")["spec"], "restartPolicy": "Never"}}
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}
    cron = shop.api.create(
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": spec},
        namespace=shop.name,
    )
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": cron["metadata"]["uid"]}
    job = shop.api.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "nightly-1", "ownerReferences": [{**owner, "controller": True}]},
            "spec": {"template": template},
        },
        namespace=shop.name,
    )
    labels = job["spec"]["selector"]["matchLabels"]
    shop.pod("nightly-1-x", labels=labels, status={"phase": "Succeeded"}).write(PRESERVED)
    shop.pod("other").write(LOST)
    for name in ("cronjob/nightly", "job/nightly-1"):
        assert shop.verify(name, code=0).stdout.splitlines()[-1] == "1 preserved, 0 lost, 0 unknown"


@pytest.mark.slow
def test_since_leaves_out_what_is_older(shop: Shop) -> None:
    log = shop.pod("reviews-1")
    log.write(LOST, at=datetime.now(UTC) - timedelta(hours=1))
    log.write(PRESERVED)
    assert shop.verify("pod/reviews-1", code=1).stdout.splitlines()[-1] == "1 preserved, 1 lost, 0 unknown"
    for since in ("30m", "1800s", "0h29m59s"):
        shop.verify("--since", since, "pod/reviews-1", code=0)
    assert shop.kubelet.asked[-1] == {
        "path": f"/containerLogs/{shop.name}/reviews-1/istio-proxy",
        "sinceSeconds": "1799",
    }


def follow(shop: Shop, *arguments: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CLIENT_IP_", "KUBE"))}
    command = ["verify", "--kubeconfig", str(shop.plane.kubeconfig), "-n", shop.name, "--follow", *arguments]
    return subprocess.Popen(
        [BIN / "client-ip", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_following_ends_with_a_signal_and_the_verdict(shop: Shop, number: signal.Signals) -> None:
    shop.make("Deployment")
    logs = [shop.pod(f"reviews-{each}") for each in (1, 2)]
    logs[0].write(PRESERVED)
    with follow(shop, "deploy/reviews") as running:
        assert running.stdout is not None
        printed = [running.stdout.readline() for _ in range(4)]
        assert printed[-1].startswith(f"preserved  {shop.name}/reviews-1")
        logs[1].write(LOST)  # only now, and it is printed at once
        assert running.stdout.readline().startswith(f"lost       {shop.name}/reviews-2")
        running.send_signal(number)
        rest, error = running.communicate(timeout=120)
    assert (running.returncode, rest, error) == (1, "1 preserved, 1 lost, 0 unknown\n", "")


def test_following_ends_with_the_last_container(shop: Shop) -> None:
    log = shop.pod("reviews-1")
    with follow(shop, "pod/reviews-1", "-o", "json") as running:
        wait_until(
            lambda: any(each.get("follow") and shop.name in each["path"] for each in shop.kubelet.asked),
            what="the log to be followed",
            seconds=120,
        )
        log.write(PRESERVED, PRESERVED)
        log.ended = True
        printed, error = running.communicate(timeout=120)
    told = json.loads(printed)
    assert (running.returncode, error, told["counts"]["preserved"], told["proved"]) == (0, "", 2, True)


def test_a_pod_whose_log_was_not_read_keeps_the_proof_open(shop: Shop) -> None:
    shop.make("Deployment")
    shop.pod("reviews-1").write(PRESERVED)
    state = {"state": {"waiting": {"reason": "ImagePullBackOff"}}, "ready": False, "restartCount": 0}
    waiting = {"name": "istio-proxy", "image": "p", "imageID": "", **state}
    shop.pod("reviews-2", status={"phase": "Pending", "containerStatuses": [waiting]})
    bare = pod("reviews-3", nodeName="verify-node")
    bare["metadata"]["labels"] = {"app": "reviews"}
    shop.api.create(bare, namespace=shop.name)
    shop.pod("reviews-4")
    del shop.kubelet.logs[shop.name, "reviews-4", "istio-proxy"]
    done = shop.verify("deploy/reviews", code=1)
    assert done.stdout.splitlines()[-1] == "1 preserved, 0 lost, 0 unknown"
    said = done.stderr.splitlines()
    assert said[:2] == [
        f"{shop.name}/reviews-2 was not read: its istio-proxy has not started (ImagePullBackOff)",
        f"{shop.name}/reviews-3 was not read: it has no container istio-proxy",
    ]
    assert said[2].startswith(f"{shop.name}/reviews-4 was not read completely: 404: ")


def test_a_kubelet_that_does_not_answer_is_named(shop: Shop) -> None:
    with ports() as taken:
        away = shop.plane.add_node("verify-away")
        endpoint = {"kubeletEndpoint": {"Port": taken.take()}}
        addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
        away.patch_status("v1", "Node", "verify-away", {"addresses": addresses, "daemonEndpoints": endpoint})
        made = pod("reviews-1", nodeName="verify-away")
        made["spec"]["containers"].append(dict(PROXY))
        shop.api.create(made, namespace=shop.name)
        shop.api.patch_status("v1", "Pod", "reviews-1", {"phase": "Running"}, namespace=shop.name)
        said = shop.verify("pod/reviews-1", code=1).stderr
        away.delete("v1", "Node", "verify-away")
    assert f"{shop.name}/reviews-1 was not read completely: " in said
    assert "connection refused" in said


def test_what_may_not_be_read_is_named(shop: Shop, tmp_path: Path) -> None:
    shop.make("Deployment")
    shop.pod("reviews-1").write(PRESERVED)
    shop.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer"}}, namespace=shop.name)
    kubeconfig = tmp_path / "config"
    token = shop.plane.service_account_token(shop.name, "viewer")
    write_kubeconfig(kubeconfig, url=shop.plane.url, ca=shop.plane.ca, token=token)
    said = shop.verify("deploy/reviews", code=1, kubeconfig=kubeconfig).stderr
    assert 'cannot get resource "deployments"' in said
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    allow(shop, rules)
    wait_until(
        lambda: (
            'cannot get resource "pods/log"'
            in run("verify", "--kubeconfig", str(kubeconfig), "-n", shop.name, "deploy/reviews", code=1).stderr
        ),
        what="the role to be in force",
    )
    rules.append({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})
    shop.api.patch("rbac.authorization.k8s.io/v1", "Role", "viewer", {"rules": rules}, namespace=shop.name)
    options = ("--kubeconfig", str(kubeconfig), "-n", shop.name, "deploy/reviews")
    wait_until(
        lambda: (
            subprocess.run([BIN / "client-ip", "verify", *options], check=False, capture_output=True).returncode == 0
        ),
        what="the three verbs that docs name to be enough",
    )


def allow(shop: Shop, rules: list[dict[str, Any]]) -> None:
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "viewer"}, "rules": rules}
    shop.api.create(role, namespace=shop.name)
    subjects = [{"kind": "ServiceAccount", "name": "viewer", "namespace": shop.name}]
    reference = {"apiGroup": group, "kind": "Role", "name": "viewer"}
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": "viewer"}}
    shop.api.create({**binding, "subjects": subjects, "roleRef": reference}, namespace=shop.name)


@pytest.mark.slow
def test_the_contexts_namespace_is_the_default(shop: Shop, tmp_path: Path) -> None:
    shop.pod("reviews-1").write(PRESERVED)
    document = yaml.safe_load(shop.plane.kubeconfig.read_text())
    document["contexts"][0]["context"]["namespace"] = shop.name
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(document))
    run("verify", "--kubeconfig", str(kubeconfig), "pod/reviews-1", code=0)
    run("verify", "pod/reviews-1", environment={"KUBECONFIG": str(kubeconfig)}, code=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deploy/missing", "no Deployment missing in namespace"),
        ("pod/reviews/log", "pod/reviews/log: KIND/NAME must have exactly one slash"),
        ("svc/nobody", "Service nobody has no selector, so it has no pods"),
        ("deploy/reviews", "Deployment reviews in namespace"),
    ],
)
def test_what_is_not_there_is_named(shop: Shop, name: str, said: str) -> None:
    shop.make("Deployment")
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nobody"}, "spec": {"ports": [{"port": 80}]}}
    shop.api.create(service, namespace=shop.name)
    assert said in shop.verify(name, code=2).stderr


def test_a_file_of_that_name_comes_first(shop: Shop, tmp_path: Path) -> None:
    shop.pod("reviews-1").write(LOST)
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "reviews-1").write_text(PRESERVED)
    command = [str(BIN / "client-ip"), "verify", "--kubeconfig", str(shop.plane.kubeconfig), "pod/reviews-1"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 preserved, 0 lost, 0 unknown")
