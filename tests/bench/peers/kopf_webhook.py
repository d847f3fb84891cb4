"""
A kopf handler behind kopf's own webhook server and dispatch.

kopf.run() needs a cluster for the rest of an operator, so this wires the two as kopf._core.reactor.running does, and
nothing else: no watching, no peering. A whole operator costs no less.
"""

import argparse
import asyncio
import functools
from typing import Any

import kopf  # type: ignore[import-not-found]  # installed for the bench alone
from kopf._cogs.configs.configuration import OperatorSettings  # type: ignore[import-not-found]
from kopf._cogs.structs.ephemera import Memo  # type: ignore[import-not-found]
from kopf._cogs.structs.references import Insights, Resource  # type: ignore[import-not-found]
from kopf._core.engines.admission import serve_admission_request  # type: ignore[import-not-found]
from kopf._core.engines.indexing import OperatorIndexers  # type: ignore[import-not-found]
from kopf._core.intents.registries import OperatorRegistry  # type: ignore[import-not-found]
from kopf._core.reactor.inventory import ResourceMemories  # type: ignore[import-not-found]

registry = OperatorRegistry()


@kopf.on.mutate("pods", id="mutate", registry=registry)  # type: ignore[untyped-decorator]
def mutate(meta: Any, patch: Any, **_: Any) -> None:
    annotations = meta.annotations
    if "sidecar.istio.io/status" not in annotations and "sidecar.istio.io/interceptionMode" not in annotations:
        patch.metadata.annotations["sidecar.istio.io/interceptionMode"] = "TPROXY"
        patch.metadata.labels["client-ip.dev/method"] = "tproxy"


async def serve(port: int, folder: str) -> None:
    insights = Insights()
    insights.webhook_resources.add(Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True))
    settings = OperatorSettings()
    answer = functools.partial(
        serve_admission_request,
        settings=settings,
        registry=registry,
        insights=insights,
        memories=ResourceMemories(),
        memobase=Memo(),
        indices=OperatorIndexers().indices,
    )
    server = kopf.WebhookServer(
        addr="127.0.0.1",
        port=port,
        certfile=f"{folder}/tls.crt",
        pkeyfile=f"{folder}/tls.key",
    )
    async for _ in server(answer):
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--cert-dir")
    options = parser.parse_args()
    kopf.configure()
    asyncio.run(serve(options.port, options.cert_dir))


if __name__ == "__main__":
    main()
