"""
A cluster that a command has opened: one client for all that it reads, handed on until the command ends.

No kubeconfig is named below the command line: what reads a cluster is given the open one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from certs.kube import KubeError
from webhook.facts.access import NOBODY_ELSE, Impersonation
from webhook.facts.collect import Collector
from webhook.facts.kube import SILENCE_SECONDS, BusyError, GoneError, KubeClient, connect
from webhook.facts.watch import ClusterSource
from webhook.rules import wellknown

COLLECT_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 30.0
"""The longest Retry-After that a list waits for."""
BUSY_ATTEMPTS: Final = 9
"""How often a busy API server is asked again; client-go tries ten times in all."""
PAGE: Final = 500
"""Objects in one answer to a list: what kubectl asks for as well."""


class ClusterUnreadable(Exception):  # noqa: N818  # an error's noun
    """The cluster did not answer, or does not let us read what a decision rests on."""


class _ListMeta(msgspec.Struct, frozen=True, rename={"resume": "continue"}):
    resume: str = ""


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()


class _UserInfo(msgspec.Struct, frozen=True):
    username: str = ""


class _ReviewStatus(msgspec.Struct, frozen=True, rename="camel"):
    user_info: _UserInfo = _UserInfo()


class _Review(msgspec.Struct, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


_page: Final = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class Cluster:
    """An open cluster; `open_cluster` makes and closes it. Tasks of one event loop may share it."""

    client: KubeClient

    @property
    def server(self) -> str:
        """Where its API server is: `https://HOST:PORT`."""
        return self.client.access.server

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context, or of the pod that this runs in; `default` where it names none."""
        return self.client.namespace or "default"

    @property
    def context(self) -> str:
        """The kubeconfig's context; empty in a pod."""
        return self.client.access.context

    async def user(self) -> str:
        """
        Return who the API server takes us for (SelfSubjectReview); empty where it does not say.

        Everybody who is authenticated may ask (`system:basic-user`):
        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#self-subject-review
        """
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self.client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=body)
            return msgspec.json.decode(answer, type=_Review).status.user_info.username
        except (KubeError, msgspec.MsgspecError):
            return ""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """
        Return what the API server answers to GET of *path*.

        Raises:
            KubeError: It did not grant it, or did not answer.

        """
        return await self.client.request("GET", path, query=query)

    async def pages(
        self, path: str, query: Mapping[str, str] | None = None, *, limit: int = PAGE
    ) -> AsyncIterator[bytes]:
        """
        Yield a list in pages of at most *limit* objects, each as the API server wrote it.

        A list that takes longer than the API server keeps its state goes on with the objects as they are by then
        (`resourceVersion="inconsistent"`), as the API recommends: an object that was renamed meanwhile may be missed.
        https://github.com/kubernetes/kubernetes/blob/v1.37.0/staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go

        Raises:
            KubeError: The API server did not grant it, or did not answer.

        """
        asked = {**(query or {}), "limit": str(limit)}
        while True:
            try:
                answer = await self._page(path, asked)
            except GoneError as error:
                if not error.resume or asked.get("continue") == error.resume:
                    raise
                asked["continue"] = error.resume
                continue
            yield answer
            resume = _page.decode(answer).metadata.resume
            if not resume:
                return
            asked["continue"] = resume

    async def _page(self, path: str, asked: Mapping[str, str]) -> bytes:
        """Return a page; an API server that is busy is asked again when it says so, as client-go does."""
        for _ in range(BUSY_ATTEMPTS):
            try:
                return await self.get(path, asked)
            except BusyError as error:
                if error.retry_after_seconds > BUSY_SECONDS:
                    raise
                await asyncio.sleep(max(error.retry_after_seconds, 1.0))
        return await self.get(path, asked)

    def stream(
        self, path: str, query: Mapping[str, str] | None = None, *, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """
        Yield the answer's bytes as they come, such as a container's log; with *follow* silence is no fault.

        Raises:
            KubeError: The API server did not grant it, or the connection was lost.

        """
        return self.client.stream(path, query, silence_seconds=None if follow else SILENCE_SECONDS)

    async def collect(self) -> Collector:
        """
        Return the facts that decisions rest on.

        Raises:
            ClusterUnreadable: Nodes, namespaces or injectors can't be read.

        """
        # Asked once by hand first: a refused connection or token is to be said, not retried.
        try:
            await self.get("/api/v1/nodes", {"limit": "1"})
        except KubeError as error:
            raise ClusterUnreadable(str(error)) from error
        source = ClusterSource(self.client, own_namespace=wellknown.OWN_NAMESPACE, once=True)
        running = asyncio.create_task(source.run())
        deadline = time.monotonic() + COLLECT_SECONDS
        try:
            while source.untried() and time.monotonic() < deadline and not running.done():  # noqa: ASYNC110  # many tasks, each of which may be the last
                await asyncio.sleep(0.02)
            if source.missing():
                raise ClusterUnreadable(f"cannot read {', '.join(source.missing())}")
            return source.collector
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def open_cluster(
    kubeconfig: str | None = None, context: str | None = None, impersonation: Impersonation = NOBODY_ELSE
) -> AsyncIterator[Cluster]:
    """
    Open the kubeconfig's cluster, or the one that this pod runs in; nothing is sent yet.

    Raises:
        webhook.facts.access.KubeConfigInvalid: There is neither, or it can't be used.

    """
    client = connect(kubeconfig, context, impersonation)
    try:
        yield Cluster(client)
    finally:
        await client.close()
