"""The fast path answers as aiohttp does, to the byte, and leaves to aiohttp whatever it does not know to the letter."""

import asyncio
import json
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from tests.serve.server import POD, Server, review
from tests.serve.test_bad_input import BAD, NOT_OURS
from webhook.facts.source import FileSource
from webhook.rules import wellknown
from webhook.server.connection import Connection
from webhook.server.edge import State, webhook_server
from webhook.server.listener import Listener
from webhook.server.metrics import Metrics
from webhook.server.peers import Source
from webhook.server.tls import self_signed
from webhook.server.wire import ReviewServer

SECONDS: Final = 30.0
GOOD: Final = json.dumps(review(POD)).encode()
SERVICE: Final = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "gw", "namespace": "shop", "labels": {"istio": "ingressgateway"}},
    "spec": {"type": "LoadBalancer"},
}
BODIES: Final = {
    "a pod": GOOD,
    "a service": json.dumps(review(SERVICE, kind=("", "v1", "Service"))).encode(),
    "a pod of a namespace that is not known": json.dumps(review(POD, namespace="nowhere")).encode(),
    **{f"bad: {name}": body for name, body in BAD.items() if len(body) < 200_000},
    **{f"not ours: {name}": body for name, body in NOT_OURS.items()},
}


def request(body: bytes, *, timeout: str = "2s", more: str = "", length: int | None = None) -> bytes:
    """Return a request as the API server writes it; with *more* headers it is another one."""
    return (
        f"POST /mutate?timeout={timeout} HTTP/1.1\r\nHost: client-ip-webhook.client-ip-system.svc:443\r\n"
        f"User-Agent: kube-apiserver-admission\r\nContent-Length: {len(body) if length is None else length}\r\n"
        f"Accept: application/json, */*\r\nContent-Type: application/json\r\n{more}Accept-Encoding: gzip\r\n\r\n"
    ).encode() + body


ODD: Final = "X-Odd: 1\r\n"
"""A header that changes nothing, but that the fast path does not know."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server in this process, over TLS, and who answered."""

    reviews: ReviewServer
    port: int
    client: ssl.SSLContext

    @property
    def by_aiohttp(self) -> int:
        """How many requests aiohttp answered."""
        return self.reviews.fallback.requests_count

    async def connect(self) -> "Client":
        """Return a new connection."""
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self.client))

    async def ask(self, sent: bytes) -> bytes:
        """Return the answer to *sent* on a connection of its own."""
        client = await self.connect()
        client.writer.write(sent)
        answer = await client.answer()
        client.close()
        return answer


@dataclass(frozen=True, slots=True)
class Client:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> bytes:
        """Return the next answer, whole; its date blotted out."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"Content-Length: (\d+)", head)
        assert found is not None
        return re.sub(rb"Date: [A-Z][a-z]{2}, [^\r]{20} GMT", b"Date: -", head) + await self.reader.readexactly(
            int(found[1])
        )

    async def ended(self) -> bool:
        """Return whether the server closes the connection without another byte."""
        return await self.reader.read() == b""

    def close(self) -> None:
        """Go."""
        self.writer.transport.abort()


@asynccontextmanager
async def serving(folder: Path, cluster: str, *, budget: int = 96 << 20) -> AsyncIterator[Serving]:
    """Serve the example cluster for the length of the block."""
    source = FileSource([cluster], own_namespace=wellknown.OWN_NAMESPACE)
    certificate = self_signed(["127.0.0.1"], folder / "ca.pem")
    metrics = Metrics(source, certificate)
    state = State(source, certificate, metrics)
    peers = metrics.watch("reviews", budget)
    reviews = ReviewServer(state, webhook_server(state, peers), peers)

    def make(source: Source) -> tuple[Connection, asyncio.Protocol]:
        protocol = reviews(source)
        return protocol, protocol

    listener = Listener(peers=peers, make=make, context=certificate.context)
    try:
        name = await listener.listen("127.0.0.1", 0)
        client = ssl.create_default_context(cafile=folder / "ca.pem")
        yield Serving(reviews, int(str(name[1])), client)
    finally:
        listener.close()
        await reviews.shutdown(1.0)


@pytest.fixture
def run(tmp_path: Path, cluster: str) -> Callable[[Callable[[Serving], Awaitable[None]]], None]:
    """Run a scenario against a server, as the server runs: under uvloop."""

    def start(scenario: Callable[[Serving], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(SECONDS), serving(tmp_path, cluster) as server:
                await scenario(server)

        uvloop.run(bounded())

    return start


Run = Callable[[Callable[[Serving], Awaitable[None]]], None]


def test_every_body_gets_the_same_bytes_from_both(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        for name, body in BODIES.items():
            before = server.by_aiohttp
            fast = await server.ask(request(body))
            assert server.by_aiohttp == before, name
            plain = await server.ask(request(body, more=ODD))
            assert server.by_aiohttp == before + 1, name
            assert fast == plain, name
            assert fast.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 400 Bad Request\r\n")), name

    run(scenario)


def test_a_bug_gets_the_same_500_from_both_and_the_next_request_works(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    async def scenario(server: Serving) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("webhook.server.edge.decide_again", broken)
            fast = await server.ask(request(GOOD))
            assert fast == await server.ask(request(GOOD, more=ODD))
            assert fast.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert (await server.ask(request(GOOD))).startswith(b"HTTP/1.1 200 ")

    run(scenario)


UNKNOWN: Final[Mapping[str, bytes]] = {
    "another path": request(GOOD).replace(b"/mutate?", b"/validate?"),
    "another method": request(GOOD).replace(b"POST", b"PUT"),
    "GET": b"GET /mutate HTTP/1.1\r\nHost: a\r\n\r\n",
    "another query": request(GOOD).replace(b"?timeout", b"?pretty=1&timeout"),
    "HTTP/1.0": request(GOOD).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a header in lower case": request(GOOD).replace(b"Content-Length", b"content-length"),
    "another media type": request(GOOD).replace(b"Type: application/json", b"Type: application/yaml"),
    "no media type": request(GOOD).replace(b"Content-Type: application/json\r\n", b""),
    "parameters of the media type": request(GOOD).replace(b"Type: application/json", b"Type: application/json;a=b"),
    "an encoding": request(GOOD, more="Content-Encoding: gzip\r\n"),
    "two lengths": request(GOOD, more=f"Content-Length: {len(GOOD)}\r\n"),
    "two lengths that differ": request(GOOD, more="Content-Length: 1\r\n"),
    "a length with a sign": request(GOOD).replace(b"Length: ", b"Length: +"),
    "chunks": request(GOOD, more="Transfer-Encoding: chunked\r\n"),
    "the end of the connection": request(GOOD, more="Connection: close\r\n"),
    "a folded header": request(GOOD, more="Baggage: a\r\n b\r\n"),
    "a header with a control character": request(GOOD).replace(b"kube-api", b"kube\x00api"),
    "a header twice": request(GOOD, more="User-Agent: a\r\n"),
    "another order": request(GOOD, more="Accept: */*\r\n"),
    "a header longer than aiohttp takes": request(GOOD).replace(b"kube-api", b"x" * 9000),
    "bare line feeds": request(GOOD).replace(b"\r\n", b"\n"),
    "no HTTP": b"\x16\x03\x01" * 20 + b"\r\n\r\n",
    "a body beyond the limit": request(b"", length=8 << 20),
}


@pytest.mark.parametrize("sent", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_it_does_not_know_to_the_letter_is_left_to_aiohttp(run: Run, sent: bytes) -> None:
    async def scenario(server: Serving) -> None:
        client = await server.connect()
        client.writer.write(sent)
        assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.")
        assert not server.reviews.connections
        assert len(server.reviews.fallback.connections) <= 1
        client.close()
        assert (await server.ask(request(GOOD))).startswith(b"HTTP/1.1 200 ")

    run(scenario)


def test_wherever_a_request_is_cut_the_answer_is_the_same(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        whole = request(GOOD)
        expected = await server.ask(whole)
        body = len(whole) - len(GOOD)
        for cut in [*range(1, body, 40), *range(body - 2, body + 3), *range(body + 3, len(whole), 60), len(whole) - 1]:
            before = server.by_aiohttp
            client = await server.connect()
            for part in (whole[:cut], whole[cut:]):
                client.writer.write(part)
                await client.writer.drain()
                await asyncio.sleep(0.003)
            assert await client.answer() == expected, cut
            assert (server.by_aiohttp > before) == (cut < body), cut
            client.close()

    run(scenario)


def test_a_body_in_many_pieces_is_put_together(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        annotated = {**POD, "metadata": {**POD["metadata"], "annotations": {"a": "x" * (1 << 20)}}}
        whole = request(json.dumps(review(annotated)).encode())
        expected = await server.ask(whole)
        chance = random.Random(7)  # noqa: S311  # where to cut
        client = await server.connect()
        start = 0
        while start < len(whole):
            end = start + chance.randint(400, 90_000)
            client.writer.write(whole[start:end])
            await client.writer.drain()
            await asyncio.sleep(0)
            start = end
        assert await client.answer() == expected
        assert server.by_aiohttp == 0
        client.close()

    run(scenario)


@pytest.mark.parametrize("odd", [(), (1,), (0,), (3,), (1, 2)], ids=str)
def test_requests_one_after_the_other_without_waiting_are_answered_in_order(run: Run, odd: Sequence[int]) -> None:
    async def scenario(server: Serving) -> None:
        bodies = [GOOD.replace(b"42010a800002", f"42010a80{number:04}".encode()) for number in range(4)]
        client = await server.connect()
        client.writer.write(
            b"".join(request(body, more=ODD if number in odd else "") for number, body in enumerate(bodies))
        )
        for number in range(4):
            assert f'"uid":"705ab4f5-6393-11e8-b7cc-42010a80{number:04}"'.encode() in await client.answer()
        # From the first odd one on the connection is aiohttp's.
        assert server.by_aiohttp == (4 - min(odd) if odd else 0)
        client.close()

    run(scenario)


def test_a_body_that_does_not_come_ends_the_same_way_in_both(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        async def late(more: str) -> bytes:
            client = await server.connect()
            client.writer.write(request(GOOD[:10], timeout="300ms", more=more, length=len(GOOD)))
            answer = await client.answer()
            assert more or await client.ended()  # aiohttp reads on for ten seconds before it closes
            client.close()
            return answer

        fast, plain = await asyncio.gather(late(""), late(ODD))
        assert fast == plain
        assert fast.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        while server.reviews.connections:  # noqa: ASYNC110  # the scenario's own bound ends it
            await asyncio.sleep(0.01)

    run(scenario)


def test_while_it_drains_each_answer_ends_its_connection_in_both(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        server.reviews.state.draining = True
        answers = []
        for more in ("", ODD):
            client = await server.connect()
            client.writer.write(request(GOOD, more=more))
            answers.append(await client.answer())
            assert await client.ended()
        assert answers[0] == answers[1]
        assert b"\r\nConnection: close\r\n" in answers[0]

    run(scenario)


def test_a_stop_closes_who_waits_and_lets_a_review_that_has_begun_end(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        idle, begun, never = [await server.connect() for _ in range(3)]
        idle.writer.write(request(GOOD))
        await idle.answer()
        whole = request(GOOD)
        begun.writer.write(whole[:-10])
        never.writer.write(whole[:-10])
        await asyncio.sleep(0.05)
        server.reviews.state.draining = True
        stopping = asyncio.create_task(server.reviews.shutdown(0.5))
        assert await idle.ended()
        begun.writer.write(whole[-10:])
        assert b"\r\nConnection: close\r\n" in await begun.answer()
        assert await begun.ended()
        await stopping
        assert await never.ended()

    run(scenario)


def test_who_does_not_read_its_answers_is_not_read_from_and_stalls_nobody(server: Server) -> None:
    with (
        socket.create_connection(server.address) as plain,
        server.context().wrap_socket(plain, server_hostname=server.address[0]) as client,
    ):
        client.settimeout(1)
        sent = _send_until_it_blocks(client)
        assert server.ask(GOOD).status == 200
        # What it has asked is answered once it reads.
        client.settimeout(10)
        answered, kept = 0, b""
        while answered < sent:
            received = client.recv(1 << 20)
            assert received
            kept += received
            answered += kept.count(STATUS)
            kept = kept[-len(STATUS) + 1 :]


STATUS: Final = b"HTTP/1.1 200 OK\r\n"


def _send_until_it_blocks(client: ssl.SSLSocket) -> int:
    for sent in range(200_000):
        try:
            client.sendall(request(GOOD))
        except TimeoutError:
            return sent
    raise AssertionError("whatever it does not take is kept")
