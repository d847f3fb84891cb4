"""The documented pipe, `check -o yaml - | kubectl apply -f -`: what is stored is the manifest, and the patch."""

import json
import secrets
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.apiserver.deployed import namespace_of
from tests.apiserver.test_yaml import WORDS
from tests.cli.command import run
from tests.parts.api import Api
from tests.parts.kube import ControlPlane
from tests.serve.conftest import CLUSTER
from webhook.cli.yamls_out import yaml_of

VARIANTS_ARE_SLOW: Final = True

INJECTOR = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "istio-sidecar-injector")
GOOD: Final = [each for each in WORDS if "\x00" not in each]
LABELS: Final = {
    f"l{number}": word
    for number, word in enumerate(GOOD)
    if len(word) < 64 and word.isascii() and all(each.isalnum() or each in "-_." for each in word)
    if not word or (word[0].isalnum() and word[-1].isalnum())
}
TEXTS: Final = {f"example.com/a{number}": word for number, word in enumerate(GOOD)}
ENV: Final = [{"name": f"V{number}", "value": word} for number, word in enumerate(GOOD)]
DATA: Final = {f"d{number}": word for number, word in enumerate(GOOD)}
TEMPLATE: Final = {
    "metadata": {"labels": {"app": "a"}, "annotations": TEXTS},
    "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"pool": "general"}},
}
MANIFESTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "labels": LABELS, "annotations": TEXTS},
        "spec": {
            "nodeSelector": {"pool": "general"},
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "env": ENV,
                }
            ],
        },
    },
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"}, "data": DATA},
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "deployment", "annotations": TEXTS},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gateway", "labels": {"istio": "ingressgateway", "month": "08"}},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}], "selector": {"commit": "1234e56"}},
    },
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "last"},
        "data": {"script": "#!/bin/sh\necho 08\n", "kept": "one\n\n"},
    },
)


@pytest.fixture(scope="module")
def facts(control_plane: ControlPlane) -> Iterator[Api]:
    """A node, and Istio's injector, which nobody serves."""
    api = control_plane.client()
    document = yaml.safe_load((CLUSTER / "istio.yaml").read_text())
    for webhook in document["webhooks"]:
        webhook["clientConfig"] = {"url": "https://127.0.0.1:1/inject"}
        webhook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore"}
    api.apply(document)
    control_plane.add_node("pipe-ubuntu", labels={"pool": "general"}, os_image="Ubuntu 22.04.4 LTS")
    yield api
    api.delete(*INJECTOR)
    api.delete("v1", "Node", "pipe-ubuntu")


def stored(api: Api, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    return api.get(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"], namespace=namespace)


@pytest.mark.parametrize("how", [("apply", "-f", "-"), ("apply", "--server-side", "-f", "-"), ("create", "-f", "-")])
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_goes_through_the_pipe_is_stored_as_it_was(
    control_plane: ControlPlane, facts: Api, form: str, how: tuple[str, ...]
) -> None:
    """Beside what kubectl stores of the manifests themselves: nothing differs but what the webhook adds."""
    names = [f"pipe-{secrets.token_hex(3)}" for _ in range(2)]
    for name in names:
        namespace_of(facts, name, preserve="enabled", injection="enabled")
    plain, piped = names
    as_json = "\n".join(map(json.dumps, MANIFESTS))
    given = as_json if form == "json" else yaml_of(*MANIFESTS)
    checked = run("check", "--kubeconfig", str(control_plane.kubeconfig), "-n", piped, "-o", "yaml", "-", given=given)
    control_plane.kubectl("-n", plain, *how, text=as_json)
    control_plane.kubectl("-n", piped, *how, text=checked.stdout)
    for manifest in MANIFESTS:
        one, other = (stored(facts, name, manifest) for name in names)
        kind = manifest["kind"]
        labels, annotations = (dict(other["metadata"].get(field) or {}) for field in ("labels", "annotations"))
        if kind == "Pod":
            assert annotations.pop("sidecar.istio.io/interceptionMode") == "TPROXY"
            assert labels.pop("client-ip.dev/method") == "tproxy"
        elif kind == "Service":
            assert other["spec"]["externalTrafficPolicy"] == "Local"
            assert labels.pop("client-ip.dev/method") == "local"
        before = dict(one["metadata"].get("annotations") or {})
        for each in (annotations, before):
            each.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        assert annotations == before
        assert labels == (one["metadata"].get("labels") or {})
        # A server-side apply is read as YAML by the API server, which takes U+0085 in JSON for the end of a line.
        is_kept = "--server-side" not in how
        assert not is_kept or annotations == (manifest["metadata"].get("annotations") or {})
        for field in ("data", "spec"):
            if field not in manifest or kind == "Service":
                continue
            assert without_tokens(other[field]) == without_tokens(one[field])
        if kind == "ConfigMap" and is_kept:
            assert other["data"] == manifest["data"]
        if kind == "Service":
            assert other["spec"]["selector"] == manifest["spec"]["selector"]


def without_tokens(spec: Any) -> Any:
    """What the API server makes up for each pod: the name of its ServiceAccount's token volume."""
    if isinstance(spec, dict):
        return {key: without_tokens(each) for key, each in spec.items() if key not in {"volumes", "volumeMounts"}}
    return [without_tokens(each) for each in spec] if isinstance(spec, list) else spec


NULLS: Final = """\
apiVersion: v1
kind: Pod
metadata:
  name: nulls
  labels: {sidecar.istio.io/inject: }
  annotations: {traffic.sidecar.istio.io/includeInboundPorts: }
spec:
  nodeSelector: {pool: general}
  containers: [{name: c, image: i}]
"""


@pytest.mark.parametrize("how", [("create",), ("apply", "--server-side")])
def test_nulls_are_stored_as_check_reads_them(control_plane: ControlPlane, facts: Api, how: tuple[str, ...]) -> None:
    name = f"pipe-{secrets.token_hex(3)}"
    namespace_of(facts, name, preserve="enabled", injection="enabled")
    options = ("--kubeconfig", str(control_plane.kubeconfig), "-n", name, "-o", "json", "-")
    (element,) = json.loads(run("check", *options, given=NULLS).stdout)
    assert element["reason"] == "inbound-not-captured"
    control_plane.kubectl("-n", name, *how, "-f", "-", text=NULLS)
    metadata = facts.get("v1", "Pod", "nulls", namespace=name)["metadata"]
    assert metadata["annotations"]["traffic.sidecar.istio.io/includeInboundPorts"] == ""
    assert metadata["labels"]["sidecar.istio.io/inject"] == ""
