"""What the chart renders: safe by default, equal to what the command renders, and strict about its values."""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import render as command
from tests.deploy.manifests import CHART, NAMESPACE, RELEASE, HelmError, only, render, template
from tests.parts.cache import ROOT

MODES: Final[Mapping[str, dict[str, Any]]] = {
    "secret": {},
    "cert-manager": {"certificates": {"mode": "cert-manager"}},
    "manual": {"certificates": {"mode": "manual", "manual": {"secretName": "mine", "caBundle": "Q0E="}}},
}
OFF: Final = {"finalState": {"mode": "Off"}}
RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]
    return found


def without(webhook: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in webhook.items() if key not in fields}


def test_the_configuration_is_what_the_command_renders() -> None:
    (rendered,) = command("configuration")
    charted = only(render(), "MutatingWebhookConfiguration")
    assert charted["metadata"]["name"] == rendered["metadata"]["name"]
    assert [without(each, "clientConfig") for each in charted["webhooks"]] == [
        without(each, "clientConfig") for each in rendered["webhooks"]
    ]
    for charted_webhook, rendered_webhook in zip(charted["webhooks"], rendered["webhooks"], strict=True):
        assert charted_webhook["clientConfig"]["service"] == rendered_webhook["clientConfig"]["service"]
        assert "caBundle" not in charted_webhook["clientConfig"], "the injector writes it"


def granted(objects: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for each in objects:
        if each["kind"] in {"Role", "ClusterRole"}:
            for rule in each["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            names = ",".join(sorted(rule.get("resourceNames", ())))
                            where = each["metadata"].get("namespace", "")
                            found.add((where, group, resource, verb, names))
    return found


def test_more_kinds_are_judged_where_the_values_name_them() -> None:
    """They are warned of by the entry for workloads, and by no other."""
    kinds = [
        {"apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "resources": ["rollouts"]},
        {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["replicationcontrollers"]},
    ]
    charted = only(render({"webhook": {"workloads": kinds}}), "MutatingWebhookConfiguration")
    options = ("--workload", "argoproj.io/v1alpha1/rollouts", "--workload", "v1/replicationcontrollers")
    (rendered,) = command("configuration", *options)
    rules = {each["name"]: each["rules"] for each in charted["webhooks"]}
    assert rules == {each["name"]: each["rules"] for each in rendered["webhooks"]}
    assert rules["workloads.namespace.client-ip.dev"][2:] == [
        {**kind, "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"} for kind in kinds
    ]
    for bad in ({"resources": ["rollouts"]}, {**kinds[0], "operations": ["DELETE"]}, {**kinds[0], "resources": ["*"]}):
        with pytest.raises(HelmError, match="workloads"):
            render({"webhook": {"workloads": [bad]}})


def test_the_roles_grant_what_the_command_renders() -> None:
    assert granted(render()) == granted(command("rbac", "--tls-secret", "client-ip-webhook-tls"))


def test_certificates_by_others_need_no_secrets_of_ours() -> None:
    for mode in ("cert-manager", "manual"):
        grants = granted(render(MODES[mode]))
        assert not [each for each in grants if each[2] == "secrets"]
        assert not [each for each in grants if each[3] in {"create", "update"}]


def of_kind(objects: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return the objects whose kind begins with ValidatingAdmissionPolicy, and those named; helm sorts as it likes."""
    found = [
        each
        for each in objects
        if each["kind"].startswith("ValidatingAdmissionPolicy") or each["metadata"]["name"] in names
    ]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


def test_our_service_account_is_kept_to_what_the_command_renders() -> None:
    rendered = command("rbac", "--tls-secret", "client-ip-webhook-tls", "--namespace", "elsewhere")
    charted = render(OFF, namespace="elsewhere")
    assert of_kind(charted) == of_kind(rendered)
    named = of_kind(render({**OFF, "serviceAccount": {"name": "other"}}))
    (condition,) = named[0]["spec"]["matchConditions"]
    assert condition["expression"] == f"request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:other'"


def test_certificates_by_others_need_no_policy_on_our_service_account() -> None:
    for mode in ("cert-manager", "manual"):
        assert of_kind(render({**OFF, **MODES[mode]})) == []


@pytest.mark.parametrize("mode", ["Audit", "Deny"])
def test_the_guard_is_what_the_command_renders(mode: str) -> None:
    controllers = ["system:serviceaccounts:argo-rollouts", "system:serviceaccount:knative-serving:controller"]
    guard = {"mode": mode, "controllers": controllers, "redirect": True}
    charted = render({**OFF, **MODES["manual"], "guard": guard, "webhook": {"excludedNamespaces": ["vault"]}})
    options = ["--mode", mode, "--redirect", "--exclude-namespace", "vault"]
    for controller in controllers:
        options += ["--controller", controller]
    assert of_kind(charted, "client-ip-opt-out") == of_kind(command("guard", *options), "client-ip-opt-out")


@pytest.mark.parametrize("mode", ["Off", False], ids=["Off", "a YAML 1.1 boolean"])
def test_the_guard_is_off_by_default(mode: Any) -> None:
    assert of_kind(render({**OFF, **MODES["manual"], "guard": {"mode": mode}}), "client-ip-opt-out") == []
    assert of_kind(render({**OFF, **MODES["manual"]}), "client-ip-opt-out") == []


@pytest.mark.parametrize("mode", ["Audit", "Warn"])
@pytest.mark.parametrize("late", [False, True])
def test_the_final_state_is_what_the_command_renders(mode: str, late: bool) -> None:  # noqa: FBT001  # a parameter
    values = {"finalState": {"mode": mode, "denyLateAnnotation": late}, "webhook": {"excludedNamespaces": ["vault"]}}
    charted = render({**MODES["manual"], **values})
    options = ["--mode", mode, "--exclude-namespace", "vault", *(["--deny-late-annotation"] if late else [])]
    assert of_kind(charted) == of_kind(command("final-state", *options))
    assert "--mark-reasons" in pod_of(charted)["spec"]["containers"][0]["args"]


def test_gateways_are_told_by_the_policies_selectors() -> None:
    """What the chart is given by value, the command reads in the policies themselves."""
    stored = list(yaml.safe_load_all((ROOT / "tests/deploy/policies.yaml").read_text()))
    built_in = yaml.safe_load((CHART / "values.yaml").read_text())["finalState"]["gateways"]
    specs = [each["spec"] for each in sorted(stored, key=lambda each: -each["spec"]["priority"])]
    given = [{"namespaceSelector": each["namespaceSelector"], **each["services"]} for each in specs]
    # The built-in policy's priority is 0.
    charted = of_kind(render({**MODES["manual"], "finalState": {"gateways": [*given, *built_in]}}))
    assert charted == of_kind(command("final-state", "--policy", "tests/deploy/policies.yaml"))
    assert charted != of_kind(command("final-state"))


@pytest.mark.parametrize(
    "bad",
    [
        {"selectors": []},
        {"selectors": [{"matchLabels": {"a": '"b" || true'}}]},
        {"selectors": [{"matchLabels": {'"': "b"}}]},
    ],
    ids=["none", "a value that is none", "a key that is none"],
)
def test_gateways_selectors_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=r"gateways|propertyName"):  # helm has been seen to misname the place
        render({**MODES["manual"], "finalState": {"gateways": [bad]}})


def test_the_final_state_is_audited_by_default_and_refuses_nothing() -> None:
    bindings = [each for each in of_kind(render(MODES["manual"])) if each["kind"].endswith("Binding")]
    assert [each["spec"]["validationActions"] for each in bindings] == [["Audit"], ["Audit"]]
    off = render({**MODES["manual"], "finalState": {"mode": "Off"}})
    assert of_kind(off) == []
    assert "--mark-reasons" not in pod_of(off)["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("form", ["append-caller", "use-remote-address"])
@pytest.mark.parametrize("gateways", [[], ["ingress/public-gateway", "edge.v2/*-istio"]], ids=["default", "named"])
def test_the_envoyfilter_is_what_the_command_renders(form: str, gateways: list[str]) -> None:
    values = {"enabled": True, "form": form, "gateways": gateways}
    charted = only(
        render({"envoyFilter": values, "istio": {"namespace": "mesh"}}), "EnvoyFilter", "client-ip-x-forwarded-for"
    )
    options = [option for gateway in gateways for option in ("--gateway", gateway)]
    (rendered,) = command("envoyfilter", "--envoyfilter-form", form, "--root-namespace", "mesh", *options)
    assert charted["spec"] == rendered["spec"]
    assert charted["metadata"]["namespace"] == rendered["metadata"]["namespace"]
    assert not [each for each in render() if each["kind"] == "EnvoyFilter"]


def test_a_gateway_of_any_namespace_must_be_meant() -> None:
    meant = {"envoyFilter": {"enabled": True, "gateways": ["*/*-istio"], "anyNamespace": True}}
    charted = only(render(meant), "EnvoyFilter", "client-ip-x-forwarded-for")
    (rendered,) = command("envoyfilter", "--gateway", "*/*-istio", "--any-namespace")
    assert charted["spec"] == rendered["spec"]


def test_pods_are_restricted_and_outlast_their_endpoints() -> None:
    pod = pod_of(render())
    assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    spec = pod["spec"]
    assert spec["securityContext"] == RESTRICTED
    assert spec["priorityClassName"] == "system-cluster-critical"
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "cpu" not in container["resources"]["limits"]
    drain = next(int(each.partition("=")[2]) for each in container["args"] if each.startswith("--drain-seconds="))
    assert spec["terminationGracePeriodSeconds"] > drain + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    spread = {each["topologyKey"] for each in spec["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def test_two_replicas_never_one_fewer() -> None:
    objects = render()
    deployment = only(objects, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    quota = only(objects, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert quota == [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]}]


def test_nobody_can_label_a_namespace_into_what_is_never_touched() -> None:
    objects = render({"webhook": {"excludedNamespaces": ["vault"]}})
    for webhook in only(objects, "MutatingWebhookConfiguration")["webhooks"]:
        excluded = webhook["namespaceSelector"]["matchExpressions"][-1]
        assert excluded["key"] == "kubernetes.io/metadata.name"
        assert excluded["operator"] == "NotIn"
        assert excluded["values"] == ["kube-system", "kube-public", "kube-node-lease", NAMESPACE, "vault"]


def test_cert_manager_renders_a_ca_a_certificate_and_where_to_inject() -> None:
    objects = render(MODES["cert-manager"])
    names = {
        (each["kind"], each["metadata"]["name"]) for each in objects if each["apiVersion"].startswith("cert-manager")
    }
    assert names == {
        ("Issuer", f"{RELEASE}-self-signed"),
        ("Certificate", f"{RELEASE}-ca"),
        ("Issuer", RELEASE),
        ("Certificate", RELEASE),
    }
    leaf = only(objects, "Certificate")["spec"]
    assert f"{RELEASE}.{NAMESPACE}.svc" in leaf["dnsNames"]
    injected = only(objects, "MutatingWebhookConfiguration")["metadata"]["annotations"]
    assert injected == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{RELEASE}"}
    spec = pod_of(objects)["spec"]
    assert spec["volumes"][0]["secret"]["secretName"] == leaf["secretName"]
    assert "--tls-cert=/etc/client-ip/tls/tls.crt" in spec["containers"][0]["args"]


def test_an_issuer_of_the_users_own_needs_no_ca_of_ours() -> None:
    issuer = {"kind": "ClusterIssuer", "name": "corporate"}
    objects = render({"certificates": {"mode": "cert-manager", "certManager": {"issuerRef": issuer}}})
    assert [each["kind"] for each in objects if each["apiVersion"].startswith("cert-manager")] == ["Certificate"]
    assert only(objects, "Certificate")["spec"]["issuerRef"] == issuer


def test_manual_certificates_are_the_users() -> None:
    objects = render(MODES["manual"])
    for webhook in only(objects, "MutatingWebhookConfiguration")["webhooks"]:
        assert webhook["clientConfig"]["caBundle"] == "Q0E="
    assert pod_of(objects)["spec"]["volumes"][0]["secret"]["secretName"] == "mine"


def test_revisions_are_read_where_they_are_named() -> None:
    grants = granted(render({"istio": {"revisions": ["canary"]}}))
    (names,) = {each[4] for each in grants if each[0] == "istio-system"}
    assert "istio-sidecar-injector-canary" in names
    assert "istio-canary" in names


def test_a_node_may_be_listened_on() -> None:
    spec = pod_of(render({"hostNetwork": True, "webhook": {"port": 9443}}))["spec"]
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "--listen=:9443" in spec["containers"][0]["args"]


def test_only_an_api_server_with_a_certificate_may_be_read() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    objects = render({"webhook": {"clientCA": {"certificates": pem, "names": ["front-proxy-client", "a b"]}}})
    (config,) = [each for each in objects if each["metadata"]["name"] == "client-ip-webhook-client-ca"]
    assert config["data"] == {"ca.crt": pem}
    (container,) = pod_of(objects)["spec"]["containers"]
    assert "--client-ca=/etc/client-ip/client-ca/ca.crt" in container["args"]
    assert container["args"][-2:] == ["--client-name=front-proxy-client", "--client-name=a b"]
    assert [each["name"] for each in pod_of(objects)["spec"]["volumes"]] == ["client-ca"]
    both = render(
        {
            "webhook": {"clientCA": {"certificates": pem}},
            "certificates": {"mode": "manual", "manual": {"secretName": "own", "caBundle": "QQ=="}},
        }
    )
    assert [each["name"] for each in pod_of(both)["spec"]["volumes"]] == ["tls", "client-ca"]
    assert "volumes" not in pod_of(render({}))["spec"]


def test_traces_go_where_the_values_say() -> None:
    (container,) = pod_of(render({}))["spec"]["containers"]
    assert "env" not in container
    assert not [each for each in container["args"] if "otlp" in each or "traces" in each]
    collector = {"endpoint": "http://collector.observability:4318", "perSecond": 20, "headersSecret": "collector"}
    (container,) = pod_of(render({"tracing": collector}))["spec"]["containers"]
    assert container["args"][-2:] == ["--otlp-endpoint=http://collector.observability:4318", "--traces-per-second=20"]
    reference = {"secretKeyRef": {"name": "collector", "key": "headers"}}
    assert container["env"] == [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": reference}]


def test_an_image_by_digest_has_no_tag() -> None:
    digest = "sha256:" + "0" * 64
    (container,) = pod_of(render({"image": {"repository": "r.example/c", "digest": digest}}))["spec"]["containers"]
    assert container["image"] == f"r.example/c@{digest}"


def test_parts_can_be_left_out() -> None:
    less = {
        "crds": {"install": False},
        "networkPolicy": False,
        "podDisruptionBudget": False,
        "resourceQuota": False,
        "priorityClassName": "",
    }
    kinds = {each["kind"] for each in render(less)}
    assert kinds.isdisjoint({"CustomResourceDefinition", "NetworkPolicy", "PodDisruptionBudget", "ResourceQuota"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"webhook": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"webhook": {"port": 80}}, "port"),
        ({"webhook": {"failurePolicy": "Fail"}}, "failurePolicy"),
        ({"certificates": {"mode": "vault"}}, "mode"),
        ({"certificates": {"mode": "manual"}}, "secretName"),
        ({"certificates": {"secret": {"leafLifeDays": 200}}}, "at least 3 times"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"hostNetwork": True, "webhook": {"port": 10250}}, "kubelet"),
        ({"probePort": 8443}, "probePort"),
        ({"istio": {"namespace": NAMESPACE}}, "istio.namespace"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"guard": {"mode": "On"}}, "mode"),
        ({"finalState": {"mode": "Deny"}}, "mode"),
        ({"guard": {"controllers": ["it's"]}}, "controllers"),
        ({"serviceAccount": {"name": "it's"}}, "name"),
        ({"envoyFilter": {"gateways": ["*/*-istio"]}}, "any namespace"),
        ({"envoyFilter": {"gateways": ["istio"]}}, "gateways"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError, match=said):
        template(values)


def described(values: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the keys that only one of values.yaml and its schema knows."""
    known: Mapping[str, Any] = schema.get("properties", {})
    found = [f"{path}{key}" for key in values.keys() ^ known.keys() if known and f"{path}{key}" != "global"]
    for key, value in values.items():
        if isinstance(value, Mapping) and value and key in known and key != "resources":  # those are the pod's API
            found += described(value, known[key], f"{path}{key}.")
    return found


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert described(values, json.loads((CHART / "values.schema.json").read_text())) == []


def test_the_scan_is_off_until_asked_and_apart_from_the_webhook() -> None:
    """
    The webhook's grants stay what they are; the scan has its own ServiceAccount, and no Service selects its pods.

    What it leaves for the webhook's metrics is a file that the kubelet mounts: nobody is granted to read ConfigMaps.
    """
    without_scan, with_scan = render(), render({"scan": {"enabled": True}})
    assert "CronJob" not in {each["kind"] for each in without_scan}
    job = only(with_scan, "CronJob", "client-ip-scan")["spec"]
    template = job["jobTemplate"]["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "client-ip-scan"
    assert template["spec"]["securityContext"] == RESTRICTED
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] != "client-ip-webhook"
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert job["concurrencyPolicy"] == "Forbid"
    accounts: dict[str, set[str]] = {}
    for each in with_scan:
        if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}:
            for subject in each["subjects"]:
                accounts.setdefault(subject["name"], set()).add(each["metadata"]["name"])
    assert accounts["client-ip-scan"] == {"client-ip-scan"}
    of_webhook = [each for each in with_scan if not each["metadata"]["name"].startswith("client-ip-scan")]
    assert granted(of_webhook) == granted(without_scan)
    more = {grant for grant in granted(with_scan) - granted(without_scan) if grant[1] not in REPORTS}
    written = {grant for grant in more if grant[3] not in {"get", "list", "watch"}}
    assert written == {("client-ip-system", "", "configmaps", "patch", "client-ip-scan")}
    assert "data" not in only(with_scan, "ConfigMap", "client-ip-scan")
    assert "--record=client-ip-system/client-ip-scan" in template["spec"]["containers"][0]["args"]


def test_the_webhook_shows_what_the_scan_leaves() -> None:
    spec = pod_of(render({"scan": {"enabled": True}}))["spec"]
    (container,) = spec["containers"]
    assert "--scan-result=/etc/client-ip/scan/result.json" in container["args"]
    assert container["volumeMounts"] == [{"name": "scan", "mountPath": "/etc/client-ip/scan", "readOnly": True}]
    assert spec["volumes"] == [{"name": "scan", "configMap": {"name": "client-ip-scan", "optional": True}}]
    assert not [each for each in pod_of(render())["spec"]["containers"][0]["args"] if "scan" in each]


def test_the_alert_of_a_missing_scan_comes_when_the_values_say() -> None:
    for hours in (3, 72):
        values = {
            "scan": {"enabled": True, "missingAfterHours": hours},
            "monitoring": {"prometheusRule": {"enabled": True}},
        }
        rules = only(render(values), "PrometheusRule", "client-ip-webhook")["spec"]["groups"][0]["rules"]
        (rule,) = [each for each in rules if each["alert"] == "ClientIPScanMissing"]
        assert rule["expr"].endswith(f" > {hours} * 3600")


REPORTS: Final = frozenset({"openreports.io", "wgpolicyk8s.io"})


def test_the_scans_minute_is_the_releases_own_or_the_users() -> None:
    minute, *rest = only(render({"scan": {"enabled": True}}), "CronJob", "client-ip-scan")["spec"]["schedule"].split()
    assert 0 <= int(minute) < 60
    assert rest == ["*"] * 4
    daily = {"scan": {"enabled": True, "schedule": "30 6 * * 1-5"}}
    assert only(render(daily), "CronJob", "client-ip-scan")["spec"]["schedule"] == "30 6 * * 1-5"
    with pytest.raises(HelmError, match="schedule"):
        template({"scan": {"enabled": True, "schedule": "hourly"}})
    with pytest.raises(HelmError, match="api"):
        template({"scan": {"enabled": True, "api": "Both"}})


def test_events_are_granted_where_they_are_asked_for() -> None:
    assert not [each for each in granted(render({"scan": {"enabled": True}})) if each[2] == "events"]
    found = {each[3] for each in granted(render({"scan": {"enabled": True, "events": True}})) if each[2] == "events"}
    assert found == {"get", "create", "patch"}
