"""Where the serving certificate comes from: mounted files that are followed, or one made for this process."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from certs.authority import issue_ca, issue_leaf
from certs.serving import MountedPair, ServingCertificate

SELF_SIGNED_LIFE: Final = timedelta(days=90)
POLL: Final = timedelta(seconds=1)
ORGANIZATION: Final = "client-ip-webhook"


def utc_now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)


def self_signed(hosts: Sequence[str], ca_out: Path | None, *, client_ca: bytes | None = None) -> ServingCertificate:
    """
    Return a certificate for *hosts* that a new CA signed; the CA's certificate is written to *ca_out*.

    Raises:
        OSError: *ca_out* can't be written.
        ValueError: A host can't be certified.

    """
    now = utc_now()
    authority = issue_ca(organization=ORGANIZATION, now=now, life=SELF_SIGNED_LIFE)
    leaf = issue_leaf(authority, names=hosts, now=now, life=SELF_SIGNED_LIFE)
    certificate = ServingCertificate(client_ca=client_ca)
    certificate.replace(leaf.certificate_pem, leaf.key_pem, now=now)
    if ca_out is not None:
        ca_out.write_bytes(authority.certificate_pem)
    return certificate


def mounted(
    certificate: Path, key: Path, *, client_ca: bytes | None = None
) -> tuple[ServingCertificate, Callable[[], Awaitable[None]]]:
    """
    Return the pair in the files, served, and the task that serves what they hold as they change.

    Raises:
        certs.pair.PairError: The files hold no pair that can be served, naming the one to blame.

    """
    serving = ServingCertificate(client_ca=client_ca)
    pair = MountedPair(serving, certificate=certificate, key=key)
    pair.refresh(now=utc_now())
    return serving, lambda: pair.run(clock=utc_now, interval=POLL)
