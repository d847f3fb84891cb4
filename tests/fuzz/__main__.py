"""
Mutates what other people write, for a time, and holds every answer to what is promised: `make fuzz`.

Own mutation, not atheris: it must run on every Python that is supported and on every machine, and what is looked for
is not a crash of C but a broken promise, which needs whole objects more than it needs coverage. The corpus is
tests/cases and the requests of tests/serve; a run is the same for the same seed, and a failure names its own.
"""

import argparse
import asyncio
import base64
import copy
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonpatch
import uvloop

from certs.secret import read_secret
from tests.bench import bombs
from tests.cases.case import cases
from tests.fuzz import mutate
from tests.property import clusters
from tests.property.clusters import NOW
from tests.serve.test_wire import BODIES, request, serving
from webhook.facts.kubeconfig import KubeconfigUnreadable, context_namespace
from webhook.rules.decide import decide
from webhook.rules.limits import CAUSE_LIMIT, WARNING_LIMIT, WARNINGS
from webhook.rules.policy_document import PolicyInvalid, read_policy
from webhook.rules.yamls import YAMLInvalid, documents
from webhook.server.review import BadReview, decode, encode

ANSWER_BYTES: Final = 16_384
SNAPSHOT: Final = clusters.snapshot_of(clusters.INJECTOR, *clusters.NODES)
CASES: Final = tuple(cases())
OBJECTS: Final = tuple(case.object for case in CASES if len(json.dumps(case.object)) < 50_000)
POLICIES: Final = tuple(fact for case in CASES for fact in case.facts if fact["kind"] == "ClientIPPolicy")
EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "cluster"
HEADS: Final = (request(b"{}"), *(request(body) for name, body in BODIES.items() if not name.startswith("bad")))
SECRET: Final = {
    "data": {"ca.crt": base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAA==\n").decode(), "tls.key": "AA=="}
}
KUBECONFIG: Final = (
    b"apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {namespace: shop, cluster: a}}]\n"
)


def review(chance: random.Random) -> str:
    """Review: it is answered, allowed, within its bytes, and its patch applies; or it is refused with a message."""
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
    if chance.random() < 0.1:
        body = mutate.text(chance, body)
    try:
        uid, asked = decode(body)
    except BadReview as error:
        assert str(error), "a refusal without a message"
        return "refused"
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
    if "patch" in response:
        patch = json.loads(base64.b64decode(response["patch"]))
        jsonpatch.apply_patch(copy.deepcopy(json.loads(body)["request"]["object"]), patch)
    return str(decision.reason)


def _named(document: Any) -> bool:
    return isinstance(document, dict) and all(isinstance(document.get(each), str) for each in ("apiVersion", "kind"))


def text(chance: random.Random) -> str:
    """YAML: it is read, or refused with a line."""
    source = chance.choice([*(path.read_bytes() for path in EXAMPLES.glob("*.yaml")), KUBECONFIG])
    try:
        found = list(documents(mutate.text(chance, source).decode(errors="replace")))
    except YAMLInvalid as error:
        return "refused" if str(error) else "refused without a word"
    return f"{min(len(found), 3)} documents"


def policy(chance: random.Random) -> str:
    """Policy: it is read, or refused with the paths of its fields."""
    document = mutate.document(chance, chance.choice(POLICIES))
    if not isinstance(document, dict):
        return "no mapping"
    try:
        read_policy(document)
    except PolicyInvalid as error:
        assert str(error), "a refusal without a message"
        return "refused"
    return "read"


def secret(chance: random.Random) -> str:
    """Secret: it is read with its problems, never refused by an exception."""
    document = mutate.document(chance, SECRET)
    if not isinstance(document, dict):
        return "no mapping"
    return "problems" if read_secret(document).problems else "read"


def kubeconfig(chance: random.Random) -> str:
    """Kubeconfig: it is read, or refused with a message."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(mutate.text(chance, KUBECONFIG))
        file.flush()
        try:
            context_namespace(file.name)
        except KubeconfigUnreadable as error:
            assert str(error), "a refusal without a message"
            return "refused"
    return "read"


KINDS: Final[dict[str, tuple[int, Callable[[random.Random], str]]]] = {
    "review": (60, review),
    "yaml": (10, text),
    "policy": (10, policy),
    "secret": (10, secret),
    "kubeconfig": (2, kubeconfig),
}
"""How often each has its turn in a round, and what it does."""


async def heads(chance: random.Random, seconds: float, seen: Counter[str]) -> None:
    """Heads: a mutated request gets no 500, whichever path takes it, and the next one on a new connection works."""
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name), str(EXAMPLES)) as server:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                sent = mutate.text(chance, chance.choice(HEADS))
                before = server.by_aiohttp
                client = await server.connect()
                client.writer.write(sent)
                try:
                    async with asyncio.timeout(0.2):
                        answer = await client.answer()
                except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, AssertionError):
                    answer = b""
                client.close()
                by = "aiohttp" if server.by_aiohttp > before else "fast path"
                status = re.match(rb"HTTP/1\.1 (\d+)", answer)
                seen[f"head: {by} {status[1].decode() if status else 'no answer'}"] += 1
                assert status is None or status[1] != b"500", (sent, answer)
                assert (await server.ask(request(BODIES["a pod"]))).startswith(b"HTTP/1.1 200 "), "the next one fails"


def main() -> None:
    """Run for some time; fail with the seed of what broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutation (default: %(default)s)")
    parser.add_argument("--kind", choices=sorted(KINDS), help="only this, once, with --seed: to see a failure again")
    options = parser.parse_args()
    if options.kind:
        print(KINDS[options.kind][1](random.Random(options.seed)))
        return
    started, seed = time.monotonic(), options.seed
    seen: Counter[str] = Counter()
    while time.monotonic() - started < options.seconds * 0.8:
        for kind, (times, run) in KINDS.items():
            for _ in range(times):
                try:
                    seen[f"{kind}: {run(random.Random(seed))}"] += 1
                except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                    again = f"python -m tests.fuzz --kind {kind} --seed {seed}"
                    sys.exit(f"{kind}: {type(error).__name__}: {error}\nagain: {again}")
                seed += 1
    uvloop.run(heads(random.Random(options.seed), options.seconds * 0.2, seen))
    for name, number in sorted(seen.items()):
        print(f"{number:>9,}  {name}")
    print(f"{sum(seen.values()):,} mutations, {time.monotonic() - started:.0f} s, 0 failed")


if __name__ == "__main__":
    main()
