"""The caBundle: patched where it differs, on webhooks that call us, and nowhere else."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certs.authority import issue_ca, issue_leaf, service_names
from certs.injector import Entry, entries, inject, operations, trust_of
from certs.kube import ConflictError
from tests.unit.certs.apiserver import MemoryCluster

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIFE = timedelta(days=30)
NAMES = service_names("webhook", "system")
OLD, NEW = (issue_ca(organization="example", now=NOW, life=LIFE) for _ in range(2))
BUNDLE = NEW.certificate_pem + OLD.certificate_pem


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def webhook(name: str, **client: object) -> dict[str, Any]:
    return {"name": name, "clientConfig": client}


def configuration(*webhooks: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "ours", "resourceVersion": "7"},
        "webhooks": list(webhooks),
    }


OURS = {"name": "webhook", "namespace": "system"}


@pytest.mark.parametrize(
    ("client", "calls_us"),
    [
        pytest.param({"service": OURS}, True, id="our Service"),
        pytest.param({"service": OURS | {"port": 8443, "path": "/mutate"}}, True, id="our Service, any port"),
        pytest.param({"service": OURS | {"namespace": "elsewhere"}}, False, id="another namespace's Service"),
        pytest.param({"service": OURS | {"name": "other"}}, False, id="another Service"),
        pytest.param({"url": "https://webhook.system.svc:8443/mutate"}, True, id="a URL of our name"),
        pytest.param({"url": "https://WEBHOOK.system.svc/mutate"}, True, id="a URL in capitals"),
        pytest.param({"url": "https://example.com/mutate"}, False, id="another URL"),
        pytest.param({"url": "https://[::1/mutate"}, False, id="a URL that is none"),
        pytest.param({}, False, id="nobody"),
    ],
)
def test_a_webhook_is_ours_if_it_calls_us(client: dict[str, Any], *, calls_us: bool) -> None:
    found = list(entries(configuration(webhook("a", **client)), NAMES))
    assert found == ([Entry(index=0, name="a", ca_bundle=b"")] if calls_us else [])


def test_an_address_is_a_name_too() -> None:
    url = configuration(webhook("a", url="https://10.0.0.1:8443/mutate"), webhook("b", url="https://[::1]/mutate"))
    assert [entry.name for entry in entries(url, ["10.0.0.1"])] == ["a"]
    assert [entry.name for entry in entries(url, ["::1"])] == ["b"]


@pytest.mark.parametrize("odd", [{}, {"webhooks": None}, {"webhooks": [{"name": "a"}]}])
def test_a_configuration_may_be_bare(odd: dict[str, Any]) -> None:
    assert list(entries(odd, NAMES)) == []


@pytest.mark.parametrize("odd", ["%%%", "é", 7, None])
def test_a_bundle_that_is_no_base64_is_empty(odd: object) -> None:
    (entry,) = entries(configuration(webhook("a", service=OURS, caBundle=odd)), NAMES)
    assert entry.ca_bundle == b""


class TestTrust:
    """What all callers trust."""

    def test_is_what_they_have_in_common(self) -> None:
        both = webhook("a", service=OURS, caBundle=encoded(BUNDLE))
        one = webhook("b", service=OURS, caBundle=encoded(OLD.certificate_pem))
        trust = trust_of([configuration(both), configuration(one)], NAMES)
        assert (trust.callers, trust.authorities) == (2, frozenset({OLD.certificate}))
        assert trust.includes(OLD.certificate)
        assert not trust.includes(NEW.certificate)

    def test_is_nothing_where_one_caller_trusts_nothing(self) -> None:
        both = webhook("a", service=OURS, caBundle=encoded(BUNDLE))
        trust = trust_of([configuration(both, webhook("b", service=OURS))], NAMES)
        assert (trust.callers, trust.authorities) == (2, frozenset())

    def test_is_not_asked_for_where_nobody_calls(self) -> None:
        foreign = webhook("a", service=OURS | {"name": "other"}, caBundle=encoded(OLD.certificate_pem))
        trust = trust_of([configuration(foreign)], NAMES)
        assert (trust.callers, trust.authorities) == (0, frozenset())
        assert trust.includes(NEW.certificate)
        assert trust.vouches_for(issue_leaf(NEW, names=["a"], now=NOW, life=LIFE).certificate)

    def test_vouches_for_leaves_of_its_authorities(self) -> None:
        trust = trust_of([configuration(webhook("a", service=OURS, caBundle=encoded(OLD.certificate_pem)))], NAMES)
        assert trust.vouches_for(issue_leaf(OLD, names=["a"], now=NOW, life=LIFE).certificate)
        assert not trust.vouches_for(issue_leaf(NEW, names=["a"], now=NOW, life=LIFE).certificate)


def test_a_patch_adds_what_differs_and_tests_what_it_rests_on() -> None:
    patch = operations(
        configuration(
            webhook("empty", service=OURS),
            webhook("foreign", service=OURS | {"name": "other"}),
            webhook("right", service=OURS, caBundle=encoded(BUNDLE)),
            webhook("old", service=OURS, caBundle=encoded(OLD.certificate_pem)),
        ),
        BUNDLE,
        NAMES,
    )
    assert patch == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "test", "path": "/webhooks/0/name", "value": "empty"},
        {"op": "test", "path": "/webhooks/3/name", "value": "old"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": encoded(BUNDLE)},
        {"op": "add", "path": "/webhooks/3/clientConfig/caBundle", "value": encoded(BUNDLE)},
    ]


def test_nothing_differs_nothing_is_patched() -> None:
    assert operations(configuration(webhook("a", service=OURS, caBundle=encoded(BUNDLE))), BUNDLE, NAMES) == []


def cluster_with(*services: str) -> MemoryCluster:
    cluster = MemoryCluster(lambda: NOW)
    cluster.configure("ours", *services)
    return cluster


def test_only_the_ca_bundle_of_ours_changes() -> None:
    async def scenario() -> None:
        cluster = cluster_with("webhook", "other", "webhook")
        api = cluster.client()
        before = await api.get_mutating_webhook_configuration("ours")
        after = await inject(api, before, BUNDLE, NAMES)
        assert after == await api.get_mutating_webhook_configuration("ours")
        for webhook in after["webhooks"]:
            ours = webhook["clientConfig"]["service"]["name"] == "webhook"
            assert webhook["clientConfig"].pop("caBundle", None) == (encoded(BUNDLE) if ours else None)
        assert after["webhooks"] == before["webhooks"]
        # A second look finds nothing to do.
        assert await inject(api, await api.get_mutating_webhook_configuration("ours"), BUNDLE, NAMES) is None
        assert cluster.requests["patch configuration"] == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["reordered", "edited"])
def test_a_configuration_that_changed_meanwhile_is_not_touched(change: str) -> None:
    async def scenario() -> None:
        cluster = cluster_with("webhook", "other")
        api = cluster.client()
        read = await api.get_mutating_webhook_configuration("ours")
        current = cluster.configurations["ours"]
        if change == "reordered":
            current["webhooks"].reverse()
        else:
            current["webhooks"][0]["timeoutSeconds"] = 2
        cluster.store(current)
        with pytest.raises(ConflictError):
            await inject(api, read, BUNDLE, NAMES)
        assert all("caBundle" not in hook["clientConfig"] for hook in cluster.configurations["ours"]["webhooks"])
        assert await inject(api, await api.get_mutating_webhook_configuration("ours"), BUNDLE, NAMES)

    asyncio.run(scenario())


def test_the_name_is_tested_even_where_versions_agree() -> None:
    """The version alone would do; the name says in the answer what moved."""

    async def scenario() -> None:
        cluster = cluster_with("webhook", "other")
        api = cluster.client()
        read = await api.get_mutating_webhook_configuration("ours")
        cluster.configurations["ours"]["webhooks"].reverse()
        with pytest.raises(ConflictError):
            await inject(api, read, BUNDLE, NAMES)

    asyncio.run(scenario())
