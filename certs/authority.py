"""
Issues certificates: a CA, and the serving certificates that it signs.

Every certificate has a new ECDSA P-256 key; a key is never used twice, so an old one that leaks opens nothing new.
Time comes in as an argument. Knows nothing of when to issue: that is `certs.lifecycle`.
Profile: https://www.rfc-editor.org/rfc/rfc5280#section-4.2
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.pair import UNREADABLE, Pair

# Clocks of nodes differ by seconds, of badly kept ones by minutes; an hour forgives both, as Kyverno's certificates do.
MAX_BACKDATE: Final = timedelta(hours=1)
# Backdating a short life by an hour would leave it past its renewal at birth, so it is never more than this part.
BACKDATE_PART: Final = 10
# What is left of the serial in a CA's name: enough to tell two CAs of the same organization apart by eye.
NAME_SERIAL_DIGITS: Final = 8


def backdate(life: timedelta) -> timedelta:
    """Return how long before its issue a certificate of *life* begins to be valid."""
    return min(MAX_BACKDATE, life / BACKDATE_PART)


def issue_ca(*, organization: str, now: datetime, life: timedelta, serial: int | None = None) -> Pair:
    """
    Return a new self-signed CA that can sign serving certificates and no other CA.

    Each has a name of its own, the *organization* and a part of its serial number, so that a verifier which finds
    several in one bundle never tries the wrong one.

    Args:
        organization: Who it speaks for, up to 50 characters; the `O` of its name.
        now: The current time, UTC and timezone-aware; its life begins a little earlier (`backdate`).
        life: How long it lasts from *now*.
        serial: Its serial number; random where it is not given.

    Raises:
        ValueError: *now* is naive, or *life* is not positive.

    """
    begin, end = _life(now, life)
    serial = x509.random_serial_number() if serial is None else serial
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"{organization} CA {serial:x}"[: len(organization) + 4 + NAME_SERIAL_DIGITS]
            ),
        ]
    )
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key(), serial_number=serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue_leaf(ca: Pair, *, names: Sequence[str], now: datetime, life: timedelta, serial: int | None = None) -> Pair:
    """
    Return a new serving certificate for *names*, signed by *ca*; it never outlives its CA.

    Args:
        names: DNS names or IP addresses that clients may call it by.
        now: The current time, UTC and timezone-aware; its life begins a little earlier (`backdate`).
        life: How long it lasts from *now*.
        serial: Its serial number; random where it is not given.

    Raises:
        ValueError: *now* is naive or outside the CA's life, *life* is not positive, or *names* can't be certified.

    """
    begin, end = _life(now, life)
    if not ca.not_before <= now < ca.not_after:
        raise ValueError(
            f"the CA is valid from {ca.not_before.isoformat()} to {ca.not_after.isoformat()}, not at {now}"
        )
    signing_key = serialization.load_pem_private_key(ca.key_pem, password=None)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA's key is not an ECDSA key")  # noqa: TRY004 - its content is wrong, not the argument's type
    key = ec.generate_private_key(ec.SECP256R1())
    organization = ca.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    certificate = (
        x509.CertificateBuilder(
            subject_name=x509.Name(organization),
            issuer_name=ca.certificate.subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number() if serial is None else serial,
        )
        .not_valid_before(max(begin, ca.not_before))
        .not_valid_after(min(end, ca.not_after))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(general_names(names)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .sign(signing_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """
    Return *names* as subject alternative names: IP addresses as such, all others as DNS names.

    Raises:
        ValueError: There is none, or one is empty or not ASCII.

    """
    if not names:
        raise ValueError("a serving certificate needs at least one name")
    return [_general_name(name) for name in names]


def certified_names(certificate: x509.Certificate) -> frozenset[str]:
    """Return the DNS names and IP addresses that *certificate* vouches for; none where it lists none."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return frozenset()
    return frozenset(
        {
            *extension.get_values_for_type(x509.DNSName),
            *(str(address) for address in extension.get_values_for_type(x509.IPAddress)),
        }
    )


def service_names(service: str, namespace: str, *, cluster_domain: str = "cluster.local") -> tuple[str, ...]:
    """
    Return the DNS names of a Service; the first is the one that the API server asks for.

    "the server name must be <svc>.<ns>.svc":
    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#service-reference
    """
    name = f"{service}.{namespace}.svc"
    return (name, f"{name}.{cluster_domain}", f"{service}.{namespace}", service)


def is_signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Return whether *ca*'s key signed *certificate*, whatever their lives."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _life(now: datetime, life: timedelta) -> tuple[datetime, datetime]:
    if now.tzinfo is None:
        raise ValueError("the time must be timezone-aware")
    if life <= timedelta():
        raise ValueError(f"a certificate's life must be positive, not {life}")
    second = now.astimezone(UTC).replace(microsecond=0)  # X.509 knows no fractions
    return second - backdate(life), second + life


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not name:
            raise ValueError("a serving certificate's name must not be empty") from None
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate=certificate,
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
