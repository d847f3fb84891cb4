"""Every metric of the server, wrapped around decisions from outside."""

from collections import Counter as Counted
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import webhook
from certs.rotator import Rotator
from certs.serving import ServingCertificate
from webhook.facts.scanresult import ScanResult
from webhook.facts.source import FactSource
from webhook.rules import wellknown
from webhook.rules.decision import Decision
from webhook.rules.ends import End, end_state
from webhook.rules.snapshot import Request
from webhook.server.counts import ReviewCounts
from webhook.server.peers import Ended, Peers


class Metrics:
    """The counters that reviews turn, and the gauges that are read when somebody asks."""

    def __init__(
        self,
        source: FactSource,
        certificate: ServingCertificate,
        rotator: Rotator | None = None,
        spans: Callable[[], Mapping[str, int]] | None = None,
        scan: Callable[[], ScanResult | None] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._peers: dict[str, Peers] = {}
        self._reviews = ReviewCounts()
        self._registry.register(self._reviews)
        self._refused = Counter(
            "client_ip_refused_requests",
            "Requests answered without an AdmissionReview, by HTTP status.",
            ("status",),
            registry=self._registry,
        )
        self.invalid_preserve: Final = Counter(
            "client_ip_invalid_preserve_labels",
            f"Reviews of objects whose label {wellknown.PRESERVE}, or whose namespace's, has an unknown value.",
            registry=self._registry,
        )
        self._ended = Counter(
            "client_ip_ended_connections",
            "Connections that the server closed, by listener and reason.",
            ("listener", "reason"),
            registry=self._registry,
        )
        self.ready: Final = Gauge(
            "client_ip_ready", "Whether the server is ready, as reported by /readyz.", registry=self._registry
        )
        build = Gauge(
            "client_ip_build_info", "The version of the running server.", ("version",), registry=self._registry
        )
        build.labels(webhook.__version__).set(1)
        self._registry.register(_Facts(source, certificate))
        self._registry.register(_Held(self._peers))
        self._registry.register(_Waivers(source, scan))
        # The usual ones: process_…, python_gc_…, python_info.
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        if rotator is not None:
            self._registry.register(_Rotation(rotator))
        if spans is not None:
            self._registry.register(_Spans(spans))

    def reviewed(self, request: Request, decision: Decision, seconds: float) -> None:
        """Count one review that was answered."""
        self._reviews.add(
            (
                request.kind,
                request.operation,
                decision.reason,
                decision.mode,
                bool(decision.patch),
                request.dry_run,
            ),
            seconds,
        )
        if decision.invalid_preserve:
            self.invalid_preserve.inc()

    def refused(self, status: int) -> None:
        """Count one request that was answered without an AdmissionReview."""
        self._refused.labels(str(status)).inc()

    def watch(self, listener: str, budget: int) -> Peers:
        """Return the peers of a *listener*, which may hold *budget* bytes, and count what becomes of them."""
        counts = {reason: self._ended.labels(listener, reason.value).inc for reason in Ended}
        peers = Peers(budget, lambda reason: counts[reason]())
        self._peers[listener] = peers
        return peers

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Facts(Collector):
    """Gauges of the facts in use, read when somebody asks."""

    def __init__(self, source: FactSource, certificate: ServingCertificate) -> None:
        self._source = source
        self._certificate = certificate

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges as they stand."""
        snapshot = self._source.snapshot
        supported = snapshot.nodes.supported.bit_count()
        order = {injector.configuration: not injector.comes_first for injector in snapshot.mesh.injectors}
        return [
            _gauge(
                "client_ip_nodes",
                "Nodes by whether they support TPROXY.",
                "tproxy",
                {"supported": supported, "unsupported": len(snapshot.nodes) - supported},
            ),
            _gauge(
                "client_ip_cache_age_seconds",
                "Seconds since each kind of object was last known to be current.",
                "kind",
                self._source.ages(),
            ),
            _gauge(
                "client_ip_cache_missing",
                "Kinds of objects that are not synced yet. The server is ready when all are.",
                "kind",
                dict.fromkeys(self._source.missing(), 1),
            ),
            _gauge(
                "client_ip_policy_errors",
                "Stored policies that cannot be used.",
                "policy",
                dict.fromkeys(self._source.policy_errors, 1),
            ),
            *_registered(self._source.registered),
            _gauge(
                "client_ip_webhook_order_ok",
                f"Whether {wellknown.CONFIGURATION} is called before each sidecar injector's configuration.",
                "injector",
                {name: int(kept) for name, kept in order.items()},
            ),
            _gauge(
                "client_ip_certificate_expiry_timestamp_seconds",
                "When the serving certificate expires, in Unix time.",
                "fingerprint",
                _expiry(self._certificate),
            ),
        ]


def _registered(known: bool | None) -> list[GaugeMetricFamily]:  # noqa: FBT001
    if known is None:
        return []
    text = f"Whether {wellknown.CONFIGURATION}exists, so that the API server calls the webhook."
    return [GaugeMetricFamily("client_ip_webhook_registered", text, value=int(known))]


class _Held(Collector):
    """What peers hold, of what they may."""

    def __init__(self, peers: Mapping[str, Peers]) -> None:
        self._peers = peers

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges as they stand."""
        open_now = GaugeMetricFamily("client_ip_connections", "Open connections.", labels=("listener", "state"))
        for listener, peers in self._peers.items():
            for state, number in peers.states().items():
                open_now.add_metric((listener, state), number)
        held = {listener: peers.held for listener, peers in self._peers.items()}
        budgets = {listener: peers.budget for listener, peers in self._peers.items()}
        return [
            open_now,
            _gauge("client_ip_peers_held_bytes", "Memory that peers use, as counted by the server.", "listener", held),
            _gauge("client_ip_peers_budget_bytes", "Memory that peers may use.", "listener", budgets),
        ]


NAMED_NAMESPACES: Final = 100
"""Namespaces whose opt-out has ended that are named at most: who owns one may write its annotations."""


class _Waivers(Collector):
    """What ends: policies' exceptions, and opt-outs of whole namespaces; and what the last scan says of them."""

    def __init__(self, source: FactSource, scan: Callable[[], ScanResult | None] | None) -> None:
        self._source = source
        self._scan = scan

    def collect(self) -> list[GaugeMetricFamily]:
        """Return how many there are by where they stand now."""
        now, snapshot = datetime.now(UTC), self._source.snapshot
        scanned = None if self._scan is None else self._scan()
        exceptions = GaugeMetricFamily(
            "client_ip_exceptions",
            "Exceptions of each policy: live, ending within 7 days, ended, or unused in the last scan.",
            labels=("policy", "state"),
        )
        for policy in snapshot.policies.ordered:
            if policy.exceptions:
                for state, number in _states((each.expires for each in policy.exceptions), now).items():
                    exceptions.add_metric((policy.name, state), number)
                if scanned is not None:
                    # By a policy that is there, whatever the scan's ConfigMap names.
                    exceptions.add_metric((policy.name, "unused"), scanned.unused_exceptions.get(policy.name, 0))
        ends = {name: out.until for name, out in snapshot.opt_outs.items() if out.until is not None}
        ended = sorted((until, name) for name, until in ends.items() if end_state(until, now=now) is End.ENDED)
        return [
            exceptions,
            *([] if self._scan is None else _scan_metrics(scanned)),
            _gauge(
                "client_ip_namespace_opt_outs",
                "Namespaces whose label is audit or disabled until an end, by state.",
                "state",
                _states(ends.values(), now),
            ),
            _gauge(
                "client_ip_namespace_opt_out_ended_timestamp_seconds",
                f"Since when a namespace's opt-out has ended, in Unix time: the first {NAMED_NAMESPACES}.",
                "namespace",
                {name: until.timestamp() for until, name in ended[:NAMED_NAMESPACES]},
            ),
        ]


def _scan_metrics(result: ScanResult | None) -> list[GaugeMetricFamily]:
    return [
        GaugeMetricFamily(
            "client_ip_scan_last_success_timestamp_seconds",
            "When the last complete scan ended, in Unix time; 0 if there was none.",
            value=0 if result is None else result.time.timestamp(),
        ),
        _gauge(
            "client_ip_scan_workloads",
            "Workloads and gateways of the last scan, by advice.",
            "state",
            {} if result is None else result.states,
        ),
    ]


def _states(ends: Iterable[datetime], now: datetime) -> dict[str, float]:
    counts = Counted(str(end_state(end, now=now)) for end in ends)
    return {str(state): counts[str(state)] for state in End}


class _Rotation(Collector):
    """What the certificates' reconciler saw and did."""

    def __init__(self, rotator: Rotator) -> None:
        self._rotator = rotator

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """Return its last pass in numbers."""
        status = self._rotator.status
        counts = CounterMetricFamily(
            "client_ip_certificate_actions",
            "Actions on the certificates since the start.",
            labels=("action",),
        )
        for action, number in status.counts.items():
            counts.add_metric((action,), number)
        moments = {
            "ca": status.ca_not_after,
            "leaf": status.leaf_not_after,
            "leaf-issued": status.leaf_not_before,
            "last-pass": status.passed_at,
        }
        return [
            counts,
            _gauge(
                "client_ip_certificate_timestamp_seconds",
                "Unix times: expiry of the stored CA and leaf, issue of the leaf, last successful check.",
                "of",
                {name: moment.timestamp() for name, moment in moments.items() if moment is not None},
            ),
            GaugeMetricFamily(
                "client_ip_certificate_trusted",
                "Whether every webhook configuration of this Service trusts the served certificate.",
                value=int(status.trusted),
            ),
            GaugeMetricFamily(
                "client_ip_certificate_authorities",
                "Certificate authorities in the bundle: more than one during a rotation.",
                value=status.authorities,
            ),
        ]


class _Spans(Collector):
    """What became of the reviews that their caller samples."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> list[CounterMetricFamily]:
        """Return how many came to what."""
        spans = CounterMetricFamily(
            "client_ip_trace_spans",
            "Reviews that their caller samples: exported, failed, dropped because too many waited, or over the limit.",
            labels=("outcome",),
        )
        for outcome, number in self._counts().items():
            spans.add_metric((outcome,), number)
        return [spans]


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _expiry(certificate: ServingCertificate) -> dict[str, float]:
    pair = certificate.pair
    return {} if pair is None else {pair.fingerprint[:16]: pair.not_after.timestamp()}
