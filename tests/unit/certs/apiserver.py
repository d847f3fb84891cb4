"""
An API server of five requests in memory, with the real one's concurrency: versions, compare-and-swap, tested patches.

It satisfies `certs.kube.KubeApi`. Each request yields to the other tasks first, so replicas that run together
interleave. What the real one does beyond that is seen in the tests against the real one.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jsonpatch

from certs.kube import ConflictError, KubeApi, KubeError, KubeObject, NotFoundError


class MemoryCluster:
    """
    The stored objects, shared by all clients.

    Attributes:
        on_change: Called after each write.
        refusals: What the next requests of a verb fail with, by `verb kind`; kept until removed.
        requests: How many there were, by `verb kind`.

    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self.configurations: dict[str, dict[str, Any]] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.refusals: dict[str, KubeError] = {}
        self.requests: Counter[str] = Counter()
        self._version = 0

    def client(self) -> "MemoryClient":
        return MemoryClient(self)

    def store(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Write *stored* as anybody with the right to it would; give it a new version."""
        self._version += 1
        stored = copy.deepcopy(stored)
        metadata = stored.setdefault("metadata", {})
        metadata["resourceVersion"] = str(self._version)
        if stored["kind"] == "Secret":
            self.secrets[metadata["namespace"], metadata["name"]] = stored
        else:
            self.configurations[metadata["name"]] = stored
        self.on_change()
        return copy.deepcopy(stored)

    def configure(self, name: str, *services: str, namespace: str = "system", ca_bundle: str | None = None) -> None:
        """Write a configuration with a webhook for each of *services*."""
        bundle = {} if ca_bundle is None else {"caBundle": ca_bundle}
        self.store(
            {
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [
                    {
                        "name": f"{index}.{service}.example.com",
                        "clientConfig": {"service": {"name": service, "namespace": namespace}} | bundle,
                    }
                    for index, service in enumerate(services)
                ],
            }
        )


class MemoryClient(KubeApi):
    """
    One replica's client; it knows the server's time only from an answer.

    Attributes:
        held: Requests that wait for their event first, by `verb kind`: a replica that is stopped there.

    """

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.held: dict[str, asyncio.Event] = {}
        self._server_time: datetime | None = None

    @property
    def server_time(self) -> datetime | None:
        return self._server_time

    async def _ask(self, request: str) -> None:
        await asyncio.sleep(0)
        if request in self.held:
            await self.held[request].wait()
        self._cluster.requests[request] += 1
        if request in self._cluster.refusals:
            raise self._cluster.refusals[request]
        self._server_time = self._cluster.clock()

    async def get_secret(self, namespace: str, name: str) -> KubeObject:
        await self._ask("get secret")
        return copy.deepcopy(self._secret(namespace, name))

    async def create_secret(self, namespace: str, secret: KubeObject) -> KubeObject:
        await self._ask("create secret")
        name = secret["metadata"]["name"]
        if (namespace, name) in self._cluster.secrets:
            raise ConflictError(f"secrets {name!r} already exists")
        return self._cluster.store(dict(secret))

    async def replace_secret(self, namespace: str, name: str, secret: KubeObject) -> KubeObject:
        await self._ask("replace secret")
        stored = self._secret(namespace, name)
        if secret["metadata"].get("resourceVersion") != stored["metadata"]["resourceVersion"]:
            raise ConflictError(f"secrets {name!r}: the object has been modified")
        assert secret["type"] == stored["type"], "the real one refuses another type"
        return self._cluster.store(dict(secret))

    async def get_mutating_webhook_configuration(self, name: str) -> KubeObject:
        await self._ask("get configuration")
        return copy.deepcopy(self._configuration(name))

    async def patch_mutating_webhook_configuration(
        self, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> KubeObject:
        await self._ask("patch configuration")
        stored = self._configuration(name)
        try:
            patched = jsonpatch.apply_patch(stored, list(operations))
        except jsonpatch.JsonPatchTestFailed as error:
            raise ConflictError(str(error)) from error
        return self._cluster.store(patched)

    def _secret(self, namespace: str, name: str) -> dict[str, Any]:
        if (namespace, name) not in self._cluster.secrets:
            raise NotFoundError(f"secrets {name!r} not found")
        return self._cluster.secrets[namespace, name]

    def _configuration(self, name: str) -> dict[str, Any]:
        if name not in self._cluster.configurations:
            raise NotFoundError(f"mutatingwebhookconfigurations {name!r} not found")
        return self._cluster.configurations[name]
