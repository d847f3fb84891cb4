"""
Real handshakes: a good pair, then each part of it broken.

After the good one each test breaks one thing and must see it fail: the way trustme tests its certificates.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import issue_ca, issue_leaf
from certs.pair import Pair, PairError
from certs.serving import ServingCertificate
from tests.tls.listener import keep_alive_client, listening, trusting

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def new_ca() -> Pair:
    return issue_ca(organization="example", now=NOW, life=30 * DAY)


def new_leaf(ca: Pair, *names: str) -> Pair:
    return issue_leaf(ca, names=names or ("localhost", "127.0.0.1"), now=NOW, life=DAY)


def serving(pair: Pair) -> ServingCertificate:
    live = ServingCertificate()
    swap(live, pair)
    return live


def swap(live: ServingCertificate, pair: Pair) -> None:
    live.replace(pair.certificate_pem, pair.key_pem, now=NOW)


def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + certificate)
        file.flush()
        context.load_cert_chain(file.name)


def run(scenario: Coroutine[None, None, None]) -> None:
    asyncio.run(scenario)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"], ids=["by name", "by address, without SNI"])
def test_a_good_pair_is_trusted(version: ssl.TLSVersion, name: str) -> None:
    async def scenario() -> None:
        ca = new_ca()
        leaf = new_leaf(ca)
        client = trusting(ca)
        client.minimum_version = client.maximum_version = version
        async with listening(serving(leaf).context) as listener:
            seen = await listener.handshake(client, name=name)
        assert ssl.DER_cert_to_PEM_cert(seen.certificate).encode() == leaf.certificate_pem
        assert seen.alpn == "http/1.1"
        assert seen.version == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]

    run(scenario())


def test_tls_before_1_2_fails() -> None:
    async def scenario() -> None:
        ca = new_ca()
        client = trusting(ca)
        # Python deprecates these versions for the reason that this test is about.
        with pytest.warns(DeprecationWarning, match="deprecated"):
            client.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="deprecated"):
            client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.set_ciphers("DEFAULT@SECLEVEL=0")
        async with listening(serving(new_leaf(ca)).context) as listener:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await listener.handshake(client)

    run(scenario())


def test_a_wrong_host_fails() -> None:
    async def scenario() -> None:
        ca = new_ca()
        async with listening(serving(new_leaf(ca, "elsewhere.example.com")).context) as listener:
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                await listener.handshake(trusting(ca))

    run(scenario())


def test_a_wrong_ca_fails() -> None:
    async def scenario() -> None:
        async with listening(serving(new_leaf(new_ca())).context) as listener:
            with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
                await listener.handshake(trusting(new_ca()))

    run(scenario())


def test_an_expired_leaf_fails_even_when_it_is_forced() -> None:
    async def scenario() -> None:
        ca = issue_ca(organization="example", now=NOW - 9 * DAY, life=30 * DAY)
        leaf = issue_leaf(ca, names=["localhost"], now=NOW - 5 * DAY, life=DAY)
        live = ServingCertificate()
        with pytest.raises(PairError, match="expired"):
            swap(live, leaf)
        live.replace(leaf.certificate_pem, leaf.key_pem, now=NOW, force=True)
        async with listening(live.context) as listener:
            with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
                await listener.handshake(trusting(ca))

    run(scenario())


def test_no_pair_fails_and_the_first_one_ends_that() -> None:
    async def scenario() -> None:
        ca = new_ca()
        live = ServingCertificate()
        async with listening(live.context) as listener:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await listener.handshake(trusting(ca))
            swap(live, new_leaf(ca))
            await listener.handshake(trusting(ca))

    run(scenario())


@pytest.mark.parametrize("broken", ["another's key", "half a certificate", "half a key", "nothing"])
def test_a_bad_pair_never_reaches_a_handshake(broken: str) -> None:
    """A plain `load_cert_chain` with such a pair would break every handshake after it."""

    async def scenario() -> None:
        ca = new_ca()
        good, other = new_leaf(ca), new_leaf(ca)
        certificate, key = {
            "another's key": (other.certificate_pem, good.key_pem),
            "half a certificate": (other.certificate_pem[:200], other.key_pem),
            "half a key": (other.certificate_pem, other.key_pem[:80]),
            "nothing": (b"", b""),
        }[broken]
        live = serving(good)
        async with listening(live.context) as listener:
            with pytest.raises(PairError):
                live.replace(certificate, key, now=NOW)
            for _ in range(3):
                seen = await listener.handshake(trusting(ca))
                assert ssl.DER_cert_to_PEM_cert(seen.certificate).encode() == good.certificate_pem

    run(scenario())


def test_a_plain_context_is_broken_by_a_pair_that_ours_survives() -> None:
    """The reason for `certs.serving`, kept as a test: when it no longer holds, that can be simpler."""

    async def scenario() -> None:
        ca = new_ca()
        good, other = new_leaf(ca), new_leaf(ca)
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load(plain, good.certificate_pem, good.key_pem)
        async with listening(plain) as listener:
            await listener.handshake(trusting(ca))
            with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
                load(plain, other.certificate_pem, good.key_pem)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await listener.handshake(trusting(ca))

    run(scenario())


def test_an_open_connection_outlives_a_rotation() -> None:
    async def scenario() -> None:
        old, new = new_ca(), new_ca()
        live = serving(new_leaf(old))
        async with listening(live.context) as listener, keep_alive_client([old]) as client:

            async def ask() -> None:
                async with client.get(listener.url()) as answer:
                    assert await answer.text() == "served"

            await ask()
            swap(live, new_leaf(new))
            # The client does not trust the new CA: only the connection that is open already can answer.
            for _ in range(5):
                await ask()
            with pytest.raises(ssl.SSLCertVerificationError):
                await listener.handshake(trusting(old))

    run(scenario())


def test_the_new_ca_goes_into_the_bundle_before_the_new_leaf_is_served() -> None:
    async def scenario() -> None:
        old, new = new_ca(), new_ca()
        live = serving(new_leaf(old))
        async with listening(live.context) as listener:
            await listener.handshake(trusting(old))
            # First the bundle: both are trusted, the old leaf is still served.
            await listener.handshake(trusting(new, old))
            # Second the leaf: whoever has seen the bundle goes on, whoever has not fails at once.
            swap(live, new_leaf(new))
            await listener.handshake(trusting(new, old))
            with pytest.raises(ssl.SSLCertVerificationError):
                await listener.handshake(trusting(old))
            # Last the old CA goes.
            await listener.handshake(trusting(new))

    run(scenario())


def test_handshakes_never_fail_while_pairs_are_swapped() -> None:
    async def scenario() -> None:
        ca = new_ca()
        live = serving(new_leaf(ca))
        seen = set()
        async with listening(live.context) as listener:

            async def shake() -> None:
                for _ in range(10):
                    seen.add((await listener.handshake(trusting(ca))).certificate)

            async def rotate() -> None:
                for _ in range(40):
                    swap(live, new_leaf(ca))
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(shake())
                group.create_task(rotate())
        assert len(seen) > 1

    run(scenario())
