"""Secret to state and back: nothing that somebody wrote there is more than a reason to start anew."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509 import CertificateBuilder
from hypothesis import given, settings as budget, strategies as st

from certs.authority import certified_names, issue_ca, issue_leaf
from certs.bundle import is_ours
from certs.lifecycle import MAX_AUTHORITIES, Keep, Request, RotateCA, Settings, State, advance, settle
from certs.pair import Pair, fingerprint
from certs.secret import ask, read_secret, write_secret

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SETTINGS = Settings(names=("webhook.system.svc",))
FRESH = settle(State(), now=NOW, settings=SETTINGS)[0]
ROTATING = advance(FRESH, RotateCA(""), now=NOW, settings=SETTINGS)
Json = dict[str, Any]


def stored(state: State = FRESH, secret: Json | None = None) -> Json:
    return write_secret(secret, state, namespace="system", name="certs", organization="client-ip-webhook")


def encoded(text: bytes | str) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def with_data(**changes: bytes | None) -> Json:
    """Return the stored Secret with keys changed: `tls_crt` is `tls.crt`; None takes it away."""
    secret = stored()
    for name, value in changes.items():
        key = name.replace("_", ".")
        if value is None:
            del secret["data"][key]
        else:
            secret["data"][key] = encoded(value)
    return secret


class TestRoundTrip:
    """What is written is what is read."""

    @pytest.mark.parametrize(
        "state",
        [
            pytest.param(FRESH, id="one CA"),
            pytest.param(ROTATING, id="a CA that has signed nothing yet, and an old one"),
            pytest.param(replace(FRESH, requests=frozenset({Request.LEAF})), id="a leaf asked for"),
            pytest.param(replace(FRESH, requests=frozenset({Request.CA, Request.DROP_OLD})), id="a CA and drop-old"),
        ],
    )
    def test_a_state_survives(self, state: State) -> None:
        reading = read_secret(stored(state))
        assert reading.state == state
        assert (reading.problems, reading.remarks, reading.is_intact) == ((), (), True)

    def test_the_object_is_what_every_tool_expects_of_a_tls_secret(self) -> None:
        secret = stored()
        assert FRESH.leaf is not None
        assert (secret["apiVersion"], secret["kind"], secret["type"]) == ("v1", "Secret", "kubernetes.io/tls")
        assert secret["metadata"] == {
            "namespace": "system",
            "name": "certs",
            "annotations": {},
            "labels": {"app.kubernetes.io/managed-by": "client-ip-webhook"},
        }
        assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt", "ca.key", "authorities.json"}
        assert base64.b64decode(secret["data"]["tls.crt"]) == FRESH.leaf.certificate_pem
        assert base64.b64decode(secret["data"]["ca.crt"]) == FRESH.bundle
        assert json.loads(base64.b64decode(secret["data"]["authorities.json"])) == {
            fingerprint(FRESH.authorities[0].certificate): "2027-02-21T12:00:00+00:00"
        }

    def test_what_others_wrote_is_kept(self) -> None:
        theirs = {
            "type": "Opaque",
            "metadata": {
                "resourceVersion": "7",
                "labels": {"team": "mesh", "app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"note": "hands off", "client-ip.dev/rotate": "ca", "client-ip.dev/drop-old": "true"},
            },
            "data": {"extra": "eA==", "tls.crt": "eA=="},
        }
        secret = stored(FRESH, theirs)
        assert secret["type"] == "Opaque"
        assert secret["metadata"]["resourceVersion"] == "7"
        assert secret["metadata"]["labels"] == {"team": "mesh", "app.kubernetes.io/managed-by": "Helm"}
        assert secret["metadata"]["annotations"] == {"note": "hands off"}
        assert secret["data"]["extra"] == "eA=="
        assert read_secret(secret).state == FRESH

    @pytest.mark.parametrize("state", [State(), replace(FRESH, leaf=None), replace(FRESH, ca_key_pem=None)])
    def test_half_a_state_is_never_written(self, state: State) -> None:
        with pytest.raises(ValueError, match="cannot be stored"):
            stored(state)


def test_no_secret_is_no_state_and_no_problem() -> None:
    reading = read_secret(None)
    assert (reading.state, reading.problems, reading.is_intact) == (State(), (), False)


def odd_leaf(curve: ec.EllipticCurve, algorithm: hashes.SHA256 | hashes.SHA384) -> Pair:
    """A leaf of our CA's as nothing of ours issues it."""
    key = ec.generate_private_key(curve)
    signer = load_pem_private_key(FRESH.ca_key_pem or b"", password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = CertificateBuilder(
        issuer_name=FRESH.authorities[0].certificate.subject,
        subject_name=FRESH.authorities[0].certificate.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=NOW,
        not_valid_after=NOW + DAY,
    ).sign(signer, algorithm)
    return Pair(
        certificate=certificate,
        certificate_pem=certificate.public_bytes(Encoding.PEM),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


OTHER = settle(State(), now=NOW, settings=SETTINGS)[0]
assert FRESH.leaf is not None
assert OTHER.leaf is not None
ODD = odd_leaf(ec.SECP384R1(), hashes.SHA256())
ODD_HASH = odd_leaf(ec.SECP256R1(), hashes.SHA384())


MANY = b"".join(issue_ca(organization=SETTINGS.organization, now=NOW, life=365 * DAY).certificate_pem for _ in range(9))


def test_a_chain_that_somebody_appended_is_left_out() -> None:
    assert FRESH.leaf is not None
    assert OTHER.leaf is not None
    reading = read_secret(with_data(tls_crt=FRESH.leaf.certificate_pem + OTHER.leaf.certificate_pem))
    assert reading.is_intact
    assert reading.state == FRESH


@pytest.mark.parametrize(
    ("secret", "survivors", "problems"),
    [
        pytest.param(with_data(tls_crt=None), {"ca"}, ["tls.crt: is missing"], id="no certificate"),
        pytest.param(with_data(tls_key=b""), {"ca"}, [], id="an empty key"),
        pytest.param(
            with_data(tls_crt=FRESH.leaf.certificate_pem[:99]),
            {"ca"},
            ["tls.crt: contains no readable PEM certificate"],
            id="half a certificate",
        ),
        pytest.param(
            with_data(tls_key=OTHER.leaf.key_pem),
            {"ca"},
            ["tls.key: is not the private key of the first certificate in tls.crt"],
            id="another leaf's key",
        ),
        pytest.param(
            with_data(tls_crt=OTHER.leaf.certificate_pem, tls_key=OTHER.leaf.key_pem),
            {"ca"},
            ["tls.crt: was not signed by a CA in ca.crt"],
            id="another CA's leaf",
        ),
        pytest.param(
            with_data(tls_crt=ODD.certificate_pem, tls_key=ODD.key_pem),
            {"ca"},
            ["tls.crt: is not for an ECDSA P-256 key, so it is not the webhook's"],
            id="a leaf of another curve",
        ),
        pytest.param(
            with_data(ca_key=None), {"leaf"}, ["ca.key: is missing"], id="no CA key, as cert-manager leaves it"
        ),
        pytest.param(
            with_data(ca_key=OTHER.ca_key_pem),
            {"leaf"},
            ["ca.key: is not the private key of the first certificate in ca.crt"],
            id="another CA's key",
        ),
        pytest.param(
            with_data(tls_crt=ODD_HASH.certificate_pem, tls_key=ODD_HASH.key_pem),
            {"ca"},
            ["tls.crt: is not signed with SHA-256, so it is not the webhook's"],
            id="another hash",
        ),
        pytest.param(
            with_data(ca_crt=FRESH.bundle + OTHER.bundle[:99]),
            {"ca", "leaf"},
            ["ca.crt: 1 certificates cannot be read"],
            id="a good CA and half of one",
        ),
        pytest.param(
            with_data(ca_crt=FRESH.leaf.certificate_pem + FRESH.bundle),
            {"ca", "leaf"},
            ["ca.crt: 1 certificates are not CA certificates"],
            id="a leaf among the CAs",
        ),
        pytest.param(
            with_data(ca_crt=b"hello"),
            set(),
            ["ca.crt: contains no CA", "tls.crt: was not signed by a CA in ca.crt"],
            id="no CA",
        ),
        pytest.param(
            with_data(ca_crt=b"-----BEGIN CERTIFICATE-----\n" * 25_000),
            set(),
            ["ca.crt: is larger than 16384 bytes", "tls.crt: was not signed by a CA in ca.crt"],
            id="700 KB of beginnings",
        ),
        pytest.param(
            with_data(tls_key=b"-----BEGIN %b-----\n" % b"PRIVATE KEY" + b"A" * 2000),
            {"ca"},
            ["tls.key: is larger than 1024 bytes, so it is not the webhook's"],
            id="a long key",
        ),
        pytest.param(
            with_data(ca_crt=FRESH.bundle + MANY),
            {"ca", "leaf"},
            ["ca.crt: has 10 CAs, of which only the first 8 are used"],
            id="more CAs than anybody needs",
        ),
        pytest.param(
            stored() | {"data": None},
            set(),
            ["tls.crt: is missing", "tls.key: is missing", "ca.crt: is missing", "ca.key: is missing"],
            id="no data at all",
        ),
        pytest.param(
            stored() | {"data": {"tls.crt": "%", "tls.key": 7, "ca.crt": "é", "ca.key": ["x"], "authorities.json": 3}},
            set(),
            ["tls.crt: is not base64", "tls.key: is not base64", "ca.crt: is not base64", "ca.key: is not base64"],
            id="no base64",
        ),
    ],
)
def test_what_is_damaged_is_named_and_the_rest_survives(secret: Json, survivors: set[str], problems: list[str]) -> None:
    reading = read_secret(secret)
    assert len(reading.state.authorities) <= MAX_AUTHORITIES
    assert {"ca"} & survivors == ({"ca"} if reading.state.signing else set())
    assert {"leaf"} & survivors == ({"leaf"} if reading.state.leaf else set())
    assert len(reading.problems) == len(problems)
    assert all(found.startswith(problem) for found, problem in zip(reading.problems, problems, strict=True))
    assert not reading.is_intact
    # The rest of the story: it can always be made whole again.
    state, actions = settle(reading.state, now=NOW, settings=SETTINGS)
    assert isinstance(actions[-1], Keep)
    assert read_secret(stored(state, secret)).is_intact or "type" not in secret


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(b"", NOW + 365 * DAY, id="nothing"),
        pytest.param(b"{", NOW + 365 * DAY, id="no JSON"),
        pytest.param(b"\xff", NOW + 365 * DAY, id="no text"),
        pytest.param(b"[" * 100_000, NOW + 365 * DAY, id="too deep"),
        pytest.param(b"[]", NOW + 365 * DAY, id="no object"),
        pytest.param(b'{"FINGERPRINT": 7}', NOW + 365 * DAY, id="a number"),
        pytest.param(b'{"FINGERPRINT": "soon"}', NOW + 365 * DAY, id="no time"),
        pytest.param(b'{"FINGERPRINT": "2027-01-01T00:00:00"}', NOW + 365 * DAY, id="no time zone"),
        pytest.param(b'{"FINGERPRINT": null}', None, id="signed nothing"),
        pytest.param(b'{"FINGERPRINT": "2027-01-01T00:00:00Z"}', datetime(2027, 1, 1, tzinfo=UTC), id="a time"),
    ],
)
def test_an_unreadable_note_keeps_a_ca_until_its_own_end(text: bytes, want: datetime | None) -> None:
    name = fingerprint(FRESH.authorities[0].certificate).encode()
    reading = read_secret(with_data(authorities_json=text.replace(b"FINGERPRINT", name)))
    assert reading.state.authorities[0].last_leaf_expires == want
    assert reading.is_intact


class TestRequests:
    """Annotations that a person writes, with `client-ip certs rotate` or with kubectl."""

    @pytest.mark.parametrize(
        ("annotations", "requests"),
        [
            ({}, set()),
            ({"client-ip.dev/rotate": "leaf"}, {Request.LEAF}),
            ({"client-ip.dev/rotate": "ca"}, {Request.CA}),
            ({"client-ip.dev/drop-old": "true"}, {Request.DROP_OLD}),
            ({"client-ip.dev/rotate": "ca", "client-ip.dev/drop-old": "true"}, {Request.CA, Request.DROP_OLD}),
        ],
    )
    def test_they_are_read_and_written(self, annotations: dict[str, str], requests: set[Request]) -> None:
        secret = stored()
        secret["metadata"]["annotations"] = annotations
        assert read_secret(secret).state.requests == requests
        asked = ask(stored(), frozenset(requests))
        assert asked["metadata"]["annotations"] == annotations
        assert asked["data"] == stored()["data"]

    def test_what_nobody_understands_is_said_and_harms_nothing(self) -> None:
        secret = stored()
        secret["metadata"]["annotations"] = {"client-ip.dev/rotate": "all", "client-ip.dev/drop-old": True}
        reading = read_secret(secret)
        assert reading.remarks == (
            "annotation client-ip.dev/rotate: must be leaf or ca, not 'all'",
            'annotation client-ip.dev/drop-old: must be "true", not True',
        )
        assert reading.is_intact
        assert reading.state == FRESH

    def test_a_request_joins_those_that_are_there(self) -> None:
        asked = ask(ask(stored(), frozenset({Request.DROP_OLD})), frozenset({Request.CA}))
        assert read_secret(asked).state.requests == {Request.CA, Request.DROP_OLD}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary().map(encoded),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("tls.crt", "tls.key", "ca.crt", "ca.key", "authorities.json")


def damaged(text: bytes) -> st.SearchStrategy[bytes]:
    """Return *text* with a stretch of it overwritten, or cut off."""

    def damage(where: int, what: bytes, *, cut: bool) -> bytes:
        return text[:where] + what + (b"" if cut else text[where + len(what) :])

    return st.builds(damage, st.integers(0, len(text)), st.binary(max_size=6), cut=st.booleans())


def damaged_certificate(pem: bytes) -> st.SearchStrategy[bytes]:
    """Return *pem* with its DER damaged within, so that it looks whole."""
    end = pem.index(b"-----END ")
    lines = [*pem[:end].splitlines(), pem[end:].splitlines()[0]]
    der = base64.b64decode(b"".join(lines[1:-1]))

    def wrap(content: bytes) -> bytes:
        return b"\n".join([lines[0], base64.b64encode(content), lines[-1], b""])

    return damaged(der).map(wrap)


def never_fails(secret: Json) -> None:
    reading = read_secret(secret)
    for known in reading.state.authorities:
        is_ours(known.certificate, "client-ip-webhook")
        certified_names(known.certificate)
    state, _ = settle(reading.state, now=NOW, settings=SETTINGS)
    again = stored(state, secret)
    assert read_secret(again).state.signing is not None


class TestLaws:
    """Nothing crashes, and everything can be made whole."""

    @given(data=JUNK | st.dictionaries(st.sampled_from(KEYS), JUNK), metadata=JUNK)
    @budget(deadline=None)
    def test_junk(self, data: object, metadata: object) -> None:
        never_fails({"data": data, "metadata": metadata, "type": "Opaque"})

    @given(st.data(), st.sampled_from(KEYS))
    @budget(deadline=None, max_examples=200)
    def test_damage(self, data: st.DataObject, key: str) -> None:
        secret = stored(ROTATING)
        text = base64.b64decode(secret["data"][key])
        strategies: list[Callable[[bytes], st.SearchStrategy[bytes]]] = [damaged]
        if key.endswith(".crt"):
            strategies.append(damaged_certificate)
        strategy = data.draw(st.sampled_from(strategies))
        secret["data"][key] = encoded(data.draw(strategy(text)))
        never_fails(secret)


def test_cas_of_others_are_named_and_left_out() -> None:
    foreign = issue_ca(organization="attacker", now=NOW, life=3650 * DAY)
    leaf = issue_leaf(foreign, names=["kubernetes.default.svc"], now=NOW, life=3000 * DAY)
    secret = with_data(
        ca_crt=foreign.certificate_pem + FRESH.bundle,
        ca_key=foreign.key_pem,
        tls_crt=leaf.certificate_pem,
        tls_key=leaf.key_pem,
    )
    assert read_secret(secret).is_intact
    reading = read_secret(secret, organization=SETTINGS.organization)
    assert reading.problems[0] == "ca.crt: 1 CAs are not the webhook's"
    assert reading.state.authorities == FRESH.authorities
    assert reading.state.leaf is None


def test_a_remark_quotes_no_more_than_a_line() -> None:
    secret = stored() | {"metadata": {"annotations": {"client-ip.dev/rotate": "x" * 100_000}}}
    (remark,) = read_secret(secret).remarks
    assert len(remark) < 200
