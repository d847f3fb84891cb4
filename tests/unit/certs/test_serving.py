"""The live pair: what replaces it, what can't, and files that change under it."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from certs.authority import issue_ca, issue_leaf
from certs.pair import Pair, PairError
from certs.serving import MAX_FILE_BYTES, MountedPair, ServingCertificate

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CA = issue_ca(organization="example", now=NOW, life=30 * DAY)


def new_leaf() -> Pair:
    return issue_leaf(CA, names=["localhost"], now=NOW, life=10 * DAY)


def serve(serving: ServingCertificate, pair: Pair) -> None:
    serving.replace(pair.certificate_pem, pair.key_pem, now=NOW)


def test_nothing_is_served_before_the_first_pair() -> None:
    serving = ServingCertificate()
    assert (serving.pair, serving.not_after, serving.fingerprint) == (None, None, None)
    assert not serving.healthy(NOW)


def test_the_context_speaks_what_the_api_server_speaks() -> None:
    context = ServingCertificate().context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET


def test_a_good_pair_replaces_the_one_before() -> None:
    serving = ServingCertificate()
    context = serving.context
    for pair in (new_leaf(), new_leaf()):
        serve(serving, pair)
        assert (serving.pair, serving.not_after, serving.fingerprint) == (pair, pair.not_after, pair.fingerprint)
    assert serving.context is context


@pytest.mark.parametrize(
    ("now", "healthy"),
    [
        pytest.param(NOW - timedelta(hours=1, seconds=1), False, id="ALMOST valid"),
        pytest.param(NOW - timedelta(hours=1), True, id="JUST valid"),
        pytest.param(NOW + 10 * DAY - timedelta(seconds=1), True, id="ALMOST expired"),
        pytest.param(NOW + 10 * DAY, False, id="JUST expired"),
    ],
)
def test_health_is_the_life_of_what_is_served(now: datetime, *, healthy: bool) -> None:
    serving = ServingCertificate()
    serve(serving, new_leaf())
    assert serving.healthy(now) is healthy


@pytest.mark.parametrize("now", [NOW - DAY, NOW + 10 * DAY])
def test_a_pair_outside_its_life_is_served_only_by_force(now: datetime) -> None:
    serving, first, second = ServingCertificate(), new_leaf(), new_leaf()
    serve(serving, first)
    with pytest.raises(PairError, match=r"^tls\.crt: the certificate "):
        serving.replace(second.certificate_pem, second.key_pem, now=now)
    assert serving.pair == first
    serving.replace(second.certificate_pem, second.key_pem, now=now, force=True)
    assert serving.pair == second


def test_a_key_file_may_hold_certificates_too() -> None:
    """Many tools write the key and the chain into one file; the certificate file says which one is served."""
    serving, leaf = ServingCertificate(), new_leaf()
    serving.replace(leaf.certificate_pem, leaf.key_pem + CA.certificate_pem, now=NOW)
    assert serving.pair is not None
    assert serving.pair.certificate == leaf.certificate


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | x25519.X25519PrivateKey | ed448.Ed448PrivateKey


def test_a_pair_that_openssl_refuses_changes_nothing() -> None:
    serving, first = ServingCertificate(), new_leaf()
    serve(serving, first)
    # In the chain, whose keys are not looked at here, one that is too short for OpenSSL's security level.
    # https://docs.openssl.org/3.0/man3/SSL_CTX_set_security_level/
    _, weak = _certificate_of(rsa.generate_private_key(65537, 1024), first, hashes.SHA256())  # noqa: S505  # that it is weak is the point
    with pytest.raises(PairError, match=r"^tls\.crt: OpenSSL rejects the certificate or its key \(CA_KEY_TOO_SMALL"):
        serving.replace(first.certificate_pem + weak, first.key_pem, now=NOW)
    assert serving.pair == first


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(x25519.X25519PrivateKey.generate(), id="one that can't sign"),
        pytest.param(rsa.generate_private_key(65537, 1024), id="short RSA"),  # noqa: S505  # that it is weak is the point
        pytest.param(rsa.generate_private_key(65537, 4104), id="long RSA"),
        pytest.param(ec.generate_private_key(ec.BrainpoolP256R1()), id="an odd curve"),
        pytest.param(ed448.Ed448PrivateKey.generate(), id="Ed448"),
    ],
)
def test_keys_of_other_kinds_are_not_served(key: Key) -> None:
    serving, first = ServingCertificate(), new_leaf()
    serve(serving, first)
    text, certificate = _certificate_of(key, first, hashes.SHA256())
    with pytest.raises(PairError, match=r"^tls\.crt: has an unsupported type of key: must be RSA of 2048 to "):
        serving.replace(certificate, text, now=NOW)
    assert serving.pair == first


def _certificate_of(key: Key, like: Pair, algorithm: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    signer = load_pem_private_key(CA.key_pem, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder(
            subject_name=like.certificate.subject,
            issuer_name=CA.certificate.subject,
            public_key=key.public_key(),
            serial_number=1,
            not_valid_before=like.not_before,
            not_valid_after=like.not_after,
        )
        .sign(signer, algorithm)  # type: ignore[arg-type]  # SHA-1 is not among the types
        .public_bytes(Encoding.PEM)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), certificate


class Mount:
    """A mounted Secret, laid out as the kubelet does: the files are links into a folder that one rename swaps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "tls.crt"
        self.key = folder / "tls.key"
        self.generation = 0
        for file in (self.certificate, self.key):
            file.symlink_to(Path("..data") / file.name)

    def swap(self, certificate: bytes, key: bytes) -> None:
        self.generation += 1
        data = self.folder / f"..{self.generation}"
        data.mkdir()
        (data / "tls.crt").write_bytes(certificate)
        (data / "tls.key").write_bytes(key)
        link = self.folder / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(self.folder / "..data")

    def swap_pair(self, pair: Pair) -> None:
        self.swap(pair.certificate_pem, pair.key_pem)

    def pair(self, serving: ServingCertificate) -> MountedPair:
        return MountedPair(serving, certificate=self.certificate, key=self.key)


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path)


def test_mounted_files_are_served_when_they_change(mount: Mount) -> None:
    serving = ServingCertificate()
    files = mount.pair(serving)
    for _ in range(3):
        pair = new_leaf()
        mount.swap_pair(pair)
        assert files.refresh(now=NOW)
        assert serving.pair == pair
        assert not files.refresh(now=NOW)


def test_files_written_anew_with_the_same_content_are_the_same_pair(mount: Mount) -> None:
    serving, pair = ServingCertificate(), new_leaf()
    files = mount.pair(serving)
    mount.swap_pair(pair)
    assert files.refresh(now=NOW)
    served = serving.pair
    mount.swap_pair(pair)
    assert not files.refresh(now=NOW)
    assert serving.pair is served


def test_files_written_one_after_the_other_are_refused_until_they_fit(tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    first, second = new_leaf(), new_leaf()
    certificate.write_bytes(first.certificate_pem)
    key.write_bytes(first.key_pem)
    serving = ServingCertificate()
    files = MountedPair(serving, certificate=certificate, key=key)
    assert files.refresh(now=NOW)
    certificate.write_bytes(second.certificate_pem[:100])
    with pytest.raises(PairError, match=f"^{certificate}: "):
        files.refresh(now=NOW)
    certificate.write_bytes(second.certificate_pem)
    for _ in range(2):
        with pytest.raises(
            PairError, match=f"^{key}: is not the private key of the first certificate in {certificate}"
        ):
            files.refresh(now=NOW)
    assert serving.pair == first
    key.write_bytes(second.key_pem)
    assert files.refresh(now=NOW)
    assert serving.pair == second


def test_a_pair_whose_life_begins_later_is_served_then(mount: Mount) -> None:
    serving, pair = ServingCertificate(), new_leaf()
    files = mount.pair(serving)
    mount.swap_pair(pair)
    with pytest.raises(PairError, match="not valid before"):
        files.refresh(now=NOW - DAY)
    assert files.refresh(now=NOW)
    assert serving.pair == pair


def test_missing_files_are_named(mount: Mount) -> None:
    serving = ServingCertificate()
    files = mount.pair(serving)
    with pytest.raises(PairError) as caught:
        files.refresh(now=NOW)
    assert str(caught.value) == f"{mount.certificate}: cannot be read (No such file or directory)"


def test_a_folder_is_no_certificate(tmp_path: Path) -> None:
    files = MountedPair(ServingCertificate(), certificate=tmp_path, key=tmp_path)
    with pytest.raises(PairError) as caught:
        files.refresh(now=NOW)
    assert str(caught.value) == f"{tmp_path}: cannot be read (Is a directory)"


def test_a_huge_file_is_no_certificate(mount: Mount) -> None:
    mount.swap(b"x" * (MAX_FILE_BYTES + 1), b"")
    with pytest.raises(PairError, match=f"^{mount.certificate}: is larger than 65536 bytes"):
        mount.pair(ServingCertificate()).refresh(now=NOW)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


def test_a_running_reload_says_each_refusal_once_and_goes_on(mount: Mount, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        serving, first, second = ServingCertificate(), new_leaf(), new_leaf()
        mount.swap_pair(first)
        rounds = 0

        def clock() -> datetime:
            nonlocal rounds
            rounds += 1
            return NOW

        files = mount.pair(serving)
        task = asyncio.create_task(files.run(clock=clock, interval=timedelta(milliseconds=2)))
        await until(lambda: serving.pair == first and rounds >= 3)
        mount.swap(second.certificate_pem, first.key_pem)
        before = rounds
        await until(lambda: rounds >= before + 5)
        assert serving.pair == first
        mount.swap_pair(second)
        await until(lambda: serving.pair == second)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.INFO, logger="certs.serving"):
        asyncio.run(scenario())
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert caplog.messages[0] == f"serving the certificate in {mount.certificate} until 2026-12-03 12:00:00+00:00"
    assert caplog.messages[1].startswith(f"the previous certificate stays in use: {mount.key}: is not the private key")


def test_no_descriptor_is_left_behind() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    serving = ServingCertificate()
    for _ in range(20):
        serve(serving, new_leaf())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
