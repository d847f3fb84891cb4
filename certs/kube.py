"""
What `certs` asks of the API server, as a Protocol: whoever holds a client satisfies it.

Objects are what JSON decodes to, spelled as the API spells them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeAlias

KubeObject: TypeAlias = Mapping[str, Any]


class KubeError(Exception):
    """
    A request that the API server did not grant.

    NotFound     the object does not exist
    Conflict     somebody else was faster: read again and decide again
    Unavailable  no answer, or one that says to come back later
    Refused      not allowed, or not valid; trying again changes nothing
    """


class NotFoundError(KubeError):
    """404: the object does not exist."""


class ConflictError(KubeError):
    """409 of a create or a replace, and 422 of a JSON patch, which is what a failed `test` is answered with."""


class UnavailableError(KubeError):
    """No connection, a timeout, 429, 5xx, or a token that is being renewed (401)."""


class RefusedError(KubeError):
    """403, 422 and every other 4xx."""


class KubeApi(Protocol):
    """The five requests that `certs` makes, each with the least that RBAC must grant."""

    @property
    def server_time(self) -> datetime | None:
        """
        The `Date` header of the last answer, UTC and timezone-aware; None before the first.

        It is the API server that verifies our certificate, so its clock is the one that counts.
        """

    async def get_secret(self, namespace: str, name: str) -> KubeObject:
        """Read a Secret: `get` on the named Secret."""

    async def create_secret(self, namespace: str, secret: KubeObject) -> KubeObject:
        """Create a Secret and return what is stored; Conflict where it exists: `create` in the namespace."""

    async def replace_secret(self, namespace: str, name: str, secret: KubeObject) -> KubeObject:
        """Replace a Secret if its resourceVersion is still the stored one, else Conflict: `update` on the named one."""

    async def get_mutating_webhook_configuration(self, name: str) -> KubeObject:
        """Read a MutatingWebhookConfiguration: `get` on the named one."""

    async def patch_mutating_webhook_configuration(
        self, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> KubeObject:
        """Apply a JSON patch and return what is stored; Conflict where a `test` fails: `patch` on the named one."""
