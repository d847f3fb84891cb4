"""A CA and its leaves: who may sign what, for whom, and how long."""

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import (
    backdate,
    certified_names,
    general_names,
    is_signed_by,
    issue_ca,
    issue_leaf,
    service_names,
)
from certs.pair import Pair

NOW = datetime(2026, 11, 23, 12, 0, 0, 987654, tzinfo=UTC)
SECOND = NOW.replace(microsecond=0)
DAY = timedelta(days=1)


def ca(*, now: datetime = NOW, life: timedelta = 365 * DAY, serial: int | None = None) -> Pair:
    return issue_ca(organization="client-ip-webhook", now=now, life=life, serial=serial)


def assert_is_ca(certificate: x509.Certificate) -> None:
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)


def assert_is_leaf(certificate: x509.Certificate) -> None:
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (False, False, True)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_ca_may_sign_leaves_and_no_other_ca() -> None:
    assert_is_ca(ca().certificate)


def test_a_ca_signs_itself_with_a_p256_key() -> None:
    pair = ca()
    key = pair.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert is_signed_by(pair.certificate, pair.certificate)


def test_a_ca_is_named_for_its_organization_and_serial_number() -> None:
    name = ca(serial=0x1234567890ABCDEF).certificate.subject.rfc4514_string()
    assert name == "CN=client-ip-webhook CA 12345678,O=client-ip-webhook"


def test_two_cas_share_neither_name_nor_key() -> None:
    one, other = ca(), ca()
    assert one.certificate.subject != other.certificate.subject
    assert one.certificate.public_key() != other.certificate.public_key()


def test_a_leaf_is_signed_by_its_ca_and_by_no_other() -> None:
    issuer = ca()
    leaf = issue_leaf(issuer, names=["a"], now=NOW, life=DAY)
    assert_is_leaf(leaf.certificate)
    assert is_signed_by(leaf.certificate, issuer.certificate)
    assert not is_signed_by(leaf.certificate, ca().certificate)
    assert not is_signed_by(issuer.certificate, leaf.certificate)


def test_a_forged_issuer_name_does_not_make_a_signature() -> None:
    one, twin = ca(serial=7), ca(serial=7)
    leaf = issue_leaf(one, names=["a"], now=NOW, life=DAY)
    assert one.certificate.subject == twin.certificate.subject
    assert not is_signed_by(leaf.certificate, twin.certificate)


def test_no_key_is_used_twice() -> None:
    issuer = ca()
    leaves = [issue_leaf(issuer, names=["a"], now=NOW, life=DAY) for _ in range(3)]
    assert len({pair.key_pem for pair in [issuer, *leaves]}) == 4
    assert len({pair.certificate.serial_number for pair in [issuer, *leaves]}) == 4


def test_serial_numbers_can_be_given() -> None:
    issuer = ca(serial=41)
    assert issuer.certificate.serial_number == 41
    assert issue_leaf(issuer, names=["a"], now=NOW, life=DAY, serial=42).certificate.serial_number == 42


@pytest.mark.parametrize(
    ("life", "want"),
    [
        pytest.param(timedelta(hours=1), timedelta(minutes=6), id="a short life is backdated by a tenth"),
        pytest.param(timedelta(hours=10), timedelta(hours=1), id="JUST an hour"),
        pytest.param(90 * DAY, timedelta(hours=1), id="a long life by no more than an hour"),
    ],
)
def test_certificates_are_backdated_for_clocks_that_lag(life: timedelta, want: timedelta) -> None:
    assert backdate(life) == want
    issuer = ca()
    assert (issuer.not_before, issuer.not_after) == (SECOND - timedelta(hours=1), SECOND + 365 * DAY)
    leaf = issue_leaf(issuer, names=["a"], now=NOW, life=life)
    assert (leaf.not_before, leaf.not_after) == (SECOND - want, SECOND + life)


def test_a_leaf_never_outlives_its_ca_nor_precedes_it() -> None:
    issuer = ca(life=timedelta(hours=5))
    leaf = issue_leaf(issuer, names=["a"], now=NOW, life=DAY)
    assert (leaf.not_before, leaf.not_after) == (issuer.not_before, issuer.not_after)


def test_times_of_other_zones_are_the_same_moments() -> None:
    elsewhere = NOW.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    assert ca(now=elsewhere).not_after == ca().not_after


def test_names_are_dns_names_or_addresses() -> None:
    leaf = issue_leaf(ca(), names=["webhook.example.com", "127.0.0.1", "::1"], now=NOW, life=DAY)
    san = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [
        x509.DNSName("webhook.example.com"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    assert certified_names(leaf.certificate) == {"webhook.example.com", "127.0.0.1", "::1"}
    assert certified_names(ca().certificate) == frozenset()


def test_the_first_name_of_a_service_is_the_one_that_the_api_server_asks_for() -> None:
    assert service_names("client-ip-webhook", "client-ip-system") == (
        "client-ip-webhook.client-ip-system.svc",
        "client-ip-webhook.client-ip-system.svc.cluster.local",
        "client-ip-webhook.client-ip-system",
        "client-ip-webhook",
    )
    assert service_names("a", "b", cluster_domain="example.org")[1] == "a.b.svc.example.org"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "a serving certificate needs at least one name"),
        (["a", ""], "a serving certificate's name must not be empty"),
        (["bücher.example"], "A-label"),
    ],
)
def test_names_that_no_certificate_can_carry_are_refused(names: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        general_names(names)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="timezone-aware"):
        ca(now=NOW.replace(tzinfo=None))


@pytest.mark.parametrize("life", [timedelta(), -DAY])
def test_a_life_that_is_not_positive_is_refused(life: timedelta) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ca(life=life)


@pytest.mark.parametrize(
    ("now", "signs"),
    [
        pytest.param(SECOND - timedelta(hours=1, seconds=1), False, id="the CA is not valid yet"),
        pytest.param(SECOND - timedelta(hours=1), True, id="JUST valid"),
        pytest.param(SECOND + 365 * DAY - timedelta(seconds=1), True, id="ALMOST expired"),
        pytest.param(SECOND + 365 * DAY, False, id="JUST expired"),
    ],
)
def test_a_ca_signs_within_its_life_only(now: datetime, *, signs: bool) -> None:
    issuer = ca()
    if signs:
        assert issue_leaf(issuer, names=["a"], now=now, life=DAY).not_after <= issuer.not_after
    else:
        with pytest.raises(ValueError, match="the CA is valid from"):
            issue_leaf(issuer, names=["a"], now=now, life=DAY)


def test_a_ca_with_another_kind_of_key_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    odd = ca()
    with pytest.raises(ValueError, match="not an ECDSA key"):
        issue_leaf(
            Pair(certificate=odd.certificate, certificate_pem=odd.certificate_pem, key_pem=pem),
            names=["a"],
            now=NOW,
            life=DAY,
        )
