"""Twice the input is at most twice the work, for every text and list that somebody else writes: steps, not seconds."""

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import pytest

from tests.bench import bombs
from tests.property import clusters
from tests.property.clusters import NOW
from webhook.facts.collect import decode
from webhook.rules import selectors, yamls
from webhook.rules.decide import decide
from webhook.rules.nodes import Node, NodeIndexBuilder
from webhook.rules.policy import BUILT_IN
from webhook.server import review

SNAPSHOT: Final = clusters.snapshot_of(clusters.INJECTOR, *clusters.NODES)
SLACK: Final = 2_000
"""Steps that do not depend on the input."""


def _config(text: str) -> dict[str, Any]:
    return bombs.pod({"proxy.istio.io/config": f"interceptionMode: TPROXY\nx: {text}\n"})


GROWING: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "a number": lambda n: _config("1" * n + "x"),
    "a list": lambda n: _config("[" + "a," * n + "]"),
    "mappings to merge": lambda n: _config("{<<: [" + ",".join(f"{{a{each}: 1}}" for each in range(n // 2)) + "]}"),
    "keys": lambda n: _config("{" + ",".join(f"a{each}: 1" for each in range(n)) + "}"),
    "aliases": lambda n: _config("[&a [1,1]" + ",*a" * n + "]"),
    "anchors": lambda n: _config("[" + ",".join(f"&a{each} 1" for each in range(n)) + "]"),
    "templates' names": lambda n: bombs.pod({"inject.istio.io/templates": ",".join(map(str, range(n)))}),
    "a mode": lambda n: bombs.pod({"sidecar.istio.io/interceptionMode": "\u202e" * n}),
    "ports": lambda n: bombs.pod({"traffic.sidecar.istio.io/includeInboundPorts": "80," * n}),
    "a node's name": lambda n: bombs.pod(nodeName="x" * n),
    "labels": lambda n: bombs.labelled({f"k{each}": "v" for each in range(n)}),
    "a nodeSelector": lambda n: bombs.pod(nodeSelector={"zone": "a", **{f"k{each}": "v" for each in range(n)}}),
    "tolerations": lambda n: bombs.pod(
        tolerations=[{"key": "dedicated", "operator": "Gt", "value": str(each)} for each in range(n)]
    ),
    "terms": lambda n: bombs.pod(
        tolerations=bombs.TOLERATE,
        affinity=bombs.required(
            [{"matchExpressions": [{"key": "rank", "operator": "Gt", "values": [str(each)]}]} for each in range(n)]
        ),
    ),
    "values": lambda n: bombs.pod(
        tolerations=bombs.TOLERATE,
        affinity=bombs.required(
            [{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": [f"v{each}" for each in range(n)]}]}]
        ),
    ),
    "containers": lambda n: bombs.pod(containers=[{"name": f"c{each}"} for each in range(n)]),
    "proxies": lambda n: bombs.pod(containers=[bombs.proxy([{"name": "x" * 40}])] * n),
    "an environment": lambda n: bombs.pod(containers=[bombs.proxy([{"name": f"v{each}"} for each in range(n)])]),
    "a Service's annotations": lambda n: bombs.service({f"k{each}": "v" for each in range(n)}),
    "a Service's labels": lambda n: bombs.service(
        labels={"istio": "ingress", **{f"k{each}": "v" for each in range(n)}}
    ),
    "a Service's addresses": lambda n: bombs.service(externalIPs=["192.0.2.1"] * n),
}


def counted(work: Callable[[], Any]) -> int:
    """Return the bytecode instructions of *work*."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def steps(body: bytes) -> int:
    """Return the bytecode instructions from the body to the answer."""

    def answer() -> None:
        uid, request = review.decode(body)
        review.encode(uid, decide(request, SNAPSHOT, now=NOW))

    return counted(answer)


@pytest.mark.parametrize("name", GROWING)
def test_twice_the_input_is_at_most_twice_the_work(name: str) -> None:
    make = GROWING[name]
    steps(bombs.review(make(3)))  # what is made once
    for size in (200, 2_000):  # neither pair has `limits.SMALL` between its bodies
        once, twice = (steps(bombs.review(make(each))) for each in (size, 2 * size))
        assert twice <= 2.2 * once + SLACK, (once, twice)


def test_what_is_asked_twice_is_worked_out_once() -> None:
    """Whether TPROXY stands by hand, is our own output or was injected: nodes and proxies are looked at once."""
    nowhere: dict[str, Any] = {
        "affinity": bombs.required(
            [
                {
                    "matchExpressions": [
                        {"key": "rank", "operator": "Gt", "values": [str(each)]},
                        {"key": "absent", "operator": "Exists"},
                    ]
                }
                for each in range(500)
            ]
        ),
        "tolerations": [{"key": "dedicated", "operator": "Gt", "value": str(each)} for each in range(500)],
    }
    mode = {"sidecar.istio.io/interceptionMode": "TPROXY"}
    plain = steps(bombs.review(bombs.pod(**nowhere)))
    ours = bombs.pod(mode, **nowhere)
    ours["metadata"]["labels"] = {"client-ip.dev/method": "tproxy"}
    for document in (bombs.pod(mode, **nowhere), ours):
        assert steps(bombs.review(document)) <= 1.1 * plain
    once = steps(bombs.review(bombs.pod({"sidecar.istio.io/status": "{}"}, containers=[bombs.proxy([])] * 500)))
    assert once <= 200 * 500


def test_a_node_of_any_size_costs_no_more_than_its_limits() -> None:
    """A kubelet writes its own labels, and its taints as it registers: each of those is one of every review's."""
    counts = []
    for number in (3_000, 2_000, 20_000):  # what is made once is made by the first
        node = {
            "metadata": {"name": "a", "labels": {f"k{each}": "v" for each in range(number)}},
            "spec": {"taints": [{"key": f"k{each}", "effect": "NoExecute"} for each in range(number)]},
            "status": {"nodeInfo": {"osImage": "x" * 100 * number, "operatingSystem": "linux"}},
        }
        builder = NodeIndexBuilder(BUILT_IN.node_rules)
        read = decode(node, Node)
        counts.append(counted(lambda b=builder, n=read: b.put(n)))  # type: ignore[misc]
        index = builder.freeze()
        (_, kept) = index.example(index.everything)
        assert (len(kept.labels), len(kept.taints), len(kept.os_image)) == (1_000, 64, 1_024)
        assert (kept.compatibility.supported, kept.compatibility.rule) == (False, "more than 1,000 labels or 64 taints")
        assert counted(lambda i=index: i.tolerated(())) < 5_000  # type: ignore[misc]
    # A few steps are whatever the interpreter does in between.
    assert counts[2] <= 1.01 * counts[1] < 400_000


def test_no_pattern_of_a_tenants_text_gives_back_what_it_took() -> None:
    """Steps of `re` are C's, so that they are not counted: a repetition is possessive, or its text short."""
    for _, pattern, _ in yamls._TAGS:
        unbounded = re.findall(
            r"(?<!\\)[*+](?![+])",
            re.sub(r"\[[^\]]*\]", "C", pattern.pattern).replace("++", "").replace("*+", "").replace("?+", ""),
        )
        assert not unbounded, pattern.pattern
    for name in (selectors._NAME, selectors._CHARACTERS):
        assert not re.findall(
            r"[*+](?![+])", re.sub(r"\[[^\]]*\]", "C", name.pattern).replace("++", "").replace("*+", "")
        )
    for text in ("a" * 10_000_000, "-" * 10_000_000, "1" * 10_000_000):
        assert not selectors.valid_label_value(text)
        assert not selectors.valid_label_key(f"{text}/a")
        assert selectors.parse_int64(text) is None
        assert selectors.parse_canonical(text) is None
