-- Callers whose X-Forwarded-For stays as it is: the mesh's gateways, by the identity of their mTLS certificate.
local gateways = {
${GATEWAYS}}
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
  local caller = address:match("^%[(.*)%]:%d+$") or address:match("^(.*):%d+$") or address
  local chain = handle:headers():get("x-forwarded-for") or ""
  handle:headers():replace("x-forwarded-for", chain == "" and caller or chain .. "," .. caller)
end
