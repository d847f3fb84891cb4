"""
The two aiohttp servers in this process, by pytest-aiohttp: probes and metrics, and what answers behind the fast path.

Real TLS sockets and a process of its own are in the files beside this one.
"""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient
from aiohttp.web_runner import BaseRunner
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from certs.kube import UnavailableError
from certs.rotator import Rotator
from certs.serving import ServingCertificate
from tests.serve.server import POD, review
from tests.unit.certs.replicas import World
from webhook.facts.collect import Collector
from webhook.rules.snapshot import Snapshot
from webhook.server.connection import Connection
from webhook.server.edge import BODY_LIMIT, State, probe_server, webhook_server
from webhook.server.handed import Handed, HandedServer
from webhook.server.listener import Listener
from webhook.server.metrics import Metrics
from webhook.server.peers import Peers, Source
from webhook.server.review import decode_response
from webhook.server.tls import self_signed

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
REVIEW: Final = json.dumps(review(POD)).encode()
JSON: Final = {"Content-Type": "application/json"}
Client = TestClient[web.BaseRequest, None]


class Listening(BaseTestServer):
    """One of our servers behind our listener, for pytest-aiohttp's client."""

    def __init__(self, server: HandedServer, peers: Peers) -> None:
        super().__init__(scheme="http")
        self._server = server
        self._listener = Listener(peers=peers, make=self._make)
        self._peers = peers

    def _make(self, source: Source) -> tuple[Connection, asyncio.Protocol]:
        connection = Connection(self._peers, source)
        return connection, Handed(self._server, connection)

    async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **_options: Any) -> None:
        assert loop is None or loop is asyncio.get_running_loop()
        name = await self._listener.listen("127.0.0.1", 0)
        self.port = int(str(name[1]))
        self._root = URL(f"http://127.0.0.1:{self.port}")

    async def close(self) -> None:
        self._listener.close()
        await self._server.shutdown(1.0)

    async def _make_runner(self, **_options: Any) -> BaseRunner:
        raise NotImplementedError


@dataclass
class Facts:
    """Facts that a test changes at will; a FactSource."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    unsynced: list[str] = field(default_factory=list)
    policy_errors: Mapping[str, str] = field(default_factory=dict)
    registered: bool | None = True

    def missing(self) -> Sequence[str]:
        return self.unsynced

    def ages(self) -> Mapping[str, float]:
        return {"nodes": 3.5}

    async def run(self) -> None:
        """Nothing changes by itself."""


class FaultError(Exception):
    """A bug, for the tests."""


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def state(facts: Facts) -> State:
    certificate = self_signed(["127.0.0.1"], None)
    # All that there may be to tell: with traces, and with a scan that has not come yet.
    metrics = Metrics(facts, certificate, spans=lambda: {"exported": 0}, scan=lambda: None)
    return State(facts, certificate, metrics)


@pytest.fixture
async def probes(state: State, aiohttp_client: AiohttpClient) -> Client:
    peers = state.metrics.watch("probes", 16 << 20)
    return await aiohttp_client(Listening(probe_server(state, peers), peers))


@pytest.fixture
async def fallback(state: State, aiohttp_client: AiohttpClient) -> Client:
    """What answers the requests that the fast path leaves alone."""
    peers = state.metrics.watch("reviews", 64 << 20)
    return await aiohttp_client(Listening(webhook_server(state, peers), peers))


async def ready(client: Client) -> tuple[int, list[str]]:
    answer = await client.get("/readyz")
    return answer.status, (await answer.text()).splitlines()


async def metric(client: Client) -> dict[str, float]:
    """Return the samples by name and labels."""
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = (await answer.text()).splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    }


# --- Alive and ready


async def test_it_is_alive_whatever_else(probes: Client, facts: Facts, state: State) -> None:
    facts.unsynced = ["nodes"]
    state.draining = True
    answer = await probes.get("/healthz")
    assert (answer.status, await answer.text()) == (200, "ok\n")


async def test_ready_names_the_certificate(probes: Client, state: State) -> None:
    status, lines = await ready(probes)
    pair = state.certificate.pair
    assert pair is not None
    assert (status, lines) == (200, ["ok", f"certificate {pair.fingerprint[:16]} until {pair.not_after.isoformat()}"])
    assert (await metric(probes))["client_ip_ready"] == 1


@pytest.mark.parametrize("kind", ["nodes", "namespaces", "mutatingwebhookconfigurations"])
async def test_it_is_not_ready_until_all_is_synced(probes: Client, facts: Facts, kind: str) -> None:
    facts.unsynced = [kind]
    assert await ready(probes) == (503, [f"not synced: {kind}"])
    found = await metric(probes)
    assert found["client_ip_ready"] == 0
    assert found[f'client_ip_cache_missing{{kind="{kind}"}}'] == 1
    facts.unsynced = []
    assert (await ready(probes))[0] == 200


@pytest.mark.parametrize("days", [-1, 4000])
async def test_it_is_not_ready_outside_its_certificates_life(probes: Client, state: State, days: int) -> None:
    moment = state.now() + timedelta(days=days)
    state.now = lambda: moment
    assert await ready(probes) == (503, ["the serving certificate is not valid now"])


async def test_it_is_not_ready_without_a_certificate(facts: Facts, aiohttp_client: AiohttpClient) -> None:
    certificate = ServingCertificate()
    state = State(facts, certificate, Metrics(facts, certificate))
    peers = state.metrics.watch("probes", 16 << 20)
    client: Client = await aiohttp_client(Listening(probe_server(state, peers), peers))
    assert await ready(client) == (503, ["the serving certificate is not valid now"])


async def test_it_is_not_ready_while_it_shuts_down(probes: Client, state: State, facts: Facts) -> None:
    state.draining = True
    assert await ready(probes) == (503, ["shutting down"])
    facts.unsynced = ["nodes"]
    assert await ready(probes) == (503, ["shutting down", "not synced: nodes"])


@pytest.fixture
async def rotating(facts: Facts, aiohttp_client: AiohttpClient) -> tuple[Client, World, Rotator]:
    """Probes of a server that keeps its certificate in a Secret."""
    world = World(1)
    rotator = world.replicas[0].rotator
    certificate = world.replicas[0].serving
    state = State(facts, certificate, Metrics(facts, certificate, rotator), rotator=rotator)
    peers = state.metrics.watch("probes", 16 << 20)
    return await aiohttp_client(Listening(probe_server(state, peers), peers)), world, rotator


async def test_it_is_not_ready_until_its_certificate_is_trusted(rotating: tuple[Client, World, Rotator]) -> None:
    client, world, rotator = rotating
    beginning = "the certificate is not yet served and trusted: "
    assert await ready(client) == (503, [f"{beginning}the first check has not finished yet"])
    world.cluster.refusals["get secret"] = UnavailableError("503: overloaded")
    running = asyncio.create_task(rotator.run())
    try:
        async with asyncio.timeout(10):
            while not rotator.status.error:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert await ready(client) == (503, [f"{beginning}UnavailableError: 503: overloaded"])
    world.cluster.refusals.clear()
    await world.rounds(2)
    assert (await ready(client))[0] == 200


async def test_the_rotations_metrics_are_the_rotators(rotating: tuple[Client, World, Rotator]) -> None:
    client, world, rotator = rotating
    assert (await metric(client))["client_ip_certificate_trusted"] == 0
    await world.rounds(2)
    found, status = await metric(client), rotator.status
    assert found["client_ip_certificate_trusted"] == 1
    assert found["client_ip_certificate_authorities"] == status.authorities == 1
    moments = {"ca": status.ca_not_after, "leaf": status.leaf_not_after, "leaf-issued": status.leaf_not_before}
    for of, moment in {**moments, "last-pass": status.passed_at}.items():
        assert moment is not None
        assert found[f'client_ip_certificate_timestamp_seconds{{of="{of}"}}'] == moment.timestamp()
    assert {
        name[name.index('"') + 1 : -2]: number
        for name, number in found.items()
        if name.startswith("client_ip_certificate_actions_total")
    } == status.counts


# --- What the probes' port answers beside


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/mutate", 404), ("POST", "/metrics", 405), ("DELETE", "/readyz", 405)],
)
async def test_other_requests_are_refused(probes: Client, method: str, path: str, status: int) -> None:
    answer = await probes.request(method, path)
    assert answer.status == status


async def test_head_is_get_without_a_body(probes: Client) -> None:
    answer = await probes.head("/readyz")
    assert (answer.status, await answer.read()) == (200, b"")


# --- Metrics


async def test_each_metric_of_the_facts_is_told(probes: Client, facts: Facts, state: State) -> None:
    collector = Collector()
    for name, image in (("a", "Ubuntu 24.04"), ("b", "Ubuntu 24.04"), ("c", "CentOS Linux 7 (Core)")):
        info = {"osImage": image, "kernelVersion": "6.8.0", "operatingSystem": "linux"}
        collector.put("v1", "Node", {"metadata": {"name": name}, "status": {"nodeInfo": info}})
    for injector in ("istio-sidecar-injector", "a-sidecar-injector"):
        rules = [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
        metadata = {"name": injector, "labels": {"app": "sidecar-injector"}}
        document = {"metadata": metadata, "webhooks": [{"name": "x.sidecar-injector.istio.io", "rules": rules}]}
        collector.put("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", document)
    ends = {"live": 30, "ending": 3, "ended": -3}
    exceptions = [
        {
            "name": name,
            "owner": "o",
            "reason": "r",
            "selector": {},
            "expires": (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for name, days in ends.items()
    ]
    policy = {"mode": "Enforce", "exceptions": exceptions}
    kind = "ClientIPPolicy"
    document = {"apiVersion": "client-ip.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}, "spec": policy}
    collector.put("client-ip.dev/v1alpha1", kind, document)
    facts.snapshot = collector.snapshot()
    facts.policy_errors = {"bad": "spec.mode: required"}
    found = await metric(probes)
    assert found['client_ip_nodes{tproxy="supported"}'] == 2
    assert found['client_ip_nodes{tproxy="unsupported"}'] == 1
    assert found['client_ip_cache_age_seconds{kind="nodes"}'] == 3.5
    assert found['client_ip_policy_errors{policy="bad"}'] == 1
    assert found['client_ip_webhook_order_ok{injector="istio-sidecar-injector"}'] == 1
    assert found['client_ip_webhook_order_ok{injector="a-sidecar-injector"}'] == 0
    pair = state.certificate.pair
    assert pair is not None
    name = f'client_ip_certificate_expiry_timestamp_seconds{{fingerprint="{pair.fingerprint[:16]}"}}'
    assert found[name] == pair.not_after.timestamp()
    assert sum(number for name, number in found.items() if name.startswith('client_ip_exceptions{policy="p"')) == 3
    assert sum(number for name, number in found.items() if name.startswith("client_ip_build_info{version=")) == 1
    assert found['client_ip_peers_budget_bytes{listener="probes"}'] == 16 << 20
    assert found['client_ip_peers_held_bytes{listener="probes"}'] > 0
    assert sum(number for name, number in found.items() if name.startswith("client_ip_connections{")) >= 1
    assert "process_resident_memory_bytes" in found
    assert any(name.startswith("python_gc_collections_total") for name in found)
    assert any(name.startswith("python_info") for name in found)


NAMES: Final = re.compile(r'"(client_ip_[a-z_]+)"')


async def test_every_metric_that_there_is_is_told(probes: Client, rotating: tuple[Client, World, Rotator]) -> None:
    """Whatever `metrics` defines: its family is there, with a help text and a type."""
    source = (Path(__file__).parents[2] / "webhook" / "server" / "metrics.py").read_text()
    texts = await (await probes.get("/metrics")).text() + await (await rotating[0].get("/metrics")).text()
    for name in set(NAMES.findall(source)):
        assert re.search(rf"^# HELP {name}(_total)? \S", texts, re.MULTILINE), name
        assert re.search(rf"^# TYPE {name}(_total)? (counter|gauge|histogram)$", texts, re.MULTILINE), name


# --- Behind the fast path


async def test_a_review_is_answered_and_counted(fallback: Client, probes: Client) -> None:
    answer = await fallback.post("/mutate?timeout=2s", data=REVIEW, headers=JSON)
    assert (answer.status, answer.content_type) == (200, "application/json")
    response = decode_response(await answer.read())
    assert response["allowed"] is True
    assert response["auditAnnotations"]["reason"] == "namespace-unknown"
    found = await metric(probes)
    labels = 'dry_run="false",kind="Pod",mode="enforce",operation="CREATE",patched="false",reason="namespace-unknown"'
    assert found[f"client_ip_reviews_total{{{labels}}}"] == 1
    assert found["client_ip_review_duration_seconds_count"] == 1


async def test_an_invalid_label_is_counted(fallback: Client, probes: Client, facts: Facts) -> None:
    collector = Collector()
    document = {"metadata": {"name": "shop", "labels": {"client-ip.dev/preserve": "maybe"}}}
    collector.put("v1", "Namespace", document)
    facts.snapshot = collector.snapshot()
    await fallback.post("/mutate", data=json.dumps(review(POD, namespace="shop")), headers=JSON)
    assert (await metric(probes))["client_ip_invalid_preserve_labels_total"] == 1


OTHER: Final = b'{"apiVersion": "x", "kind": "AdmissionReview", "request": {"uid": "1"}}'
REFUSED: Final[dict[str, tuple[str, str, bytes, dict[str, str], int, str]]] = {
    "another path": ("POST", "/validate", REVIEW, JSON, 404, "/mutate"),
    "another method": ("GET", "/mutate", b"", {}, 405, "POST"),
    "another type": ("POST", "/mutate", REVIEW, {"Content-Type": "text/plain"}, 415, "application/json"),
    "no type": ("POST", "/mutate", REVIEW, {"Content-Type": ""}, 415, "application/json"),
    "compressed": ("POST", "/mutate", REVIEW, {**JSON, "Content-Encoding": "gzip"}, 415, "Content-Encoding"),
    "no JSON": ("POST", "/mutate", b"{", JSON, 400, "truncated"),
    "another version": ("POST", "/mutate", OTHER, JSON, 400, "v1"),
    "nothing": ("POST", "/mutate", b"", JSON, 400, "truncated"),
    "too large": ("POST", "/mutate", b" " * (BODY_LIMIT + 1), JSON, 413, str(BODY_LIMIT)),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_bad_request_gets_a_status_and_no_review(fallback: Client, probes: Client, what: str) -> None:
    method, path, body, headers, status, said = REFUSED[what]
    answer = await fallback.request(method, path, data=io.BytesIO(body), headers=headers)
    assert answer.status == status
    assert answer.content_type == "text/plain"
    assert said in await answer.text()
    assert (await metric(probes))[f'client_ip_refused_requests_total{{status="{status}"}}'] == 1


async def test_a_body_that_does_not_come_in_time_is_refused(fallback: Client) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield REVIEW[:10]
        await asyncio.sleep(5)
        yield REVIEW[10:]

    answer = await fallback.post("/mutate?timeout=300ms", data=slowly(), headers=JSON)
    assert answer.status == 408


async def test_a_bug_is_a_500_and_the_next_request_works(fallback: Client, state: State) -> None:
    def fails() -> datetime:
        raise FaultError

    right, state.now = state.now, fails
    answer = await fallback.post("/mutate", data=REVIEW, headers=JSON)
    assert (answer.status, await answer.text()) == (500, "internal error; see the server's log\n")
    state.now = right
    assert (await fallback.post("/mutate", data=REVIEW, headers=JSON)).status == 200


async def test_while_it_drains_connections_go_elsewhere(fallback: Client, state: State) -> None:
    state.draining = True
    answer = await fallback.post("/mutate", data=REVIEW, headers=JSON)
    assert (answer.status, answer.headers["Connection"]) == (200, "close")


async def test_where_there_is_no_memory_left_it_says_when(state: State, aiohttp_client: AiohttpClient) -> None:
    peers = state.metrics.watch("reviews", 1 << 20)
    client: Client = await aiohttp_client(Listening(webhook_server(state, peers), peers))
    answer = await client.post("/mutate", data=io.BytesIO(b" " * (2 << 20)), headers=JSON)
    assert (answer.status, answer.headers["Connection"]) == (503, "close")
    assert (await client.post("/mutate", data=REVIEW, headers=JSON)).status == 200
