"""The fallback's EnvoyFilter as it is rendered; what it does to traffic is shown in `tests/proof/`."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from webhook.cli.envoyfilter import GATEWAYS, envoy_filter, pattern


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


def test_the_default_names_the_gateways_of_istios_installers() -> None:
    code = patch_of(yaml.safe_load(render().stdout))["default_source_code"]["inline_string"]
    assert all(f'"{pattern(gateway)}"' in code for gateway in GATEWAYS)


def test_named_gateways_replace_the_default_ones() -> None:
    code = patch_of(yaml.safe_load(render("--gateway", "ingress/public").stdout))["default_source_code"][
        "inline_string"
    ]
    assert '  "^spiffe://[^/]+/ns/ingress/sa/public$",\n}' in code
    assert "istio" not in code


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
        f"client-ip render: --gateway {gateway!r} is no NAMESPACE/SERVICEACCOUNT\n",
    )
