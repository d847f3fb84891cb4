"""
What is mutated, and what each kind of input is held to.

A kind makes an input, as bytes, from a seed and the examples of the suites; what it is held to rests on these bytes
alone, so that an input can be kept (`corpus`) and tried again. An outcome says what became of it: two inputs with the
same outcome were, as far as anybody sees, treated alike.
"""

import base64
import copy
import gzip
import json
import random
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonpatch

from certs.secret import read_secret
from tests.bench import bombs
from tests.cases.case import cases
from tests.fuzz import mutate
from tests.fuzz.parsers import compared
from tests.property import clusters
from tests.property.clusters import NOW
from tests.serve.test_wire import BODIES, request
from tests.unit.test_logshapes import PREFIXES
from webhook.facts.kubeconfig import KubeconfigUnreadable, context_namespace
from webhook.rules.decide import decide
from webhook.rules.limits import CAUSE_LIMIT, WARNING_LIMIT, WARNINGS
from webhook.rules.policy_document import PolicyInvalid, read_policy
from webhook.rules.yamls import YAMLInvalid, documents
from webhook.running.accesslog import judge
from webhook.running.logshapes import GZIP, SHOWN, Lines, Read, Reader
from webhook.server.review import BadReview, decode, encode

ANSWER_BYTES: Final = 16_384
SNAPSHOT: Final = clusters.snapshot_of(clusters.INJECTOR, *clusters.NODES)
CASES: Final = tuple(cases())
OBJECTS: Final = tuple(case.object for case in CASES if len(json.dumps(case.object)) < 50_000)
POLICIES: Final = tuple(fact for case in CASES for fact in case.facts if fact["kind"] == "ClientIPPolicy")
EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "cluster"
LOGS: Final = tuple(
    line
    for path in sorted((Path(__file__).parents[1] / "unit" / "accesslogs").glob("*.log"))
    for line in path.read_text().splitlines()
)
HEADS: Final = (request(b"{}"), *(request(body) for name, body in BODIES.items() if not name.startswith("bad")))
SECRET: Final = {
    "data": {"ca.crt": base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAA==\n").decode(), "tls.key": "AA=="}
}
KUBECONFIG: Final = (
    b"apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {namespace: shop, cluster: a}}]\n"
)
ENCODINGS: Final[tuple[Callable[[str], bytes], ...]] = (
    *(lambda text: text.encode(errors="surrogateescape"),) * 6,
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.encode("utf-16-be", "surrogatepass"),
    lambda text: gzip.compress(text.encode(errors="surrogateescape"), mtime=0),
)


def _review(chance: random.Random) -> bytes:
    document = dict(chance.choice(OBJECTS))
    for part in chance.choice((("metadata",), ("spec",), ("metadata", "spec"))):
        document[part] = mutate.document(chance, document.get(part))
    if chance.random() < 0.1:
        document = mutate.document(chance, document)
    body = (
        bombs.review(document, chance.choice((*("CREATE",) * 7, "UPDATE")))
        if _named(document)
        else json.dumps(document).encode()
    )
    return mutate.text(chance, body) if chance.random() < 0.1 else body


def _named(document: Any) -> bool:
    return isinstance(document, dict) and all(isinstance(document.get(each), str) for each in ("apiVersion", "kind"))


def review(body: bytes) -> str:
    """Review: it is answered, allowed, within its bytes, and its patch applies; or it is refused with a message."""
    try:
        uid, asked = decode(body)
    except BadReview as error:
        assert str(error), "a refusal without a message"
        return f"refused: {error}"
    decision = decide(asked, SNAPSHOT, now=NOW)
    answer = encode(uid, decision)
    response = json.loads(answer)["response"]
    assert len(answer) <= ANSWER_BYTES, len(answer)
    assert response["allowed"] is True, "denied"
    assert response["uid"] == uid, "another uid"
    assert len(decision.cause) <= CAUSE_LIMIT, "a long cause"
    assert decision.cause.isprintable(), "a cause of more than a line"
    assert len(decision.warnings) <= WARNINGS, "many warnings"
    assert all(len(each) <= WARNING_LIMIT and each.isprintable() for each in decision.warnings), "a long warning"
    paths = ""
    if "patch" in response:
        patch = json.loads(base64.b64decode(response["patch"]))
        jsonpatch.apply_patch(copy.deepcopy(json.loads(body)["request"]["object"]), patch)
        paths = ", patched"
    return f"{decision.reason}{paths}: {decision.cause}"


def _yaml(chance: random.Random) -> bytes:
    return mutate.text(chance, chance.choice([*(each.read_bytes() for each in EXAMPLES.glob("*.yaml")), KUBECONFIG]))


def text(data: bytes) -> str:
    """YAML: it is read, or refused with a line."""
    try:
        found = list(documents(data.decode(errors="replace")))
    except YAMLInvalid as error:
        assert str(error), "a refusal without a message"
        return f"refused: {error}"
    return f"{min(len(found), 3)} documents"


def _policy(chance: random.Random) -> bytes:
    return json.dumps(mutate.document(chance, chance.choice(POLICIES))).encode()


def policy(data: bytes) -> str:
    """Policy: it is read, or refused with the paths of its fields."""
    document = json.loads(data)
    if not isinstance(document, dict):
        return "no mapping"
    try:
        read_policy(document)
    except PolicyInvalid as error:
        assert str(error), "a refusal without a message"
        return f"refused: {error}"
    return "read"


def _secret(chance: random.Random) -> bytes:
    return json.dumps(mutate.document(chance, SECRET)).encode()


def secret(data: bytes) -> str:
    """Secret: it is read with its problems, never refused by an exception."""
    document = json.loads(data)
    if not isinstance(document, dict):
        return "no mapping"
    return "; ".join(read_secret(document).problems) or "read"


def _kubeconfig(chance: random.Random) -> bytes:
    return mutate.text(chance, KUBECONFIG)


def kubeconfig(data: bytes) -> str:
    """Kubeconfig: it is read, or refused with a message."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        try:
            context_namespace(file.name)
        except KubeconfigUnreadable as error:
            assert str(error), "a refusal without a message"
            return "refused"
    return "read"


def _log(chance: random.Random) -> bytes:
    shape = chance.choice(list(PREFIXES.values()))
    lines = "\n".join(shape(chance.choice(LOGS)) for _ in range(chance.randint(1, 4)))
    whole = chance.choice(ENCODINGS)(lines)
    return mutate.text(chance, whole) if chance.random() < 0.8 else whole


def log(data: bytes) -> str:
    """Access log: each entry is judged, in whatever pieces it comes; what can't be read is said, in a bounded text."""
    found = _read(data, len(data) or 1)
    if not data.startswith(GZIP):  # damaged data is read up to the piece that is damaged
        assert _read(data, 7) == found, "read otherwise in other pieces"
    outcomes = set()
    for each in found:
        assert len(each.text) <= SHOWN + 1, "a long text"
        judged = None if each.entry is None else judge(each.entry)
        said = "of no inbound call" if judged is None else f"{judged.verdict}: {judged.field}: {judged.why}"
        outcomes.add("unread" if each.entry is None else said)
    return ", ".join(sorted(outcomes)) or "no entry"


def _read(data: bytes, piece: int) -> list[Read]:
    lines, reader = Lines(), Reader()
    found: list[Read] = []
    for start in range(0, len(data), piece):
        found += reader.read(lines.feed(data[start : start + piece]))
    return [*found, *reader.read(lines.end()), *reader.end()]


def _head(chance: random.Random) -> bytes:
    data = chance.choice(HEADS[:3])
    data = mutate.head(chance, data) if chance.random() < 0.8 else data
    return mutate.text(chance, data) if chance.random() < 0.4 else data


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of input."""

    times: int
    """How often it has its turn in a round."""
    make: Callable[[random.Random], bytes]
    hold: Callable[[bytes], str]
    """Returns the outcome; whatever it raises is a broken promise."""


KINDS: Final = {
    "review": Kind(60, _review, review),
    "head": Kind(60, _head, compared),
    "log": Kind(20, _log, log),
    "yaml": Kind(5, _yaml, text),
    "policy": Kind(10, _policy, policy),
    "secret": Kind(10, _secret, secret),
    "kubeconfig": Kind(2, _kubeconfig, kubeconfig),
}

_DETAILS: Final = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[0-9]+|[^\x20-\x7e]+|(?<=[=/:.\[])\S+")


def coarse(outcome: str) -> str:
    """Return *outcome* without names and numbers, by which inputs of one kind are told apart."""
    return _DETAILS.sub("…", outcome)[:120]
