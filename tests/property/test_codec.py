"""
Whatever bytes arrive, the server's codec answers or refuses: it never denies, and nothing else is raised.

"Bad input gets 4xx with a clear message and no AdmissionReview; a well-formed review of another kind, operation or
subresource, or with `object: null`, is allowed." What is not `BadReview` here would be a 500 of the server.
"""

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonpatch
from hypothesis import example, given, settings, strategies as st

from tests.property.clusters import NOW, Reviewed
from webhook.facts.files import load
from webhook.rules.decide import decide, explain
from webhook.rules.snapshot import Snapshot
from webhook.server.review import BadReview, decode, encode

SNAPSHOT: Final[Snapshot] = load([str(Path(__file__).parents[2] / "examples" / "cluster")]).snapshot()
TOLERATED: Final = {"tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/os": "linux"}}
GOOD: Final = (
    Reviewed(
        "Pod",
        "shop",
        "CREATE",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "a-",
                "labels": {"app": "a"},
                "annotations": {"proxy.istio.io/config": "concurrency: 2"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "a"}],
            },
            "spec": {
                **TOLERATED,
                "containers": [{"name": "istio-proxy", "env": [{"name": "A", "value": "b"}], "ports": []}],
                "initContainers": [],
                "hostNetwork": False,
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["legacy"]}]},
                            ],
                        },
                    },
                },
            },
        },
    ),
    Reviewed(
        "Service",
        "edge",
        "UPDATE",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "gw", "labels": {"istio": "ingressgateway"}, "annotations": {}},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "externalIPs": [], "ports": []},
        },
        {"metadata": {}, "spec": {"externalTrafficPolicy": "Local"}},
    ),
    Reviewed(
        "Deployment",
        "shop",
        "CREATE",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "a"},
            "spec": {"template": {"metadata": {"labels": {}}, "spec": {"containers": []}}},
        },
    ),
)
DOCUMENTS: Final = tuple(json.loads(each.body()) for each in GOOD)
HUGE: Final = (10**30, -(10**4000), 1e308, 2**63, 2**64, -(2**63) - 1)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(HUGE) | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


OTHERS: Final[tuple[Any, ...]] = (None, [], {}, "", 7, 1e300, True, [[]], {"a": 1}, "a" * 300, 10**4000)


def answered(body: bytes) -> dict[str, Any] | None:
    """Return the response to *body*, or None where it is refused; anything else that is raised is a bug."""
    try:
        uid, request = decode(body)
    except BadReview as error:
        str(error).encode()  # it is sent as text
        return None
    decision = decide(request, SNAPSHOT, now=NOW)
    explain(request, SNAPSHOT, now=NOW)
    answer = json.loads(encode(uid, decision))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = answer["response"]
    assert response["allowed"] is True
    assert response["uid"] == uid != ""
    if "patch" in response:
        # Applies to what was sent, or the API server would refuse the request.
        patch = json.loads(base64.b64decode(response["patch"]))
        assert patch
        assert jsonpatch.apply_patch(json.loads(body)["request"]["object"], patch)
    return response


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of everything below *value*."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield (*path, key)
        yield from places(each, (*path, key))


PLACES: Final = tuple((which, path) for which, document in enumerate(DOCUMENTS) for path in places(document))


def changed(which: int, path: tuple[str | int, ...], value: Any, *, remove: bool = False) -> Any:
    """Return a good review in which *value* stands at *path*, or nothing."""
    document = copy.deepcopy(DOCUMENTS[which])
    target = document
    for key in path[:-1]:
        target = target[key]
    if remove:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document


def test_what_is_changed_below_is_answered_and_patched() -> None:
    """So that a refusal says something of the change."""
    responses = [answered(json.dumps(document).encode()) for document in DOCUMENTS]
    assert ["patch" in (response or {}) for response in responses] == [True, True, False]


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()))
@example(body=b"[" * 100_000)
@example(body=b'{"a":' * 100_000)
@example(body=b'{"request":' + b"[" * 100_000)
@example(body=b'"\\ud800"')
@example(body=b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}')
def test_bytes_that_are_no_review_are_refused(body: bytes) -> None:
    assert answered(body) is None


@settings(max_examples=1000, deadline=None)
@given(place=st.sampled_from(PLACES), value=anything)
def test_anything_in_any_place(place: tuple[int, tuple[str | int, ...]], value: Any) -> None:
    """Other kinds and versions, wrong types, null, huge numbers, no uid."""
    which, path = place
    answered(json.dumps(changed(which, path, value)).encode())


def test_every_field_gone_or_null_or_of_another_type() -> None:
    """All of them, one at a time: refused or allowed."""
    refused = 0
    for which, path in PLACES:
        for value in OTHERS:
            refused += answered(json.dumps(changed(which, path, value)).encode()) is None
        refused += answered(json.dumps(changed(which, path, None, remove=True)).encode()) is None
    assert refused > len(PLACES)


def test_every_truncation_is_refused() -> None:
    body = json.dumps(DOCUMENTS[0]).encode()
    assert [end for end in range(len(body)) if answered(body[:end]) is not None] == []
    assert answered(body) is not None


def test_invalid_utf_8_is_refused_wherever_it_stands() -> None:
    """In what no decision reads too."""
    body = json.dumps(DOCUMENTS[0]).encode()
    for byte in (b"\x80", b"\xff", b"\xed\xa0\x80"):
        assert [at for at in range(len(body)) if answered(body[:at] + byte + body[at:]) is not None] == []


@settings(max_examples=500, deadline=None)
@given(
    which=st.sampled_from(range(len(DOCUMENTS))),
    changes=st.lists(st.tuples(st.integers(0), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3),
)
def test_bytes_replaced_inserted_and_cut(which: int, changes: list[tuple[int, bytes, int]]) -> None:
    """Invalid UTF-8, control characters, broken syntax."""
    body = json.dumps(DOCUMENTS[which]).encode()
    for at, inserted, cut in changes:
        place = at % len(body)
        body = body[:place] + inserted + body[place + cut :]
    answered(body)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), which=st.sampled_from(range(len(DOCUMENTS))), value=anything)
def test_duplicate_keys(data: st.DataObject, which: int, value: Any) -> None:
    """The last one counts, as in Go; a patch applies to what counts."""
    body = json.dumps(DOCUMENTS[which])
    starts = [at for at, character in enumerate(body) if character == "{" and body[at + 1] == '"']
    at = data.draw(st.sampled_from(starts)) + 1
    key = body[at : body.index('"', at + 1) + 1]
    answered((body[:at] + f"{key}: {json.dumps(value)}, " + body[at:]).encode())


@settings(max_examples=200, deadline=None)
@given(
    place=st.sampled_from([(which, path) for which, path in PLACES if len(path) > 1]),
    depth=st.sampled_from((10, 900, 1100, 100_000)),
    opening=st.sampled_from(("[", '{"a":')),
    closed=st.booleans(),
)
def test_deep_nesting(place: tuple[int, tuple[str | int, ...]], depth: int, opening: str, *, closed: bool) -> None:
    """msgspec raises RecursionError outside its own hierarchy."""
    which, path = place
    deep = opening * depth + ("1" + ("]" if opening == "[" else "}") * depth if closed else "")
    body = json.dumps(changed(which, path, "DEEP")).replace('"DEEP"', deep)
    response = answered_deep(body.encode())
    assert closed or response is None


def answered_deep(body: bytes) -> dict[str, Any] | None:
    """Return the response; a patch is not applied, since Python's own decoder reads no such depth."""
    try:
        uid, request = decode(body)
    except BadReview:
        return None
    response: dict[str, Any] = json.loads(encode(uid, decide(request, SNAPSHOT, now=NOW)))["response"]
    assert response["allowed"] is True
    return response


@settings(max_examples=200, deadline=None)
@given(
    group=st.sampled_from(("", "apps", "batch", "policy")),
    version=st.sampled_from(("v1", "v1beta1", "", "v2")),
    kind=st.sampled_from(("Pod", "Service", "Deployment", "ConfigMap", "PodDisruptionBudget", "", "pod")),
    operation=st.sampled_from(("CREATE", "UPDATE", "DELETE", "CONNECT", "", "create")),
    subresource=st.sampled_from(("", "status", "ephemeralcontainers", "binding", "resize")),
    which=st.sampled_from(range(len(DOCUMENTS))),
    none=st.booleans(),
)
def test_reviews_of_other_things_are_allowed_unpatched(
    group: str,
    version: str,
    kind: str,
    operation: str,
    subresource: str,
    which: int,
    *,
    none: bool,
) -> None:
    document = copy.deepcopy(DOCUMENTS[which])
    request = document["request"]
    request["kind"] = {"group": group, "version": version, "kind": kind}
    request["operation"], request["subResource"] = operation, subresource
    ours = (group, version, kind, subresource) == (*_named(which), "")
    if none:
        request["object"] = None
    elif (group, version, kind) != _named(which):
        # The API server sends no object of another kind than it says.
        request["object"] = {**request["object"], "apiVersion": f"{group}/{version}".lstrip("/"), "kind": kind}
    response = answered(json.dumps(document).encode())
    assert response is not None
    if none or not ours:
        assert "patch" not in response
        if none or subresource:
            assert response["auditAnnotations"]["reason"] == "not-handled"


def _named(which: int) -> tuple[str, str, str]:
    said = DOCUMENTS[which]["request"]["kind"]
    return said["group"], said["version"], said["kind"]
