"""The webhook of the tutorials: aiohttp, json, a deep copy that is changed, and jsonpatch for the difference."""

import argparse
import base64
import copy
import json
import ssl

import jsonpatch
from aiohttp import web


async def mutate(request: web.Request) -> web.Response:
    review = await request.json()
    asked = review["request"]
    pod = asked["object"]
    changed = copy.deepcopy(pod)
    annotations = changed["metadata"].setdefault("annotations", {})
    if "sidecar.istio.io/status" not in annotations:
        annotations.setdefault("sidecar.istio.io/interceptionMode", "TPROXY")
        changed["metadata"].setdefault("labels", {})["client-ip.dev/method"] = "tproxy"
    patch = jsonpatch.make_patch(pod, changed)
    response = {"uid": asked["uid"], "allowed": True}
    if patch.patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch.patch).encode()).decode()}
    return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--cert-dir")
    options = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{options.cert_dir}/tls.crt", f"{options.cert_dir}/tls.key")
    app = web.Application()
    app.router.add_post("/mutate", mutate)
    web.run_app(app, host="127.0.0.1", port=options.port, ssl_context=context, print=None)


if __name__ == "__main__":
    main()
