"""A null is read as the API server reads it, wherever it stands."""

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from webhook.rules.nodes import Node
from webhook.rules.nulls import decoder
from webhook.rules.objects import CronJob, MutatingWebhookConfiguration, Namespace, Pod, Reviewed, Service

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
