"""
The caBundle of our webhook configurations: what they trust, and the patch that makes them trust what they must.

Only `clientConfig.caBundle` is written, only where it differs, and only of webhooks that call us. A webhook that
somebody appended to our configuration and that calls something else is left alone.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from certs.authority import is_signed_by
from certs.bundle import parse_bundle
from certs.kube import KubeApi, KubeObject

NO_OPERATIONS: Final[list[Mapping[str, Any]]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One webhook of a configuration that calls us.

    Attributes:
        index: Its place in the list, which a patch must name.
        name: Its name, which a patch tests: the list may have been reordered meanwhile.
        ca_bundle: What it trusts; empty where it trusts whatever the API server's host trusts.

    """

    index: int
    name: str
    ca_bundle: bytes


def entries(configuration: KubeObject, names: Iterable[str]) -> Iterator[Entry]:
    """Yield the webhooks of *configuration* that call one of *names*: by Service or by URL."""
    hosts = {name.lower() for name in names}
    for index, webhook in enumerate(configuration.get("webhooks") or ()):
        client = webhook.get("clientConfig") or {}
        if _host(client) in hosts:
            yield Entry(index=index, name=webhook["name"], ca_bundle=_decoded(client.get("caBundle")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """
    What the webhooks that call us trust.

    Attributes:
        callers: How many there are; where there is none, nobody distrusts anything.
        authorities: The CAs that all of them trust.

    """

    callers: int
    authorities: frozenset[x509.Certificate]

    def includes(self, ca: x509.Certificate) -> bool:
        """Return whether no caller distrusts *ca*."""
        return not self.callers or ca in self.authorities

    def vouches_for(self, leaf: x509.Certificate) -> bool:
        """Return whether no caller distrusts *leaf*, by its signature."""
        return not self.callers or any(is_signed_by(leaf, ca) for ca in self.authorities)


def trust_of(configurations: Iterable[KubeObject], names: Iterable[str]) -> Trust:
    """Return what all webhooks of *configurations* that call one of *names* trust."""
    names = tuple(names)
    bundles = [
        frozenset(parse_bundle(entry.ca_bundle).certificates)
        for configuration in configurations
        for entry in entries(configuration, names)
    ]
    return Trust(callers=len(bundles), authorities=frozenset.intersection(*bundles) if bundles else frozenset())


def operations(configuration: KubeObject, bundle: bytes, names: Iterable[str]) -> list[Mapping[str, Any]]:
    """
    Return the JSON patch that makes every webhook of *configuration* that calls us trust *bundle*; empty where all do.

    It tests what it rests on: the version that was read, so that a slow replica never overwrites a newer bundle, and
    each webhook's name, so that a failure says what moved.
    """
    differing = [entry for entry in entries(configuration, names) if entry.ca_bundle != bundle]
    if not differing:
        return NO_OPERATIONS
    value = base64.b64encode(bundle).decode()
    version = configuration["metadata"]["resourceVersion"]
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        *({"op": "test", "path": f"/webhooks/{entry.index}/name", "value": entry.name} for entry in differing),
        # `add` replaces what is there and adds what is not: https://www.rfc-editor.org/rfc/rfc6902#section-4.1
        *(
            {"op": "add", "path": f"/webhooks/{entry.index}/clientConfig/caBundle", "value": value}
            for entry in differing
        ),
    ]


async def inject(api: KubeApi, configuration: KubeObject, bundle: bytes, names: Iterable[str]) -> KubeObject | None:
    """
    Patch *configuration* so that it trusts *bundle*; return what is stored now, or None where nothing differed.

    Raises:
        KubeError: It could not be patched; Conflict where somebody else changed it since it was read.

    """
    patch = operations(configuration, bundle, names)
    if not patch:
        return None
    return await api.patch_mutating_webhook_configuration(configuration["metadata"]["name"], patch)


def _host(client: Mapping[str, Any]) -> str | None:
    """Return the name that the API server expects in the certificate of the server that *client* names."""
    if service := client.get("service"):
        return f"{service.get('name')}.{service.get('namespace')}.svc".lower()
    try:
        return urlsplit(client.get("url") or "").hostname
    except ValueError:  # a URL that only looks like one; the API server would not call it either
        return None


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        return b""
