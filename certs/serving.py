"""
The live certificate of a server: one SSLContext for its whole life, a pair in it that can be replaced at any time.

A failed `load_cert_chain` leaves a live SSLContext unable to finish any later handshake. So each pair gets a context of
its own, which is proved before new handshakes are handed to it by the `sni_callback` of the one that the server holds:
a bad pair changes nothing, and open connections keep the pair that they began with.
https://docs.python.org/3/library/ssl.html#ssl.SSLContext.sni_callback
"""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from certs.bundle import parse_bundle
from certs.memoryfile import memory_file
from certs.pair import MAX_CERTIFICATE_BYTES, TLS_CRT, TLS_KEY, Pair, PairError, check_life, parse_pair

log = logging.getLogger(__name__)

# Mounted Secrets change when the kubelet syncs, once a minute or so; this adds little to that.
POLL_INTERVAL: Final = timedelta(seconds=10)
# After a refusal the other half of a pair is awaited, which an atomic swap brings within a moment.
RETRY_INTERVAL: Final = timedelta(seconds=1)
CLIENT_CA: Final = "the clients' CA"
MAX_FILE_BYTES: Final = MAX_CERTIFICATE_BYTES
# Of TLS 1.2 what encrypts and authenticates in one: Go offers these first, and nobody lacks them who speaks to an API
# server. (TLS 1.3 has no others.) https://www.rfc-editor.org/rfc/rfc9325#section-4.2
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ServingCertificate:
    """
    A server-side SSLContext whose certificate can be replaced while it serves.

    Until the first pair every handshake is refused.

    Attributes:
        context: What the server listens with, from start to end.
        pair: The pair that new handshakes get.

    """

    def __init__(self, *, client_ca: bytes | None = None) -> None:
        """
        Serve nothing yet.

        Args:
            client_ca: CA certificates, PEM: a client that shows no certificate of one of them is refused. None asks
                clients for nothing, for good.

        Raises:
            PairError: It holds no CA certificate.

        """
        self.pair: Pair | None = None
        self._current: ssl.SSLContext | None = None
        self._client_ca: str | None = None
        self.context = _server_context()
        if client_ca is not None:
            # The context that a handshake begins with says whether a certificate is asked for, and the one that
            # `_choose` gives it says whose. https://docs.openssl.org/3.0/man3/SSL_set_SSL_CTX/
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.trust_clients(client_ca, field=CLIENT_CA)
        self.context.sni_callback = self._choose

    def replace(
        self,
        certificate_pem: bytes,
        key_pem: bytes,
        *,
        now: datetime,
        force: bool = False,
        certificate_field: str = TLS_CRT,
        key_field: str = TLS_KEY,
    ) -> Pair:
        """
        Serve a new pair from the next handshake on, once it is proved; return it.

        Args:
            now: The current time, UTC and timezone-aware.
            force: Serve it even outside its life, where there is nothing better.
            certificate_field: What errors call the certificate: a Secret's data key or a path.
            key_field: What errors call the key.

        Raises:
            PairError: It can't be served; what was served before still is.

        """
        pair = parse_pair(certificate_pem, key_pem, certificate_field=certificate_field, key_field=key_field)
        if not force:
            check_life(pair, now=now, certificate_field=certificate_field)
        self._current = _proved_context(pair, certificate_field, self._client_ca)
        self.pair = pair
        return pair

    def trust_clients(self, client_ca: bytes, *, field: str) -> None:
        """
        Trust clients of other CAs from the next handshake on.

        Args:
            client_ca: CA certificates, PEM.
            field: What errors call it.

        Raises:
            PairError: It holds no CA certificate; those before still count.

        """
        if len(client_ca) > MAX_CERTIFICATE_BYTES:
            raise PairError(field, f"is larger than {MAX_CERTIFICATE_BYTES} bytes")
        if not parse_bundle(client_ca).certificates:
            raise PairError(field, "contains no readable PEM certificate")
        before, self._client_ca = self._client_ca, client_ca.decode(errors="replace")
        try:
            _trust(_server_context(), self._client_ca, field)
            if self.pair is not None:
                self._current = _proved_context(self.pair, TLS_CRT, self._client_ca)
        except PairError:
            self._client_ca = before
            raise

    @property
    def not_after(self) -> datetime | None:
        """When the served certificate expires, UTC; None before the first."""
        return self.pair.not_after if self.pair else None

    @property
    def fingerprint(self) -> str | None:
        """The SHA-256 of the served certificate in hexadecimal; None before the first."""
        return self.pair.fingerprint if self.pair else None

    def healthy(self, now: datetime) -> bool:
        """Return whether a certificate is served that is within its life at *now*."""
        return self.pair is not None and self.pair.not_before <= now < self.pair.not_after

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Give a new handshake the current context; OpenSSL asks whether or not the client names a server."""
        if self._current is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None


class MountedPair:
    """
    The pair of two mounted files, served anew when they change.

    Kubernetes swaps a mounted Secret by one symlink, other tools write one file after the other; between two reads the
    pair may be half new. Such a pair is refused and read again until it fits.
    https://kubernetes.io/docs/concepts/configuration/secret/#mounted-secrets-are-updated-automatically
    """

    def __init__(self, serving: ServingCertificate, *, certificate: Path, key: Path) -> None:
        self._serving = serving
        self._certificate = certificate
        self._key = key
        self._stamps: tuple[_Stamp, _Stamp] | None = None
        self._digest: bytes | None = None

    def refresh(self, *, now: datetime) -> bool:
        """
        Read the files if they changed since they were last served; return whether a new pair is served.

        Raises:
            PairError: They can't be read or served, each time until they can; what was served before still is.

        """
        stamps = _Stamp.of(self._certificate), _Stamp.of(self._key)
        if stamps == self._stamps:
            return False
        certificate_pem, key_pem = read_file(self._certificate), read_file(self._key)
        digest = hashlib.sha256(certificate_pem + b"\0" + key_pem).digest()
        changed = digest != self._digest
        if changed:
            self._serving.replace(
                certificate_pem,
                key_pem,
                now=now,
                certificate_field=str(self._certificate),
                key_field=str(self._key),
            )
        # Only now: a refused pair must be tried again although its files stay as they are.
        self._stamps, self._digest = stamps, digest
        return changed

    async def run(self, *, clock: Callable[[], datetime], interval: timedelta = POLL_INTERVAL) -> None:
        """Keep the served pair that of the files until cancelled; a refusal is logged once and tried again soon."""
        refused = ""
        while True:
            try:
                # In a thread: a mounted volume may be slow, and requests must not wait for it.
                if await asyncio.to_thread(self.refresh, now=clock()):
                    log.info("serving the certificate in %s until %s", self._certificate, self._serving.not_after)
                refused = ""
            except PairError as error:
                if str(error) != refused:
                    log.warning("the previous certificate stays in use: %s", error)
                refused = str(error)
            await asyncio.sleep((min(interval, RETRY_INTERVAL) if refused else interval).total_seconds())


class MountedClientCA:
    """The CAs of clients in a mounted file, trusted anew when it changes; a bad file changes nothing."""

    def __init__(self, serving: ServingCertificate, path: Path) -> None:
        self._serving = serving
        self._path = path
        self._stamp: _Stamp | None = None

    def refresh(self) -> bool:
        """
        Read the file if it changed since it was last used; return whether it did.

        Raises:
            PairError: It can't be read or used, each time until it can.

        """
        stamp = _Stamp.of(self._path)
        if stamp == self._stamp:
            return False
        self._serving.trust_clients(read_file(self._path), field=str(self._path))
        self._stamp = stamp
        return True

    async def run(self, *, interval: timedelta = POLL_INTERVAL) -> None:
        """Keep the trusted CAs those of the file until cancelled; a refusal is logged once and tried again."""
        refused = ""
        while True:
            try:
                if await asyncio.to_thread(self.refresh):
                    log.info("clients must have a certificate of a CA in %s", self._path)
                refused = ""
            except PairError as error:
                if str(error) != refused:
                    log.warning("the previous client CAs stay in use: %s", error)
                refused = str(error)
            await asyncio.sleep(interval.total_seconds())


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes when a file does: a swapped symlink leads to another inode, a write moves the time or the size."""

    device: int
    inode: int
    modified_nanoseconds: int
    size: int

    @classmethod
    def of(cls, path: Path) -> "_Stamp":
        try:
            found = path.stat()
        except OSError as error:
            raise PairError(str(path), f"cannot be read ({error.strerror})") from error
        return cls(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def read_file(path: Path) -> bytes:
    """
    Return what a mounted file holds.

    Raises:
        PairError: It can't be read, or is too large.

    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PairError(str(path), f"cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise PairError(str(path), f"is larger than {MAX_FILE_BYTES} bytes")
    return content


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # The API server's client keeps no sessions, so tickets would only cost time; and a resumed session would outlive
    # the certificate that it began with.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    # All ciphers here are good, so the client's order counts: Go's begins with AES-128 and SHA-256. Handshakes and
    # records cost less with these than with AES-256 and SHA-384, OpenSSL's own first.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    # The API server offers nothing else to webhooks:
    # https://github.com/kubernetes/apiserver/blob/v0.34.0/pkg/util/webhook/client.go
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trust(context: ssl.SSLContext, client_ca: str, field: str) -> None:
    try:
        context.load_verify_locations(cadata=client_ca)
    except (ssl.SSLError, ValueError) as error:
        raise PairError(field, f"contains no CA certificate that OpenSSL can read ({error})") from error
    context.verify_mode = ssl.CERT_REQUIRED


def _proved_context(pair: Pair, certificate_field: str, client_ca: str | None) -> ssl.SSLContext:
    """Return a context that has loaded *pair*; the key passes through memory only, the root filesystem is read-only."""
    context = _server_context()
    if client_ca is not None:
        _trust(context, client_ca, CLIENT_CA)
    # Each text by itself: a key file may hold certificates too, which must not be taken for the one to serve.
    with (
        memory_file(pair.certificate_pem, "serving-pair") as certificate,
        memory_file(pair.key_pem, "serving-pair") as key,
    ):
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise PairError(
                certificate_field, f"OpenSSL rejects the certificate or its key ({error.reason})"
            ) from error
    return context
