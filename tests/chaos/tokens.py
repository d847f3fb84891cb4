"""
ServiceAccount tokens of any life: TokenRequest grants ten minutes at least, which a test can't wait for.

Signed with the control plane's own key, they differ from the API server's in their life alone.
https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.parts.kube import SERVICE_ACCOUNT_ISSUER, ControlPlane

LEEWAY: Final = timedelta(minutes=1)
"""
What the API server allows for clocks that differ: a token is good that long after its `exp`.

https://github.com/go-jose/go-jose/blob/v4.1.2/jwt/validation.go (DefaultLeeway)
"""


def mint(plane: ControlPlane, namespace: str, name: str, *, life: timedelta) -> str:
    """Return a token of the ServiceAccount that the API server takes from now on for *life*."""
    account = plane.client().get("v1", "ServiceAccount", name, namespace=namespace)
    now = datetime.now(UTC) - LEEWAY
    claims = {
        "iss": SERVICE_ACCOUNT_ISSUER,
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "aud": [SERVICE_ACCOUNT_ISSUER],
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int((now + life).timestamp()),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]}},
    }
    key = serialization.load_pem_private_key((plane.folder / "pki" / "sa.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signed = f"{_part({'alg': 'ES256', 'typ': 'JWT'})}.{_part(claims)}"
    first, second = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_base64(first.to_bytes(32, 'big') + second.to_bytes(32, 'big'))}"


def _part(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
