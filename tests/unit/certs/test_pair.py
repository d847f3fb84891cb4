"""A certificate and key that fit, and every way in which they may not."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from certs.authority import issue_ca, issue_leaf
from certs.pair import Pair, PairError, check_life, parse_pair

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
CA = issue_ca(organization="example", now=NOW, life=30 * DAY)
LEAF = issue_leaf(CA, names=["localhost"], now=NOW, life=10 * DAY)
OTHER = issue_leaf(CA, names=["localhost"], now=NOW, life=10 * DAY)


def encrypted(pair: Pair) -> bytes:
    key = serialization.load_pem_private_key(pair.key_pem, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )


def test_a_pair_is_its_two_texts() -> None:
    assert parse_pair(LEAF.certificate_pem, LEAF.key_pem) == LEAF
    assert len(LEAF.fingerprint) == 64


def test_a_chain_is_kept_whole_and_its_first_certificate_counts() -> None:
    chain = LEAF.certificate_pem + CA.certificate_pem
    pair = parse_pair(chain, LEAF.key_pem)
    assert pair.certificate == LEAF.certificate
    assert pair.certificate_pem == chain


def test_a_key_is_never_shown() -> None:
    assert "PRIVATE" not in repr(LEAF)


HALF = len(LEAF.certificate_pem) // 2


@pytest.mark.parametrize(
    ("certificate", "key", "field", "problem"),
    [
        pytest.param(b" \n", LEAF.key_pem, "tls.crt", "is empty", id="no certificate"),
        pytest.param(b"hello", LEAF.key_pem, "tls.crt", "contains no readable PEM certificate", id="no PEM"),
        pytest.param(b"\xff\x00", LEAF.key_pem, "tls.crt", "contains no readable PEM certificate", id="binary"),
        pytest.param(
            LEAF.certificate_pem[:HALF],
            LEAF.key_pem,
            "tls.crt",
            "contains no readable PEM certificate",
            id="half written",
        ),
        pytest.param(
            LEAF.certificate_pem + CA.certificate_pem[:HALF],
            LEAF.key_pem,
            "tls.crt",
            "is truncated: a PEM block has no end",
            id="half a chain",
        ),
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            LEAF.key_pem,
            "tls.crt",
            "contains no readable PEM certificate",
            id="PEM around nonsense",
        ),
        pytest.param(
            LEAF.key_pem, LEAF.key_pem, "tls.crt", "contains no readable PEM certificate", id="key for certificate"
        ),
        pytest.param(LEAF.certificate_pem, b"", "tls.key", "is empty", id="no key"),
        pytest.param(
            LEAF.certificate_pem, LEAF.key_pem[:99], "tls.key", "contains no readable PEM private key", id="half a key"
        ),
        pytest.param(LEAF.certificate_pem, encrypted(LEAF), "tls.key", "is encrypted", id="encrypted"),
        pytest.param(
            LEAF.certificate_pem,
            OTHER.key_pem,
            "tls.key",
            "is not the private key of the first certificate in tls.crt",
            id="another's key",
        ),
        pytest.param(
            CA.certificate_pem + LEAF.certificate_pem,
            LEAF.key_pem,
            "tls.key",
            "is not the private key of the first certificate in tls.crt",
            id="chain upside down",
        ),
    ],
)
def test_a_bad_pair_is_refused_with_its_field(certificate: bytes, key: bytes, field: str, problem: str) -> None:
    with pytest.raises(PairError) as caught:
        parse_pair(certificate, key)
    assert caught.value.field == field
    assert caught.value.problem.startswith(problem)
    assert str(caught.value) == f"{field}: {caught.value.problem}"
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        pytest.param(
            LEAF.not_before - SECOND, "tls.crt: the certificate is not valid before 2026-11-23T11", id="ALMOST"
        ),
        pytest.param(LEAF.not_before, None, id="JUST valid"),
        pytest.param(LEAF.not_after - SECOND, None, id="ALMOST expired"),
        pytest.param(LEAF.not_after, "tls.crt: the certificate expired at 2026-12-03T12", id="JUST expired"),
    ],
)
def test_a_pair_counts_within_its_life(now: datetime, problem: str | None) -> None:
    if problem is None:
        check_life(LEAF, now=now)
        return
    with pytest.raises(PairError, match=problem):
        check_life(LEAF, now=now)
