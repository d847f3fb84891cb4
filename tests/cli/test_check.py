"""`client-ip check` as people and pipelines use it."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.command import APPS, CLUSTER, run

POD: Final = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  nodeSelector: {pool: general}
  containers: [{name: web, image: registry.example.com/web:1}]
"""
KEYS: Final = (
    *("apiVersion", "kind", "namespace", "name", "decision"),
    *("mode", "reason", "outcome", "cause", "message", "patch"),
)


def elements(*arguments: str, given: str = "", code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("check", "-o", "json", *arguments, given=given, code=code).stdout)
    return found


def test_the_table_names_object_decision_reason_and_what_to_do() -> None:
    printed = run("check", "--state", CLUSTER, APPS).stdout
    head, *rows = printed.splitlines()
    assert head.split() == ["OBJECT", "DECISION", "REASON", "WHAT", "IT", "MEANS"]
    assert any(re.match(r"shop/\S+ +patch +tproxy ", row) for row in rows)
    assert any(" mixed-nodes " in row for row in rows)
    assert any("→ exclude these nodes" in row for row in rows)
    assert "\x1b" not in printed, "colour where there is no terminal"


def test_json_is_one_array_in_input_order() -> None:
    given = POD + "---\n" + POD.replace("web,", "next,").replace("general", "legacy")
    first, second = elements("--state", CLUSTER, "-", given=given)
    assert tuple(first) == KEYS
    assert (first["name"], first["decision"], first["mode"], first["reason"]) == ("web", "patch", "enforce", "tproxy")
    assert first["outcome"] == "preserved"
    assert [each["op"] for each in first["patch"]] == ["add", "add"]
    assert (second["name"], second["decision"], second["reason"]) == ("next", "skip", "incompatible-nodes")
    assert second["patch"] == []
    assert second["cause"] in second["message"]


def test_audit_says_what_would_be_patched() -> None:
    (element,) = elements("--state", CLUSTER, "-", given=POD.replace("namespace: shop", "namespace: trial"))
    assert (element["decision"], element["mode"], element["patch"]) == ("skip", "audit", [])
    assert len(element["wouldPatch"]) == 2


def test_the_last_line_counts_each_decision_once() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "gateway",
            "namespace": "shop",
            "labels": {"istio": "ingressgateway"},
            "annotations": {"service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": "*"},
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    header = POD.replace("name: web,", "name: header, labels: {client-ip.dev/method: x-forwarded-for},")
    header = header.replace("general", "legacy")
    given = "---\n".join((POD, header, yaml.safe_dump(service)))
    printed = run("check", "--state", CLUSTER, "--policy", "examples/policy.yaml", "-", given=given).stdout
    assert printed.splitlines()[-1] == "3 objects: 1 patched, 1 by X-Forwarded-For, 1 by PROXY protocol"


@pytest.mark.parametrize(
    ("now", "reason", "said"),
    [
        ("2027-03-01T00:00:00Z", "excepted", None),
        ("2027-03-24T00:00:00Z", "excepted", "exception billing of policy default ends 2027-03-31T00:00:00Z (team-b)"),
        ("2027-03-30T23:59:59Z", "excepted", "exception billing of policy default ends 2027-03-31T00:00:00Z (team-b)"),
        ("2027-03-31T00:00:00Z", "incompatible-nodes", "exception billing of policy default ended "),
        ("2029-01-01T00:00:00+08:00", "incompatible-nodes", "exception billing of policy default ended "),
    ],
    ids=["live", "a week before its end", "its last second", "its end", "long after it"],
)
def test_an_exception_at_another_time(tmp_path: Path, now: str, reason: str, said: str | None) -> None:
    """What the webhook will say then: nothing while it is live, a note in its last week, beside the loss after it."""
    exception = {
        "name": "billing",
        "selector": {"matchLabels": {"app": "billing"}},
        "owner": "team-b",
        "reason": "reads PROXY",
        "expires": "2027-03-31T00:00:00Z",
    }
    policy = {
        "apiVersion": "client-ip.dev/v1alpha1",
        "kind": "ClientIPPolicy",
        "metadata": {"name": "default"},
        "spec": {"mode": "Enforce", "exceptions": [exception]},
    }
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    pod = POD.replace("name: web,", "name: billing, labels: {app: billing},").replace("general", "legacy")
    arguments = ("--state", CLUSTER, "--policy", str(tmp_path / "policy.yaml"), "--now", now, "-")
    (element,) = elements(*arguments, given=pod)
    assert element["reason"] == reason
    notes = [note for note in element.get("notes", []) if "exception" in note]
    assert [note.startswith(said or "") for note in notes] == [True] * (said is not None)
    assert (said is not None) == (f"! {said}" in run("check", *arguments, given=pod).stdout)


def test_yaml_is_fit_to_be_applied() -> None:
    config = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {note: "y", port: "0123", text: "a\\nb"}\n'
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"nodeSelector": {"pool": "general"}, "containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    given = "---\n".join((POD, config, yaml.safe_dump(deployment)))
    done = run("check", "--state", CLUSTER, "-o", "yaml", "-", given=given)
    pod, same_config, same_deployment = yaml.safe_load_all(done.stdout)
    assert pod["metadata"]["annotations"] == {"sidecar.istio.io/interceptionMode": "TPROXY"}
    assert pod["metadata"]["labels"] == {"client-ip.dev/method": "tproxy"}
    assert same_config == yaml.safe_load(config)
    assert same_deployment == deployment, "a workload's pods are patched when they are made"
    assert "not decided: ConfigMap default/c" in done.stderr
    again = run("check", "--state", CLUSTER, "-o", "yaml", "-", given=done.stdout)
    assert again.stdout == done.stdout


def test_a_workload_keeps_its_name_and_its_patch_is_its_pods() -> None:
    given = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: 0 3 * * *
  jobTemplate: {spec: {template: {spec: {nodeSelector: {pool: general}, containers: [{name: c, image: i}]}}}}
"""
    (element,) = elements("--state", CLUSTER, "-", given=given)
    assert (element["apiVersion"], element["kind"], element["name"]) == ("batch/v1", "CronJob", "nightly")
    assert (element["decision"], element["reason"]) == ("patch", "tproxy")
    assert {each["path"] for each in element["patch"]} == {"/metadata/annotations", "/metadata/labels"}


def test_strict_fails_when_an_opted_in_object_would_lose_it() -> None:
    lost = POD.replace("general", "legacy")
    assert run("check", "--state", CLUSTER, "--strict", "-", given=POD).stdout
    assert run("check", "--state", CLUSTER, "--strict", "-", given=lost, code=1).stdout
    run("check", "--state", CLUSTER, "--strict", "-", given=lost.replace("shop", "plain"))
    run("check", "--state", CLUSTER, "--strict", "-", given=lost.replace("shop", "trial"))


def test_facts_among_the_manifests_join_the_state(tmp_path: Path) -> None:
    namespace = (
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: shop, labels: {client-ip.dev/preserve: disabled, istio-injection: enabled}}\n"
    )
    (element,) = elements("--state", CLUSTER, "-", given=namespace + "---\n" + POD)
    assert element["reason"] == "opted-out"
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: client-ip.dev/v1alpha1\nkind: ClientIPPolicy\nmetadata: {name: p}\nspec: {mode: Disabled}\n"
    )
    (element,) = elements("--state", CLUSTER, "--policy", str(policy), "-", given=POD)
    assert element["reason"] == "policy-disabled"


def test_lists_are_decided_item_by_item() -> None:
    pods = [yaml.safe_load(POD), yaml.safe_load(POD.replace("general", "legacy"))]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    assert [each["reason"] for each in elements("--state", CLUSTER, "-", given=given)] == [
        "tproxy",
        "incompatible-nodes",
    ]
    bare = [{key: value for key, value in pod.items() if key not in {"apiVersion", "kind"}} for pod in pods]
    given = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": bare})
    assert len(elements("--state", CLUSTER, "-", given=given)) == 2


def test_namespace_is_for_objects_that_name_none() -> None:
    given = POD.replace(", namespace: shop", "")
    assert [each["namespace"] for each in elements("--state", CLUSTER, "-", given=given)] == ["default"]
    (element,) = elements("--state", CLUSTER, "-n", "shop", "-", given=given + "---\n" + POD.replace("general", "x"))[
        :1
    ]
    assert (element["namespace"], element["reason"]) == ("shop", "tproxy")


def test_now_makes_answers_reproducible() -> None:
    policy = """\
apiVersion: client-ip.dev/v1alpha1
kind: ClientIPPolicy
metadata: {name: p}
spec:
  mode: Enforce
  exceptions:
  - {name: e, owner: me, reason: soon, selector: {}, expires: "2026-03-31T00:00:00Z"}
"""
    for now, reason in (("2026-03-30T23:59:59Z", "excepted"), ("2026-03-31T00:00:00Z", "tproxy")):
        (element,) = elements("--state", CLUSTER, "--now", now, "-", given=policy + "---\n" + POD)
        assert element["reason"] == reason


def test_what_other_admission_adds_is_said() -> None:
    given = POD.replace("spec:\n", "spec:\n  runtimeClassName: gvisor\n")
    (element,) = elements("--state", CLUSTER, "-", given=given)
    assert any("RuntimeClass gvisor" in note for note in element["notes"])
    assert "RuntimeClass gvisor" in re.sub(r"\s+", " ", run("check", "--state", CLUSTER, "-", given=given).stdout)


def test_what_a_namespace_adds_to_its_pods_is_said() -> None:
    """PodNodeSelector's annotation: the pod that reaches the webhook has more than the manifest."""
    namespace = """\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {client-ip.dev/preserve: enabled, istio-injection: enabled}
  annotations: {scheduler.alpha.kubernetes.io/node-selector: pool=general}
"""
    (element,) = elements("--state", CLUSTER, "-", given=namespace + "---\n" + POD)
    assert "scheduler.alpha.kubernetes.io/node-selector" in element["notes"][0]
    (element,) = elements("--state", CLUSTER, "-", given=POD)
    assert "notes" not in element


def test_options_come_from_the_environment() -> None:
    done = run("check", "-", given=POD, environment={"CLIENT_IP_STATE": CLUSTER, "CLIENT_IP_OUTPUT": "json"})
    assert json.loads(done.stdout)[0]["reason"] == "tproxy"


BAD_POLICY: Final = """\
apiVersion: client-ip.dev/v1alpha1
kind: ClientIPPolicy
metadata: {name: p}
spec:
  mode: Maybe
  pods: {fallback: Perhaps}
"""
BAD: Final = {
    "no such file": ((), "missing.yaml", "", "missing.yaml: no such file or folder"),
    "no YAML": ((), "-", "a: [1\nb: 2\n", "stdin:2"),
    "no object": ((), "-", "- 1\n", "must be a Kubernetes object"),
    "no kind": ((), "-", "apiVersion: v1\n", "kind: required"),
    "a wrong type": ((), "-", POD.replace("{pool: general}", "[pool]"), "stdin:5 (document 1): spec.nodeSelector:"),
    "a number for a label": ((), "-", POD.replace("pool: general", "pool: 1"), "spec.nodeSelector"),
    "the second document": (
        (),
        "-",
        POD + "---\napiVersion: v1\nkind: Pod\nmetadata: {}\n",
        "(document 2): metadata.name",
    ),
    "a policy's mistakes, all of them": ((), "-", BAD_POLICY, "spec.pods.fallback"),
    "a time": (("--now", "yesterday"), "-", POD, "--now"),
    "an option": (("--colour",), "-", POD, "--colour"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_named_and_exits_2(what: str) -> None:
    options, file, given, said = BAD[what]
    done = run("check", "--state", CLUSTER, *options, file, given=given, code=2)
    assert said in done.stderr
    assert done.stdout == ""
    if what.startswith("a policy"):
        assert "spec.mode" in done.stderr


def test_without_state_or_cluster_it_says_so() -> None:
    done = run("check", "-", given=POD, code=2)
    assert "no --state, and no cluster" in done.stderr


def test_nothing_to_decide_is_said() -> None:
    done = run("check", "--state", CLUSTER, "-", given="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    assert "nothing to decide" in done.stderr
    assert "not decided: ConfigMap default/c" in done.stderr
