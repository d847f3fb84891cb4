"""Whose certificate a caller shows: the names in it, against those that may call."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def names_of(certificate: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield the common names of a verified certificate's subject, and its alternative names of whatever kind.

    Args:
        certificate: As `ssl.SSLSocket.getpeercert` gives it.

    """
    for attributes in certificate.get("subject", ()):
        yield from (value for kind, value in attributes if kind == "commonName")
    alternatives: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    yield from (value for _, value in alternatives)


def may_call(certificate: Mapping[str, Any] | None, names: frozenset[str]) -> bool:
    """Return whether one of *names* is in *certificate*; where there are no names, whoever was verified may."""
    return not names or not names.isdisjoint(names_of(certificate or {}))
