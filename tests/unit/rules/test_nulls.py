"""A null is read as the API server reads it, wherever it stands."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from webhook.rules.decide import decide
from webhook.rules.decision import Reason
from webhook.rules.nodes import Node
from webhook.rules.nulls import decoder
from webhook.rules.objects import CronJob, MutatingWebhookConfiguration, Namespace, Pod, Reviewed, Service
from webhook.rules.snapshot import Snapshot
from webhook.server.review import decode

FULL: Final[dict[str, Any]] = {
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "b", "labels": {"k": "v"}, "annotations": {"k": "v"}},
    "spec": {
        "nodeName": "n",
        "nodeSelector": {"k": "v"},
        "hostNetwork": True,
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
                            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["v"]}],
                        }
                    ]
                }
            }
        },
        "containers": [{"name": "c", "env": [{"name": "e", "value": "v"}]}],
        "initContainers": [{"name": "i"}],
        "runtimeClassName": "r",
    },
}
SERVICE: Final[dict[str, Any]] = {
    "kind": "Service",
    "metadata": {"name": "s", "labels": {"istio": "ingressgateway"}},
    "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "externalIPs": ["10.0.0.1"]},
}
CONFIGURATION: Final[dict[str, Any]] = {
    "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector"}},
    "webhooks": [
        {
            "name": "x",
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "clientConfig": {"service": {"namespace": "istio-system", "name": "istiod"}},
            "namespaceSelector": {"matchLabels": {"k": "v"}, "matchExpressions": []},
        }
    ],
}
NODE: Final[dict[str, Any]] = {
    "metadata": {"name": "n", "labels": {"k": "v"}},
    "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
    "status": {"nodeInfo": {"osImage": "x", "kernelVersion": "y", "operatingSystem": "linux"}},
}
DOCUMENTS: Final = ((Reviewed, FULL), (Reviewed, SERVICE), (MutatingWebhookConfiguration, CONFIGURATION), (Node, NODE))


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*above, key)
        yield from paths(each, (*above, key))


def with_null(value: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = None
    return copy


EVERYWHERE: Final = [
    pytest.param(kind, document, path, id="/".join(map(str, path)))
    for kind, document in DOCUMENTS
    for path in paths(document)
    # Without a kind or a Node's metadata nothing is left; `env` is read where it is needed, by its own decoder.
    if path != ("kind",) and "env" not in path and (kind is not Node or path != ("metadata",))
]


@pytest.mark.parametrize(("kind", "document", "path"), EVERYWHERE)
def test_a_null_anywhere_is_read(kind: Any, document: dict[str, Any], path: tuple[Any, ...]) -> None:
    """What the API server would send in its place: nothing for a field, the zero value in a list or map."""
    given = with_null(document, path)
    found = decoder(kind)(json.dumps(given).encode())
    want = json.loads(json.dumps(document))
    inner = want
    for key in path[:-1]:
        inner = inner[key]
    in_map = path[-2] in {"labels", "annotations", "nodeSelector", "matchLabels"} if len(path) > 1 else False
    if isinstance(path[-1], int) or in_map:
        inner[path[-1]] = {} if isinstance(inner[path[-1]], dict) else ""
    else:
        del inner[path[-1]]
    assert found == msgspec.json.decode(json.dumps(want), type=kind)


def test_a_document_that_is_wrong_otherwise_is_refused_with_its_path() -> None:
    text = b'{"kind":"Pod","metadata":{"labels":{"a":null}},"spec":{"nodeSelector":[1]}}'
    with pytest.raises(msgspec.ValidationError, match=r"\$\.spec\.nodeSelector"):
        decoder(Reviewed)(text)
    with pytest.raises(msgspec.ValidationError, match=r"\$\.metadata\.labels"):
        decoder(Namespace)(b'{"metadata":{"labels":{"a":1}}}')


def test_what_no_null_is_in_is_read_once() -> None:
    assert decoder(Service)(b'{"kind":"Service"}') == Service()
    assert decoder(Pod)(b'{"kind":"Pod","spec":null,"metadata":null}') == Pod()
    assert decoder(CronJob)(b'{"kind":"CronJob","spec":{"jobTemplate":{"spec":{"template":null}}}}') == CronJob()


def review(kind: str, document: dict[str, Any], **more: Any) -> bytes:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": kind},
        "namespace": "shop",
        "operation": "CREATE",
        "object": document,
        **more,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


@pytest.mark.parametrize(
    "path", [each for document in (FULL, SERVICE) for each in paths(document) if "env" not in each and len(each) > 1]
)
def test_a_null_anywhere_in_a_review_is_read(path: tuple[Any, ...]) -> None:
    document = next(each for each in (FULL, SERVICE) if path in list(paths(each)))
    _, request = decode(review(document["kind"], with_null(document, path)))
    assert request.object is not None
    assert decode(review(document["kind"], document))[1].kind == document["kind"]


@pytest.mark.parametrize("field", ["namespace", "operation", "name", "subResource", "dryRun", "oldObject"])
def test_a_null_in_a_request_counts_as_absent(field: str) -> None:
    _, with_it = decode(review("Service", SERVICE, **{field: None}))
    body = json.loads(review("Service", SERVICE))
    body["request"].pop(field, None)
    assert decode(json.dumps(body).encode())[1].object == with_it.object


def test_a_null_policy_of_a_service_becomes_local() -> None:
    given = {**SERVICE, "spec": {"type": "LoadBalancer", "externalTrafficPolicy": None}}
    _, request = decode(
        review("Service", given, operation="UPDATE", oldObject={"spec": {"externalTrafficPolicy": None}})
    )
    snapshot = Snapshot(namespaces={"shop": {"client-ip.dev/preserve": "enabled"}})
    decision = decide(request, snapshot, now=datetime(2026, 6, 1, tzinfo=UTC))
    assert decision.reason is Reason.LOCAL
    assert decision.patch[0].path == "/spec/externalTrafficPolicy"
