"""What etcd holds, taken out of it: asked of etcd itself, by the JSON gateway that it serves beside gRPC."""

import base64
import http.client
import json
from typing import Any, Final

INTERCEPTION_MODE: Final = b"sidecar.istio.io/interceptionMode"


def take_pods(address: tuple[str, int], namespace: str) -> dict[str, bool]:
    """
    Remove a namespace's pods from etcd, and return of each by name whether it holds our annotation.

    One request does both, so no pod is counted twice or missed. The API server deletes pods one by one, which would
    cost more than all else here; its watchers learn of these by etcd's events as of any others.
    https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/
    """
    prefix = f"/registry/pods/{namespace}/".encode()
    end = prefix[:-1] + bytes([prefix[-1] + 1])
    asked = {"key": _text(prefix), "range_end": _text(end), "prev_kv": True}
    held = _post(address, "/v3/kv/deleterange", asked).get("prev_kvs", [])
    found = {}
    for each in held:
        name = base64.b64decode(each["key"]).removeprefix(prefix).decode()
        value = base64.b64decode(each["value"])
        # Pods are stored as protobuf, where a map's entry is its key and its value with a tag and a length each.
        found[name] = INTERCEPTION_MODE + b"\x12\x06TPROXY" in value
    return found


def _post(address: tuple[str, int], path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"etcd answered {path} with {answer.status}: {text[:300]!r}")
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
