"""
The Secret that the replicas share, as a state and back.

    type: kubernetes.io/tls
    data:
      tls.crt, tls.key   the leaf, where every tool looks for one
      ca.crt             the bundle: what every caBundle must hold, newest CA first
      ca.key             the key of the newest CA
      authorities.json   {"<SHA-256 of a CA>": when the last leaf that it signed expires, or null}
    metadata.annotations: what a person asks for, removed when it is done
      client-ip.dev/rotate: leaf | ca
      client-ip.dev/drop-old: "true"

What is unreadable, does not fit together or comes from somebody else is left out of the state and named: a reason to
issue it anew, never an error. What else the object carries (labels, owners, other keys) is kept.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import is_signed_by
from certs.bundle import is_ca, is_ours, parse_bundle, render_bundle
from certs.lifecycle import MAX_AUTHORITIES, Authority, Request, State
from certs.pair import TLS_CRT, TLS_KEY, Pair, PairError, fingerprint, parse_pair

CA_CRT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
AUTHORITIES: Final = "authorities.json"
ROTATE: Final = "client-ip.dev/rotate"
DROP_OLD: Final = "client-ip.dev/drop-old"
# Each value: eight CAs are 6 KB, and a pair of ours is 1 KB.
MAX_VALUE_BYTES: Final = 16 << 10
# A P-256 key in PKCS #8 has 241.
MAX_KEY_BYTES: Final = 1 << 10
MANAGED_BY: Final = "app.kubernetes.io/managed-by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What a Secret holds.

    Attributes:
        state: All of it that can be used.
        problems: What can't, each with the key that it was found under.
        remarks: Requests that nobody understands.

    """

    state: State
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether all of the certificates are there and fit together."""
        return not self.problems and self.state.signing is not None and self.state.leaf is not None


def read_secret(secret: Mapping[str, Any] | None, *, organization: str | None = None) -> Reading:
    """
    Return what *secret* holds, as the API server spells it; None is a Secret that does not exist.

    Args:
        organization: Whose CAs count; None for whoever's.

    """
    if secret is None:
        return Reading(state=State())
    problems: list[str] = []
    remarks: list[str] = []
    data = _data(secret, problems)
    authorities = _authorities(data, problems, organization)
    state = State(
        authorities=authorities,
        ca_key_pem=_ca_key(authorities, data, problems),
        leaf=_leaf(authorities, data, problems),
        requests=_requests(secret, remarks),
    )
    return Reading(state=state, problems=tuple(problems), remarks=tuple(remarks))


def write_secret(
    secret: Mapping[str, Any] | None, state: State, *, namespace: str, name: str, organization: str
) -> dict[str, Any]:
    """
    Return the object that stores *state*: *secret* with our part replaced, or a new one.

    The resourceVersion stays in it, so that storing it succeeds only if nobody else has written since.

    Raises:
        ValueError: *state* is incomplete.

    """
    if state.leaf is None or state.ca_key_pem is None:
        raise ValueError("a state without a leaf or a CA key cannot be stored")
    metadata = dict(_mapping((secret or {}).get("metadata")))
    annotations = {
        key: value for key, value in _mapping(metadata.get("annotations")).items() if key not in (ROTATE, DROP_OLD)
    } | _request_annotations(state.requests)
    labels = {MANAGED_BY: organization} | dict(_mapping(metadata.get("labels")))
    expiries = {
        fingerprint(known.certificate): known.last_leaf_expires.isoformat() if known.last_leaf_expires else None
        for known in state.authorities
    }
    ours = {
        TLS_CRT: state.leaf.certificate_pem,
        TLS_KEY: state.leaf.key_pem,
        CA_CRT: state.bundle,
        CA_KEY: state.ca_key_pem,
        AUTHORITIES: json.dumps(expiries, indent=1).encode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        # A Secret's type can't be changed; one that somebody made for us keeps its own.
        "type": (secret or {}).get("type", "kubernetes.io/tls"),
        "metadata": metadata | {"namespace": namespace, "name": name, "annotations": annotations, "labels": labels},
        "data": dict(_mapping((secret or {}).get("data")))
        | {key: base64.b64encode(value).decode() for key, value in ours.items()},
    }


def ask(secret: Mapping[str, Any], requests: frozenset[Request]) -> dict[str, Any]:
    """Return *secret* with *requests* noted beside those that it carries already."""
    metadata = _mapping(secret.get("metadata"))
    annotations = dict(_mapping(metadata.get("annotations")))
    every = _requests(secret, []) | requests
    return dict(secret) | {"metadata": dict(metadata) | {"annotations": annotations | _request_annotations(every)}}


def _request_annotations(requests: frozenset[Request]) -> dict[str, str]:
    """Return the annotations that ask for *requests*; a new CA brings a new leaf, so one key says which."""
    annotations = {}
    if Request.CA in requests:
        annotations[ROTATE] = Request.CA.value
    elif Request.LEAF in requests:
        annotations[ROTATE] = Request.LEAF.value
    if Request.DROP_OLD in requests:
        annotations[DROP_OLD] = "true"
    return annotations


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _data(secret: Mapping[str, Any], problems: list[str]) -> dict[str, bytes]:
    """Return our keys' decoded values; missing ones are empty and named."""
    encoded = _mapping(secret.get("data"))
    decoded = {}
    for key in (TLS_CRT, TLS_KEY, CA_CRT, CA_KEY):
        value = encoded.get(key)
        try:
            if value is None:
                raise ValueError("is missing")
            decoded[key] = _decoded(value)
        except (binascii.Error, TypeError, ValueError) as error:
            said = value is None or isinstance(error, ValueTooLargeError)
            problems.append(f"{key}: {error}" if said else f"{key}: is not base64 ({error})")
            decoded[key] = b""
    try:
        decoded[AUTHORITIES] = _decoded(encoded.get(AUTHORITIES) or "")
    except (binascii.Error, TypeError, ValueError):
        decoded[AUTHORITIES] = b""
    return decoded


class ValueTooLargeError(ValueError):
    """A value of the Secret that is larger than anything that we store."""


def _decoded(value: str) -> bytes:
    if len(value) > MAX_VALUE_BYTES * 4 // 3 + 4:
        raise ValueTooLargeError(f"is larger than {MAX_VALUE_BYTES} bytes")
    return base64.b64decode(value, validate=True)


def _authorities(data: Mapping[str, bytes], problems: list[str], organization: str | None) -> tuple[Authority, ...]:
    bundle = parse_bundle(data[CA_CRT])
    if bundle.unreadable:
        problems.append(f"{CA_CRT}: {bundle.unreadable} certificates cannot be read")
    foreign = [certificate for certificate in bundle.certificates if not is_ca(certificate)]
    if foreign:
        problems.append(f"{CA_CRT}: {len(foreign)} certificates are not CA certificates")
    others = [
        certificate
        for certificate in bundle.certificates
        if organization is not None and certificate not in foreign and not is_ours(certificate, organization)
    ]
    if others:
        problems.append(f"{CA_CRT}: {len(others)} CAs are not the webhook's")
    known = [certificate for certificate in bundle.certificates if certificate not in (*foreign, *others)]
    if len(known) > MAX_AUTHORITIES:
        problems.append(f"{CA_CRT}: has {len(known)} CAs, of which only the first {MAX_AUTHORITIES} are used")
    expiries = _expiries(data[AUTHORITIES])
    return tuple(
        Authority(certificate=certificate, last_leaf_expires=_last_leaf_expires(certificate, expiries))
        for certificate in known[:MAX_AUTHORITIES]
    )


def _expiries(text: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _last_leaf_expires(certificate: x509.Certificate, expiries: Mapping[str, Any]) -> datetime | None:
    """Return what was noted; where nothing readable was, the CA's own end, which no leaf of its outlives."""
    noted = expiries.get(fingerprint(certificate), "")
    if noted is None:
        return None
    try:
        moment = datetime.fromisoformat(noted)
    except (TypeError, ValueError):
        return certificate.not_valid_after_utc
    return moment if moment.tzinfo else certificate.not_valid_after_utc


def _ca_key(authorities: tuple[Authority, ...], data: Mapping[str, bytes], problems: list[str]) -> bytes | None:
    if not authorities:
        if data[CA_CRT]:
            problems.append(f"{CA_CRT}: contains no CA")
        return None
    first = render_bundle([authorities[0].certificate])
    pair = _ecdsa_pair(first, data[CA_KEY], CA_CRT, CA_KEY, problems)
    return pair.key_pem if pair else None


def _leaf(authorities: tuple[Authority, ...], data: Mapping[str, bytes], problems: list[str]) -> Pair | None:
    pair = _ecdsa_pair(data[TLS_CRT], data[TLS_KEY], TLS_CRT, TLS_KEY, problems)
    if pair is None:
        return None
    if not any(is_signed_by(pair.certificate, known.certificate) for known in authorities):
        problems.append(f"{TLS_CRT}: was not signed by a CA in {CA_CRT}")
        return None
    # OpenSSL would not serve it: https://docs.openssl.org/3.0/man3/SSL_CTX_set_security_level/
    if not isinstance(pair.certificate.signature_hash_algorithm, hashes.SHA256):
        problems.append(f"{TLS_CRT}: is not signed with SHA-256, so it is not the webhook's")
        return None
    return pair


def _ecdsa_pair(
    certificate: bytes, key_pem: bytes, certificate_field: str, key_field: str, problems: list[str]
) -> Pair | None:
    if not certificate or not key_pem:  # named already, where the data was read
        return None
    if len(key_pem) > MAX_KEY_BYTES:
        problems.append(f"{key_field}: is larger than {MAX_KEY_BYTES} bytes, so it is not the webhook's")
        return None
    try:
        pair = parse_pair(certificate, key_pem, certificate_field=certificate_field, key_field=key_field)
    except PairError as error:
        problems.append(str(error))
        return None
    key = pair.certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        problems.append(f"{certificate_field}: is not for an ECDSA P-256 key, so it is not the webhook's")
        return None
    # A chain that somebody appended is left out: OpenSSL refuses to serve some, and no client of ours needs any.
    return replace(pair, certificate_pem=render_bundle([pair.certificate]))


def _requests(secret: Mapping[str, Any], remarks: list[str]) -> frozenset[Request]:
    annotations = _mapping(_mapping(secret.get("metadata")).get("annotations"))
    requests = set()
    rotate = annotations.get(ROTATE)
    if rotate in (Request.LEAF, Request.CA):
        requests.add(Request(rotate))
    elif rotate is not None:
        remarks.append(f"annotation {ROTATE}: must be leaf or ca, not {_quoted(rotate)}")
    drop_old = annotations.get(DROP_OLD)
    if drop_old == "true":
        requests.add(Request.DROP_OLD)
    elif drop_old is not None:
        remarks.append(f'annotation {DROP_OLD}: must be "true", not {_quoted(drop_old)}')
    return frozenset(requests)


def _quoted(value: object) -> str:
    return repr(value if len(str(value)) <= 80 else f"{str(value)[:80]}…")
