"""The fallback's EnvoyFilter as it is rendered; what it does to traffic is shown in `tests/proof/`."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from webhook.cli.envoyfilter import default_gateways, envoy_filter, pattern


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webhook.cli", "render", "envoyfilter", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def patch_of(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["spec"]["configPatches"]
    value: dict[str, Any] = found["patch"]["value"]["typed_config"]
    return value


@pytest.mark.parametrize("form", ["append-caller", "use-remote-address"])
def test_it_selects_our_label_alone_in_the_root_namespace(form: str) -> None:
    document = yaml.safe_load(render("--envoyfilter-form", form, "--root-namespace", "mesh").stdout)
    assert document["metadata"]["namespace"] == "mesh"
    assert document["spec"]["workloadSelector"] == {"labels": {"client-ip.dev/method": "x-forwarded-for"}}
    (found,) = document["spec"]["configPatches"]
    assert found["match"]["context"] == "SIDECAR_INBOUND"


def test_the_page_s_own_form_sets_one_field() -> None:
    document = envoy_filter(form="use-remote-address")
    assert {key: value for key, value in patch_of(document).items() if key != "@type"} == {"use_remote_address": True}


def believes(code: str) -> list[str]:
    """Return the Lua patterns of the gateways in *code*."""
    table = code.partition("local gateways = {\n")[2].partition("}")[0]
    return [line.strip(' ",') for line in table.splitlines()]


def code_of(*arguments: str) -> str:
    code: str = patch_of(yaml.safe_load(render(*arguments).stdout))["default_source_code"]["inline_string"]
    return code


@pytest.mark.parametrize("root", ["istio-system", "mesh"])
def test_the_default_believes_gateways_of_the_root_namespace_alone(root: str) -> None:
    patterns = believes(code_of("--root-namespace", root))
    assert patterns == [pattern(gateway) for gateway in default_gateways(root)]
    assert all(f"/ns/{root.replace('-', '%-')}/sa/" in each for each in patterns)


@pytest.mark.parametrize("gateway", ["*/*-istio", "*/istio-ingressgateway", "team-*/gateway", "*/*", "a*b/c"])
def test_a_gateway_of_any_namespace_is_refused_unless_it_is_meant(gateway: str) -> None:
    done = render("--gateway", gateway)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"client-ip render: --gateway {gateway!r} would trust a ServiceAccount in any namespace: name the namespace, "
        "or pass --any-namespace\n"
    )
    meant = render("--gateway", gateway, "--any-namespace")
    assert meant.returncode == 0
    assert meant.stderr.startswith(f"Warning: --gateway {gateway!r}: ")


def test_a_pattern_within_a_named_namespace_is_its_owners_word() -> None:
    done = render("--gateway", "ingress/*-istio")
    assert (done.returncode, done.stderr) == (0, "")


def test_named_gateways_replace_the_default_ones() -> None:
    assert believes(code_of("--gateway", "ingress/public")) == ["^spiffe://[^/]+/ns/ingress/sa/public$"]


@pytest.mark.parametrize(
    ("gateway", "want"),
    [
        ("ingress/public", "^spiffe://[^/]+/ns/ingress/sa/public$"),
        ("*/*-istio", "^spiffe://[^/]+/ns/[^/]+/sa/[^/]+%-istio$"),
        ("a-b/c.d", "^spiffe://[^/]+/ns/a%-b/sa/c%.d$"),
    ],
)
def test_a_star_is_anything_and_all_else_itself(gateway: str, want: str) -> None:
    assert pattern(gateway) == want


@pytest.mark.parametrize("gateway", ["public", 'x/y"', "x/y/z", "X/y", "x/", "/y"])
def test_what_is_no_gateway_is_refused(gateway: str) -> None:
    done = render("--gateway", gateway)
    assert (done.returncode, done.stderr) == (
        2,
        f"client-ip render: --gateway {gateway!r} is not NAMESPACE/SERVICEACCOUNT\n",
    )
