"""What anybody writes is bounded where it is read, quoted and kept: the laws behind docs/security.md's budget."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.bench import bombs
from tests.property import clusters
from tests.property.clusters import NOW, Reviewed
from tests.property.documents import Document
from webhook.facts.collect import Collector, FactError, decode_reviewed, kept_of
from webhook.rules import excess, limits, selectors
from webhook.rules.decide import decide, explain
from webhook.rules.decision import OUTCOMES, Decision, Outcome, Reason, named, one_line
from webhook.rules.objects import GROUPS, CronJob, Deployment, Namespace, ObjectMeta, Pod, Service
from webhook.rules.oversize import within
from webhook.rules.snapshot import Request, Snapshot
from webhook.server import review

law = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TURNING: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
"""What turns the reading direction around: https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters."""
NASTY: Final = f"a\r\n\x00\x1b[31m\x85\u2028\u2029\u00ad\u200d\ufeff{TURNING}\U000e0001é漢\U0001f600"
ANSWER_BYTES: Final = 16_384
SNAPSHOT: Final = clusters.snapshot_of(clusters.INJECTOR, *clusters.NODES)

POD: Final[Document] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}
SERVICE: Final[Document] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a", "labels": {"istio": "ingressgateway"}},
    "spec": {"type": "LoadBalancer"},
}


def changed(document: Document, path: str, value: Any) -> Document:
    """Return *document* with *value* at *path*, whose parts are divided by a bar."""
    head, _, rest = path.partition("|")
    below = document.get(head, {})
    return {**document, head: changed(below, rest, value) if rest else value}


def deployment(document: Document) -> Document:
    """Return a Deployment that makes the pod *document*."""
    template = {"metadata": {**document["metadata"], "name": ""}, "spec": document["spec"]}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": template}}


TEXTS: Final = (
    *((POD, f"metadata|annotations|{key}") for key in sorted(excess.READ_ANNOTATIONS)),
    *((SERVICE, f"metadata|annotations|{key}") for key in sorted(excess.READ_ANNOTATIONS)),
    *((POD, f"metadata|labels|{key}") for key in ("client-ip.dev/preserve", "istio.io/rev", "sidecar.istio.io/inject")),
    (POD, "metadata|deletionTimestamp"),
    (POD, "spec|nodeName"),
    (POD, "spec|runtimeClassName"),
    (POD, "spec|nodeSelector|zone"),
    (SERVICE, "metadata|labels|client-ip.dev/preserve"),
    (SERVICE, "metadata|deletionTimestamp"),
    (SERVICE, "spec|type"),
    (SERVICE, "spec|externalTrafficPolicy"),
    (SERVICE, "spec|externalIPs"),
)
"""Every text of an object that a decision reads, by its path."""


def with_environment(value: str, number: int = 1) -> Document:
    env = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": value}]
    return changed(POD, "spec|containers", [{"name": "istio-proxy", "env": env}] * number)


def written(text: str) -> Iterator[Document]:
    """Yield objects that have *text* in one place each, and workloads that make such pods."""
    for document, path in TEXTS:
        value: Any = [text] if path.endswith("externalIPs") else text
        yield changed(document, path, value)
        if document is POD and not path.startswith("metadata|deletion"):
            yield deployment(changed(document, path, value))
    yield with_environment(text)


def asked(document: Document, namespace: str = "shop") -> tuple[Decision, bytes]:
    """Return the decision on *document* and the answer's bytes."""
    uid, request = review.decode(Reviewed(document["kind"], namespace, "CREATE", document).body())
    decision = decide(request, SNAPSHOT, now=NOW)
    return decision, review.encode(uid, decision)


def assert_bounded(decision: Decision, answer: bytes) -> None:
    assert len(answer) <= ANSWER_BYTES
    assert len(decision.cause) <= limits.CAUSE_LIMIT
    assert decision.cause.isprintable()
    assert len(decision.warnings) <= limits.WARNINGS
    for warning in decision.warnings:
        assert len(warning) <= limits.WARNING_LIMIT
        assert warning.isprintable()
    text = answer.decode()
    assert not set(text) & set(TURNING)
    response = json.loads(text)["response"]
    assert response["allowed"] is True
    for annotation in response["auditAnnotations"].values():
        assert annotation.isprintable()


@pytest.mark.parametrize("length", [1, 300, 17_000, pytest.param(3_000_000, marks=pytest.mark.slow)])
def test_whatever_is_written_where_the_answer_is_small_and_in_one_line_each(length: int) -> None:
    text = (NASTY * (length // len(NASTY) + 1))[:length]
    for document in written(text):
        assert_bounded(*asked(document))


@pytest.mark.parametrize("namespace", ["shop", "restricted", "ambient", "out", "plain", "unknown", "kube-system"])
def test_wherever_it_is_written(namespace: str) -> None:
    for document in written(NASTY * 100):
        assert_bounded(*asked(document, namespace))


def test_a_text_that_is_read_has_a_length_beyond_which_it_is_not() -> None:
    for document, path in TEXTS:
        kind = document["kind"]
        if "|annotations|" not in path and not path.endswith(("nodeName", "runtimeClassName", "spec|type")):
            continue
        decision, _ = asked(changed(document, path, "x" * (limits.TEXT_LIMIT + 1)))
        assert decision.reason is Reason.TOO_LARGE, (kind, path)
        assert decision.outcome is Outcome.LOST
        assert not decision.patch
        assert f"16,385 characters; the limit is {limits.TEXT_LIMIT:,}" in decision.cause
        decision, _ = asked(changed(document, path, "x" * limits.TEXT_LIMIT))
        assert decision.reason is not Reason.TOO_LARGE, (kind, path)


class _Watched(dict[str, str]):
    """A mapping that tells which keys were asked for."""

    def __init__(self, entries: Mapping[str, str], asked_for: set[str]) -> None:
        super().__init__(entries)
        self._asked_for = asked_for

    def get(self, key: str, default: Any = None) -> Any:
        self._asked_for.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self._asked_for.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._asked_for.add(str(key))
        return super().__contains__(key)


@pytest.mark.slow
def test_every_annotation_that_a_question_reads_is_bounded() -> None:
    """The list of those that are read is complete."""
    seen: set[str] = set()

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None)
    @given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
    def ask(snapshot: Snapshot, reviewed: Reviewed) -> None:
        request = reviewed.request()
        if isinstance(request.object, Pod | Service):
            metadata = request.object.metadata
            watched = ObjectMeta(
                name=metadata.name,
                labels=metadata.labels,
                annotations=_Watched(metadata.annotations or {"a": "b"}, seen),
                deletion_timestamp=metadata.deletion_timestamp,
            )
            spec: Any = request.object.spec
            object_: Any = type(request.object)(metadata=watched, spec=spec)
            again = Request(object=object_, operation=request.operation, namespace=request.namespace)
            decide(again, snapshot, now=NOW)
            explain(again, snapshot, now=NOW)

    ask()
    assert len(seen) > 8
    assert seen <= excess.READ_ANNOTATIONS


@law
@given(snapshot=clusters.snapshots, reviewed=clusters.reviewed)
def test_where_it_came_from_changes_no_decision(snapshot: Snapshot, reviewed: Reviewed) -> None:
    """The size of a review only saves work: without it, as in files, all is the same."""
    request = reviewed.request()
    assert request.size > 0
    unknown = Request(**{**{f: getattr(request, f) for f in request.__struct_fields__}, "size": 0})
    assert decide(unknown, snapshot, now=NOW) == decide(request, snapshot, now=NOW)


def test_what_is_small_holds_nothing_beyond_a_limit() -> None:
    """The shortest JSON of one of each, which the shortcut for usual reviews rests on."""
    shortest = {
        limits.TOLERATIONS_LIMIT: "{},",
        limits.TERMS_LIMIT: "{},",
        limits.VALUES_LIMIT: '"",',
        limits.CONTAINERS_LIMIT: "{},",
        limits.TEXT_LIMIT: "x",
        limits.LABELS_LIMIT: "x",
        limits.PROXY_ENV_LIMIT: "x",
        limits.ANNOTATIONS_TOTAL: "x",
    }
    for limit, text in shortest.items():
        assert limit * len(text) >= limits.SMALL


@given(text=st.text(max_size=60) | st.text(st.sampled_from(NASTY), max_size=60), limit=st.integers(8, 40))
def test_one_line_is_one_and_no_longer(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert one_line(line, limit) == line
    words = "".join(c if c.isprintable() else " " for c in text).split()
    if len(" ".join(words)) <= limit and len(text) <= 2 * limit:
        assert line.split() == words


@given(names=st.lists(st.text(max_size=100), max_size=8))
def test_at_most_three_of_many_are_named(names: list[str]) -> None:
    text = named(names)
    assert text.isprintable()
    assert len(text) <= 3 * 66 + 20
    assert text.endswith(f" and {len(names) - 3} more") == (len(names) > 3) or "more" in "".join(names)


@pytest.mark.parametrize("length", [100, 1_000, 100_000])
def test_caches_keep_short_keys_alone(length: int) -> None:
    """What somebody wrote at length is worked out anew each time."""
    selectors._is_valid_cached.cache_clear()
    for number in range(1_200):
        value = f"{number}" * (length // len(f"{number}"))
        request = selectors.Requirement(key="zone", operator="In", values=[value])
        selectors.requirement_is_valid(request)
    kept = selectors._is_valid_cached.cache_info()
    assert kept.maxsize is not None
    assert kept.maxsize <= 1_024
    assert (kept.currsize > 0) == (length <= limits.CACHED_CHARACTERS)


def test_no_cache_of_the_rules_is_large() -> None:
    """Their keys are short, or come from closed lists and from what the operator wrote."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if not re.match(r"webhook\.(rules|server)\b", name) or name == "webhook.rules.nulls":  # by type
            continue
        for attribute in vars(module).values():
            info = getattr(attribute, "cache_info", None)
            if info is not None:
                found[f"{attribute.__module__}.{attribute.__name__}"] = info().maxsize
    assert found
    assert all(size is not None and size <= 1_024 for size in found.values()), found


@pytest.mark.parametrize("name", bombs.BOMBS)
def test_the_worst_objects_that_are_known_get_a_small_answer(name: str) -> None:
    """And none of them a patch that was not meant: what is too large is left alone."""
    body = bombs.review(bombs.BOMBS[name]())
    uid, request = review.decode(body)
    decision = decide(request, SNAPSHOT, now=NOW)
    assert_bounded(decision, review.encode(uid, decision))
    if len(body) > bombs.OBJECT_BYTES // 2 and name != "what is not read":
        assert decision.reason is Reason.TOO_LARGE
        assert not decision.patch


def _lists_of(kind: Any, above: str, found: set[str]) -> None:
    """Add the paths of the lists and mappings that decoding a struct of *kind* makes."""
    struct: Any = msgspec.inspect.type_info(kind)
    for field in struct.fields:
        types = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        for each in types:
            path = f"{above}{field.encode_name}"
            if isinstance(each, msgspec.inspect.StructType):
                _lists_of(each.cls, f"{path}.", found)
            elif isinstance(each, msgspec.inspect.ListType | msgspec.inspect.DictType):
                found.add(path)


@pytest.mark.parametrize("kind", [Pod, Service, Deployment, CronJob])
def test_every_list_that_is_decoded_is_counted_before(kind: Any) -> None:
    """Whoever adds one to the objects adds it to what `oversize` counts."""
    lists: set[str] = set()
    _lists_of(kind, "", lists)
    assert lists
    for path in lists:
        document: Any = [""] * (limits.CONTAINER_ELEMENTS + 1)
        for part in reversed(path.split(".")):
            document = {part: document}
        document = {"kind": kind.__name__, "metadata": {"name": "a"}, **document}
        body = json.dumps({"request": {"object": document}}).encode()
        read, excess = within(body)
        field = re.sub(r"(spec\.affinity)\..*", r"\1", path)
        assert excess.startswith(f"{field}: {limits.CONTAINER_ELEMENTS + 1:,} elements; the limit is")
        assert len(read) < 1_000


def _leaves_of(kind: Any, above: str, found: set[str]) -> None:
    """Add the paths of the fields that decoding a struct of *kind* reads, but for structs."""
    struct: Any = msgspec.inspect.type_info(kind)
    for field in struct.fields:
        types = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        path = f"{above}{field.encode_name}"
        below = [each.cls for each in types if isinstance(each, msgspec.inspect.StructType)]
        for each in below:
            _leaves_of(each, f"{path}.", found)
        if not below:
            found.add(path)


UNREAD: Final = [0] * 60_000
"""More elements than are decoded uncounted, in a field that nobody reads."""


@pytest.mark.parametrize("kind", [Pod, Service, Deployment, CronJob])
def test_what_is_read_is_left_where_much_else_is_not(kind: Any) -> None:
    """Whoever adds a field to the objects adds it to what `oversize` writes anew."""
    leaves: set[str] = set()
    _leaves_of(kind, "", leaves)
    assert len(leaves) > 10
    for path in leaves:
        document: Any = "here it is"
        for part in reversed(path.split(".")):
            document = {part: document}
        document = {"kind": kind.__name__, "unread": UNREAD, **document}
        review_ = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"object": document}}
        read, excess = within(json.dumps(review_).encode())
        assert not excess
        assert len(read) < 1_000
        assert b"here it is" in read, path


@law
@given(reviewed=clusters.reviewed)
def test_what_was_written_anew_says_the_same(reviewed: Reviewed) -> None:
    body = json.dumps(json.loads(reviewed.body()), separators=(",", ":")).encode()
    assert body.count(b'"object":{"') == 1
    uid, request = review.decode(body)
    again, same = review.decode(body.replace(b'"object":{', b'"object":{"unread":[%b],' % (b"0," * 60_000 + b"0")))
    assert (again, msgspec.structs.replace(same, size=request.size)) == (uid, request)


MANY: Final = "[" + "{}," * 100_000 + "{}]"
DUPLICATES: Final = {
    "a list": f'{{"kind":"Pod","metadata":{{"name":"a"}},"spec":{{"tolerations":{MANY},"tolerations":[]}}}}',
    "a mapping": (
        '{"kind":"Pod","metadata":{"name":"a","labels":{'
        + ",".join(f'"{n}":""' for n in range(60_000))
        + '},"labels":{}},"spec":{}}'
    ),
    "what holds it": f'{{"kind":"Pod","spec":{{"tolerations":{MANY}}},"metadata":{{"name":"a"}},"spec":{{}}}}',
    "a template's": (
        f'{{"kind":"Job","metadata":{{}},"spec":{{"template":{{"spec":{{"containers":{MANY}}}}},"template":{{}}}}}}'
    ),
    "the object": (
        f'{{"kind":"Pod","spec":{{"containers":{MANY}}}}},"object":{{"kind":"Pod","metadata":{{"name":"a"}}}}'
    ),
    "its kind": f'{{"kind":"Pod","kind":"Frob","metadata":{{"name":"a"}},"spec":{{"tolerations":{MANY}}}}}',
}


@pytest.mark.parametrize("what", DUPLICATES)
def test_what_is_there_twice_is_decoded_once(what: str) -> None:
    """The API server sends nothing twice; other callers could have all but the last decoded, uncounted."""
    body = (
        '{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","namespace":"shop",'
        f'"operation":"CREATE","kind":{{"group":"","version":"v1","kind":"Pod"}},"object":{DUPLICATES[what]}}}}}'
    ).encode()
    read, excess = within(body)
    assert len(read) < 1_000
    assert not excess


def test_elements_in_all_are_bounded_too() -> None:
    """Each part is within its limit; the largest are left out until all together are."""
    part = {f"k{number}": "" for number in range(limits.ELEMENTS)}
    many = [""] * limits.ELEMENTS
    spec = {"nodeSelector": part, "tolerations": many, "containers": [""] * 100_000, "affinity": {"x": many}}
    document = {"kind": "Pod", "metadata": {"labels": part, "annotations": part}, "spec": spec}
    read, excess = within(json.dumps({"request": {"object": document}}).encode())
    assert excess.startswith("spec.containers: 100,000 elements")
    assert read.count(b",") <= limits.ELEMENTS_IN_ALL
    assert b'"annotations"' in read


@pytest.mark.parametrize("mode", ["Enforce", "Audit", "Disabled"])
def test_what_was_left_out_is_never_added_to(mode: str) -> None:
    """A map that was too large to be decoded is not absent: an `add` in its place would take all of it away."""
    snapshot = clusters.snapshot_of(clusters.INJECTOR, *clusters.NODES, clusters.policy("default", {"mode": mode}))
    for document in (
        bombs.pod({f"k{number}": "" for number in range(limits.ANNOTATION_ELEMENTS + 1)}),
        bombs.labelled({f"k{number}": "" for number in range(limits.ELEMENTS + 1)}),
        bombs.service({f"k{number}": "" for number in range(limits.ANNOTATION_ELEMENTS + 1)}),
    ):
        _, request = review.decode(bombs.review(document))
        assert request.excess
        decision = decide(request, snapshot, now=NOW)
        assert not decision.patch
        assert not decision.would_patch


def test_what_is_large_for_other_reasons_is_read_whole() -> None:
    """Commas in what no decision reads, or in texts, say nothing."""
    document = bombs.pod(
        {"example.com/list": "1," * 60_000}, volumes=[{}] * 100_000, tolerations=[{"operator": "Exists"}]
    )
    body = bombs.review(document)
    read, excess = within(body)
    assert not excess
    assert "1," * 60_000 in read.decode()
    decision, _ = asked(document)
    assert decision.reason is not Reason.TOO_LARGE


COMMAS: Final[Mapping[str, Document]] = {
    "an annotation that nobody reads": bombs.pod({"example.com/list": "," * (limits.ANNOTATION_ELEMENTS + 1)}),
    "one that is just within": bombs.pod({"example.com/list": "," * (limits.ANNOTATION_ELEMENTS - 1)}),
    "one in a template": bombs.deployment(bombs.pod({"example.com/list": "," * 250_000})),
    "one of a Service": bombs.service({"example.com/list": "," * 250_000}),
    "arguments": bombs.pod(containers=[{"name": "app", "args": ["," * 200_000]}]),
    "an opted-out pod's": bombs.pod({"example.com/list": "," * 250_000, "sidecar.istio.io/inject": "false"}),
    "what nobody reads": bombs.pod(volumes=[{"name": "," * 300_000}]),
}


@pytest.mark.parametrize("name", [*bombs.BOMBS, *COMMAS])
def test_files_are_read_as_the_webhook_reads_reviews(name: str) -> None:
    """What is too much of an object is left out in one place, so that `check` answers what the webhook does."""
    document = COMMAS[name] if name in COMMAS else bombs.BOMBS[name]()
    if document["kind"] not in GROUPS:
        return  # its templates are read one by one
    _, request = review.decode(bombs.review(document))
    reviewed, excess = decode_reviewed(document)
    checked = msgspec.structs.replace(request, object=reviewed, excess=excess, size=0)
    assert decide(checked, SNAPSHOT, now=NOW) == decide(request, SNAPSHOT, now=NOW)
    assert bool(excess) == bool(request.excess)


def _used(tolerations: int, terms: int, values: int, characters: int, containers: int) -> Document:
    of_terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": []}]} for _ in range(terms)]
    of_terms[0]["matchExpressions"][0]["values"] = [str(n) for n in range(values)]
    return bombs.pod(
        {"proxy.istio.io/config": "#" * characters},
        tolerations=[{"key": str(n)} for n in range(tolerations)],
        affinity=bombs.required(of_terms),
        containers=[{"name": str(n)} for n in range(containers)],
    )


WITHIN: Final = {
    "one limit and half of another": (4_000, 2_000, 0, 0, 1),
    "a quarter of each": (1_000, 1_000, 2_500, 4_096, 1_000),
    "the longest annotation": (1, 1, 1, limits.TEXT_LIMIT, 1_900),
}
BEYOND: Final = {
    "one limit and more than half of another": (4_000, 2_040, 0, 0, 1),
    "a third of each": (1_333, 1_333, 3_333, 5_461, 1_333),
    "each limit": (4_000, 4_000, 10_000, limits.TEXT_LIMIT, 4_000),
}


@pytest.mark.parametrize("used", [*WITHIN, *BEYOND])
def test_what_is_within_each_limit_is_not_within_all_together(used: str) -> None:
    decision, _ = asked(_used(*{**WITHIN, **BEYOND}[used]))
    assert (decision.reason is Reason.TOO_LARGE) == (used in BEYOND), decision.cause
    if used in BEYOND:
        assert re.fullmatch(r"tolerations, .* together: [0-9,]+ % of a limit; the limit is 150 %", decision.cause)
        assert not decision.patch


@pytest.mark.parametrize("number", [1, 6, 7, 32])
def test_pod_templates_of_one_object_share_the_limits(number: int) -> None:
    """Each is within them all; which are too many are known before they are read."""
    config = "interceptionMode: TPROXY\nx: ["
    template = {
        "metadata": {"annotations": {"proxy.istio.io/config": config + "#" * (4_096 - len(config) - 2) + "\n]"}},
        "spec": {"containers": [{"name": "a"}], "tolerations": bombs.TOLERATE, "nodeSelector": {"zone": "a"}},
    }
    document = bombs.shaped({f"t{n}template": template for n in range(number)})
    _, request = review.decode(bombs.review(document))
    decision = decide(request, SNAPSHOT, now=NOW)
    assert (decision.reason is Reason.TOO_LARGE) == (number > 6), decision


GREAT: Final = {
    "a list": "[" + "a," * limits.CONFIG_NODES + "]",
    "aliases": "[&a [1,1,1,1,1,1,1,1,1,1]" + ",*a" * 200 + "]",
    "merges": "{<<: " * 190 + "{" + ",".join(f"k{n}: 1" for n in range(100)) + "}" + "}" * 190,
    "nesting": "[" * 300 + "]" * 300,
}


@pytest.mark.parametrize("what", GREAT)
@pytest.mark.parametrize("mode", ["NONE", "REDIRECT"])
def test_a_choice_that_was_not_read_is_never_overwritten(what: str, mode: str) -> None:
    """Istio may read what is too much for us: the mode in it is its owner's choice."""
    document = bombs.pod({"proxy.istio.io/config": f"interceptionMode: {mode}\nx: {GREAT[what]}\n"})
    decision, _ = asked(document)
    assert decision.reason is Reason.TOO_LARGE
    assert not decision.patch
    assert decision.cause.startswith("metadata.annotations[proxy.istio.io/config]: ")


def test_too_large_is_a_loss() -> None:
    assert OUTCOMES[Reason.TOO_LARGE] is Outcome.LOST


@pytest.mark.parametrize(("name", "key"), [("istio-sidecar-injector", "config"), ("istio", "mesh")])
def test_a_text_of_the_meshs_has_a_length_beyond_which_it_is_passed_over(name: str, key: str) -> None:
    """What was known of it stays in use."""

    def config_map(text: str) -> Document:
        return {"metadata": {"name": name, "namespace": "istio-system"}, "data": {key: text}}

    collector = Collector()
    good = "defaultConfig: {interceptionMode: TPROXY}\npolicy: disabled\n#"
    collector.put("v1", "ConfigMap", config_map(good + "x" * (limits.CONFIG_LIMIT - len(good))))
    known = dict(collector.injector_configs), dict(collector.mesh_defaults)
    assert any(known)
    with pytest.raises(FactError, match=f"^data: {key}: 524,289 characters; the limit is 524,288$"):
        collector.put("v1", "ConfigMap", config_map("x" * (limits.CONFIG_LIMIT + 1)))
    assert (collector.injector_configs, collector.mesh_defaults) == known


@pytest.mark.parametrize("length", [limits.NAMESPACE_LABELS, limits.NAMESPACE_LABELS + 1])
def test_a_namespace_has_a_number_of_labels_that_are_kept(length: int) -> None:
    """Whoever may write namespaces makes nobody run out of memory; what is not kept is not taken for opted out."""
    labels = {"client-ip.dev/preserve": "enabled", "istio-injection": "enabled"}
    left = length - sum(len(key) + len(value) for key, value in labels.items())
    labels["x"] = "y" * (left - 1)
    known = Namespace(metadata=ObjectMeta(name="shop", labels={"client-ip.dev/preserve": "enabled"}))
    written = Namespace(metadata=ObjectMeta(name="shop", labels=labels))
    for namespace in (written, kept_of(written)):
        collector = Collector()
        collector.put_namespace(known)
        collector.put_namespace(namespace)
        _, request = review.decode(bombs.review(bombs.pod()))
        decision = decide(request, collector.snapshot(), now=NOW)
        assert (decision.reason is Reason.NAMESPACE_UNKNOWN) == (length > limits.NAMESPACE_LABELS)
    assert len(msgspec.json.encode(kept_of(written))) < limits.NAMESPACE_LABELS + 500
    assert (len(msgspec.json.encode(kept_of(written))) < 500) == (length > limits.NAMESPACE_LABELS)
