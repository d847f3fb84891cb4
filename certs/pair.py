"""
A certificate with its private key, and what makes such a pair unusable.

Knows how to read the two PEM texts of a `kubernetes.io/tls` Secret or of two mounted files and to say what is wrong
with them, naming the field or file. Knows neither who issued the pair nor where it is served.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# The data keys of a Secret of type kubernetes.io/tls:
# https://kubernetes.io/docs/concepts/configuration/secret/#tls-secrets
TLS_CRT: Final = "tls.crt"
TLS_KEY: Final = "tls.key"
# What `cryptography` raises about a certificate whose DER can be split but whose parts make no sense.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


# A chain of ten RSA-4096 certificates has 20 KB, a key of that kind 3 KB.
MAX_CERTIFICATE_BYTES: Final = 64 << 10
MAX_KEY_BYTES: Final = 16 << 10
# What a handshake costs grows with the cube of an RSA key's length, which nothing else bounds.
RSA_BITS: Final = range(2048, 4096 + 1)
KINDS: Final = "RSA of 2048 to 4096 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"


class PairError(ValueError):
    """
    A certificate and key that can't be served.

    Attributes:
        field: The Secret's data key or the file's path that is to blame.
        problem: What is wrong with it, as a clause.

    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate, the chain that is sent with it, and its private key, which belong together."""

    certificate: x509.Certificate
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    @property
    def not_before(self) -> datetime:
        """The first moment of its life, UTC."""
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The last moment of its life, UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, in lower-case hexadecimal."""
        return fingerprint(self.certificate)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of *certificate*, in lower-case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def parse_pair(
    certificate_pem: bytes, key_pem: bytes, *, certificate_field: str = TLS_CRT, key_field: str = TLS_KEY
) -> Pair:
    """
    Return the pair of two PEM texts: the certificate first in its text, its key alone in the other.

    Raises:
        PairError: One of them can't be read, or they don't belong together.

    """
    certificate = _certificate(certificate_pem, certificate_field)
    _check_kind(certificate.public_key(), certificate_field)
    if _private_key(key_pem, key_field).public_key() != certificate.public_key():
        raise PairError(key_field, f"is not the private key of the first certificate in {certificate_field}")
    return Pair(certificate=certificate, certificate_pem=certificate_pem, key_pem=key_pem)


def check_life(pair: Pair, *, now: datetime, certificate_field: str = TLS_CRT) -> None:
    """
    Check that *pair* is within its life at *now*.

    Raises:
        PairError: It has expired, or its life has not begun.

    """
    if now >= pair.not_after:
        raise PairError(certificate_field, f"the certificate expired at {pair.not_after.isoformat()}")
    if now < pair.not_before:
        raise PairError(certificate_field, f"the certificate is not valid before {pair.not_before.isoformat()}")


def _check_kind(key: object, field: str) -> None:
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
    )
    is_rsa = isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS
    if not (curve or is_rsa or isinstance(key, ed25519.Ed25519PublicKey)):
        raise PairError(field, f"has an unsupported type of key: must be {KINDS}")


def _certificate(pem: bytes, field: str) -> x509.Certificate:
    if not pem.strip():
        raise PairError(field, "is empty")
    if len(pem) > MAX_CERTIFICATE_BYTES:
        raise PairError(field, f"is larger than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        # All of the chain is read, so that a text cut off in its middle is noticed.
        certificate = x509.load_pem_x509_certificates(pem)[0]
        certificate.public_key()
    except UNREADABLE as error:
        raise PairError(field, f"contains no readable PEM certificate ({error})") from error
    if pem.count(b"-----BEGIN ") != pem.count(b"-----END "):
        raise PairError(field, "is truncated: a PEM block has no end")
    return certificate


def _private_key(pem: bytes, field: str) -> PrivateKeyTypes:
    if not pem.strip():
        raise PairError(field, "is empty")
    if len(pem) > MAX_KEY_BYTES:
        raise PairError(field, f"is larger than {MAX_KEY_BYTES} bytes")
    try:
        # Unproved: an RSA key's own proof takes seconds where it is long. OpenSSL proves that it fits its certificate.
        return serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError as error:
        raise PairError(field, "is encrypted; the server cannot ask for a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The library's own message is left out: it must never quote a key.
        raise PairError(field, "contains no readable PEM private key") from error
