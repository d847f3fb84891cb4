"""
What `doctor` reads, by name, and the frozen evidence that its checks are asked about.

Objects are plain documents as the API server wrote them, less `managedFields` where nothing asks for them. How many of
each are held is bounded by `MAX_OBJECTS`; what was left out is said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from webhook.checks.probe import Probe
from webhook.facts.collect import Collector, FactError
from webhook.rules import wellknown
from webhook.rules.snapshot import Snapshot

Document: TypeAlias = Mapping[str, Any]
MAX_OBJECTS: Final = 20_000
"""Of one kind: more nodes or Services than Kubernetes is tested with."""
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One list, or one object, that is read."""

    group: str
    version: str
    kind: str
    resource: str
    where: str = ""
    """`own`: our namespace; `istio`: istio-system; else every namespace, or none."""
    name: str = ""
    """One object; the whole list where it is empty."""
    served: bool = False
    """Whether its API may be absent: a CRD's, or one that is newer than the oldest supported Kubernetes."""

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespaces: Mapping[str, str]) -> str:
        """Return the path of the request; *namespaces* says what `own` and `istio` are called."""
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespaces[self.where]}" if self.where else ""
        return f"{prefix}{within}/{self.resource}" + (f"/{self.name}" if self.name else "")

    def asked(self, namespaces: Mapping[str, str]) -> str:
        """Return in words what permission it needs."""
        what = self.resource + (f".{self.group}" if self.group else "")
        within = f" in namespace {namespaces[self.where]}" if self.where else ""
        return f"{'get' if self.name else 'list'} {what}{within}"


ADMISSION: Final = "admissionregistration.k8s.io"
READS: Final[Mapping[str, Read]] = MappingProxyType(
    {
        "configurations": Read(
            group=ADMISSION, version="v1", kind="MutatingWebhookConfiguration", resource="mutatingwebhookconfigurations"
        ),
        "admission-policies": Read(
            group=ADMISSION,
            version="v1",
            kind="ValidatingAdmissionPolicy",
            resource="validatingadmissionpolicies",
            served=True,
        ),
        "mutating-policies": Read(
            group=ADMISSION,
            version="v1",
            kind="MutatingAdmissionPolicy",
            resource="mutatingadmissionpolicies",
            served=True,
        ),
        "namespaces": Read(group="", version="v1", kind="Namespace", resource="namespaces"),
        "nodes": Read(group="", version="v1", kind="Node", resource="nodes"),
        "services": Read(group="", version="v1", kind="Service", resource="services"),
        "own-endpoints": Read(
            group="discovery.k8s.io", version="v1", kind="EndpointSlice", resource="endpointslices", where="own"
        ),
        "own-deployment": Read(group="apps", version="v1", kind="Deployment", resource="deployments", where="own"),
        "own-pods": Read(group="", version="v1", kind="Pod", resource="pods", where="own"),
        "own-secret": Read(
            group="", version="v1", kind="Secret", resource="secrets", where="own", name="client-ip-webhook-tls"
        ),
        "own-network-policies": Read(
            group="networking.k8s.io", version="v1", kind="NetworkPolicy", resource="networkpolicies", where="own"
        ),
        "istio-config-maps": Read(group="", version="v1", kind="ConfigMap", resource="configmaps", where="istio"),
        "daemon-sets": Read(group="apps", version="v1", kind="DaemonSet", resource="daemonsets"),
        "gateway-classes": Read(
            group="gateway.networking.k8s.io", version="v1", kind="GatewayClass", resource="gatewayclasses", served=True
        ),
        "policies": Read(
            group=wellknown.GROUP,
            version="v1alpha1",
            kind=wellknown.POLICY_KIND,
            resource="clientippolicies",
            served=True,
        ),
        "gateway-pods": Read(group="", version="v1", kind="Pod", resource="pods"),
    }
)
"""By the names that checks give in `reads`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was read of a cluster at one moment."""

    at: datetime
    """By this machine's clock, timezone-aware."""
    own_namespace: str = wellknown.OWN_NAMESPACE
    server_version: str = ""
    server_date: datetime | None = None
    """What the API server's clock said, at `at`."""
    groups: frozenset[str] = frozenset()
    """The API groups with versions that are served, such as `apps/v1`."""
    objects: Mapping[str, Sequence[Document]] = field(default_factory=dict)
    """By the names of `READS`."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, and why, by name."""
    expected: Document = field(default_factory=dict)
    """The webhook configuration as this version renders it."""
    certificates: "Certificates | None" = None
    probe: Probe | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    """The state as the webhook would have it; decisions are made with it."""
    namespace: str = ""
    """The one that was asked about (`-n`); empty for all."""

    def all(self, name: str) -> Sequence[Document]:
        """Return the objects of one of `READS`; none where they could not be read or are not served."""
        return self.objects.get(name, ())

    def named(self, name: str, called: str) -> Document | None:
        """Return the object of that name."""
        return next((each for each in self.all(name) if metadata(each).get("name") == called), None)

    @property
    def configuration(self) -> Document | None:
        """Our own webhook configuration."""
        return self.named("configurations", wellknown.CONFIGURATION)

    def opted_in(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield the namespaces that are opted in, in any way, with their labels; only `namespace` where one is."""
        for each in self.all("namespaces"):
            name, labels = metadata(each).get("name", ""), metadata(each).get("labels") or {}
            if labels.get(wellknown.PRESERVE) in {"enabled", "audit"} and self.namespace in {"", name}:
                yield name, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What the Secret holds, in facts: never a key, never a certificate's bytes."""

    leaf_not_before: datetime | None = None
    leaf_not_after: datetime | None = None
    ca_not_after: datetime | None = None
    names: frozenset[str] = frozenset()
    """The DNS names of the leaf."""
    trusted_by: Mapping[str, bool] = field(default_factory=dict)
    """By webhook entry: whether its caBundle verifies the leaf."""
    problem: str = ""
    """Why the Secret can't be used; empty where it can."""


def metadata(document: Document) -> Mapping[str, Any]:
    """Return an object's metadata."""
    return document.get("metadata") or NOTHING


def name_of(document: Document) -> str:
    """Return `namespace/name`, or the name of what has no namespace."""
    found = metadata(document)
    namespace = found.get("namespace")
    return f"{namespace}/{found.get('name', '')}" if namespace else str(found.get("name", ""))


def few(names: Sequence[str], limit: int = 3) -> str:
    """Return at most *limit* of *names*, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def snapshot_of(objects: Mapping[str, list[Document]], own_namespace: str) -> Snapshot:
    """Return the facts that decisions rest on; an object that is none is left out, as the webhook would."""
    collector = Collector(own_namespace=own_namespace)
    # Policies first: nodes are classified by their rules.
    for name in ("policies", "namespaces", "configurations", "istio-config-maps", "daemon-sets", "nodes"):
        for each in objects.get(name, ()):
            kind, found = str(each.get("kind")), metadata(each)
            takes = collector.takes(
                str(each.get("apiVersion")), kind, str(found.get("namespace", "")), str(found.get("name", ""))
            )
            if takes:
                try:
                    collector.put(str(each["apiVersion"]), kind, each)
                except FactError:
                    continue
    return collector.snapshot()
