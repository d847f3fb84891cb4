"""What runs becomes one row for each workload: now, after a restart, and the advice that the pair is."""

from typing import Any, Final

import pytest

from tests.unit.running.cluster import GENERAL, LEGACY, by_name, fold, of_deployment, pod, take, workload
from webhook.facts.collect import decode_reviewed
from webhook.rules.decision import Mode, Outcome, Reason
from webhook.rules.wellknown import INTERCEPTION_MODE, METHOD, PRESERVE
from webhook.running.findings import ExceptionState, Manager, Named, Pods
from webhook.running.fold import MAX_SELECTORS
from webhook.running.verdicts import Advice, Verdict, advise

LOST: Final = Verdict(outcome=Outcome.LOST, reason=Reason.MIXED_NODES)
PRESERVED: Final = Verdict(outcome=Outcome.PRESERVED, reason=Reason.TPROXY)
HEADER: Final = Verdict(outcome=Outcome.HEADER, reason=Reason.X_FORWARDED_FOR)
WAIVED: Final = Verdict(outcome=Outcome.WAIVED, reason=Reason.EXCEPTED)
OPTED_OUT: Final = Verdict(outcome=Outcome.NOT_ASKED, reason=Reason.OPTED_OUT)
NOT_ASKED: Final = Verdict(outcome=Outcome.NOT_ASKED, reason=Reason.NOT_OPTED_IN)


@pytest.mark.parametrize(
    ("now", "after", "advice"),
    [
        (Outcome.PRESERVED, LOST, Advice.AT_RISK),
        (Outcome.HEADER, LOST, Advice.AT_RISK),
        (Outcome.LOST, PRESERVED, Advice.RESTART),
        (Outcome.LOST, HEADER, Advice.RESTART),
        (Outcome.LOST, LOST, Advice.CHANGE),
        (None, LOST, Advice.CHANGE),
        (Outcome.HEADER, PRESERVED, Advice.HEADER),
        (Outcome.HEADER, HEADER, Advice.HEADER),
        (Outcome.PRESERVED, HEADER, Advice.HEADER),
        (None, HEADER, Advice.HEADER),
        (Outcome.LOST, WAIVED, Advice.EXCEPTED),
        (Outcome.PRESERVED, WAIVED, Advice.EXCEPTED),
        (None, WAIVED, Advice.EXCEPTED),
        (Outcome.LOST, OPTED_OUT, Advice.OPTED_OUT),
        (None, NOT_ASKED, None),
        (Outcome.PRESERVED, PRESERVED, Advice.PRESERVED),
        (None, PRESERVED, Advice.PRESERVED),
    ],
)
def test_the_pair_is_the_advice(now: Outcome | None, after: Verdict, advice: Advice | None) -> None:
    assert advise(now, after) is advice


def test_a_pod_on_a_node_that_cannot_is_at_risk() -> None:
    assert advise(Outcome.PRESERVED, PRESERVED, stranded=True) is Advice.AT_RISK


def test_a_deployment_that_was_made_before_the_label_is_to_be_restarted() -> None:
    rows = take(fold(), [workload("web"), *(of_deployment("web", each) for each in range(3))])
    row = rows["shop/deployment/web"]
    assert (row.advice, row.reason, row.uid) == (Advice.RESTART, Reason.ALREADY_INJECTED, "uid-web")
    assert row.pods == Pods(all=3, lost=3)
    assert row.after.reason is Reason.TPROXY
    assert row.restart == row.fix == "kubectl rollout restart deployment/web -n shop"
    assert row.is_lost


def test_a_rollout_that_is_half_way_counts_both_kinds_of_pods() -> None:
    rows = take(
        fold(), [workload("web"), of_deployment("web", 1, "TPROXY"), of_deployment("web", 2), of_deployment("web", 3)]
    )
    assert rows["shop/deployment/web"].pods == Pods(all=3, lost=2, preserved=1)
    assert rows["shop/deployment/web"].advice is Advice.RESTART


def test_native_sidecars_are_seen() -> None:
    rows = take(fold(), [workload("web"), of_deployment("web", 1, native=True)])
    assert rows["shop/deployment/web"].advice is Advice.RESTART


def test_a_template_that_is_lost_is_to_be_changed() -> None:
    rows = take(fold(), [workload("web", LEGACY), of_deployment("web", 1)])
    row = rows["shop/deployment/web"]
    assert (row.advice, row.reason) == (Advice.CHANGE, Reason.INCOMPATIBLE_NODES)


def test_what_runs_in_tproxy_and_will_not_again_is_at_risk() -> None:
    rows = take(fold(), [workload("web", {}), of_deployment("web", 1, "TPROXY")])
    row = rows["shop/deployment/web"]
    assert (row.advice, row.reason) == (Advice.AT_RISK, Reason.MIXED_NODES)


def test_tproxy_on_a_node_that_does_not_support_it_is_at_risk() -> None:
    rows = take(fold(), [workload("web"), of_deployment("web", 1, "TPROXY", node="centos-1")])
    row = rows["shop/deployment/web"]
    assert row.advice is Advice.AT_RISK
    assert row.stranded == Named(count=1, names=["web-7d4b9c-1 on centos-1"])


def test_ended_pods_do_not_run() -> None:
    rows = take(fold(), [workload("web"), of_deployment("web", 1, phase="Succeeded")])
    assert rows["shop/deployment/web"].pods == Pods()
    assert rows["shop/deployment/web"].now is None


def test_a_pod_without_sidecar_sees_its_callers() -> None:
    rows = take(fold(), [workload("web"), of_deployment("web", 1, None)])
    row = rows["shop/deployment/web"]
    assert row.now is not None
    assert (row.advice, row.now.reason) == (Advice.PRESERVED, Reason.NO_SIDECAR)


def test_the_header_label_is_header_only() -> None:
    policy = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "header"},
        "spec": {"mode": "Enforce", "pods": {"fallback": "XForwardedFor"}},
    }
    labels = {METHOD: "x-forwarded-for"}
    rows = take(fold(policy), [workload("web", LEGACY), of_deployment("web", 1, labels=labels)])
    row = rows["shop/deployment/web"]
    assert (row.advice, row.reason, row.policy) == (Advice.HEADER, Reason.X_FORWARDED_FOR, "header")


def test_a_late_annotation_disagrees_with_the_proxy() -> None:
    late = {INTERCEPTION_MODE: "TPROXY"}
    rows = take(fold(), [workload("web"), *(of_deployment("web", each, annotations=late) for each in range(5))])
    found = rows["shop/deployment/web"].disagreeing
    assert found is not None
    assert found.count == 5
    assert len(found.names) == 3
    assert found.names[0] == "web-7d4b9c-0 (annotation TPROXY, proxy REDIRECT)"


@pytest.mark.parametrize(
    ("owner", "labels", "called"),
    [
        (("ReplicaSet", "web-7d4b9c"), {"pod-template-hash": "7d4b9c"}, "shop/deployment/web"),
        (("ReplicaSet", "web-7d4b9c"), {"pod-template-hash": "other"}, "shop/replicaset/web-7d4b9c"),
        (("ReplicaSet", "web-7d4b9c"), {}, "shop/replicaset/web-7d4b9c"),
        (("StatefulSet", "web"), {}, "shop/statefulset/web"),
        (("DaemonSet", "web"), {}, "shop/daemonset/web"),
        (("Job", "web-28"), {}, "shop/job/web-28"),
        (("Job", "nightly-28"), {}, "shop/cronjob/nightly"),
        (("CloneSet", "web"), {}, "shop/cloneset/web"),
        (("Node", "alinux-1"), {}, "shop/pod/web-1"),
        (None, {}, "shop/pod/web-1"),
    ],
    ids=str,
)
def test_the_top_owner_is_the_workload(owner: tuple[str, str] | None, labels: dict[str, str], called: str) -> None:
    """Neither ReplicaSets nor other kinds of controllers are read: the pod tells, and stands for its template."""
    made = fold()
    nightly = {"kind": "CronJob", "name": "nightly", "uid": "u", "controller": True}
    job = workload("nightly-28", kind="Job", ownerReferences=[nightly])
    rows = take(made, [job, pod("web-1", owner=owner, labels=labels)])
    assert list(rows) == [called]
    assert rows[called].advice is Advice.RESTART


def test_a_replica_set_that_was_read_tells_its_maker() -> None:
    made = fold()
    take(made, [pod(f"web-abc-{each}", owner=("ReplicaSet", "web-abc")) for each in range(2)])
    (key,) = made.unresolved()
    assert key == ("shop", "ReplicaSet", "web-abc")
    maker = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u-1", "controller": True}
    read = workload("web-abc", kind="ReplicaSet", ownerReferences=[maker])
    made.resolve(_workload(read))
    row = by_name(made)["shop/rollout/web"]
    assert (row.pods, row.uid) == (Pods(all=2, lost=2), "u-1")
    assert row.restart == "kubectl argo rollouts restart web -n shop"
    assert made.unresolved() == []


def _workload(document: dict[str, Any]) -> Any:
    import msgspec

    from webhook.running.objects import WORKLOADS

    return msgspec.convert(document, WORKLOADS[document["kind"]])


def test_a_bare_pod_is_made_by_nobody() -> None:
    row = take(fold(), [pod("lonely")])["shop/pod/lonely"]
    assert (row.restart, row.fix) == ("", "it has no controller: delete it and create it again")


def test_what_is_only_audited_is_not_restarted_in_vain() -> None:
    rows = take(fold(), [workload("web", namespace="trial"), of_deployment("web", 1, namespace="trial")])
    row = rows["trial/deployment/web"]
    assert (row.advice, row.mode, row.restart) == (Advice.RESTART, Mode.AUDIT, "")
    assert not row.is_lost


def test_an_opted_out_template_is_named_and_nobody_elses_is() -> None:
    out = workload("out")
    out["spec"]["template"]["metadata"]["labels"][PRESERVE] = "disabled"
    made = fold()
    rows = take(made, [out, workload("web", namespace="plain"), of_deployment("web", 1, namespace="plain")])
    assert [(name, row.advice) for name, row in rows.items()] == [("shop/deployment/out", Advice.OPTED_OUT)]
    assert made.not_asked == 1
    assert made.pods == 1


def test_a_pod_may_opt_in_by_itself() -> None:
    rows = take(fold(), [pod("alone", namespace="plain", labels={PRESERVE: "enabled"})])
    assert rows["plain/pod/alone"].advice is Advice.RESTART


def test_a_manifest_does_not_run() -> None:
    manifest = pod("web", None, phase="")
    row = take(fold(), [manifest])["shop/pod/web"]
    assert (row.now, row.pods) == (None, Pods())


OWNED: Final = {"client-ip.dev/owner": "team-a@example.com"}


@pytest.mark.parametrize(
    ("annotations", "labels", "namespace", "owner"),
    [
        (OWNED, {"team": "b"}, {"team": "c"}, "team-a@example.com"),
        ({}, {"team": "b", "owner": "d"}, {"team": "c"}, "b"),
        ({}, {"owner": "d"}, {"team": "c"}, "d"),
        ({}, {"app.kubernetes.io/part-of": "e"}, {"team": "c"}, "e"),
        ({}, {}, {"team": "c"}, "c"),
        ({}, {"team": "  "}, {}, ""),
        ({}, {}, {}, ""),
        ({"client-ip.dev/owner": "a\x1b[31m\nb" + "c" * 200}, {}, {}, "a [31m b" + "c" * 91 + "…"),
    ],
)
def test_the_owner_is_the_workloads_or_its_namespaces(
    annotations: dict[str, str], labels: dict[str, str], namespace: dict[str, str], owner: str
) -> None:
    opted_in = {PRESERVE: "enabled", "istio-injection": "enabled"}
    around = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "owned", "labels": {**opted_in, **namespace}},
    }
    made = fold(around)
    rows = take(made, [workload("web", namespace="owned", annotations=annotations, labels=labels)])
    assert rows["owned/deployment/web"].owner == owner


def test_other_keys_may_say_whose_it_is() -> None:
    made = fold(owner_keys=("example.com/squad",))
    rows = take(made, [workload("web", labels={"team": "a", "example.com/squad": "b"})])
    assert rows["shop/deployment/web"].owner == "b"


POLICY: Final = {
    "apiVersion": "client-ip.dev/v1alpha1",
    "kind": "ClientIPPolicy",
    "metadata": {"name": "waivers"},
    "spec": {
        "mode": "Enforce",
        "exceptions": [
            {
                "name": name,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                "selector": {"matchLabels": {"app": app}},
                "owner": "team-ledger@example.com",
                "reason": "reads the PROXY header",
                "ticket": "SEC-1",
                "expires": expires,
            }
            for name, app, expires in (
                ("far", "far", "2027-01-01T00:00:00Z"),
                ("soon", "soon", "2026-06-05T00:00:00Z"),
                ("over", "over", "2026-05-01T00:00:00Z"),
                ("idle", "nobody", "2027-01-01T00:00:00Z"),
            )
        ],
    },
}


def test_exceptions_are_shown_with_their_owner_and_end() -> None:
    made = fold(POLICY)
    rows = take(made, [workload("far", LEGACY), workload("soon", LEGACY), workload("over", LEGACY)])
    far, over = rows["shop/deployment/far"], rows["shop/deployment/over"]
    assert far.advice is Advice.EXCEPTED
    assert far.exception is not None
    assert (far.exception.name, far.exception.owner) == ("far", "team-ledger@example.com")
    assert (over.advice, over.exception) == (Advice.CHANGE, None)
    assert over.ended is not None
    assert over.ended.name == "over"
    uses = {use.exception.name: (use.state, use.covers) for use in made.exceptions(complete=True)}
    assert uses == {
        "far": (ExceptionState.LIVE, 1),
        "soon": (ExceptionState.ENDING, 1),
        "over": (ExceptionState.ENDED, 1),
        "idle": (ExceptionState.UNUSED, 0),
    }


def test_a_partial_scan_does_not_call_an_exception_unused() -> None:
    uses = {use.exception.name: use.state for use in fold(POLICY).exceptions(complete=False)}
    assert uses["idle"] is ExceptionState.LIVE


# --- Gateways


def gateway(policy: str = "Cluster", kind: str = "LoadBalancer", **metadata: Any) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "gateway", "namespace": "edge", "labels": {"istio": "ingressgateway"}, **metadata},
        "spec": {"type": kind, "externalTrafficPolicy": policy, "selector": {"app": "gateway"}},
    }


def gateway_pod(number: int, node: str) -> dict[str, Any]:
    return pod(f"gateway-{number}", None, namespace="edge", labels={"app": "gateway"}, node=node, spec=GENERAL)


def test_a_gateway_that_is_cluster_becomes_local_at_its_next_write() -> None:
    row = take(fold(), [gateway()])["edge/service/gateway"]
    assert (row.advice, row.reason) == (Advice.RESTART, Reason.LOCAL)
    assert row.restart.startswith("kubectl label service/gateway -n edge client-ip.dev/preserve=enabled")


def test_nodes_without_a_gateway_pod_would_drop() -> None:
    rows = take(fold(), [gateway(kind="NodePort"), gateway_pod(1, "alinux-1"), gateway_pod(2, "ubuntu-1")])
    found = rows["edge/service/gateway"].gateway
    assert found is not None
    assert (found.ready_pods, found.nodes.names) == (2, ["alinux-1", "ubuntu-1"])
    assert found.dropping == Named(count=2, names=["centos-1", "virtual-kubelet-cn-hangzhou-i"])
    assert found.warnings == [
        "2 nodes without a pod drop the traffic of clients: no health check removes them",
    ]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "no ready pod"),
        (["alinux-1"], "one ready pod"),
        (["alinux-1", "alinux-1"], "are on one node"),
        (["alinux-1", "alinux-1", "ubuntu-1"], "different numbers"),
    ],
)
def test_what_local_means_is_warned_of(nodes: list[str], said: str) -> None:
    pods = [gateway_pod(number, node) for number, node in enumerate(nodes)]
    found = take(fold(), [gateway("Local"), *pods])["edge/service/gateway"].gateway
    assert found is not None
    (warning,) = found.warnings
    assert said in warning


def test_a_zone_without_a_gateway_pod_is_named() -> None:
    def node(name: str, zone: str, **labels: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, **labels}},
            "status": {"nodeInfo": {"osImage": "Ubuntu", "kernelVersion": "5", "operatingSystem": "linux"}},
        }

    excluded = {"node.kubernetes.io/exclude-from-external-load-balancers": "", "node-role.kubernetes.io/x": ""}
    nodes = [node("a-1", "a"), node("a-2", "a"), node("b-1", "b"), node("c-1", "c", **excluded)]
    rows = take(fold(*nodes), [gateway("Local"), gateway_pod(1, "a-1"), gateway_pod(2, "a-2")])
    found = rows["edge/service/gateway"].gateway
    assert found is not None
    assert found.zones_without == ["b"]
    assert "no pod in b" in found.warnings[0]


def test_who_else_writes_the_field_is_named() -> None:
    def owns(manager: str, operation: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"f:spec": {"f:externalTrafficPolicy": {}, "f:type": {}}}
        return {"manager": manager, "operation": operation, "fieldsV1": fields}

    other = {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}
    managed = [owns("argocd-controller", "Apply"), owns("kubectl-edit", "Update"), other]
    rows = take(fold(), [gateway("Local", managedFields=managed), gateway_pod(1, "alinux-1")])
    found = rows["edge/service/gateway"].gateway
    assert found is not None
    assert found.managers == [
        Manager(name="argocd-controller", operation="Apply"),
        Manager(name="kubectl-edit", operation="Update"),
    ]
    assert "argocd-controller sets externalTrafficPolicy by server-side apply" in found.warnings[-1]


def test_other_services_are_no_rows() -> None:
    plain = gateway()
    plain["metadata"]["labels"] = {}
    assert take(fold(), [plain]) == {}


GREAT: Final = {"metadata|annotations": 100_001, "spec|containers": 150_001, "metadata|labels": 50_001}


@pytest.mark.parametrize("path", GREAT)
@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_what_the_webhook_does_not_decode_is_not_decided_here_either(path: str, kind: str) -> None:
    """After a restart it is the webhook that decides: the same objects are too large to both."""
    what, part = path.split("|")
    many: Any = {f"k{number}": "" for number in range(GREAT[path])}
    if part == "containers":
        many = [{"name": "a", "args": [""] * (GREAT[path] - 1)}]
    document = pod("web-0", None) if kind == "Pod" else workload("web")
    held = document if kind == "Pod" else document["spec"]["template"]
    held[what] = {**held[what], part: many}
    _, excess = decode_reviewed(document)
    assert excess
    (row,) = take(fold(), [document]).values()
    assert (row.after.reason, row.after.cause) == (Reason.TOO_LARGE, excess)


def test_gateways_that_select_the_same_pods_share_them_and_too_many_others_are_not_counted() -> None:
    """A pod is held against few selectors, however many gateways somebody makes."""
    gateways = []
    for number in range(2 * MAX_SELECTORS):
        gateways.append(gateway(kind="NodePort"))
        gateways[-1]["metadata"]["name"] = f"g-{number}"
        if number > 2:
            gateways[-1]["spec"]["selector"] = {f"k{number}": ""}
    rows = take(fold(), [*gateways, gateway_pod(1, "alinux-1"), gateway_pod(2, "ubuntu-1")])
    found = [rows[f"edge/service/g-{number}"].gateway for number in range(2 * MAX_SELECTORS)]
    assert [each.ready_pods for each in found[:4] if each is not None] == [2, 2, 2, 0]
    assert [each is not None for each in found] == [True] * (MAX_SELECTORS + 2) + [False] * (MAX_SELECTORS - 2)
