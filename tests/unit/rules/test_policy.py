"""Which policy and which exception hold for an object."""

from datetime import UTC, datetime, timedelta

import pytest

from webhook.rules.policy import BUILT_IN, Policies, Policy, PolicyException, policies
from webhook.rules.selectors import LabelSelector

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SHOP = LabelSelector(equal=(("kubernetes.io/metadata.name", "shop"),))
APP = LabelSelector(equal=(("app", "a"),))
AROUND = {"kubernetes.io/metadata.name": "shop"}


def in_force(*stored: Policy) -> Policies:
    return policies({policy.name: policy for policy in stored})


def test_the_built_in_default_is_there_unless_it_is_replaced() -> None:
    assert in_force() == Policies((BUILT_IN,), BUILT_IN)
    other = Policy(name="other")
    assert in_force(other) == Policies((other, BUILT_IN), BUILT_IN)
    replaced = Policy(name="default", namespace_selector=SHOP)
    assert in_force(replaced) == Policies((replaced,), replaced)
    assert in_force(replaced).for_pod({}, {}) is None
    assert in_force(replaced).for_service({}, {}) is None


def test_the_highest_priority_wins_whole_then_the_name() -> None:
    low, high, same = Policy(name="a", priority=1), Policy(name="c", priority=2), Policy(name="b", priority=2)
    assert [each.name for each in in_force(low, high, same).ordered] == ["b", "c", "a", "default"]
    assert in_force(low, high, same).for_pod({}, {}) is same
    assert in_force(Policy(name="a", priority=-1), Policy(name="z", priority=-1)).for_pod({}, {}) == Policy(
        name="a",
        priority=-1,
    )


def test_both_selectors_must_match_a_pod() -> None:
    policy = Policy(name="a", namespace_selector=SHOP, pod_selector=APP)
    found = in_force(policy)
    assert found.for_pod(AROUND, {"app": "a"}) is policy
    assert found.for_pod(AROUND, {"app": "b"}) is BUILT_IN
    assert found.for_pod({}, {"app": "a"}) is BUILT_IN


def test_a_service_gets_the_first_policy_to_which_it_is_a_gateway() -> None:
    mine = Policy(name="a", priority=5, service_selectors=(APP,))
    found = in_force(mine)
    assert found.for_service({}, {"app": "a"}) is mine
    assert found.for_service({}, {"istio": "ingressgateway"}) is BUILT_IN
    assert found.for_service({}, {"istio": "eastwestgateway"}) is mine, "the first that matches finds: no gateway"
    elsewhere = in_force(Policy(name="a", priority=5, namespace_selector=SHOP, service_selectors=(APP,)))
    assert elsewhere.for_service({}, {"app": "a"}) is BUILT_IN


def test_an_invalid_policy_counts_for_every_service_that_its_namespace_selector_matches() -> None:
    invalid = Policy(name="a", invalid="spec.mode: required", namespace_selector=SHOP)
    found = in_force(invalid)
    assert found.for_service(AROUND, {}) is invalid
    assert found.for_service({}, {"istio": "ingress"}) is BUILT_IN


@pytest.mark.parametrize(
    ("labels", "gateway"),
    [
        ({"istio": "ingressgateway"}, True),
        ({"istio": "ingress"}, True),
        ({"gateway.networking.k8s.io/gateway-class-name": "istio"}, True),
        ({"istio": "eastwestgateway"}, False),
        ({"istio": "egressgateway"}, False),
        ({"gateway.networking.k8s.io/gateway-class-name": "istio-waypoint"}, False),
        ({"app": "istio-ingressgateway"}, False),
        ({}, False),
    ],
)
def test_the_built_in_gateways_are_istios_ingress_gateways(labels: dict[str, str], *, gateway: bool) -> None:
    assert BUILT_IN.is_gateway(labels) is gateway


def exception(
    name: str = "ledger",
    expires: datetime = NOW + timedelta(days=1),
    namespace_selector: LabelSelector = SHOP,
    selector: LabelSelector = APP,
) -> PolicyException:
    return PolicyException(
        name=name,
        owner="team@example.com",
        reason="reads the PROXY header",
        expires=expires,
        namespace_selector=namespace_selector,
        selector=selector,
    )


def test_an_exception_covers_what_both_of_its_selectors_match() -> None:
    assert exception().holds(AROUND, {"app": "a"}, now=NOW)
    assert not exception().holds({}, {"app": "a"}, now=NOW)
    assert not exception().holds(AROUND, {"app": "b"}, now=NOW)


@pytest.mark.parametrize(
    ("left", "holds"),
    [
        pytest.param(timedelta(microseconds=1), True, id="JUST before its end"),
        pytest.param(timedelta(0), False, id="AT its end"),
        pytest.param(-timedelta(microseconds=1), False, id="JUST after its end"),
    ],
)
def test_an_exception_ends(left: timedelta, *, holds: bool) -> None:
    assert exception(expires=NOW + left).holds(AROUND, {"app": "a"}, now=NOW) is holds


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_ends_at_the_edge_of_time_compare(text: str) -> None:
    expires = datetime.fromisoformat(text)
    assert exception(expires=expires).holds(AROUND, {"app": "a"}, now=NOW) is text.startswith("9999")


def test_the_first_live_exception_counts() -> None:
    ended, first, second = exception("ended", NOW), exception("first"), exception("second")
    policy = Policy(name="a", exceptions=(ended, first, second))
    assert policy.exception_for(AROUND, {"app": "a"}, now=NOW) is first
    assert policy.exception_for(AROUND, {"app": "b"}, now=NOW) is None
