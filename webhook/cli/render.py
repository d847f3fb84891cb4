"""`client-ip render`: the manifests that the webhook needs in a cluster, ready for kubectl apply."""

import base64
import re
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click
import yaml
from cryptography import x509

from webhook.cli.admission import final_state, guard, least_power
from webhook.cli.cel import GATEWAYS_LIMIT, gateways as gateways_of
from webhook.cli.envoyfilter import FORMS, GATEWAY, envoy_filter, is_any_namespace
from webhook.facts.collect import Collector
from webhook.facts.files import FilesInvalid, read_facts
from webhook.rules import wellknown
from webhook.rules.policy import Policy

PARTS: Final = ("crd", "rbac", "configuration", "envoyfilter", "guard", "final-state", "gateway-defaults")
SERVICE: Final = "client-ip-webhook"
TIMEOUT_SECONDS: Final = 2
"""Kubernetes' advice is a small one: webhooks are called in series, and a slow one delays every pod."""
LIVE: Final = {
    "name": "not-being-deleted",
    "expression": "!has(object.metadata.deletionTimestamp)",
}
NOT_OUT: Final = {
    "name": "not-opted-out",
    "expression": (
        f"!has(object.metadata.labels) || !('{wellknown.PRESERVE}' in object.metadata.labels)"
        f" || object.metadata.labels['{wellknown.PRESERVE}'] != 'disabled'"
        f" || has(object.metadata.annotations) && '{wellknown.OPT_OUT_UNTIL}' in object.metadata.annotations"
    ),
}
"""What opted out for good is not asked about; what did so until some day is, since the day may have passed."""
POD_CONDITIONS: Final = (
    {
        "name": "not-a-mirror-pod",
        "expression": (
            f"!has(object.metadata.annotations) || !('{wellknown.MIRROR_POD}' in object.metadata.annotations)"
        ),
    },
    {
        "name": "not-host-network",
        "expression": "!has(object.spec.hostNetwork) || !object.spec.hostNetwork",
    },
)


def configuration(
    client_config: dict[str, Any],
    own_namespace: str,
    name: str = wellknown.CONFIGURATION,
    more_workloads: Sequence[tuple[str, str, str]] = (),
) -> dict[str, Any]:
    """
    Return the MutatingWebhookConfiguration.

    Args:
        client_config: How the API server calls the webhook.
        own_namespace: Never asked about, like the system's.
        name: Its name.
        more_workloads: Group, version and resource of other kinds whose pod templates are judged, with a warning.

    failurePolicy Ignore: the webhook breaks nothing. reinvocationPolicy Never: Istio is never called again, so neither
    need we be. The name sorts before Istio's, and the API server calls configurations in the order of their names.

    """
    asked = ["enabled", "audit"]
    opted_in = [_expression(wellknown.PRESERVE, "In", asked)]
    not_opted_in = [_expression(wellknown.PRESERVE, "NotIn", asked)]
    pods = [_rule("", ["pods"], ["CREATE"])]
    services = [_rule("", ["services"], ["CREATE", "UPDATE"])]
    workloads = [
        _rule("apps", ["deployments", "statefulsets", "daemonsets"], ["CREATE", "UPDATE"]),
        _rule("batch", ["jobs", "cronjobs"], ["CREATE", "UPDATE"]),
        *(_rule(group, [resource], ["CREATE", "UPDATE"], version) for group, version, resource in more_workloads),
    ]
    entries = (
        ("pods.namespace", pods, opted_in, None, [*POD_CONDITIONS, LIVE, NOT_OUT]),
        ("pods.object", pods, not_opted_in, opted_in, [*POD_CONDITIONS, LIVE]),
        ("services.namespace", services, opted_in, None, [LIVE, NOT_OUT]),
        ("services.object", services, not_opted_in, opted_in, [LIVE]),
        ("workloads.namespace", workloads, opted_in, None, [LIVE]),
    )
    excluded = _expression(wellknown.NAMESPACE_NAME, "NotIn", _excluded(own_namespace))
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": SERVICE}},
        "webhooks": [
            {
                "name": f"{entry}.{wellknown.GROUP}",
                "admissionReviewVersions": ["v1"],
                "clientConfig": client_config,
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "reinvocationPolicy": "Never",
                "sideEffects": "None",
                "timeoutSeconds": TIMEOUT_SECONDS,
                "rules": rules,
                "namespaceSelector": {"matchExpressions": [*namespaces, excluded]},
                **({"objectSelector": {"matchExpressions": objects}} if objects else {}),
                "matchConditions": conditions,
            }
            for entry, rules, namespaces, objects, conditions in entries
        ],
    }


def _excluded(own_namespace: str, more: Sequence[str] = ()) -> list[str]:
    """Return the namespaces where nothing is ours: the system's, the webhook's own, and *more*."""
    return [*sorted(wellknown.SYSTEM_NAMESPACES, reverse=True), own_namespace, *more]


def _expression(key: str, operator: str, values: list[str]) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": values}


def _rule(group: str, names: list[str], operations: list[str], version: str = "v1") -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": operations,
        "resources": names,
        "scope": "Namespaced",
    }


def gateway_defaults(root_namespace: str, gateway_class: str = "istio") -> dict[str, Any]:
    """
    Return the ConfigMap of a GatewayClass' defaults by which istiod makes the gateways' Services Local itself.

    Istiod lays `service` over the Service that it makes of a Gateway, by server-side apply: nobody has to patch it, and
    nothing drifts. Istio 1.26 and later; of several ConfigMaps for a class the oldest counts.

    https://istio.io/latest/docs/tasks/traffic-management/ingress/gateway-api/#gatewayclass-defaults
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"client-ip-gateway-defaults-{gateway_class}",
            "namespace": root_namespace,
            "labels": {"app.kubernetes.io/name": SERVICE, wellknown.GATEWAY_DEFAULTS: gateway_class},
        },
        "data": {"service": "spec:\n  externalTrafficPolicy: Local\n"},
    }


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of ClientIPPolicy."""
    text = resources.files("webhook.cli").joinpath("crd.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def rbac(own_namespace: str, tls_secret: str = "", service_account: str = SERVICE) -> list[dict[str, Any]]:
    """
    Return what `serve` may do, and nothing more: named resources wherever the API allows it.

    With *tls_secret*, also what keeping its certificates there takes, and the policies that let it do no more than that
    with those rights.
    """
    metadata = {"name": SERVICE, "labels": {"app.kubernetes.io/name": SERVICE}}
    subject = {"kind": "ServiceAccount", "name": service_account, "namespace": own_namespace}
    rules = [
        {"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "verbs": ["list", "watch"],
        },
        {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["list", "watch"]},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gatewayclasses"], "verbs": ["list", "watch"]},
        {"apiGroups": [wellknown.GROUP], "resources": ["clientippolicies"], "verbs": ["list", "watch"]},
        {"apiGroups": [wellknown.GROUP], "resources": ["clientippolicies/status"], "verbs": ["patch"]},
    ]
    mesh = [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [wellknown.INJECTOR_CONFIGMAP, wellknown.MESH_CONFIGMAP],
            "verbs": ["list", "watch"],
        },
    ]
    terway = [
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets"],
            "resourceNames": ["terway-eniip", "terway-eni", "terway"],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["eni-config"], "verbs": ["get"]},
    ]
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {**metadata, "name": service_account, "namespace": own_namespace},
        },
        {"apiVersion": _RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        {
            "apiVersion": _RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SERVICE},
            "subjects": [subject],
        },
    ]
    roles = [(wellknown.ISTIO_SYSTEM, mesh), ("kube-system", terway)]
    if tls_secret:
        own = [wellknown.CONFIGURATION]
        resource = "mutatingwebhookconfigurations"
        group = "admissionregistration.k8s.io"
        rules.append({"apiGroups": [group], "resources": [resource], "resourceNames": own, "verbs": ["get", "patch"]})
        secrets = [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [tls_secret], "verbs": ["get", "update"]},
        ]
        roles.append((own_namespace, secrets))
    for namespace, these in roles:
        there = {**metadata, "namespace": namespace}
        found.append({"apiVersion": _RBAC, "kind": "Role", "metadata": there, "rules": these})
        found.append(
            {
                "apiVersion": _RBAC,
                "kind": "RoleBinding",
                "metadata": there,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SERVICE},
                "subjects": [subject],
            },
        )
    if tls_secret:
        found += least_power(namespace=own_namespace, account=service_account, secret=tls_secret)
    return found


MODES: Final = {"guard": ("Audit", "Deny"), "final-state": ("Audit", "Warn")}
"""final-state has no Deny: no pod is rejected for its final state, whether the webhook runs or not."""
_USER: Final = re.compile(r"[A-Za-z0-9:._@/-]{1,253}")
_RBAC: Final = "rbac.authorization.k8s.io/v1"


class ResourceType(click.ParamType[tuple[str, str, str]]):
    """A resource of an API, as `kubectl api-resources` names it: GROUP/VERSION/RESOURCE, or VERSION/RESOURCE."""

    name = "GROUP/VERSION/RESOURCE"
    _pattern: Final = re.compile(r"(?:([a-z0-9.-]+)/)?([a-z0-9]+|\*)/([a-z0-9]+)")

    def convert(
        self, value: str | tuple[str, str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str, str]:
        """Return group, version and resource."""
        if isinstance(value, tuple):
            return value
        found = self._pattern.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not GROUP/VERSION/RESOURCE, for example argoproj.io/v1alpha1/rollouts", param, ctx)
        return found.group(1) or "", found.group(2), found.group(3)


class NameType(click.ParamType[str]):
    """The name of an object: a DNS subdomain, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/."""

    name = "NAME"
    _pattern: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value* where it is such a name, or nothing at all."""
        if value and self._pattern.fullmatch(value) is None:
            self.fail(f"{value!r} is not a valid object name", param, ctx)
        return value


@click.command(
    "render",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Manifests:
  crd               the CustomResourceDefinition of ClientIPPolicy
  rbac              the ServiceAccount of `serve` and its permissions
  configuration     the MutatingWebhookConfiguration, with a Service or a URL
  envoyfilter       the X-Forwarded-For fallback, for pods that cannot use TPROXY
  guard             a ValidatingAdmissionPolicy that limits who may opt out, and
                    for how long
  final-state       a ValidatingAdmissionPolicy that finds objects that lose the
                    client's IP; for serve --mark-reasons
  gateway-defaults  a ConfigMap that makes istiod (1.26 or later) create the
                    Services of Gateway API gateways as Local; if a class has
                    several of these, Istio uses only the oldest

\b
Examples:
  client-ip render crd rbac | kubectl apply -f -
  client-ip render configuration --ca-file ca.pem | kubectl apply -f -
  client-ip render configuration --url https://10.0.0.7:8443/mutate --ca-file ca.pem
  client-ip render configuration --workload argoproj.io/v1alpha1/rollouts --workload v1/replicationcontrollers
  client-ip render guard --mode Deny | kubectl apply -f -
  client-ip render final-state --mode Warn | kubectl apply -f -
  client-ip render final-state --policy policies/ | kubectl apply -f -
  client-ip render envoyfilter | kubectl apply -f -
  client-ip render envoyfilter --gateway ingress/public-gateway | kubectl apply -f -
  client-ip render gateway-defaults --class istio | kubectl apply -f -""",
)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar=f"[{'|'.join(PARTS)}]...")
@click.option(
    "--namespace",
    type=NameType(),
    default=wellknown.OWN_NAMESPACE,
    show_default=True,
    help="The webhook's namespace.",
)
@click.option("--url", help="configuration: call the webhook by this https URL (path /mutate) instead of its Service.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=443,
    show_default=True,
    help="configuration: the Service's port.",
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="configuration: the CA certificates that verify the webhook, PEM.",
)
@click.option(
    "--workload",
    "workloads",
    type=ResourceType(),
    multiple=True,
    help="configuration: another kind with pod templates; the webhook warns when it is applied. Repeatable.",
)
@click.option(
    "--class",
    "gateway_class",
    type=NameType(),
    default="istio",
    show_default=True,
    help="gateway-defaults: the GatewayClass whose Services become Local.",
)
@click.option(
    "--tls-secret",
    type=NameType(),
    metavar="NAME",
    default="",
    help="rbac: for serve --tls-secret NAME.",
)
@click.option("--root-namespace", default=wellknown.ISTIO_SYSTEM, show_default=True, help="The mesh's root namespace.")
@click.option(
    "--envoyfilter-form",
    "form",
    type=click.Choice(FORMS),
    default=FORMS[0],
    show_default=True,
    help="envoyfilter: append-caller appends every caller but gateways; use-remote-address is Envoy's own setting.",
)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="NAMESPACE/SERVICEACCOUNT",
    help="envoyfilter, append-caller: a gateway whose X-Forwarded-For is trusted; * matches anything. Repeatable.  "
    "[default: istio-ingressgateway-service-account and istio-ingressgateway in the root namespace]",
)
@click.option(
    "--any-namespace",
    is_flag=True,
    help="envoyfilter: allow * as the namespace of a --gateway. Every namespace owner can then forge the client's IP.",
)
@click.option(
    "--mode",
    type=click.Choice(["Audit", "Warn", "Deny"]),
    default="Audit",
    show_default=True,
    help="guard, final-state: Audit records and counts. Warn (final-state) also warns. Deny (guard) also rejects.",
)
@click.option(
    "--deny-late-annotation",
    is_flag=True,
    help="final-state: reject pods whose TPROXY annotation was added after injection.",
)
@click.option(
    "--controller",
    "controllers",
    multiple=True,
    metavar="USER|GROUP",
    help="guard: a user or group that creates pods from templates, such as system:serviceaccounts:argo-rollouts. "
    "Its pods are exempt. Repeatable.",
)
@click.option("--redirect", is_flag=True, help="guard: treat an interception mode that a template sets as an opt-out.")
@click.option(
    "--exclude-namespace",
    "excluded",
    type=NameType(),
    multiple=True,
    help="guard, final-state: another namespace to exclude, besides system namespaces and --namespace. Repeatable.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="FILE",
    help="final-state: a file or folder of ClientIPPolicies; their services.selectors select the gateways. Repeatable.",
)
def command(
    *,
    parts: tuple[str, ...],
    namespace: str,
    url: str | None,
    port: int,
    ca_file: Path | None,
    workloads: tuple[tuple[str, str, str], ...],
    gateway_class: str,
    tls_secret: str,
    root_namespace: str,
    form: str,
    gateways: tuple[str, ...],
    any_namespace: bool,
    mode: str,
    deny_late_annotation: bool,
    controllers: tuple[str, ...],
    redirect: bool,
    excluded: tuple[str, ...],
    policies: tuple[str, ...],
) -> None:
    """Print manifests for the cluster. Without arguments, print crd, rbac and configuration."""
    for part, modes in MODES.items():
        if part in parts and mode not in modes:
            raise click.UsageError(f"--mode {mode}: {part} supports only {' and '.join(modes)}")
    for controller in controllers:
        if _USER.fullmatch(controller) is None:
            raise click.UsageError(f"--controller {controller!r} is not a valid user or group")
    _check_gateways(gateways, any_namespace=any_namespace)
    client_config: dict[str, Any] = (
        {"url": _url(url)}
        if url
        else {"service": {"name": SERVICE, "namespace": namespace, "path": "/mutate", "port": port}}
    )
    if ca_file is not None:
        client_config["caBundle"] = base64.b64encode(_ca(ca_file)).decode()
    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "crd": lambda: [crd()],
        "rbac": lambda: rbac(namespace, tls_secret),
        "configuration": lambda: [configuration(client_config, namespace, more_workloads=workloads)],
        "gateway-defaults": lambda: [gateway_defaults(root_namespace, gateway_class)],
        "guard": lambda: guard(
            mode=mode, excluded=_excluded(namespace, excluded), controllers=controllers, redirect=redirect
        ),
        "final-state": lambda: final_state(
            mode=mode,
            excluded=_excluded(namespace, excluded),
            policies=_policies(policies),
            deny_late_annotation=deny_late_annotation,
        ),
        "envoyfilter": lambda: [envoy_filter(root_namespace, form=form, gateways=gateways)],
    }
    documents = [document for part in parts or PARTS[:3] for document in makers[part]()]
    yaml.dump_all(documents, sys.stdout, Dumper=_NoAliases, sort_keys=False, default_flow_style=False)


def _policies(paths: tuple[str, ...]) -> tuple[Policy, ...]:
    """Return the policies in force where those of the files are stored, the built-in one among them."""
    collector = Collector(from_files=True)
    try:
        facts = read_facts(paths, collector) if paths else []
    except FilesInvalid as error:
        raise click.UsageError(str(error)) from error
    if paths and not any(each.kind == wellknown.POLICY_KIND for each in facts):
        raise click.UsageError(f"--policy {', '.join(paths)}: contains no ClientIPPolicy")
    found = collector.snapshot().policies.ordered
    if len(gateways_of(found)) > GATEWAYS_LIMIT:
        raise click.UsageError(f"--policy: their selectors make an expression of over {GATEWAYS_LIMIT:,} characters")
    return found


def _check_gateways(gateways: tuple[str, ...], *, any_namespace: bool) -> None:
    for gateway in gateways:
        if GATEWAY.fullmatch(gateway) is None:
            raise click.UsageError(f"--gateway {gateway!r} is not NAMESPACE/SERVICEACCOUNT")
        if not is_any_namespace(gateway):
            continue
        if not any_namespace:
            raise click.UsageError(
                f"--gateway {gateway!r} would trust a ServiceAccount in any namespace: name the namespace, "
                "or pass --any-namespace"
            )
        click.echo(
            f"Warning: --gateway {gateway!r}: anybody who can create such a ServiceAccount can forge X-Forwarded-For",
            err=True,
        )


def _url(url: str) -> str:
    if not url.startswith("https://"):
        raise click.UsageError(f"--url {url!r}: the API server calls webhooks only over https")
    return url


def _ca(path: Path) -> bytes:
    text = path.read_bytes()
    try:
        x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise click.UsageError(f"--ca-file {path}: not a PEM certificate: {error}") from error
    return text


class _NoAliases(yaml.SafeDumper):
    """Writes repeated values in full, without YAML aliases (`&id001`), and text of several lines as a block."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Return true: no value becomes an alias."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_NoAliases.add_representer(str, _text)
