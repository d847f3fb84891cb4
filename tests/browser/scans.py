"""Scans to look at: one of everything that a report can say, of any size; and one that is all attack."""

from datetime import UTC, datetime, timedelta
from typing import Final

from webhook.rules.decision import Mode, Outcome, Reason
from webhook.running.findings import (
    Change,
    ExceptionState,
    ExceptionUse,
    Gateway,
    Named,
    Pods,
    Row,
    Scan,
    Scope,
    count,
    fingerprint,
    ordered,
    sentence,
)
from webhook.running.restart import restart_command
from webhook.running.verdicts import Advice, Verdict, Waiver

NOW: Final = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)
_NAMES: Final = ("checkout", "cart", "ledger", "search", "payments", "mail", "stock", "reviews", "ratings", "login")
_TEAMS: Final = ("team-shop@example.com", "team-pay", "platform", "")
_KINDS: Final = ("Deployment", "Deployment", "Deployment", "StatefulSet", "DaemonSet", "CronJob")
_TPROXY: Final = Verdict(outcome=Outcome.PRESERVED, reason=Reason.TPROXY, cause="all feasible nodes support TPROXY")
_REDIRECT: Final = Verdict(outcome=Outcome.LOST, reason=Reason.ALREADY_INJECTED, cause="interception mode REDIRECT")
_MIXED: Final = Verdict(
    outcome=Outcome.LOST,
    reason=Reason.MIXED_NODES,
    cause="2 of 7 feasible nodes do not support TPROXY, for example node-3 (CentOS Linux 7 (Core); rule centos)",
)
_SECURITY: Final = Verdict(
    outcome=Outcome.LOST,
    reason=Reason.POD_SECURITY,
    cause="namespace label pod-security.kubernetes.io/enforce=restricted",
)
_HEADER: Final = Verdict(outcome=Outcome.HEADER, reason=Reason.X_FORWARDED_FOR, cause="label x-forwarded-for")
_WAIVED: Final = Verdict(outcome=Outcome.WAIVED, reason=Reason.EXCEPTED, cause="exception ledger")
_OUT: Final = Verdict(outcome=Outcome.NOT_ASKED, reason=Reason.OPTED_OUT, cause="label client-ip.dev/preserve=disabled")
_SHAPES: Final = (
    (Advice.RESTART, _REDIRECT, _TPROXY),
    (Advice.CHANGE, _REDIRECT, _MIXED),
    (Advice.CHANGE, _REDIRECT, _SECURITY),
    (Advice.AT_RISK, _TPROXY, _MIXED),
    (Advice.HEADER, _HEADER, _HEADER),
    (Advice.EXCEPTED, _REDIRECT, _WAIVED),
    (Advice.RESTART, _REDIRECT, _TPROXY),
    (Advice.OPTED_OUT, _REDIRECT, _OUT),
)


def waiver(days: int) -> Waiver:
    """Return an exception that ends in *days*."""
    expires = NOW + timedelta(days=days)
    return Waiver(
        policy="default", name="ledger", owner="team-pay", reason="reads PROXY", ticket="SEC-1423", expires=expires
    )


def row(number: int) -> Row:
    """Return the row of that number: all shapes take turns."""
    advice, now, after = _SHAPES[number % len(_SHAPES)]
    kind = _KINDS[number % len(_KINDS)]
    namespace, name = f"shop-{number % 40}", f"{_NAMES[number % len(_NAMES)]}-{number}"
    reason = now.reason if advice is Advice.RESTART else after.reason
    restarted = advice is Advice.RESTART
    return Row(
        fingerprint=fingerprint(namespace, kind, name, reason),
        namespace=namespace,
        kind=kind,
        name=name,
        advice=advice,
        reason=reason,
        mode=Mode.ENFORCE,
        policy="default",
        owner=_TEAMS[number % len(_TEAMS)],
        now=now,
        after=after,
        pods=Pods(all=number % 7 + 1, lost=number % 7 + 1 if now.outcome is Outcome.LOST else 0),
        since=NOW - timedelta(days=number % 60),
        change=(Change.NEW, Change.UNCHANGED, None)[number % 3],
        restart=restart_command(kind, namespace, name) if restarted else "",
        exception=waiver(number % 90 + 3) if advice is Advice.EXCEPTED else None,
        disagreeing=Named(count=2, names=[f"{name}-a (annotation TPROXY, proxy REDIRECT)"]) if number == 6 else None,
    )


def gateway() -> Row:
    """Return a gateway's row."""
    local = Verdict(outcome=Outcome.PRESERVED, reason=Reason.LOCAL, cause="an externally reachable ingress gateway")
    lost = Verdict(outcome=Outcome.LOST, reason=Reason.LOCAL, cause="externalTrafficPolicy is Cluster")
    name = "istio-ingressgateway"
    return Row(
        fingerprint=fingerprint("istio-ingress", "Service", name, Reason.LOCAL),
        namespace="istio-ingress",
        kind="Service",
        name=name,
        advice=Advice.RESTART,
        reason=Reason.LOCAL,
        owner="platform",
        now=lost,
        after=local,
        since=NOW,
        restart=restart_command("Service", "istio-ingress", name),
        gateway=Gateway(warnings=["no pod in zone-c: a load balancer's address in such a zone has no target"]),
    )


def scan(size: int, *, more: tuple[Row, ...] = (), unreadable: dict[str, str] | None = None) -> Scan:
    """Return a scan of *size* rows that are not preserved, and four times as many that are."""
    rows = [gateway(), *(row(number) for number in range(size - 1)), *more] if size else list(more)
    counts = count(rows, not_asked=size // 10, pods=size * 12, at=NOW)
    preserved = counts.__class__(
        **{
            **{name: getattr(counts, name) for name in counts.__struct_fields__},
            "preserved": size * 4,
            "workloads": counts.workloads + size * 4,
        }
    )
    uses = [
        ExceptionUse(state=ExceptionState.ENDING, exception=waiver(3), covers=4),
        ExceptionUse(state=ExceptionState.UNUSED, exception=waiver(200), covers=0),
    ]
    return Scan(
        version="1.0.0",
        time=NOW,
        scope=Scope(
            source="https://10.0.0.1:6443",
            cluster="7d1c9a52-8c1e-4f7e-9d5e-0f3c2b1a9e77",
            user="alice@example.com",
            context="production",
            unreadable={"vault": "403: pods is forbidden"} if unreadable is None else unreadable,
        ),
        counts=preserved,
        rows=ordered(rows),
        exceptions=uses if size else [],
        sentence=sentence(preserved),
        compared="since 2026-05-31 09:30 UTC: 2 new, 8 unchanged" if size else "",
    )
