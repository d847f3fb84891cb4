"""What a peer may hold and for how long: each limit, beside a caller who never notices."""

import asyncio
import gc
import gzip
import json
import logging
import resource
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.flood.peer import REVIEW, head
from tests.serve.server import POD, review
from tests.serve.test_wire import Client, Serving, request, serving
from webhook.server.peers import HANDSHAKE_BYTES, OPEN_BYTES, Ended

SECONDS = 60.0
SMALL = 4 << 20
Run = Callable[[Callable[[Serving], Awaitable[None]], int], None]


@pytest.fixture
def run(tmp_path: Path, cluster: str) -> Run:
    """Run a scenario against a server whose peers may hold so much."""

    def start(scenario: Callable[[Serving], Awaitable[None]], budget: int = 96 << 20) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(SECONDS), serving(tmp_path, cluster, budget=budget) as server:
                await scenario(server)

        uvloop.run(bounded())

    return start


def ended(server: Serving, reason: Ended) -> float:
    """Return how many connections were ended for *reason*."""
    wanted = f'client_ip_ended_connections_total{{listener="reviews",reason="{reason.value}"}} '
    text = server.reviews.state.metrics.render().decode()
    return next(float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted))


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110  # the scenario's own bound ends it
        await asyncio.sleep(0.01)


async def is_answered(server: Serving) -> None:
    assert (await server.ask(request(REVIEW))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("more", ["", "X-Odd: 1\r\n"], ids=["the fast path", "aiohttp"])
@pytest.mark.slow
def test_bodies_that_never_end_hold_no_more_than_the_budget(run: Run, more: str) -> None:
    async def scenario(server: Serving) -> None:
        peers = server.reviews.peers
        clients = []
        for _ in range(30):
            client = await server.connect()
            client.writer.write(head(1 << 20, more=more) + b" " * 1000)
            clients.append(client)
            await is_answered(server)
            assert peers.held <= SMALL
        # Bodies of one address wait for each other a while; then they are ended, or are too late.
        refused = [server.reviews.state.metrics._refused.labels(status)._value for status in ("503", "408")]
        await until(lambda: ended(server, Ended.MEMORY) + sum(each.get() for each in refused) > 10)
        for client in clients:
            client.close()
        await until(lambda: peers.held == 0)

    run(scenario, SMALL)


@pytest.mark.slow
def test_connections_that_never_ask_make_room_for_those_that_do(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        peers = server.reviews.peers
        kept = await server.connect()
        kept.writer.write(request(REVIEW))
        await kept.answer()
        idle: list[Client] = []
        for number in range(SMALL // OPEN_BYTES + 50):
            try:
                idle.append(await server.connect())
            except OSError:
                await asyncio.sleep(0.05)  # refused, since all others are younger than half a second: they grow older
            assert peers.held <= SMALL
            if number % 10 == 0:
                await asyncio.sleep(0.6)  # what is younger than half a second goes for nobody of its own address
                await is_answered(server)
        assert ended(server, Ended.MEMORY) > 0
        kept.writer.write(request(REVIEW))
        assert (await kept.answer()).startswith(b"HTTP/1.1 200 ")
        for each in [*idle, kept]:
            each.close()

    run(scenario, SMALL)


def test_a_handshake_a_head_and_a_first_request_have_their_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is short only while the client does nothing: on a busy machine a handshake of its own takes a while."""
    monkeypatch.setattr("webhook.server.handed.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("webhook.server.handed.IDLE_SECONDS", 0.3)

    async def scenario(server: Serving) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("webhook.server.wire.FIRST_SECONDS", 0.3)
            never = await server.connect()
            assert await never.ended()
        assert ended(server, Ended.NEVER_ASKED) == 1
        late = await server.connect()
        late.writer.write(b"P")
        assert await late.ended()
        assert ended(server, Ended.HEAD_LATE) == 1
        # The second head on a connection has no more time than the first.
        second = await server.connect()
        second.writer.write(request(REVIEW, more="X-Odd: 1\r\n") + b"POST /mu")
        await second.answer()
        assert await second.ended()
        monkeypatch.setattr("webhook.server.listener.HANDSHAKE_SECONDS", 0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01\x02\x00")
        assert await reader.read() == b""
        writer.transport.abort()
        assert ended(server, Ended.HANDSHAKE_LATE) == 1
        assert server.reviews.peers.held == 0

    run(scenario, SMALL)


def test_a_body_that_is_too_late_is_let_go_at_once(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        peers = server.reviews.peers
        client = await server.connect()
        client.writer.write(head(2 << 20, timeout="500ms") + b" " * (1 << 20))
        await until(lambda: peers.held > 2 << 20)
        assert (await client.answer()).startswith(b"HTTP/1.1 408 ")
        assert peers.held < 1 << 20
        assert ended(server, Ended.BODY_LATE) == 1
        await until(lambda: peers.held == 0)

    run(scenario, SMALL)


def test_who_does_not_read_its_answers_is_let_go_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.server.connection.ANSWERS_SECONDS", 0.5)

    async def scenario(server: Serving) -> None:
        client = await server.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def ask() -> None:
            while True:
                client.writer.write(request(REVIEW) * 20)
                await client.writer.drain()

        asking = asyncio.create_task(ask())
        await until(lambda: ended(server, Ended.ANSWERS_UNREAD) == 1)
        await is_answered(server)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        client.close()
        await until(lambda: server.reviews.peers.held == 0)

    run(scenario, SMALL)


def test_large_bodies_wait_for_room_and_are_all_answered(run: Run) -> None:
    large = json.dumps(review({**POD, "metadata": {"name": "a", "annotations": {"x": "y" * (1 << 20)}}})).encode()

    async def scenario(server: Serving) -> None:
        answers = await asyncio.gather(*(server.ask(request(large, timeout="30s")) for _ in range(12)))
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 12
        assert server.by_aiohttp == 0

    run(scenario, 4 * SMALL)


@pytest.mark.parametrize("step", [1, 2, 4_095, 4_097])
def test_a_body_in_whatever_pieces_takes_no_more_than_is_counted(run: Run, step: int) -> None:
    """Each write is a TLS record of its own."""
    size = min(1 << 20, 60_000 * step)
    body = json.dumps(review({**POD, "metadata": {"name": "a", "annotations": {"x": "y" * size}}})).encode()

    async def scenario(server: Serving) -> None:
        client = await server.connect()
        client.writer.write(head(len(body), timeout="30s"))
        for at in range(0, len(body) - 1, step):
            client.writer.write(body[at : min(at + step, len(body) - 1)])
            if at % (step * 1_000) == 0:
                await client.writer.drain()
                await asyncio.sleep(0)  # which draining is not, where there is room
        await until(lambda: bool(server.reviews.connections))
        [connection] = server.reviews.connections
        await until(lambda: connection._missing == 1)
        assert sum(map(sys.getsizeof, connection._chunks)) < 1.2 * len(body)
        assert sys.getsizeof(connection._chunks) < 10_000
        client.writer.write(body[-1:])
        assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
        client.close()

    run(scenario, 96 << 20)


def test_a_large_body_leaves_nothing_behind(run: Run) -> None:
    """Neither counted, nor where it is not counted: `tracemalloc` sees what Python holds of 50 such connections."""
    large = json.dumps(review({**POD, "metadata": {"name": "a", "annotations": {"x": "y" * (1 << 20)}}})).encode()

    async def scenario(server: Serving) -> None:
        clients = [await server.connect() for _ in range(50)]
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for client in clients:
                client.writer.write(request(large))
                assert (await client.answer()).startswith(b"HTTP/1.1 200 ")
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert server.reviews.peers.held == len(clients) * OPEN_BYTES
        assert after - before < len(clients) * OPEN_BYTES
        for client in clients:
            client.close()

    run(scenario, 96 << 20)


@pytest.mark.parametrize(
    "encodings", [("gzip",), ("deflate",), ("identity", "gzip"), ("br",), ("identity, gzip",)], ids=str
)
def test_a_compressed_body_is_refused_unread(run: Run, encodings: tuple[str, ...]) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    more = "".join(f"Content-Encoding: {encoding}\r\n" for encoding in encodings)

    async def scenario(server: Serving) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answers = await asyncio.gather(*(server.ask(request(bomb, more=more)) for _ in range(8)))
        assert [answer[:13] for answer in answers] == [b"HTTP/1.1 415 "] * 8
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB; one alone inflates to 64

    run(scenario, 96 << 20)


def test_what_is_no_http_costs_a_counter_and_no_line(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: Serving) -> None:
        for sent in (b"GARBAGE\r\n\r\n", b"x" * 9000 + b"\r\n\r\n", b"POST /mutate HTTP/1.1\r\nBad Header\r\n\r\n"):
            client = await server.connect()
            client.writer.write(sent)
            assert (await client.reader.read()).startswith(b"HTTP/1.")
        for _ in range(3):
            client = await server.connect()
            before = server.by_aiohttp
            client.writer.write(head(100, more="X-Odd: 1\r\n") + b"{")
            await until(lambda before=before: server.by_aiohttp > before)  # type: ignore[misc]
            client.close()
        await until(lambda: ended(server, Ended.LEFT) == 3)
        assert ended(server, Ended.MALFORMED) == 3

    with caplog.at_level(logging.DEBUG):
        run(scenario, SMALL)
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


@pytest.mark.parametrize("hosts", [0, 2], ids=["no Host", "two"])
def test_a_request_has_exactly_one_host(run: Run, hosts: int) -> None:
    sent = head(len(REVIEW)).replace(b"Host: a\r\n", b"Host: a\r\n" * hosts) + REVIEW

    async def scenario(server: Serving) -> None:
        assert b" 400 Bad Request\r\n" in await server.ask(sent)
        assert server.by_aiohttp == 1

    run(scenario, SMALL)


def test_who_asks_without_waiting_takes_turns_with_others(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        flood = [await server.connect() for _ in range(20)]
        other = await server.connect()
        many = request(REVIEW) * 100
        for each in flood:
            each.writer.write(many)
        await asyncio.sleep(0)  # the server's turn: the flood is to be there before the other asks
        counted = server.reviews.state.metrics._registry.get_sample_value
        other.writer.write(request(REVIEW))
        await other.answer()
        assert (counted("client_ip_review_duration_seconds_count") or 0) < 20 * 100
        for each in flood:
            for _ in range(100):
                assert (await each.answer()).startswith(b"HTTP/1.1 200 ")
            each.close()
        other.close()

    run(scenario, 96 << 20)


def test_what_is_pipelined_to_aiohttp_lets_others_in_between(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)  # one turn of the loop, which is what is counted

        client = await server.connect()
        turning = asyncio.create_task(turn())
        client.writer.write(b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n" * 300)
        for _ in range(300):
            assert (await client.answer()).startswith(b"HTTP/1.1 404 ")
        turning.cancel()
        assert turns > 300
        client.close()

    run(scenario, 96 << 20)


def test_the_holdings_are_metrics(run: Run) -> None:
    async def scenario(server: Serving) -> None:
        client = await server.connect()
        client.writer.write(request(REVIEW))
        await client.answer()
        value = server.reviews.state.metrics._registry.get_sample_value
        assert value("client_ip_connections", {"listener": "reviews", "state": "open"}) == 1
        assert value("client_ip_connections", {"listener": "reviews", "state": "unfinished"}) == 0
        assert value("client_ip_peers_held_bytes", {"listener": "reviews"}) == OPEN_BYTES
        assert value("client_ip_peers_budget_bytes", {"listener": "reviews"}) == SMALL
        client.close()

    assert HANDSHAKE_BYTES > OPEN_BYTES
    run(scenario, SMALL)
