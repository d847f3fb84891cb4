"""The table of load balancers: every row is reached, rows count in order, and the documentation shows them."""

from pathlib import Path
from typing import Final

import pytest

from webhook.rules.loadbalancers import READ, ROWS, Effect, Row, Where, fact_of

PAGE: Final = Path(__file__).parents[3] / "docs" / "load-balancers.md"


def line(row: Row) -> str:
    """Return the row as the documentation shows it."""
    conditions = [str(each) for each in row.where]
    if row.cloud:
        conditions.append(f"nodes with providerID `{row.cloud}://…`")
    if row.classes is not None:
        named = " or ".join(f"`{each}`" for each in row.classes if each)
        if "" not in row.classes:
            conditions.append(f"loadBalancerClass {named}")
        else:
            conditions.append("no loadBalancerClass" + (f", or {named}" if named else ""))
    return f"| `{row.name}` | {row.of} | {'; '.join(conditions)} | {row.says} | {row.source} |"


def fulfilled(where: Where) -> str | None:
    """Return an annotation's value that fulfils a condition; None where absence does."""
    if where.is_in:
        return where.is_in[0]
    if where.has:
        return f"first=1, {where.has}"
    if where.begins:
        return f"tcp:22,{where.begins[0].upper()}443"
    if where.is_ports:
        return "80, 443"
    return "yes" if where.is_set else "off" if where.is_not else None


def annotations_of(row: Row) -> dict[str, str]:
    values = {where.key: fulfilled(where) for where in row.where}
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_reached(row: Row) -> None:
    """What fulfils a row is decided by it, or by one whose effect comes first."""
    load_balancer_class = row.classes[-1] if row.classes else ""
    found = fact_of(annotations_of(row), load_balancer_class, row.cloud)
    assert found is not None
    assert row.matches(annotations_of(row), load_balancer_class, row.cloud)
    order = list(Effect)
    assert order.index(found.effect) <= order.index(row.effect)
    if row.effect is not Effect.NEEDS:
        assert found.effect is row.effect


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_speaks_of_its_own_controllers_services_alone(row: Row) -> None:
    if row.classes is not None:
        assert not row.matches(annotations_of(row), "example.com/another", row.cloud)
    if row.cloud:
        assert not row.matches(annotations_of(row), "", "another")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_a_source_and_stands_in_the_documentation(row: Row) -> None:
    assert row.source.startswith("https://")
    assert line(row) in PAGE.read_text().splitlines()


def test_the_documentation_shows_no_other_row() -> None:
    shown = [each for each in PAGE.read_text().splitlines() if each.startswith("| `")]
    assert sorted(shown) == sorted(map(line, ROWS))


@pytest.mark.parametrize(
    "row", [row for row in ROWS if any(where.alias for where in row.where)], ids=lambda row: row.name
)
def test_an_older_name_counts_where_the_newer_one_is_absent(row: Row) -> None:
    aliases = {where.key: where.alias for where in row.where if where.alias}
    newer = annotations_of(row)
    older = {aliases.get(key, key): value for key, value in newer.items()}
    load_balancer_class = row.classes[-1] if row.classes else ""
    assert row.matches(older, load_balancer_class, row.cloud)
    assert fact_of(older, load_balancer_class, row.cloud) == fact_of(newer, load_balancer_class, row.cloud)
    for key in aliases.keys() & newer.keys():
        assert not row.matches({**older, key: ""}, load_balancer_class, row.cloud)


def test_names_are_given_once() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("one", ROWS, ids=lambda row: row.name)
def test_of_two_rows_that_match_the_first_effect_counts(one: Row) -> None:
    """The PROXY header, then hides, then unsafe, then keeps: whatever else stands beside it."""
    order = list(Effect)
    assert order == [Effect.PROXY, Effect.HIDES, Effect.UNSAFE, Effect.KEEPS, Effect.NEEDS]
    for other in ROWS:
        both = {**annotations_of(other), **annotations_of(one)}
        load_balancer_class = one.classes[-1] if one.classes else ""
        matching = [row for row in ROWS if row.matches(both, load_balancer_class, one.cloud)]
        found = fact_of(both, load_balancer_class, one.cloud)
        assert found is not None
        assert found.effect is min((row.effect for row in matching), key=order.index)


AWS: Final = "service.beta.kubernetes.io/aws-load-balancer-"
ALIBABA: Final = "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-"
OCTAVIA: Final = "loadbalancer.openstack.org/"
DO: Final = "service.beta.kubernetes.io/do-loadbalancer-"
SCALEWAY: Final = "service.beta.kubernetes.io/scw-loadbalancer-"
OCI: Final = "oci-network-load-balancer.oraclecloud.com/"
ATTRIBUTES: Final = f"{AWS}target-group-attributes"
TARGETS: Final = f"{AWS}nlb-target-type"


@pytest.mark.parametrize(
    ("annotations", "load_balancer_class", "cloud", "name"),
    [
        # Attributes are read as the controllers read them.
        ({ATTRIBUTES: "a=1, preserve_client_ip.enabled = false"}, "service.k8s.aws/nlb", "", "aws-nlb-preserve-off"),
        ({ATTRIBUTES: "proxy_protocol_v2.enabled =true"}, "service.k8s.aws/nlb", "", "aws-target-group-proxy-protocol"),
        (
            {TARGETS: "ip", ATTRIBUTES: "preserve_client_ip.enabled= true"},
            "service.k8s.aws/nlb",
            "",
            "aws-nlb-ip-preserved",
        ),
        ({TARGETS: "ip", ATTRIBUTES: "preserve_client_ip.enabledx=true"}, "service.k8s.aws/nlb", "", "aws-nlb-ip"),
        # `nlb` is made by the cloud's own controller, which knows no ip targets: Local is needed.
        ({f"{AWS}type": "nlb", TARGETS: "ip", ATTRIBUTES: "preserve_client_ip.enabled=true"}, "", "aws", None),
        (
            {f"{AWS}type": "external", TARGETS: "ip", ATTRIBUTES: "preserve_client_ip.enabled=true"},
            "",
            "aws",
            "aws-nlb-ip-preserved",
        ),
        ({f"{AWS}type": "nlb"}, "", "aws", None),
        ({f"{AWS}type": ""}, "", "aws", "aws-clb"),
        ({f"{AWS}proxy-protocol-per-target-group": "80, 443"}, "service.k8s.aws/nlb", "", "aws-ports-proxy-protocol"),
        ({f"{AWS}proxy-protocol-per-target-group": ""}, "service.k8s.aws/nlb", "", None),
        # Values as they are written, where the controller compares them so.
        ({f"{ALIBABA}proxy-protocol": "On"}, "alibabacloud.com/nlb", "", "alibaba-proxy-protocol"),
        ({f"{ALIBABA}proxy-protocol": "On"}, "", "", None),
        ({f"{OCTAVIA}proxy-protocol": "True"}, "", "", None),
        ({f"{OCTAVIA}proxy-protocol": "v2"}, "", "", "openstack-proxy-protocol"),
        ({f"{OCTAVIA}enable-health-monitor": "False"}, "", "", None),
        ({f"{OCTAVIA}default-tls-container-ref": "secret"}, "", "openstack", "openstack-tls"),
        ({f"{DO}enable-proxy-protocol": "T"}, "", "digitalocean", "digitalocean-proxy-protocol"),
        ({f"{DO}http-ports": "80,8080"}, "", "", "digitalocean-http-ports"),
        ({f"{SCALEWAY}proxy-protocol-v2": "80,443"}, "", "scaleway", "scaleway-proxy-protocol-v2"),
        ({f"{SCALEWAY}proxy-protocol-v2": "*"}, "", "scaleway", "scaleway-proxy-protocol-v2"),
        ({f"{SCALEWAY}proxy-protocol-v2": "False"}, "", "scaleway", "scaleway"),
        (
            {f"{OCI}is-ppv2-enabled": "True", "oci.oraclecloud.com/load-balancer-type": "nlb"},
            "",
            "oci",
            "oracle-nlb-proxy-protocol",
        ),
        ({f"{OCI}is-ppv2-enabled": "true"}, "", "oci", "oracle"),
        # Another controller's, by Alibaba Cloud's own annotations.
        ({f"{ALIBABA}proxy-protocol": "on"}, "", "", "alibaba-clb-proxy-protocol"),
        ({f"{ALIBABA}proxy-protocol": "on", "service.beta.kubernetes.io/class": "other"}, "", "", None),
        (
            {f"{ALIBABA}proxy-protocol": "on", "service.beta.kubernetes.io/class": ""},
            "",
            "",
            "alibaba-clb-proxy-protocol",
        ),
        # Any text is the name of a shared address.
        ({"metallb.io/allow-shared-ip": "false"}, "", "", "metallb-io-shared"),
        ({"metallb.io/allow-shared-ip": ""}, "", "", None),
    ],
)
def test_a_value_says_what_its_controller_makes_of_it(
    annotations: dict[str, str], load_balancer_class: str, cloud: str, name: str | None
) -> None:
    found = fact_of(annotations, load_balancer_class, cloud)
    row = None if found is None or found.effect is Effect.NEEDS else found.name
    assert row == name


@pytest.mark.parametrize("value", ["", "false", "no", "*,*", "Off "])
def test_a_value_that_switches_nothing_on_says_nothing(value: str) -> None:
    for key in sorted(READ):
        found = fact_of({key: value}, "", "")
        assert found is None or any(
            value.strip().lower() in where.is_in or where.is_set or where.key != key for where in found.where
        )
