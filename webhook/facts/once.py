"""A cluster's facts, read once: what `check` and `explain` need of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from certs.kube import KubeError
from webhook.facts.collect import Collector
from webhook.facts.kube import KubeClient, connect
from webhook.facts.watch import ClusterSource
from webhook.rules import wellknown

READ_SECONDS: Final = 30.0


class ClusterUnreadable(Exception):  # noqa: N818  # an error's noun
    """The cluster did not answer, or does not let us read what a decision rests on."""


def collect_once(kubeconfig: str | None, context: str | None) -> Collector:
    """
    Return the facts of the kubeconfig's cluster.

    Raises:
        webhook.facts.kube.KubeConfigInvalid: There is no usable kubeconfig.
        ClusterUnreadable: Nodes, namespaces or injectors can't be read.

    """
    return asyncio.run(_collect(connect(kubeconfig, context)))


def fetch(kubeconfig: str | None, context: str | None, paths: Sequence[str]) -> list[bytes]:
    """
    Return what the API server answers to GET of each of *paths*.

    Raises:
        webhook.facts.kube.KubeConfigInvalid: There is no usable kubeconfig.
        KubeError: The API server did not grant one of them.

    """
    return asyncio.run(_fetch(connect(kubeconfig, context), paths))


async def _fetch(client: KubeClient, paths: Sequence[str]) -> list[bytes]:
    try:
        return [await client.request("GET", path) for path in paths]
    finally:
        await client.close()


async def _collect(client: KubeClient) -> Collector:
    # Asked once by hand first: a refused connection or token is to be said, not retried.
    try:
        await client.request("GET", "/api/v1/nodes", query={"limit": "1"})
    except KubeError as error:
        await client.close()
        raise ClusterUnreadable(str(error)) from error
    source = ClusterSource(client, own_namespace=wellknown.OWN_NAMESPACE)
    running = asyncio.create_task(source.run())
    deadline = time.monotonic() + READ_SECONDS
    try:
        while source.untried() and time.monotonic() < deadline and not running.done():  # noqa: ASYNC110  # many tasks, each of which may be the last
            await asyncio.sleep(0.02)
        if source.missing():
            raise ClusterUnreadable(f"can't read {', '.join(source.missing())}")
        return source.collector
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
