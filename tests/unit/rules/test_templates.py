"""Pod templates of any kind, by their shape: in manifests and in reviews."""

import json
import tracemalloc
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from webhook.facts.collect import Collector
from webhook.rules.decide import decide
from webhook.rules.decision import Outcome, Reason
from webhook.rules.limits import SHAPED_LIMIT
from webhook.rules.snapshot import Snapshot
from webhook.rules.templates import DAEMON_TOLERATION, MAX_TEMPLATES, pod_templates, shaped
from webhook.server.review import decode, encode

POD: Final[dict[str, Any]] = {
    "metadata": {"labels": {"app": "a"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
KNATIVE: Final[dict[str, Any]] = {"spec": {"containers": [{"image": "i"}]}}
KINDS: Final[dict[str, tuple[dict[str, Any], list[str]]]] = {
    "argoproj.io/v1alpha1 Rollout": ({"spec": {"template": POD}}, ["spec.template"]),
    "apps.kruise.io/v1alpha1 CloneSet": ({"spec": {"template": POD}}, ["spec.template"]),
    "apps.openshift.io/v1 DeploymentConfig": ({"spec": {"template": POD}}, ["spec.template"]),
    "v1 ReplicationController": ({"spec": {"template": POD}}, ["spec.template"]),
    "v1 PodTemplate": ({"template": POD}, ["template"]),
    "serving.knative.dev/v1 Service": ({"spec": {"template": KNATIVE}}, ["spec.template"]),
    "extensions/v1beta1 Deployment": ({"spec": {"template": POD}}, ["spec.template"]),
    "batch/v1beta1 CronJob": (
        {"spec": {"jobTemplate": {"spec": {"template": POD}}}},
        ["spec.jobTemplate.spec.template"],
    ),
    "apps.kruise.io/v1beta1 AdvancedCronJob": (
        {"spec": {"template": {"jobTemplate": {"spec": {"template": POD}}}}},
        ["spec.template.jobTemplate.spec.template"],
    ),
    "agones.dev/v1 Fleet": ({"spec": {"template": {"spec": {"template": POD}}}}, ["spec.template.spec.template"]),
    "keda.sh/v1alpha1 ScaledJob": ({"spec": {"jobTargetRef": {"template": POD}}}, ["spec.jobTargetRef.template"]),
    "elasticsearch.k8s.elastic.co/v1 Elasticsearch": (
        {"spec": {"nodeSets": [{"podTemplate": POD}]}},
        ["spec.nodeSets[0].podTemplate"],
    ),
    "ray.io/v1 RayCluster": (
        {"spec": {"headGroupSpec": {"template": POD}, "workerGroupSpecs": [{"template": POD}, {"template": POD}]}},
        ["spec.headGroupSpec.template", "spec.workerGroupSpecs[0].template", "spec.workerGroupSpecs[1].template"],
    ),
    "kubeflow.org/v1 PyTorchJob": (
        {"spec": {"pytorchReplicaSpecs": {"Master": {"template": POD}, "Worker": {"template": POD}}}},
        ["spec.pytorchReplicaSpecs.Master.template", "spec.pytorchReplicaSpecs.Worker.template"],
    ),
    "batch.volcano.sh/v1alpha1 Job": ({"spec": {"tasks": [{"template": POD}]}}, ["spec.tasks[0].template"]),
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": (
        {"spec": {"leaderWorkerTemplate": {"leaderTemplate": POD, "workerTemplate": POD}}},
        ["spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate"],
    ),
}
NONE: Final[dict[str, dict[str, Any]]] = {
    "a ConfigMap": {"data": {"template": "spec: {containers: []}"}},
    "Istio's WorkloadGroup": {"spec": {"template": {"ports": {"http": 80}, "serviceAccount": "a"}}},
    "a Rollout that refers to a Deployment": {"spec": {"workloadRef": {"kind": "Deployment", "name": "a"}}},
    "an Argo Workflow": {"spec": {"templates": [{"name": "a", "container": {"image": "i"}}]}},
    "an object within an object": {
        "spec": {
            "resources": [{"template": {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": POD}}}]
        }
    },
    "a template of no pod": {"spec": {"template": {"spec": {"containers": []}}}},
    "what was applied last": {"metadata": {"annotations": {"template": POD}}, "status": {"template": POD}},
    "a text": {"spec": {"template": "x"}},
    "nothing": {"spec": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_template_is_found_by_its_shape(kind: str) -> None:
    document, where = KINDS[kind]
    assert [each.path for each in pod_templates(document)] == where
    for _, pod in shaped(document):
        assert [each.name for each in pod.spec.containers or ()] in (["c"], [""])


@pytest.mark.parametrize("what", NONE)
def test_what_holds_none_has_none(what: str) -> None:
    assert pod_templates(NONE[what]) == ()


def test_the_search_is_bounded() -> None:
    deep: Any = {"template": POD}
    for _ in range(40):
        deep = {"spec": deep}
    assert pod_templates(deep) == ()
    assert len(pod_templates({"spec": {"tasks": [{"template": POD}] * 1000}})) == MAX_TEMPLATES
    wide = {"spec": {"items": [{}] * 200_000, "z": {"template": POD}}}
    assert len(pod_templates(wide)) <= 1


def test_a_long_key_is_not_repeated_for_what_is_below_it() -> None:
    """Paths of ten thousand items would take a gigabyte."""
    document = {"spec": {"k" * 200_000: [[0]] * 100_000, "z": {"template": POD}, "y" * 200_000: {"template": POD}}}
    tracemalloc.start()
    try:
        found = pod_templates(document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {each.path[:8] for each in found} <= {"spec.z.t", "spec.yyy"}
    assert peak < 8_000_000


def test_nulls_in_a_template_are_read() -> None:
    document = {
        "spec": {"template": {"metadata": None, "spec": {"containers": [{"name": "c"}], "nodeSelector": {"a": None}}}}
    }
    ((_, pod),) = shaped(document)
    assert pod.spec.node_selector == {"a": ""}


def test_anybodys_daemonset_runs_on_cordoned_nodes() -> None:
    ((_, pod),) = shaped({"kind": "DaemonSet", "apiVersion": "apps.kruise.io/v1alpha1", "spec": {"template": POD}})
    assert pod.spec.tolerations == [DAEMON_TOLERATION]


def snapshot() -> Snapshot:
    collector = Collector()
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
    collector.put("v1", "Namespace", {"metadata": {"name": "shop", "labels": labels}})
    for name, image in (("good", "Ubuntu 24.04 LTS"), ("old", "CentOS Linux 7 (Core)")):
        info = {"osImage": image, "kernelVersion": "6.8.0", "operatingSystem": "linux"}
        metadata = {"name": name, "labels": {"pool": name}}
        collector.put("v1", "Node", {"metadata": metadata, "status": {"nodeInfo": info}})
    webhook = {
        "name": "namespace.sidecar-injector.istio.io",
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
    }
    metadata = {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector"}}
    kind = "MutatingWebhookConfiguration"
    collector.put("admissionregistration.k8s.io/v1", kind, {"metadata": metadata, "webhooks": [webhook]})
    return collector.snapshot()


def on(pool: str) -> dict[str, Any]:
    return {"spec": {**POD["spec"], "nodeSelector": {"pool": pool}}}


def review(document: dict[str, Any], **more: Any) -> bytes:
    group, _, version = document["apiVersion"].rpartition("/")
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": document["kind"]},
        "namespace": "shop",
        "operation": "CREATE",
        "object": document,
        **more,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_review_of_such_a_kind_is_warned_of_and_never_patched(kind: str, operation: str) -> None:
    version, _, name = kind.partition(" ")
    text = json.dumps(KINDS[kind][0]).replace('"containers"', '"nodeSelector": {"pool": "old"}, "containers"')
    document = {"apiVersion": version, "kind": name, "metadata": {"name": "a"}, **json.loads(text)}
    uid, request = decode(review(document, operation=operation))
    decision = decide(request, snapshot(), now=datetime(2026, 6, 1, tzinfo=UTC))
    assert (decision.reason, decision.outcome) == (Reason.INCOMPATIBLE_NODES, Outcome.LOST)
    answer = json.loads(encode(uid, decision))["response"]
    assert answer["allowed"] is True
    assert "patch" not in answer
    assert answer["warnings"][0].startswith("client IP lost (incompatible-nodes)")


def test_the_first_template_that_loses_it_decides() -> None:
    ray = {"headGroupSpec": {"template": on("good")}, "workerGroupSpecs": [{"template": on("old")}]}
    document = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "a"}, "spec": ray}
    _, request = decode(review(document))
    assert decide(request, snapshot(), now=datetime(2026, 6, 1, tzinfo=UTC)).reason is Reason.INCOMPATIBLE_NODES
    ray["workerGroupSpecs"] = [{"template": on("good")}]
    _, request = decode(review(document))
    decision = decide(request, snapshot(), now=datetime(2026, 6, 1, tzinfo=UTC))
    assert (decision.reason, decision.patch) == (Reason.TPROXY, ())


@pytest.mark.parametrize("what", ["nothing", "too large", "wrong", "status"])
def test_a_review_that_holds_none_is_let_through(what: str) -> None:
    template = {
        "nothing": {},
        "too large": {"template": on("old"), "note": "x" * SHAPED_LIMIT},
        "wrong": {"template": {"spec": {"containers": [{"name": "c"}], "nodeSelector": [1]}}},
        "status": {"template": on("old")},
    }[what]
    document = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": template}
    _, request = decode(review(document, **({"subResource": "status"} if what == "status" else {})))
    decision = decide(request, snapshot(), now=datetime(2026, 6, 1, tzinfo=UTC))
    assert (decision.reason, decision.warnings) == (Reason.NOT_HANDLED, ())
