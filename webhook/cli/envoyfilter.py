"""
The fallback's EnvoyFilter: pods that can't be TPROXY get their caller's IP in X-Forwarded-For. HTTP only.

It touches the pods that carry our label and no others. Two forms, both tried against a real Envoy (docs/proof.md):

- `append-caller` appends the caller's IP for every request but those of the mesh's gateways, told by the identity in
  their mTLS certificate, which no other workload can claim: behind a gateway X-Forwarded-For stays what the gateway
  made of it. Lua, because it is the one way to ask for that identity that Istio's own build of Envoy has: its list of
  extensions leaves out the match delegate and the certificate inputs of matchers
  (https://github.com/istio/proxy/blob/86a72d03a426/bazel/extension_config/extensions_build_config.bzl).
- `use-remote-address` is the setting that Alibaba Cloud's page names. It appends the gateway like any caller, takes
  the gateway for the client in x-envoy-external-address, and sets x-forwarded-proto by the mTLS hop: https.
  Neither xff_num_trusted_hops nor skip_xff_append avoids it: the first makes callers inside the mesh believed,
  the second appends nobody.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from webhook.rules import wellknown

FORMS: Final = ("append-caller", "use-remote-address")
GATEWAYS: Final = (
    "*/istio-ingressgateway-service-account",  # istioctl
    "*/istio-ingressgateway",  # the Helm chart `gateway`, by the release names of Istio's documentation
    "*/istio-ingress",
    "*/*-istio",  # the Gateway API's automated deployments: the Gateway's name and its class
)
"""NAMESPACE/SERVICEACCOUNT of ingress gateways, as Istio's installers name them."""
GATEWAY: Final = re.compile(r"[a-z0-9.*-]+/[a-z0-9.*-]+")

_LUA: Final = """\
-- Callers whose X-Forwarded-For stays as it is: the mesh's gateways, by the identity of their mTLS certificate.
local gateways = {
%s}
local function is_gateway(tls)
  for _, identity in ipairs(tls and tls:uriSanPeerCertificate() or {}) do
    for _, gateway in ipairs(gateways) do
      if identity:match(gateway) then return true end
    end
  end
  return false
end
function envoy_on_request(handle)
  if is_gateway(handle:connection():ssl()) then return end
  local address = handle:streamInfo():downstreamDirectRemoteAddress()
  local caller = address:match("^%%[(.*)%%]:%%d+$") or address:match("^(.*):%%d+$") or address
  local chain = handle:headers():get("x-forwarded-for") or ""
  handle:headers():replace("x-forwarded-for", chain == "" and caller or chain .. "," .. caller)
end
"""


def envoy_filter(
    root_namespace: str = wellknown.ISTIO_SYSTEM,
    *,
    form: str = FORMS[0],
    gateways: Sequence[str] = GATEWAYS,
) -> dict[str, Any]:
    """
    Return the EnvoyFilter.

    Args:
        root_namespace: The mesh's root namespace: there it holds in all.
        form: One of `FORMS`.
        gateways: For `append-caller`, NAMESPACE/SERVICEACCOUNT of each gateway; `*` stands for anything.

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
            "configPatches": [_append_caller(gateways) if form == FORMS[0] else _use_remote_address()],
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
                    "default_source_code": {"inline_string": _LUA % patterns},
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
