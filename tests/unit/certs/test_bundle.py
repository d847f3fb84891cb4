"""Bundles: the same order, each certificate once, and whatever foreign text holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import (
    BasicConstraints,
    CertificateBuilder,
    DNSName,
    ExtensionType,
    KeyUsage,
    NameConstraints,
    load_der_x509_certificate,
)
from hypothesis import given, strategies as st

from certs.authority import issue_ca, issue_leaf
from certs.bundle import BEGIN, END, MAX_BUNDLE_BYTES, Bundle, is_ca, is_ours, parse_bundle, render_bundle, unique
from certs.pair import Pair

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIFE = timedelta(days=30)


def ca(organization: str = "example") -> Pair:
    return issue_ca(organization=organization, now=NOW, life=LIFE)


OLD, NEW = ca(), ca()
LEAF = issue_leaf(OLD, names=["a"], now=NOW, life=LIFE)
AUTHORITY = BasicConstraints(ca=True, path_length=None)
SIGNING = OLD.certificate.extensions.get_extension_for_class(KeyUsage).value
SERVING = LEAF.certificate.extensions.get_extension_for_class(KeyUsage).value
NONSENSE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_old_and_new_stand_together_in_their_order() -> None:
    assert render_bundle([NEW.certificate, OLD.certificate]) == NEW.certificate_pem + OLD.certificate_pem
    assert render_bundle([OLD.certificate, NEW.certificate]) == OLD.certificate_pem + NEW.certificate_pem
    assert render_bundle([]) == b""


def test_each_certificate_stands_once() -> None:
    twice = [NEW.certificate, OLD.certificate, NEW.certificate]
    assert unique(twice) == (NEW.certificate, OLD.certificate)
    assert render_bundle(twice) == NEW.certificate_pem + OLD.certificate_pem
    assert parse_bundle(NEW.certificate_pem * 2 + OLD.certificate_pem).certificates == (
        NEW.certificate,
        OLD.certificate,
    )


@pytest.mark.parametrize(
    ("text", "unreadable"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"hello \xff\x00", 0, id="no PEM at all"),
        pytest.param(OLD.key_pem, 0, id="a key"),
        pytest.param(NONSENSE, 1, id="nonsense in PEM"),
        pytest.param(OLD.certificate_pem[:200], 1, id="half a certificate"),
    ],
)
def test_foreign_text_holds_what_it_holds(text: bytes, unreadable: int) -> None:
    bundle = parse_bundle(text)
    assert (bundle.certificates, bundle.unreadable) == ((), unreadable)


@pytest.mark.parametrize("text", [BEGIN, BEGIN + b"\n", BEGIN + END, END + BEGIN, b"-----BEGIN ", BEGIN[:-1]], ids=repr)
def test_what_is_repeated_costs_what_its_length_does(text: bytes) -> None:
    """Steps, not seconds: no byte is looked at again once a block has ended."""

    class Counted(bytes):
        looked_at = 0

        def find(self, *arguments: Any) -> int:
            found = super().find(*arguments)
            Counted.looked_at += (found if found >= 0 else len(self)) - arguments[1]
            return found

    def steps(length: int) -> int:
        Counted.looked_at = 0
        parse_bundle(Counted((text * length)[:length]))
        return Counted.looked_at

    assert steps(60_000) <= 2.2 * steps(30_000) + 1000


def test_of_what_is_too_large_nothing_is_read() -> None:
    text = OLD.certificate_pem + b"x" * MAX_BUNDLE_BYTES
    assert parse_bundle(text) == Bundle(certificates=(), unreadable=1)


def test_comments_and_broken_neighbours_hide_nothing() -> None:
    text = b"# ours\n" + OLD.certificate_pem.replace(b"\n", b"\r\n") + NONSENSE + b"subject: x\n" + NEW.certificate_pem
    bundle = parse_bundle(text)
    assert (bundle.certificates, bundle.unreadable) == ((OLD.certificate, NEW.certificate), 1)


def test_a_ca_says_so() -> None:
    assert is_ca(OLD.certificate)
    assert not is_ca(LEAF.certificate)


@pytest.mark.parametrize(
    ("extensions", "want"),
    [
        pytest.param([AUTHORITY, SIGNING], True, id="what ours have"),
        pytest.param([AUTHORITY], False, id="no key usage"),
        pytest.param([AUTHORITY, SERVING], False, id="a key that signs no certificates"),
        pytest.param([BasicConstraints(ca=False, path_length=None), SIGNING], False, id="no CA"),
        pytest.param(
            [AUTHORITY, SIGNING, NameConstraints([DNSName("other.example")], None)],
            False,
            id="one that the API server would distrust for our names",
        ),
    ],
)
def test_a_ca_that_ours_would_not_be_is_none(extensions: list[ExtensionType], *, want: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = OLD.certificate.subject
    builder = CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + LIFE)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    assert is_ca(builder.sign(key, SHA256())) is want


def test_our_cas_carry_our_organization() -> None:
    assert is_ours(OLD.certificate, "example")
    assert not is_ours(OLD.certificate, "exam")
    assert not is_ours(ca("other").certificate, "example")
    assert not is_ours(LEAF.certificate, "example")


def test_a_certificate_that_says_nothing_is_no_ca() -> None:
    key = load_pem_private_key(OLD.key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = OLD.certificate.subject
    bare = CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + LIFE).sign(key, SHA256())
    assert not is_ca(bare)
    assert not is_ours(bare, "example")


@pytest.mark.parametrize("text", [b"\xff" * 7, b"EXAMPLE"], ids=["no text", "another name"])
def test_a_certificate_that_was_tampered_with_is_no_ca(text: bytes) -> None:
    damaged = load_der_x509_certificate(OLD.certificate.public_bytes(Encoding.DER).replace(b"example", text))
    assert not is_ca(damaged)
    assert not is_ours(damaged, "EXAMPLE")


class TestLaws:
    """Bundles of any text."""

    @given(
        text=st.binary()
        | st.lists(st.sampled_from([OLD.certificate_pem, NEW.certificate_pem, b"x", NONSENSE])).map(b"".join)
    )
    def test_reading_never_fails_and_writing_what_was_read_is_stable(self, text: bytes) -> None:
        bundle = parse_bundle(text)
        again = parse_bundle(render_bundle(bundle.certificates))
        assert again.certificates == bundle.certificates
        assert again.unreadable == 0
