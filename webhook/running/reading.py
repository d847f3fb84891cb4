"""
Reads what runs: from an open cluster in pages, each folded and dropped, or from files.

What may not be read is named, never silently missing.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec

from certs.kube import NotFoundError, RefusedError
from webhook.facts.cluster import Cluster
from webhook.rules.decision import one_line
from webhook.rules.objects import GROUPS
from webhook.rules.oversize import UNCOUNTED, excess_of
from webhook.running.findings import WHO_LIMIT, Scope
from webhook.running.fold import Fold
from webhook.running.objects import LISTED, WORKLOADS, Key, RunningNamespace, RunningPod, RunningService

PAGE: Final = 500
"""Objects in a page: 500 pods are a few megabytes, and all that is held of them at a time."""
AT_A_TIME: Final = 16
"""Requests under way at once, where each is small."""
MAX_REPLICA_SETS: Final = 1_000
"""ReplicaSets that are read one by one; pods of those beyond stay counted for the ReplicaSet."""
KUBE_SYSTEM: Final = "kube-system"


class NothingReadable(Exception):  # noqa: N818  # an error's noun
    """None of what was asked for may be read."""


Progress: TypeAlias = Callable[[str, int, int], None]
"""Told how far it is: what is read, how many of them have been, and of how many (0: not known)."""


def nobody(what: str, done: int, total: int) -> None:
    """Tell nobody."""


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    remaining_item_count: int | None = None


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] = msgspec.field(default_factory=list)


_page: Final = msgspec.json.Decoder(_Page)


def _excess(raw: msgspec.Raw) -> str:
    return excess_of(bytes(raw)) if len(memoryview(raw)) > UNCOUNTED else ""


@dataclass(slots=True)
class _Kind:
    """One kind of object that is listed, and where its objects go."""

    kind: str
    take: Callable[[Any, str], None]
    """Takes an object, and what of it is too much for a decision."""
    decoder: "msgspec.json.Decoder[Any]"

    @property
    def what(self) -> str:
        """As the API calls it."""
        return f"{self.kind.lower()}s"

    def path(self, namespace: str | None) -> str:
        group = GROUPS[self.kind]
        prefix = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{prefix}/namespaces/{namespace}/{self.what}" if namespace is not None else f"{prefix}/{self.what}"


@dataclass(slots=True)
class ClusterReader:
    """Reads an open cluster into a Fold."""

    cluster: Cluster
    progress: Progress = nobody
    unreadable: dict[str, str] = field(default_factory=dict)
    unread_objects: int = 0
    """Objects that could not be decoded; the API server sends none such."""

    async def read(self, fold: Fold, namespaces: Sequence[str] | None) -> Scope:
        """
        Read everything, or what is in *namespaces*, and return what was looked at.

        Raises:
            NothingReadable: None of it may be read.
            KubeError: The API server did not answer.

        """
        cluster_uid = await self._namespaces(fold)
        kinds = [
            *(_Kind(kind, partial(fold.take_workload, kind), msgspec.json.Decoder(WORKLOADS[kind])) for kind in LISTED),
            _Kind("Service", fold.take_service, msgspec.json.Decoder(RunningService)),
        ]
        pods = _Kind("Pod", fold.take_pod, msgspec.json.Decoder(RunningPod))
        for each in kinds:
            await self._read(each, namespaces)
        read = await self._read(pods, namespaces)
        if not read:
            reasons = "; ".join(sorted(set(self.unreadable.values()))[:3])
            raise NothingReadable(f"no pods can be read: {reasons}")
        await self._resolve(fold)
        return Scope(
            source=self.cluster.server,
            cluster=cluster_uid,
            user=one_line(await self.cluster.user(), WHO_LIMIT),
            context=one_line(self.cluster.context, WHO_LIMIT),
            namespaces=sorted(namespaces) if namespaces is not None else None,
            unreadable=dict(sorted(self.unreadable.items())),
        )

    async def _namespaces(self, fold: Fold) -> str:
        """Read whose namespaces are, and which cluster it is; who may not has no owners of namespaces."""
        uid = ""
        try:
            async for page in self.cluster.pages("/api/v1/namespaces", limit=PAGE):
                for raw in _page.decode(page).items:
                    namespace = msgspec.json.decode(raw, type=RunningNamespace)
                    fold.take_namespace(namespace)
                    if namespace.metadata.name == KUBE_SYSTEM:
                        uid = namespace.metadata.uid
        except RefusedError as error:
            self.unreadable["namespaces"] = str(error)
        return uid

    async def _read(self, kind: _Kind, namespaces: Sequence[str] | None) -> bool:
        """Read all objects of a kind; return whether any of it may be read."""
        if namespaces is None:
            try:
                await self._pages(kind, None)
            except RefusedError:
                namespaces = await self._all_namespaces()
            else:
                return True
        read = False
        for namespace in namespaces:
            try:
                await self._pages(kind, namespace)
                read = True
            except RefusedError as error:
                self._refused(kind, namespace, str(error))
        return read

    async def _all_namespaces(self) -> list[str]:
        """Return the namespaces there are, for somebody who may list in some of them."""
        names = []
        try:
            async for page in self.cluster.pages("/api/v1/namespaces", limit=PAGE):
                names += [
                    msgspec.json.decode(raw, type=RunningNamespace).metadata.name for raw in _page.decode(page).items
                ]
        except RefusedError as error:
            raise NothingReadable(
                f"cannot list the pods of all namespaces, or the namespaces: name namespaces with -n ({error})"
            ) from error
        return names

    def _refused(self, kind: _Kind, namespace: str, message: str) -> None:
        """A namespace whose pods can't be read is not covered; one that lacks another kind is, less that kind."""
        if kind.kind == "Pod":
            self.unreadable[namespace] = message
        else:
            self.unreadable.setdefault(f"{namespace}: {kind.what}", message)

    async def _pages(self, kind: _Kind, namespace: str | None) -> None:
        done = 0
        async for answer in self.cluster.pages(kind.path(namespace), limit=PAGE):
            done, left = self._take(kind, answer, done)
            self.progress(kind.what, done, done + left if left is not None else 0)
            await asyncio.sleep(0)

    def _take(self, kind: _Kind, answer: bytes, done: int) -> tuple[int, int | None]:
        """Fold a page; nothing of it is left when this returns."""
        page = _page.decode(answer)
        for raw in page.items:
            try:
                kind.take(kind.decoder.decode(raw), _excess(raw))
            except (msgspec.MsgspecError, RecursionError):
                self.unread_objects += 1
        return done + len(page.items), page.metadata.remaining_item_count

    async def _resolve(self, fold: Fold) -> None:
        """Read the ReplicaSets whose pods' labels don't tell what made them."""
        wanted = fold.unresolved()[:MAX_REPLICA_SETS]
        decoder = msgspec.json.Decoder(WORKLOADS["ReplicaSet"])

        async def resolve(key: Key) -> None:
            path = f"/apis/apps/v1/namespaces/{key.namespace}/replicasets/{key.name}"
            try:
                text = await self.cluster.get(path)
                fold.resolve(decoder.decode(text), excess_of(text))
            except (NotFoundError, RefusedError):
                return  # its pods stay counted for the ReplicaSet

        for start in range(0, len(wanted), AT_A_TIME):
            await asyncio.gather(*map(resolve, wanted[start : start + AT_A_TIME]))
