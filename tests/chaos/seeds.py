"""Certificates that are as old as a test needs them: renewals come when two thirds of a life are over, in months."""

from datetime import UTC, datetime, timedelta
from typing import Final

from certs.authority import backdate, issue_ca, issue_leaf, service_names
from certs.lifecycle import Authority, Settings, State
from webhook.server.tls import ORGANIZATION

DAY: Final = timedelta(days=1)


def settings(name: str, namespace: str) -> Settings:
    """Return what the replicas run with: the chart's lives are the defaults."""
    return Settings(names=service_names(name, namespace), organization=ORGANIZATION)


def issued(life: timedelta, *, due: datetime) -> datetime:
    """Return when a certificate of *life* was issued whose renewal is due at *due*."""
    return due - (life + backdate(life)) * 2 / 3 + backdate(life)


def with_leaf_due(wanted: Settings, due: datetime) -> State:
    """Return certificates whose leaf is to be renewed at *due*."""
    return _state(wanted, ca_issued=due - 100 * DAY, leaf_issued=issued(wanted.leaf_life, due=due))


def with_ca_due(wanted: Settings, due: datetime) -> State:
    """Return certificates whose CA is to be rotated at *due*; their leaf is ten days old."""
    return _state(wanted, ca_issued=issued(wanted.ca_life, due=due), leaf_issued=due - 10 * DAY)


def soon(seconds: float) -> datetime:
    """Return the moment *seconds* from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _state(wanted: Settings, *, ca_issued: datetime, leaf_issued: datetime) -> State:
    ca = issue_ca(organization=wanted.organization, now=ca_issued, life=wanted.ca_life)
    leaf = issue_leaf(ca, names=wanted.names, now=leaf_issued, life=wanted.leaf_life)
    authority = Authority(certificate=ca.certificate, last_leaf_expires=leaf.not_after)
    return State(authorities=(authority,), ca_key_pem=ca.key_pem, leaf=leaf)
