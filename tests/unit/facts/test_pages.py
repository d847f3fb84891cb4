"""Lists of large objects: what one page takes, and what is kept of each object."""

import asyncio
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any, Final

import pytest

from webhook.facts.kube import KubeClient
from webhook.facts.watch import FIRST_PAGE, PAGE_BYTES, ClusterSource

Document = dict[str, Any]
NUMBER: Final = 60
NOTES: Final = 250_000
KEPT_BYTES: Final = 4_000
"""Of an object at most, Python's own structures among them; it came in sixty times as many."""


def namespace(number: int) -> Document:
    metadata = {"name": f"tenant-{number}", "labels": {"team": f"t{number}"}, "annotations": {"notes": "x" * NOTES}}
    return {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}}


def node(number: int) -> Document:
    metadata = {"name": f"node-{number}", "labels": {"pool": f"p{number}"}, "annotations": {"notes": "x" * NOTES}}
    images = [{"names": [f"registry.example.com/{n}:1"], "sizeBytes": n} for n in range(100)]
    info = {"osImage": "Ubuntu 24.04.1 LTS", "kernelVersion": "6.8.0-1015-generic", "operatingSystem": "linux"}
    return {"metadata": metadata, "spec": {}, "status": {"nodeInfo": info, "images": images}}


class Pages(KubeClient):
    """A list in pages, as an API server cuts them."""

    def __init__(self, objects: list[Document]) -> None:
        self.objects = objects
        self.sizes: list[int] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Return the page that *query* asks for."""
        assert (method, body, content_type) == ("GET", None, "application/json"), path
        assert query is not None
        start = int(query.get("continue", "0"))
        end = start + int(query["limit"])
        more = str(end) if end < len(self.objects) else ""
        page = {"metadata": {"resourceVersion": "7", "continue": more}, "items": self.objects[start:end]}
        text = json.dumps(page).encode()
        self.sizes.append(len(text))
        return text


@pytest.mark.parametrize(("kind", "make"), [("namespaces", namespace), ("nodes", node)])
def test_a_list_takes_the_memory_of_a_page_and_keeps_what_decisions_read(kind: str, make: Any) -> None:
    client = Pages([make(number) for number in range(NUMBER)])
    source = ClusterSource(client, own_namespace="client-ip-system", once=True)
    source._rules_known.set()

    async def listed() -> None:
        await source._list(source._followed[kind])

    asyncio.run(listed())  # what is made once
    client.sizes.clear()
    tracemalloc.start()
    asyncio.run(listed())
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(client.sizes) <= max(PAGE_BYTES, FIRST_PAGE * (NOTES + KEPT_BYTES)) + NOTES
    assert len(client.sizes) > 1
    assert kept < NUMBER * KEPT_BYTES
    # A page is there as the list of its objects, as text and as bytes in this test; nothing of the one before is.
    assert peak < 5 * max(client.sizes) + NUMBER * KEPT_BYTES
    snapshot = source.snapshot
    assert (len(snapshot.namespaces) or snapshot.nodes.everything.bit_count()) == NUMBER
