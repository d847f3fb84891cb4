"""
Facts from a cluster: listed in pages, watched, listed again where the API server has forgotten the version.

A lost API server changes nothing but the facts' age: the last snapshot stays in use. What a decision can do without
(the CRD, ConfigMaps, Terway's evidence) may be absent or forbidden; it is said once, and asked for again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from certs.kube import KubeError, NotFoundError, RefusedError
from webhook.facts.collect import (
    KUBE_SYSTEM,
    TERWAY_CONFIG_MAP,
    TERWAY_DAEMON_SETS,
    Collector,
    FactError,
    kept_of,
    read_config_map,
    read_stored_policy,
)
from webhook.facts.kube import GoneError, KubeClient
from webhook.facts.listing import Begin, Fold, Kept, Listing, NodeListing, Slices, folded, node_decoder
from webhook.facts.statuses import POLICIES, Statuses
from webhook.rules import wellknown
from webhook.rules.nodes import Node
from webhook.rules.objects import ConfigMap, GatewayClass, MutatingWebhookConfiguration, Namespace, ObjectMeta
from webhook.rules.placement import RuntimeClass
from webhook.rules.policy import Policy
from webhook.rules.policy_document import PolicyInvalid
from webhook.rules.sidecar import Choice, InjectorConfig, revisioned
from webhook.rules.snapshot import Snapshot

log: Final = logging.getLogger(__name__)

PAGE: Final = 250
"""Objects in a page, where they are small."""
FIRST_PAGE: Final = 4
"""Objects in the first page, of which nobody knows yet how large they are; etcd holds none of over 1.5 MiB."""
PAGE_BYTES: Final = 512 << 10
"""What the next pages aim at: decoding one keeps the event loop for a few milliseconds at most."""
PUBLISH_SECONDS: Final = 0.05
WATCH_SECONDS: Final = 300
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 15.0
ABSENT_PAUSE: Final = 10.0
TERWAY_SECONDS: Final = 300.0


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] = msgspec.field(default_factory=list)


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Any(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class _StoredPolicy:
    meta: _Meta
    read: tuple[Policy, PolicyInvalid | None] | None = None
    """None where it is known already."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """Of the document, what its status is written by."""


@dataclass(frozen=True, slots=True)
class _StoredConfigMap:
    metadata: ObjectMeta
    read: InjectorConfig | Choice | FactError | None
    """An error if it exists but cannot be read: the last known content then stays in use."""


_page: Final = msgspec.json.Decoder(_Page)
_event: Final = msgspec.json.Decoder(_Event)
_any: Final = msgspec.json.Decoder(_Any)
_gateway_class: Final = msgspec.json.Decoder(GatewayClass)
_runtime_class: Final = msgspec.json.Decoder(RuntimeClass)
_namespace: Final = msgspec.json.Decoder(Namespace)
_configuration: Final = msgspec.json.Decoder(MutatingWebhookConfiguration)
_config_map: Final = msgspec.json.Decoder(ConfigMap)


def _fold_node(raw: msgspec.Raw | bytes) -> tuple[str, Node]:
    node = node_decoder.decode(raw)
    return node.metadata.name, node


def _fold_namespace(raw: msgspec.Raw | bytes) -> tuple[str, Namespace]:
    namespace = kept_of(_namespace.decode(raw))
    return namespace.metadata.name, namespace


def _fold_configuration(raw: msgspec.Raw | bytes) -> tuple[str, MutatingWebhookConfiguration]:
    configuration = _configuration.decode(raw)
    return configuration.metadata.name, configuration


def _fold_gateway_class(raw: msgspec.Raw | bytes) -> tuple[str, GatewayClass]:
    gateway_class = _gateway_class.decode(raw)
    return gateway_class.metadata.name, gateway_class


def _fold_runtime_class(raw: msgspec.Raw | bytes) -> tuple[str, RuntimeClass]:
    runtime_class = _runtime_class.decode(raw)
    return runtime_class.metadata.name, runtime_class


def _fold_config_map(raw: msgspec.Raw | bytes) -> "tuple[str, _StoredConfigMap]":
    config_map = _config_map.decode(raw)
    metadata = config_map.metadata
    try:
        return metadata.name, _StoredConfigMap(metadata, read_config_map(config_map))
    except FactError as error:
        return metadata.name, _StoredConfigMap(metadata, error)


@dataclass(slots=True)
class Followed:
    """One kind of object that is listed and watched."""

    kind: str
    path: str
    begin: Begin
    """Gives what the pages of a list go into."""
    fold: Fold
    """Gives an object's name, and what is kept of it; changes nothing."""
    put: Callable[[Any], None]
    """Takes in what an object was folded to."""
    remove: Callable[[_Meta], None]
    apart: bool = False
    """Whether reading a large object costs much: then it is done in a thread."""
    query: Mapping[str, str] = field(default_factory=dict)
    required: bool = True
    version: str = ""
    """The resourceVersion that is known; empty where it must be listed."""
    synced: bool = False
    tried: bool = False
    """Listed, or known to be absent or forbidden."""
    lost_at: float | None = None
    """Monotonic; None while it is watched."""
    failures: int = 0
    """In a row, since it was last watched."""


class ClusterSource:
    """The facts of a cluster, kept current by `run`."""

    def __init__(
        self,
        client: KubeClient,
        *,
        own_namespace: str,
        once: bool = False,
        configuration_changed: Callable[[], None] | None = None,
    ) -> None:
        """
        Follow nothing yet.

        Args:
            client: Closed when `run` ends, but not with *once*: then it is the caller's.
            own_namespace: The webhook's.
            once: For a command that reads: no policy's status is written.
            configuration_changed: Called when our own webhook configuration was changed, by whomever.

        """
        self._client = client
        self._once = once
        self._configuration_changed = configuration_changed
        self._collector = Collector(own_namespace=own_namespace, nodes_synced=False)
        self._snapshot = self._collector.snapshot()
        self._changed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[str, Followed] = {}
        self._said: set[str] = set()
        self._statuses = Statuses(client, self._collector, self._say)
        self._policy_versions: dict[str, str] = {}
        """By name: the resourceVersion that was read."""
        self._terway_tried = False
        self._rules_known = asyncio.Event()
        """Set once policies were listed or can't be: nodes are classified by their rules."""
        collector = self._collector
        self._follow_also(
            Followed("nodes", "/api/v1/nodes", self._list_nodes, _fold_node, collector.put_node, self._drop_node),
        )
        self._follow_also(
            Followed(
                "namespaces",
                "/api/v1/namespaces",
                self._listing(lambda: set(collector.namespaces), collector.put_namespace, collector.remove_namespace),
                _fold_namespace,
                collector.put_namespace,
                lambda meta: collector.remove_namespace(meta.name),
            ),
        )
        self._follow_also(
            Followed(
                "injectors",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
                self._listing(collector.configurations, self._put_injector, self._remove_injector),
                _fold_configuration,
                self._put_injector,
                lambda meta: self._remove_injector(meta.name),
            ),
        )
        self._follow_also(
            Followed(
                "runtimeclasses",
                "/apis/node.k8s.io/v1/runtimeclasses",
                self._listing(
                    lambda: set(collector.runtime_classes), collector.put_runtime_class, collector.remove_runtime_class
                ),
                _fold_runtime_class,
                collector.put_runtime_class,
                lambda meta: collector.remove_runtime_class(meta.name),
                required=False,
            ),
        )
        self._follow_also(
            Followed(
                "gatewayclasses",
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
                self._listing(
                    lambda: set(collector.gateway_classes), collector.put_gateway_class, collector.remove_gateway_class
                ),
                _fold_gateway_class,
                collector.put_gateway_class,
                lambda meta: collector.remove_gateway_class(meta.name),
                required=False,
            ),
        )
        self._follow_also(
            Followed(
                "policies",
                POLICIES,
                self._listing(lambda: set(collector.stored_policies), self._put_policy, self._remove_policy),
                self._fold_policy,
                self._put_policy,
                lambda meta: self._remove_policy(meta.name),
                apart=True,
                required=False,
            ),
        )

    # --- What the server sees (FactSource)

    @property
    def snapshot(self) -> Snapshot:
        """The facts in use."""
        return self._snapshot

    def missing(self) -> Sequence[str]:
        """The required kinds that have not been listed yet."""
        return [each.kind for each in self._followed.values() if each.required and not each.synced]

    def untried(self) -> Sequence[str]:
        """The kinds that have been neither listed nor found to be absent or forbidden."""
        untried = [each.kind for each in self._followed.values() if not each.tried]
        return untried if self._terway_tried else [*untried, "terway"]

    @property
    def collector(self) -> Collector:
        """The facts as they are known now."""
        return self._collector

    def ages(self) -> Mapping[str, float]:
        """Seconds since each kind's watch was lost; 0 while it is watched."""
        now = time.monotonic()
        return {
            each.kind: 0.0 if each.lost_at is None else now - each.lost_at
            for each in self._followed.values()
            if each.synced
        }

    @property
    def policy_errors(self) -> Mapping[str, str]:
        """What is wrong with which stored policy."""
        return {name: str(error) for name, error in self._collector.policy_errors.items()}

    @property
    def registered(self) -> bool | None:
        """Whether a webhook configuration calls us; None until they were listed."""
        return bool(self._collector.own_configurations) if self._followed["injectors"].synced else None

    async def run(self) -> None:
        """Keep the facts current until cancelled."""
        self._start("publish", self._publish)
        self._start("terway", self._look_for_terway)
        if not self._once:
            self._start("status", self._statuses.run)
        for followed in list(self._followed.values()):
            self._start_following(followed)
        try:
            while True:
                await asyncio.sleep(1)
                for name, task in list(self._tasks.items()):
                    if task.done():
                        del self._tasks[name]
                        task.result()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()
            if not self._once:
                await self._client.close()

    # --- Following one kind

    def _follow_also(self, followed: Followed) -> None:
        self._followed[followed.kind] = followed

    def _start_following(self, followed: Followed) -> None:
        followed.version = ""
        self._start(f"follow {followed.kind}", lambda: self._follow(followed))

    def _start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        old = self._tasks.pop(name, None)
        if old is not None:
            old.cancel()
        self._tasks[name] = asyncio.create_task(run(), name=name)

    async def _follow(self, followed: Followed) -> None:
        """List and watch until cancelled; where a version is still known, go on from it."""
        while True:
            pause = FIRST_PAUSE
            try:
                if not followed.version:
                    await self._list(followed)
                await self._watch(followed)
            except GoneError:
                followed.version = ""
            except NotFoundError:
                await (await followed.begin()).end()  # there are none
                self._changed.set()
                self._tried(followed)
                followed.version, pause = "", ABSENT_PAUSE
            except RefusedError as error:
                self._say(followed.kind, f"{followed.kind} cannot be read: {error}")
                self._tried(followed)
                followed.version, pause = "", ABSENT_PAUSE
            except (KubeError, msgspec.MsgspecError) as error:
                followed.failures += 1
                pause = min(FIRST_PAUSE * 2**followed.failures, LONGEST_PAUSE)
                level = logging.WARNING if followed.failures in {5, 50} else logging.DEBUG
                log.log(level, "cannot watch %s, the last known state stays in use: %s", followed.kind, error)
            if followed.lost_at is None:
                followed.lost_at = time.monotonic()
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311  # jitter, no secret

    def _tried(self, followed: Followed) -> None:
        followed.tried = True
        if followed.kind == "policies":
            self._rules_known.set()

    async def _list(self, followed: Followed) -> None:
        """List in pages and replace what is known."""
        listing = await followed.begin()
        slices = Slices()
        limit, query = FIRST_PAGE, dict(followed.query)
        while True:
            raw = await self._client.request("GET", followed.path, query={**query, "limit": str(limit)})
            size = len(raw)
            found = await self._take_page(followed, listing, raw, slices)
            if not found.next_page:
                break
            query["continue"] = found.next_page
            limit = max(1, min(PAGE, limit * 4, limit * PAGE_BYTES // max(size, 1)))
            del raw  # while the next one comes
            await asyncio.sleep(0)
        await listing.end()
        self._changed.set()
        followed.version = found.resource_version
        if not followed.synced:
            self._snapshot = self._collector.snapshot()  # ready means that decisions know it
        followed.synced = True
        self._tried(followed)
        self._said.discard(followed.kind)

    async def _take_page(self, followed: Followed, listing: Listing, raw: bytes, slices: Slices) -> _ListMeta:
        page = _page.decode(raw)
        for item in page.items:
            size = memoryview(item).nbytes
            try:
                listing.take(*await folded(followed.fold, item, size, apart=followed.apart))
            except (FactError, msgspec.MsgspecError) as error:
                log.warning("%s: an object cannot be read and is skipped: %s", followed.kind, error)
            await slices.taken(size)
        return page.metadata

    async def _watch(self, followed: Followed) -> None:
        """Take events in until the API server ends the watch."""
        query = {
            **followed.query,
            "resourceVersion": followed.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS + random.randrange(WATCH_SECONDS)),  # noqa: S311
        }

        def opened() -> None:
            followed.lost_at, followed.failures = None, 0

        slices = Slices()
        async for line in self._client.watch(followed.path, query, opened):
            event = _event.decode(line)
            thing = _any.decode(event.object)
            if event.type == "ERROR":
                if thing.code == 410:
                    raise GoneError(thing.message)
                log.debug("%s: the watch ended: %s", followed.kind, thing.message)
                return
            followed.version = thing.metadata.resource_version or followed.version
            if event.type == "BOOKMARK":
                continue
            if event.type == "DELETED":
                followed.remove(thing.metadata)
            else:
                await self._take(followed, event.object, len(line))
            self._changed.set()
            await slices.taken(len(line))

    async def _take(self, followed: Followed, raw: msgspec.Raw, size: int) -> None:
        try:
            _, kept = await folded(followed.fold, raw, size, apart=followed.apart)
            followed.put(kept)
        except (FactError, msgspec.MsgspecError) as error:
            log.warning("%s: an object cannot be read and is skipped: %s", followed.kind, error)

    def _say(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            log.warning("%s", text)

    def _listing(
        self,
        known: Callable[[], set[str]],
        put: Callable[[Any], None],
        remove: Callable[[str], None],
    ) -> Begin:
        async def begin() -> Listing:
            return Kept(known, put, remove)

        return begin

    # --- Nodes

    async def _list_nodes(self) -> Listing:
        await self._rules_known.wait()
        return NodeListing(self._collector)

    def _drop_node(self, meta: _Meta) -> None:
        self._collector.remove_node(meta.name)

    # --- Namespaces, injectors, policies

    def _put_injector(self, configuration: MutatingWebhookConfiguration) -> None:
        self._collector.put_configuration(configuration)
        if self._configuration_changed is not None and configuration.metadata.name == wellknown.CONFIGURATION:
            self._configuration_changed()
        self._follow_config_maps()

    def _remove_injector(self, name: str) -> None:
        self._collector.remove_configuration(name)
        self._follow_config_maps()

    def _fold_policy(self, raw: msgspec.Raw | bytes) -> "tuple[str, _StoredPolicy]":
        """Of one that is known already, by its resourceVersion, nothing is read again."""
        meta = _any.decode(raw).metadata
        if meta.resource_version and self._policy_versions.get(meta.name) == meta.resource_version:
            return meta.name, _StoredPolicy(meta)
        document = msgspec.json.decode(raw)
        head = {"metadata": {"name": meta.name, "generation": document["metadata"].get("generation", 0)}}
        return meta.name, _StoredPolicy(meta, read_stored_policy(document), {**head, "status": document.get("status")})

    def _put_policy(self, stored: "_StoredPolicy") -> None:
        if stored.read is None:
            return
        self._collector.put_read_policy(*stored.read)
        self._policy_versions[stored.meta.name] = stored.meta.resource_version
        self._statuses.put(stored.head)
        self._reclassify()

    def _remove_policy(self, name: str) -> None:
        self._collector.remove_policy(name)
        self._policy_versions.pop(name, None)
        self._statuses.remove(name)
        self._reclassify()

    def _reclassify(self) -> None:
        """Other node rules: list the nodes again; the last index stays in use until then."""
        if self._collector.rules_changed and "follow nodes" in self._tasks:
            self._start_following(self._followed["nodes"])

    # --- ConfigMaps of the injectors, by name, so that RBAC can name them

    def _follow_config_maps(self) -> None:
        wanted = {
            (namespace, revisioned(base, webhook.revision))
            for webhooks in self._collector.injectors.values()
            for webhook in webhooks
            for namespace in webhook.namespaces
            for base in (wellknown.INJECTOR_CONFIGMAP, wellknown.MESH_CONFIGMAP)
        }
        kinds = {f"configmap {namespace}/{name}": (namespace, name) for namespace, name in sorted(wanted)}
        for kind in [each for each in self._followed if each.startswith("configmap ") and each not in kinds]:
            self._tasks.pop(f"follow {kind}").cancel()
            self._followed.pop(kind).remove(_Meta())
        for kind, (namespace, name) in kinds.items():
            if kind not in self._followed:
                self._follow_also(self._config_map(kind, namespace, name))
                self._start_following(self._followed[kind])

    def _config_map(self, kind: str, namespace: str, name: str) -> Followed:
        def remove(_: str) -> None:
            self._collector.remove_config_map(namespace, name)

        return Followed(
            kind,
            f"/api/v1/namespaces/{namespace}/configmaps",
            self._listing(lambda: {name}, self._put_config_map, remove),
            _fold_config_map,
            self._put_config_map,
            lambda _: remove(name),
            apart=True,
            query={"fieldSelector": f"metadata.name={name}"},
            required=False,
        )

    def _put_config_map(self, stored: "_StoredConfigMap") -> None:
        if isinstance(stored.read, FactError):
            raise stored.read
        self._collector.put_read_config_map(stored.metadata, stored.read)

    # --- Terway

    async def _look_for_terway(self) -> None:
        """The network plugin never changes in a cluster's life: once found it is not asked for again."""
        places = [f"/apis/apps/v1/namespaces/{KUBE_SYSTEM}/daemonsets/{name}" for name in sorted(TERWAY_DAEMON_SETS)]
        places.append(f"/api/v1/namespaces/{KUBE_SYSTEM}/configmaps/{TERWAY_CONFIG_MAP}")
        while not self._collector.terway:
            pause = TERWAY_SECONDS
            for place in places:
                try:
                    await self._look_at(place)
                except NotFoundError:
                    continue
                except RefusedError as error:
                    self._say("terway", f"cannot check whether Terway is installed: {error}")
                except (KubeError, msgspec.MsgspecError) as error:
                    log.debug("cannot check whether Terway is installed, trying again: %s", error)
                    pause = ABSENT_PAUSE
                    break
            else:
                self._terway_tried = True
            await asyncio.sleep(pause)

    async def _look_at(self, place: str) -> None:
        raw = await self._client.request("GET", place)
        if "/daemonsets/" in place:
            self._collector.put_daemon_set(msgspec.json.decode(raw, type=Namespace))
        else:
            self._collector.put_config_map(msgspec.json.decode(raw, type=ConfigMap))
        self._changed.set()

    # --- The snapshot

    async def _publish(self) -> None:
        """Make a new snapshot of what changed, at most twenty times a second."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._snapshot = self._collector.snapshot()
            await asyncio.sleep(PUBLISH_SECONDS)
