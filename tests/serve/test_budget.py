"""Nothing is kept of what hostile objects hold: ten thousand different ones leave the server as large as it was."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench import bombs
from tests.serve.server import Server

OBJECTS: Final = 10_000
WHOLE_EVERY: Final = 100
"""So many are as large as the API server takes them; all would take a quarter of an hour."""
ALLOWED_MIB: Final = 20.0


def resident_mib(server: Server) -> float:
    """Return the server's resident memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def hostile(number: int) -> dict[str, Any]:
    """Return an object that no other is like, its text wherever a cause, a warning or a cache could keep it."""
    length = bombs.WHOLE if number % WHOLE_EVERY == 0 else 3_000
    text = f"{number}-" * (length // len(f"{number}-"))
    requirement = {"key": bombs.INDEX, "operator": "In", "values": [text[:60], text[:200], text]}
    kinds = (
        bombs.pod({"sidecar.istio.io/interceptionMode": text}),
        bombs.pod({"proxy.istio.io/config": f"interceptionMode: {text}"}),
        bombs.pod({"inject.istio.io/templates": text.replace("-", ",")}),
        bombs.pod(nodeName=text),
        bombs.pod(affinity=bombs.required([{"matchExpressions": [requirement]}]), tolerations=bombs.TOLERATE),
        bombs.pod(nodeSelector={text[:300]: text}),
        bombs.pod(containers=[bombs.proxy([{"name": "ISTIO_META_INTERCEPTION_MODE", "value": text}])]),
        bombs.pod(tolerations=[{"key": text, "operator": "Gt", "value": text}]),
        bombs.labelled({"client-ip.dev/preserve": text, text[:100]: text}),
        bombs.service({"service.beta.kubernetes.io/backend-type": text}),
        bombs.service(type=text),
    )
    return kinds[number % len(kinds)]


@pytest.mark.slow
def test_ten_thousand_different_hostile_objects_leave_nothing_behind(server: Server) -> None:
    connection = server.connect()

    def ask(numbers: Iterator[int] | range) -> None:
        for number in numbers:
            answer = server.ask(bombs.review(hostile(number)), connection=connection, path="/mutate?timeout=10s")
            assert answer.status == 200, answer.body
            assert len(answer.body) <= 16_384

    ask(range(OBJECTS, OBJECTS + 2 * WHOLE_EVERY + 1))  # what a first large body makes of the heap is no leak
    before = resident_mib(server)
    ask(range(OBJECTS))
    assert resident_mib(server) <= before + ALLOWED_MIB
    connection.close()
