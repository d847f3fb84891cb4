"""
What is known of load balancers: who keeps the client's IP, who brings it in the PROXY header, who hides it.

One table, by cloud, loadBalancerClass and annotations; each row names its source, and holds for the Services that its
controller serves and no others (all are of type LoadBalancer). Of rows that match the first effect of `Effect` counts.
docs/load-balancers.md shows the table; a test holds the two together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

Labels = Mapping[str, str]


class Effect(StrEnum):
    """What a load balancer does to the client's IP; in the order in which rows count."""

    PROXY = "PROXY header"
    HIDES = "hides"
    UNSAFE = "unsafe"
    KEEPS = "keeps"
    NEEDS = "needs Local"


_PORTS: Final = re.compile(r"true|t|\*|[0-9]++(?:\s*+,\s*+[0-9]++)*+", re.ASCII)
_EQUALS: Final = re.compile(r"\s*=\s*")
"""Spaces around it are no part of an attribute's name or value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A condition on one annotation; of several given ones all must hold."""

    key: str
    alias: str = ""
    """Another name of it, which counts where the first is absent."""
    is_in: tuple[str, ...] = ()
    """It is there, with one of these values; case does not count, unless *exact*."""
    exact: bool = False
    """Its controller compares the value as it is written."""
    is_set: bool = False
    """It is there, and not empty."""
    is_ports: bool = False
    """It is `true`, `*` or a list of ports."""
    is_unset: bool = False
    """It is absent, or empty."""
    has: str = ""
    """It is a comma-separated list with this entry."""
    lacks: str = ""
    """It is none, or a list without this entry."""
    begins: tuple[str, ...] = ()
    """It is a list with an entry that begins so; case does not count."""
    not_in: tuple[str, ...] = ()
    """It is absent, or has none of these values."""
    is_not: tuple[str, ...] = ()
    """It is there and not empty, with none of these values: what its controller takes for off."""
    begins_not: tuple[str, ...] = ()
    """It is absent, or a list without an entry that begins so."""

    def holds(self, annotations: Labels) -> bool:
        """Return whether *annotations* fulfil it."""
        value = annotations.get(self.key)
        if value is None and self.alias:
            value = annotations.get(self.alias)
        if value is None:
            absent = self.lacks or self.not_in or self.begins_not or self.is_unset
            return bool(absent) and not (
                self.is_in or self.is_set or self.is_ports or self.has or self.begins or self.is_not
            )
        lower = value.strip().lower()
        entries = [_EQUALS.sub("=", each.strip()) for each in lower.split(",")]
        return (
            (not self.is_in or (value if self.exact else lower) in self.is_in)
            and (not self.is_set or bool(lower))
            and (not self.is_ports or _PORTS.fullmatch(lower) is not None)
            and (not self.is_unset or not lower)
            and (not self.has or self.has in entries)
            and (not self.lacks or self.lacks not in entries)
            and (not self.begins or any(each.startswith(self.begins) for each in entries))
            and lower not in self.not_in
            and (not self.is_not or lower not in {"", *self.is_not})
            and not (self.begins_not and any(each.startswith(self.begins_not) for each in entries))
        )

    def __str__(self) -> str:
        """Return it as the documentation shows it."""
        alias = f" (or `{self.alias}`)" if self.alias else ""
        return self._condition() + alias

    def _condition(self) -> str:
        if self.is_in:
            return f"`{self.key}:` {' or '.join(f'`{each}`' for each in self.is_in)}"
        if self.is_set:
            return f"`{self.key}` set"
        if self.is_ports:
            return f"`{self.key}` with ports"
        if self.is_unset:
            return f"`{self.key}` not set"
        if self.is_not:
            return f"`{self.key}` set, and not {' or '.join(f'`{each}`' for each in self.is_not)}"
        if self.begins_not:
            return f"`{self.key}` without `{'…`, `'.join(self.begins_not)}…`"
        if self.has:
            return f"`{self.key}` with `{self.has}`"
        if self.lacks:
            return f"`{self.key}` without `{self.lacks}`"
        if self.begins:
            return f"`{self.key}` with `{'…`, `'.join(self.begins)}…`"
        return f"`{self.key}` not {' or '.join(f'`{each}`' for each in self.not_in)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fact."""

    name: str
    effect: Effect
    of: str
    """Whose load balancer it is."""
    says: str
    """Why: the cause of a decision."""
    source: str
    where: tuple[Where, ...] = ()
    classes: tuple[str, ...] | None = None
    """The loadBalancerClasses that the controller serves, '' for none; None: any."""
    cloud: str = ""
    """Of the nodes' spec.providerID, what stands before `://`; empty: any."""

    def matches(self, annotations: Labels, load_balancer_class: str, cloud: str) -> bool:
        """Return whether it speaks of a Service of type LoadBalancer."""
        return (
            (self.classes is None or load_balancer_class in self.classes)
            and (not self.cloud or self.cloud == cloud)
            and all(each.holds(annotations) for each in self.where)
        )


_AWS: Final = "service.beta.kubernetes.io/aws-load-balancer-"
_AWS_NLB: Final = ("service.k8s.aws/nlb", "eks.amazonaws.com/nlb")
_AWS_GUIDE: Final = (
    "https://github.com/kubernetes-sigs/aws-load-balancer-controller/blob/10aab918280f/docs/guide/service/nlb.md"
)
_AWS_TARGETS: Final = (
    "https://github.com/kubernetes-sigs/aws-load-balancer-controller/blob/225f44568848/pkg/service/"
    "model_build_target_group.go"
)
_AWS_CLASSIC: Final = "https://kubernetes.io/docs/concepts/services-networking/service/#proxy-protocol-support-on-aws"
_AWS_IP: Final = (
    "ip targets see the NLB's address unless preserve_client_ip.enabled=true is among the target group's attributes"
)
_PRESERVE: Final = "preserve_client_ip.enabled=true"
_NO_PRESERVE: Final = "preserve_client_ip.enabled=false"
_NLB_TYPES: Final = ("nlb", "nlb-ip", "external")
_NOT_LEGACY_NLB: Final = Where(key=f"{_AWS}type", not_in=("nlb",))
"""The cloud's own controller makes `nlb`, of instance targets alone, and does not read the annotation of their type."""
_ALIBABA: Final = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-"
_ALICLOUD: Final = "service.beta.kubernetes.io/alicloud-loadbalancer-"
"""The older prefix, which the controller reads where the newer one is absent."""
_ALIBABA_NLB: Final = ("alibabacloud.com/nlb",)
_ALIBABA_GUIDE: Final = (
    "https://www.alibabacloud.com/help/en/ack/ack-managed-and-ack-dedicated/user-guide/"
    "use-annotations-to-configure-nlb-instances"
)
_ALIBABA_CCM: Final = "https://github.com/kubernetes/cloud-provider-alibaba-cloud/blob/eeb0ddc687ee/"
_ALIBABA_CLB: Final = f"{_ALIBABA_CCM}pkg/controller/service/clbv1/listeners.go"
ALIBABA_OTHERS: Final = ("service.beta.kubernetes.io/class", f"{_ALIBABA}tunnel-type")
"""Annotations by which Alibaba Cloud's controller leaves a Service without a class to another one (NeedCLB)."""
_ALIBABA_CLB_SERVES: Final = tuple(Where(key=key, is_unset=True) for key in ALIBABA_OTHERS)
_ALIBABA_GROUPS: Final = f"{_ALIBABA_CCM}pkg/controller/service/nlbv2/server_groups.go"
_ALIBABA_WEB: Final = ("http:", "https:")
_OPENSTACK: Final = "loadbalancer.openstack.org/"
_OPENSTACK_GUIDE: Final = (
    "https://github.com/kubernetes/cloud-provider-openstack/blob/00b99a081a87/docs/openstack-cloud-controller-manager/"
    "expose-applications-using-loadbalancer-type-service.md"
)
_DIGITALOCEAN: Final = "service.beta.kubernetes.io/do-loadbalancer-"
_DIGITALOCEAN_GUIDE: Final = "https://docs.digitalocean.com/products/kubernetes/how-to/configure-load-balancers/"
_HETZNER: Final = (
    "https://github.com/hetznercloud/hcloud-cloud-controller-manager/blob/6485324fbd97/internal/annotation/"
    "load_balancer.go"
)
_LINODE: Final = "service.beta.kubernetes.io/linode-loadbalancer-"
_LINODE_PROXY: Final = (
    "https://github.com/linode/linode-cloud-controller-manager/blob/b9aa9012c53f/cloud/linode/loadbalancers_helpers.go"
)
_SCALEWAY: Final = "service.beta.kubernetes.io/scw-loadbalancer-"
_SCALEWAY_ANNOTATIONS: Final = (
    "https://github.com/scaleway/scaleway-cloud-controller-manager/blob/bddc17f83b3e/docs/loadbalancer-annotations.md"
)
_VULTR: Final = "service.beta.kubernetes.io/vultr-loadbalancer-"
_VULTR_GUIDE: Final = "https://github.com/vultr/vultr-cloud-controller-manager/blob/d5f3ab033270/docs/load-balancers.md"
_ORACLE_TYPE: Final = "oci.oraclecloud.com/load-balancer-type"
_ORACLE: Final = (
    "https://github.com/oracle/oci-cloud-controller-manager/blob/1100ac3624ed/docs/load-balancer-annotations.md"
)
_ORACLE_CCM: Final = (
    "https://github.com/oracle/oci-cloud-controller-manager/blob/1100ac3624ed/pkg/cloudprovider/providers/oci/"
    "load_balancer_spec.go"
)
_AZURE_LINK: Final = "service.beta.kubernetes.io/azure-pls-create"
_AZURE_LINK_PROXY: Final = "service.beta.kubernetes.io/azure-pls-proxy-protocol"
_AZURE_LINK_GUIDE: Final = "https://kubernetes-sigs.github.io/cloud-provider-azure/topics/pls-integration"
_CILIUM: Final = "https://github.com/cilium/cilium/blob/05af5c5fc7f9/operator/pkg/lbipam/service_store.go"
_LAYER_7: Final = "a layer-7 listener opens its own connections; the client is in X-Forwarded-For (numTrustedProxies)"
_OWN_CONNECTIONS: Final = (
    "it opens its own connections: without the PROXY header, the gateway sees the load balancer's address"
)
_SHARED: Final = "Services that share an address can be Local only if all of them have the same selector"
_UNCLASSED: Final = ("",)
_TRUE: Final = ("true", "1", "t")
"""What Go's ParseBool takes for true."""

ROWS: Final = (
    # --- The PROXY header
    Row(
        name="aws-proxy-protocol",
        effect=Effect.PROXY,
        of="AWS CLB (v1) and NLB (v2)",
        where=(Where(key=f"{_AWS}proxy-protocol", is_in=("*",)),),
        classes=("", *_AWS_NLB),
        says="the load balancer speaks PROXY protocol",
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-target-group-proxy-protocol",
        effect=Effect.PROXY,
        of="AWS NLB",
        where=(Where(key=f"{_AWS}target-group-attributes", has="proxy_protocol_v2.enabled=true"),),
        classes=("", *_AWS_NLB),
        says="the target group speaks PROXY protocol v2",
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-ports-proxy-protocol",
        effect=Effect.PROXY,
        of="AWS NLB",
        where=(Where(key=f"{_AWS}proxy-protocol-per-target-group", is_ports=True),),
        classes=("", *_AWS_NLB),
        says="the target groups of these ports speak PROXY protocol v2",
        source=_AWS_GUIDE,
    ),
    Row(
        name="alibaba-proxy-protocol",
        effect=Effect.PROXY,
        of="Alibaba Cloud NLB",
        where=(Where(key=f"{_ALIBABA}proxy-protocol", alias=f"{_ALICLOUD}proxy-protocol", is_in=("on",)),),
        classes=_ALIBABA_NLB,
        says="the load balancer speaks PROXY protocol",
        source=f"{_ALIBABA_CCM}pkg/controller/service/nlbv2/listeners.go",
    ),
    Row(
        name="alibaba-clb-proxy-protocol",
        effect=Effect.PROXY,
        of="Alibaba Cloud CLB",
        where=(
            Where(key=f"{_ALIBABA}proxy-protocol", alias=f"{_ALICLOUD}proxy-protocol", is_in=("on",), exact=True),
            # HTTP and HTTPS listeners have no such setting: the controller sets it for TCP and UDP alone.
            Where(key=f"{_ALIBABA}protocol-port", alias=f"{_ALICLOUD}protocol-port", begins_not=_ALIBABA_WEB),
            *_ALIBABA_CLB_SERVES,
        ),
        classes=_UNCLASSED,
        says="layer-4 listeners speak PROXY protocol v2",
        source=_ALIBABA_CLB,
    ),
    Row(
        name="openstack-proxy-protocol",
        effect=Effect.PROXY,
        of="OpenStack Octavia (also OVH)",
        where=(Where(key=f"{_OPENSTACK}proxy-protocol", is_in=("true", "v1", "v2"), exact=True),),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_OPENSTACK_GUIDE,
    ),
    Row(
        name="digitalocean-proxy-protocol",
        effect=Effect.PROXY,
        of="DigitalOcean",
        where=(Where(key=f"{_DIGITALOCEAN}enable-proxy-protocol", is_in=_TRUE),),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_DIGITALOCEAN_GUIDE,
    ),
    Row(
        name="hetzner-proxy-protocol",
        effect=Effect.PROXY,
        of="Hetzner Cloud",
        where=(Where(key="load-balancer.hetzner.cloud/uses-proxyprotocol", is_in=_TRUE),),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_HETZNER,
    ),
    Row(
        name="linode-proxy-protocol",
        effect=Effect.PROXY,
        of="Akamai (Linode) NodeBalancer",
        where=(Where(key=f"{_LINODE}default-proxy-protocol", alias=f"{_LINODE}proxy-protocol", is_in=("v1", "v2")),),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_LINODE_PROXY,
    ),
    *(
        Row(
            name=f"scaleway-proxy-protocol-{version}",
            effect=Effect.PROXY,
            of="Scaleway",
            where=(Where(key=f"{_SCALEWAY}proxy-protocol-{version}", alias=alias, is_ports=True),),
            classes=_UNCLASSED,
            says="the load balancer speaks PROXY protocol",
            source=_SCALEWAY_ANNOTATIONS,
        )
        for version, alias in (("v1", ""), ("v2", f"{_SCALEWAY}send-proxy-v2"))
    ),
    Row(
        name="oracle-proxy-protocol",
        effect=Effect.PROXY,
        of="Oracle Cloud LB",
        where=(
            Where(
                key="service.beta.kubernetes.io/oci-load-balancer-connection-proxy-protocol-version", is_in=("1", "2")
            ),
            Where(key=_ORACLE_TYPE, not_in=("nlb",)),
        ),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_ORACLE,
    ),
    Row(
        name="oracle-nlb-proxy-protocol",
        effect=Effect.PROXY,
        of="Oracle Cloud NLB",
        where=(
            Where(key="oci-network-load-balancer.oraclecloud.com/is-ppv2-enabled", is_in=("true",)),
            Where(key=_ORACLE_TYPE, is_in=("nlb",), exact=True),
        ),
        classes=_UNCLASSED,
        says="the NLB speaks PROXY protocol v2",
        source=_ORACLE_CCM,
    ),
    Row(
        name="vultr-proxy-protocol",
        effect=Effect.PROXY,
        of="Vultr",
        where=(Where(key=f"{_VULTR}proxy-protocol", is_in=_TRUE),),
        classes=_UNCLASSED,
        says="the load balancer speaks PROXY protocol",
        source=_VULTR_GUIDE,
    ),
    Row(
        name="azure-private-link-proxy-protocol",
        effect=Effect.PROXY,
        of="Azure Private Link Service",
        where=(Where(key=_AZURE_LINK, is_in=("true",)), Where(key=_AZURE_LINK_PROXY, is_in=("true",))),
        classes=_UNCLASSED,
        says="the Private Link Service speaks PROXY protocol v2",
        source=_AZURE_LINK_GUIDE,
    ),
    # --- Hides the client
    Row(
        name="aws-nlb-ip",
        effect=Effect.HIDES,
        of="AWS NLB, ip targets",
        where=(
            Where(key=f"{_AWS}nlb-target-type", is_in=("ip",)),
            Where(key=f"{_AWS}target-group-attributes", lacks=_PRESERVE),
        ),
        classes=("", *_AWS_NLB),
        says=_AWS_IP,
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-nlb-ip-type",
        effect=Effect.HIDES,
        of="AWS NLB, ip targets",
        where=(
            Where(key=f"{_AWS}type", is_in=("nlb-ip",)),
            Where(key=f"{_AWS}target-group-attributes", lacks=_PRESERVE),
        ),
        classes=("", *_AWS_NLB),
        says=_AWS_IP,
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-nlb-preserve-off",
        effect=Effect.HIDES,
        of="AWS NLB",
        where=(Where(key=f"{_AWS}target-group-attributes", has=_NO_PRESERVE),),
        classes=("", *_AWS_NLB),
        says="preserve_client_ip.enabled=false: targets see the NLB's address",
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-clb-layer-7",
        effect=Effect.HIDES,
        of="AWS CLB",
        where=(
            Where(key=f"{_AWS}backend-protocol", is_in=("http", "https")),
            Where(key=f"{_AWS}type", not_in=_NLB_TYPES),
        ),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_AWS_CLASSIC,
    ),
    Row(
        name="aws-clb",
        effect=Effect.HIDES,
        of="AWS CLB",
        where=(Where(key=f"{_AWS}type", not_in=_NLB_TYPES),),
        classes=_UNCLASSED,
        cloud="aws",
        says=_OWN_CONNECTIONS,
        source=_AWS_CLASSIC,
    ),
    Row(
        name="alibaba-nlb-preserve-off",
        effect=Effect.HIDES,
        of="Alibaba Cloud NLB",
        where=(Where(key=f"{_ALIBABA}preserve-client-ip", alias=f"{_ALICLOUD}preserve-client-ip", is_not=("on",)),),
        classes=_ALIBABA_NLB,
        says="preserve-client-ip is off: targets see the NLB's address, with or without ENI",
        source=_ALIBABA_GROUPS,
    ),
    Row(
        name="alibaba-nlb-tcpssl",
        effect=Effect.HIDES,
        of="Alibaba Cloud NLB",
        where=(Where(key=f"{_ALIBABA}protocol-port", alias=f"{_ALICLOUD}protocol-port", begins=("tcpssl:",)),),
        classes=_ALIBABA_NLB,
        says="a TCPSSL listener cannot preserve the client's IP, with or without ENI",
        source=_ALIBABA_GUIDE,
    ),
    Row(
        name="alibaba-nlb-ip-group",
        effect=Effect.HIDES,
        of="Alibaba Cloud NLB",
        where=(Where(key=f"{_ALIBABA}server-group-type", alias=f"{_ALICLOUD}server-group-type", is_in=("ip",)),),
        classes=_ALIBABA_NLB,
        says="a server group of type Ip cannot preserve the client's IP",
        source=_ALIBABA_GUIDE,
    ),
    Row(
        name="alibaba-clb-layer-7",
        effect=Effect.HIDES,
        of="Alibaba Cloud CLB",
        where=(
            Where(key=f"{_ALIBABA}protocol-port", alias=f"{_ALICLOUD}protocol-port", begins=_ALIBABA_WEB),
            *_ALIBABA_CLB_SERVES,
        ),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_ALIBABA_CLB,
    ),
    Row(
        name="openstack-layer-7",
        effect=Effect.HIDES,
        of="OpenStack Octavia",
        where=(Where(key=f"{_OPENSTACK}x-forwarded-for", is_in=("true",), exact=True),),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_OPENSTACK_GUIDE,
    ),
    Row(
        name="openstack-tls",
        effect=Effect.HIDES,
        of="OpenStack Octavia",
        where=(Where(key=f"{_OPENSTACK}default-tls-container-ref", is_set=True),),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_OPENSTACK_GUIDE,
    ),
    Row(
        name="digitalocean-layer-7",
        effect=Effect.HIDES,
        of="DigitalOcean",
        where=(Where(key=f"{_DIGITALOCEAN}protocol", is_in=("http", "https", "http2", "http3")),),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_DIGITALOCEAN_GUIDE,
    ),
    *(
        Row(
            name=f"digitalocean-{what}",
            effect=Effect.HIDES,
            of="DigitalOcean",
            where=(Where(key=f"{_DIGITALOCEAN}{what}", is_set=True),),
            classes=_UNCLASSED,
            says=_LAYER_7,
            source=_DIGITALOCEAN_GUIDE,
        )
        for what in ("http-ports", "http2-ports", "http3-port")
    ),
    Row(
        name="digitalocean",
        effect=Effect.HIDES,
        of="DigitalOcean",
        where=(Where(key=f"{_DIGITALOCEAN}type", not_in=("regional_network",)),),
        classes=_UNCLASSED,
        cloud="digitalocean",
        says=_OWN_CONNECTIONS,
        source=_DIGITALOCEAN_GUIDE,
    ),
    Row(
        name="hetzner",
        effect=Effect.HIDES,
        of="Hetzner Cloud",
        classes=_UNCLASSED,
        cloud="hcloud",
        says=_OWN_CONNECTIONS,
        source=_HETZNER,
    ),
    Row(
        name="linode",
        effect=Effect.HIDES,
        of="Akamai (Linode) NodeBalancer",
        classes=_UNCLASSED,
        cloud="linode",
        says=_OWN_CONNECTIONS,
        source="https://techdocs.akamai.com/cloud-computing/docs/clients-ip-address-pass-through",
    ),
    Row(
        name="scaleway",
        effect=Effect.HIDES,
        of="Scaleway",
        classes=_UNCLASSED,
        cloud="scaleway",
        says=_OWN_CONNECTIONS,
        source="https://www.scaleway.com/en/docs/configure-proxy-protocol-with-a-load-balancer",
    ),
    Row(
        name="oracle",
        effect=Effect.HIDES,
        of="Oracle Cloud LB",
        where=(Where(key=_ORACLE_TYPE, not_in=("nlb",)),),
        classes=_UNCLASSED,
        cloud="oci",
        says=_OWN_CONNECTIONS,
        source=_ORACLE,
    ),
    Row(
        name="oracle-layer-7",
        effect=Effect.HIDES,
        of="Oracle Cloud LB",
        where=(
            Where(key="service.beta.kubernetes.io/oci-load-balancer-backend-protocol", is_in=("http", "grpc")),
            Where(key=_ORACLE_TYPE, not_in=("nlb",)),
        ),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source=_ORACLE_CCM,
    ),
    Row(
        name="vultr",
        effect=Effect.HIDES,
        of="Vultr",
        classes=_UNCLASSED,
        cloud="vultr",
        says=_OWN_CONNECTIONS,
        source=_VULTR_GUIDE,
    ),
    Row(
        name="oracle-nlb-preserve-off",
        effect=Effect.HIDES,
        of="Oracle Cloud NLB",
        where=(
            Where(key=_ORACLE_TYPE, is_in=("nlb",)),
            Where(key="oci-network-load-balancer.oraclecloud.com/is-preserve-source", is_in=("false", "0", "f")),
        ),
        classes=_UNCLASSED,
        says="is-preserve-source is false: nodes see the NLB's address",
        source=_ORACLE_CCM,
    ),
    Row(
        name="azure-private-link",
        effect=Effect.HIDES,
        of="Azure Private Link Service",
        where=(Where(key=_AZURE_LINK, is_in=("true",)), Where(key=_AZURE_LINK_PROXY, not_in=("true",))),
        classes=_UNCLASSED,
        says="clients of the Private Link Service have one of its NAT addresses",
        source=_AZURE_LINK_GUIDE,
    ),
    Row(
        name="huawei-transparent-off",
        effect=Effect.HIDES,
        of="Huawei Cloud ELB",
        where=(
            Where(
                key="kubernetes.io/elb.enable-transparent-client-ip",
                alias="kubernetes.io/elb.transparent-client-ip",
                is_in=("false",),
            ),
        ),
        classes=_UNCLASSED,
        says="transparent-client-ip is false: nodes see the ELB's address",
        source="https://support.huaweicloud.com/intl/en-us/usermanual-cce/cce_10_0916.html",
    ),
    Row(
        name="huawei-layer-7",
        effect=Effect.HIDES,
        of="Huawei Cloud ELB",
        where=(Where(key="kubernetes.io/elb.protocol-port", begins=("http:", "https:")),),
        classes=_UNCLASSED,
        says=_LAYER_7,
        source="https://support.huaweicloud.com/intl/en-us/usermanual-cce/cce_10_0385.html",
    ),
    # --- Local would break it
    *(
        Row(
            name=name,
            effect=Effect.UNSAFE,
            of=of,
            where=(Where(key=key, is_set=True),),
            says=f"{_SHARED}; annotation {key}",
            source=source,
        )
        for name, of, key, source in (
            (
                "metallb-shared",
                "MetalLB",
                "metallb.universe.tf/allow-shared-ip",
                "https://metallb.io/usage/#ip-address-sharing",
            ),
            (
                "metallb-io-shared",
                "MetalLB",
                "metallb.io/allow-shared-ip",
                "https://metallb.io/usage/#ip-address-sharing",
            ),
            (
                "purelb-shared",
                "PureLB",
                "purelb.io/allow-shared-ip",
                "https://purelb.github.io/purelb/operation/services/",
            ),
            (
                "kube-vip-shared",
                "kube-vip",
                "kube-vip.io/leaseName",
                "https://kube-vip.io/docs/usage/kubernetes-services/",
            ),
            (
                "cilium-shared",
                "Cilium LB IPAM",
                "lbipam.cilium.io/sharing-key",
                _CILIUM,
            ),
            (
                "cilium-io-shared",
                "Cilium LB IPAM",
                "io.cilium/lb-ipam-sharing-key",
                _CILIUM,
            ),
        )
    ),
    Row(
        name="openstack-no-health-monitor",
        effect=Effect.UNSAFE,
        of="OpenStack Octavia",
        where=(Where(key=f"{_OPENSTACK}enable-health-monitor", is_in=("false",), exact=True),),
        classes=_UNCLASSED,
        says="without a health monitor, nodes without a gateway pod also receive traffic, and drop it with Local",
        source=_OPENSTACK_GUIDE,
    ),
    *(
        Row(
            name=name,
            effect=Effect.UNSAFE,
            of="AWS NLB, instance targets",
            where=(
                Where(key=f"{_AWS}healthcheck-protocol", is_in=("tcp",)),
                Where(key=f"{_AWS}healthcheck-port", is_unset=True),
                Where(key=f"{_AWS}nlb-target-type", not_in=("ip",)),
                *more,
            ),
            classes=classes,
            says="under Local its TCP health check finds every node healthy: kube-proxy listens for it on all of them",
            source=_AWS_TARGETS,
        )
        for name, classes, more in (
            ("aws-nlb-tcp-health-check", _AWS_NLB, ()),
            (
                "aws-nlb-external-tcp-health-check",
                _UNCLASSED,
                (Where(key=f"{_AWS}type", is_in=("external",), exact=True),),
            ),
        )
    ),
    # --- Keeps the client by itself
    Row(
        name="aws-nlb-ip-preserved",
        effect=Effect.KEEPS,
        of="AWS NLB, ip targets",
        where=(
            Where(key=f"{_AWS}nlb-target-type", is_in=("ip",)),
            Where(key=f"{_AWS}target-group-attributes", has=_PRESERVE),
            _NOT_LEGACY_NLB,
        ),
        classes=("", *_AWS_NLB),
        says="ip targets with preserve_client_ip.enabled=true: the NLB reaches pods and keeps the client's IP",
        source=_AWS_GUIDE,
    ),
    Row(
        name="aws-nlb-ip-type-preserved",
        effect=Effect.KEEPS,
        of="AWS NLB, ip targets",
        where=(
            Where(key=f"{_AWS}type", is_in=("nlb-ip",)),
            Where(key=f"{_AWS}target-group-attributes", has=_PRESERVE),
        ),
        classes=("", *_AWS_NLB),
        says="ip targets with preserve_client_ip.enabled=true: the NLB reaches pods and keeps the client's IP",
        source=_AWS_GUIDE,
    ),
    Row(
        name="tencent-direct-access",
        effect=Effect.KEEPS,
        of="Tencent Cloud CLB",
        where=(Where(key="service.cloud.tencent.com/direct-access", is_in=("true",)),),
        classes=_UNCLASSED,
        says="direct access: the CLB reaches pods and keeps the client's IP",
        source="https://www.tencentcloud.com/document/product/457/38408",
    ),
    # --- Keeps it up to the node
    Row(
        name="aws-nlb-instance",
        effect=Effect.NEEDS,
        of="AWS NLB, instance targets",
        where=(Where(key=f"{_AWS}nlb-target-type", is_in=("instance",)),),
        classes=("", *_AWS_NLB),
        says="instance targets: the NLB keeps the client's IP up to the node",
        source=_AWS_GUIDE,
    ),
    Row(
        name="alibaba-nlb",
        effect=Effect.NEEDS,
        of="Alibaba Cloud NLB",
        classes=_ALIBABA_NLB,
        says="node backends: the NLB keeps the client's IP up to the node",
        source=_ALIBABA_GUIDE,
    ),
    Row(
        name="oracle-nlb",
        effect=Effect.NEEDS,
        of="Oracle Cloud NLB",
        where=(Where(key=_ORACLE_TYPE, is_in=("nlb",)),),
        classes=_UNCLASSED,
        says="the NLB keeps the client's IP up to the node, but only with Local",
        source=_ORACLE_CCM,
    ),
    Row(
        name="azure",
        effect=Effect.NEEDS,
        of="Azure Load Balancer",
        classes=_UNCLASSED,
        cloud="azure",
        says="a pass-through load balancer keeps the client's IP up to the node",
        source="https://learn.microsoft.com/azure/aks/load-balancer-standard#maintain-the-clients-ip-on-inbound-connections",
    ),
    Row(
        name="gcp",
        effect=Effect.NEEDS,
        of="Google Cloud pass-through NLB (target pools, GCE_VM_IP NEGs)",
        classes=("", "networking.gke.io/l4-regional-external", "networking.gke.io/l4-regional-internal"),
        cloud="gce",
        says="a pass-through load balancer keeps the client's IP up to the node",
        source="https://cloud.google.com/kubernetes-engine/docs/concepts/service-load-balancer#effect_of_externaltrafficpolicy",
    ),
    Row(
        name="tencent",
        effect=Effect.NEEDS,
        of="Tencent Cloud CLB",
        classes=_UNCLASSED,
        cloud="qcloud",
        says="the CLB keeps the client's IP up to the node",
        source="https://www.tencentcloud.com/document/product/457/38426",
    ),
)
_ORDERED: Final = tuple(row for effect in Effect for row in ROWS if row.effect is effect)
READ: Final = frozenset(key for row in ROWS for where in row.where for key in (where.key, where.alias) if key)
"""The annotations that the table reads."""
_CLASSES: Final = frozenset(each for row in ROWS for each in row.classes or () if each)
_CLOUDS: Final = frozenset(row.cloud for row in ROWS if row.cloud)


def fact_of(annotations: Labels, load_balancer_class: str, cloud: str) -> Row | None:
    """Return the row that counts for a Service of type LoadBalancer; None where nothing is known of it."""
    if load_balancer_class not in _CLASSES and cloud not in _CLOUDS and READ.isdisjoint(annotations):
        return None  # what most have
    return next((row for row in _ORDERED if row.matches(annotations, load_balancer_class, cloud)), None)
