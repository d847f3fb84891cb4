"""
The fallback's EnvoyFilter: pods that can't be TPROXY get their caller's IP in X-Forwarded-For. HTTP only.

It touches the pods that carry our label and no others. Two forms, both tried against a real Envoy (docs/proof.md):

- `append-caller` appends the caller's IP for every request but those of the mesh's gateways, told by the identity in
  their mTLS certificate, NAMESPACE/SERVICEACCOUNT: behind a gateway X-Forwarded-For stays what the gateway made of it.
  Gateways are named, since a namespace's owner chooses the names of its ServiceAccounts: a pattern that holds in any
  namespace would let every tenant forge the header. Lua, because it is the one way to ask for that identity that
  Istio's own build of Envoy has: its list of extensions leaves out the match delegate and the certificate inputs of
  matchers
  (https://github.com/istio/proxy/blob/86a72d03a426/bazel/extension_config/extensions_build_config.bzl).
- `use-remote-address` is the setting that Alibaba Cloud's page names. It appends the gateway like any caller, takes
  the gateway for the client in x-envoy-external-address, and sets x-forwarded-proto by the mTLS hop: https.
  Neither xff_num_trusted_hops nor skip_xff_append avoids it: the first makes callers inside the mesh believed,
  the second appends nobody.
"""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from webhook.rules import wellknown

FORMS: Final = ("append-caller", "use-remote-address")
ACCOUNTS: Final = (
    "istio-ingressgateway-service-account",  # istioctl
    "istio-ingressgateway",  # the Helm chart `gateway`, by the release name of Istio's documentation
)
"""The ServiceAccounts of ingress gateways that are believed without being named: in the mesh's root namespace alone."""
GATEWAY: Final = re.compile(r"[a-z0-9.*-]{1,63}/[a-z0-9.*-]{1,253}")


def lua() -> str:
    """Return the filter of `append-caller`, with a placeholder for its gateways."""
    return resources.files("webhook.cli").joinpath("append-caller.lua").read_text()


def default_gateways(root_namespace: str) -> tuple[str, ...]:
    """Return NAMESPACE/SERVICEACCOUNT of the ingress gateways that Istio's installers put into *root_namespace*."""
    return tuple(f"{root_namespace}/{account}" for account in ACCOUNTS)


def is_any_namespace(gateway: str) -> bool:
    """Return whether *gateway* names no single namespace: then whoever owns a namespace can be that gateway."""
    return "*" in gateway.partition("/")[0]


def envoy_filter(
    root_namespace: str = wellknown.ISTIO_SYSTEM,
    *,
    form: str = FORMS[0],
    gateways: Sequence[str] = (),
) -> dict[str, Any]:
    """
    Return the EnvoyFilter.

    Args:
        root_namespace: The mesh's root namespace: there it holds in all.
        form: One of `FORMS`.
        gateways: For `append-caller`, NAMESPACE/SERVICEACCOUNT of each gateway; `*` stands for anything, and without
            any they are those of `default_gateways`.

    """
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": "client-ip-x-forwarded-for",
            "namespace": root_namespace,
            "labels": {"app.kubernetes.io/name": "client-ip-webhook"},
        },
        "spec": {
            "workloadSelector": {"labels": {wellknown.METHOD: "x-forwarded-for"}},
            "configPatches": [
                _append_caller(gateways or default_gateways(root_namespace))
                if form == FORMS[0]
                else _use_remote_address()
            ],
        },
    }


_MATCH: Final = {
    "context": "SIDECAR_INBOUND",
    "listener": {
        "name": "virtualInbound",
        "filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}},
    },
}


def _append_caller(gateways: Sequence[str]) -> dict[str, Any]:
    patterns = "".join(f'  "{pattern(gateway)}",\n' for gateway in gateways)
    # First of all filters: the others, ext_authz and Wasm among them, see the header as the application does.
    return {
        "applyTo": "HTTP_FILTER",
        "match": _MATCH,
        "patch": {
            "operation": "INSERT_FIRST",
            "value": {
                "name": "client-ip.x-forwarded-for",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua().replace("${GATEWAYS}", patterns)},
                },
            },
        },
    }


def _use_remote_address() -> dict[str, Any]:
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    value = {"typed_config": {"@type": f"type.googleapis.com/{manager}", "use_remote_address": True}}
    return {"applyTo": "NETWORK_FILTER", "match": _MATCH, "patch": {"operation": "MERGE", "value": value}}


def pattern(gateway: str) -> str:
    """Return the Lua pattern of the SPIFFE identities that *gateway*, NAMESPACE/SERVICEACCOUNT, stands for."""
    namespace, account = (
        "[^/]+".join(re.sub(r"[.-]", r"%\g<0>", each) for each in part.split("*")) for part in gateway.split("/")
    )
    return f"^spiffe://[^/]+/ns/{namespace}/sa/{account}$"
