"""
CA bundles: several CA certificates in one PEM text, the old and the new together.

A bundle's order is the order that it was given, newest first, and each certificate is in it once, so that the same
state is the same bytes on every replica and nobody patches what does not differ. Foreign text is read for what it
holds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.authority import is_signed_by
from certs.pair import UNREADABLE

BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
END: Final = b"-----END CERTIFICATE-----"
# Eight CAs of ours are 6 KB; a CA bundle of the public web is 200 KB, and no business of a webhook's.
MAX_BUNDLE_BYTES: Final = 64 << 10
CA_EXTENSIONS: Final = frozenset(
    {x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.SubjectKeyIdentifier.oid, x509.AuthorityKeyIdentifier.oid}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """
    The certificates of a text, and how many of its blocks hold none.

    Attributes:
        certificates: In the text's order, each once.
        unreadable: Blocks that are cut off or hold something else.

    """

    certificates: tuple[x509.Certificate, ...]
    unreadable: int


def parse_bundle(text: bytes) -> Bundle:
    """Return what *text* holds, whoever wrote it; never an error. Of what is larger than MAX_BUNDLE_BYTES, nothing."""
    if len(text) > MAX_BUNDLE_BYTES:
        return Bundle(certificates=(), unreadable=1)
    blocks = list(_blocks(text))
    certificates = [certificate for block in blocks if (certificate := _certificate(block)) is not None]
    return Bundle(certificates=unique(certificates), unreadable=max(len(blocks), text.count(BEGIN)) - len(certificates))


def render_bundle(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return *certificates* as one PEM text, in their order, each once."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in unique(certificates))


def unique(certificates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return *certificates* in their order, each once."""
    return tuple(dict.fromkeys(certificates))


def is_ca(certificate: x509.Certificate) -> bool:
    """
    Return whether *certificate* may sign others, whatever they are named, and signed itself: nothing in it is damaged.

    A CA with an extension that `certs.authority` gives none, a name constraint for instance, could make the API server
    distrust a leaf that looks good to us; so it is none of ours.
    """
    try:
        extensions = certificate.extensions
        may_sign = (
            extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            and extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        )
    except UNREADABLE:
        return False
    known = {extension.oid for extension in extensions} <= CA_EXTENSIONS
    return may_sign and known and is_signed_by(certificate, certificate)


def is_ours(certificate: x509.Certificate, organization: str) -> bool:
    """Return whether *certificate* is a CA of *organization*, as `certs.authority` names them."""
    if not is_ca(certificate):  # whose name may be no text
        return False
    named = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return [attribute.value for attribute in named] == [organization]


def _blocks(text: bytes) -> Iterator[bytes]:
    """
    Yield each part from a BEGIN to the next END; the text is gone through once.

    Text around the blocks is allowed and ignored: https://www.rfc-editor.org/rfc/rfc7468#section-5.2
    """
    position = 0
    while (begin := text.find(BEGIN, position)) >= 0 and (end := text.find(END, begin)) >= 0:
        position = end + len(END)
        yield text[begin:position]


def _certificate(block: bytes) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(block)
        certificate.public_key()
    except UNREADABLE:
        return None
    return certificate
