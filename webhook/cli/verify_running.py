"""`client-ip verify KIND/NAME`: the logs of all of its pods, from the cluster, to their end or followed."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click

from certs.kube import KubeError, NotFoundError
from webhook.cli.judging import Log, injected, own_addresses
from webhook.cli.manifests import kind_of
from webhook.cli.verified import Tally
from webhook.facts.cluster import Cluster
from webhook.running.podlogs import MAX_FOLLOWED, NoPods, pods_of, proxy_log, why_no_log

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person asked for."""

    names: Sequence[str]
    namespace: str | None
    """None for the kubeconfig context's."""
    since_seconds: int | None
    follow: bool


async def verify_running(cluster: Cluster, asked: Asked, tally: Tally) -> None:
    """
    Judge the logs of all pods of what is *asked* for.

    Raises:
        click.UsageError: There is nothing of that name, or it has no pods.
        KubeError: The API server does not let us read what it is.

    """
    pods = await _pods(cluster, asked)
    tally.begin([injected(pod) for pod in pods])
    readable = []
    for pod in pods:
        fault = why_no_log(pod)
        if fault is None:
            readable.append(pod)
        else:
            tally.faults.append(f"{_name(pod)} was not read: {fault}")
    if asked.follow and len(readable) > MAX_FOLLOWED:
        raise click.UsageError(f"{len(readable)} logs are too many to follow (at most {MAX_FOLLOWED}): name fewer pods")
    logs = [
        (pod, Log(tally, f"pod/{pod['metadata']['name']}", pod=_name(pod), own=own_addresses(pod))) for pod in readable
    ]
    if asked.follow:
        with _until_signal():
            await asyncio.gather(*(_read(cluster, asked, tally, pod, log) for pod, log in logs))
    else:
        for pod, log in logs:
            await _read(cluster, asked, tally, pod, log)
    for _, log in logs:
        log.end()


async def _pods(cluster: Cluster, asked: Asked) -> list[dict[str, Any]]:
    namespace = asked.namespace or cluster.namespace
    found: dict[str, dict[str, Any]] = {}
    for name in asked.names:
        written, _, called = name.partition("/")
        kind = kind_of(written) or ""  # the caller has looked
        if "/" in called:
            raise click.UsageError(f"{name}: KIND/NAME must have exactly one slash")
        try:
            pods = await pods_of(cluster, kind, namespace, called)
        except NotFoundError as error:
            raise click.UsageError(f"no {kind} {called} in namespace {namespace}") from error
        except NoPods as error:
            raise click.UsageError(str(error)) from error
        found.update({each["metadata"]["name"]: each for each in pods})
    return list(found.values())


async def _read(cluster: Cluster, asked: Asked, tally: Tally, pod: dict[str, Any], log: Log) -> None:
    try:
        async with aclosing(proxy_log(cluster, pod, since_seconds=asked.since_seconds, follow=asked.follow)) as chunks:
            async for chunk in chunks:
                log.feed(chunk)
                if asked.follow:
                    tally.flush()
    except KubeError as error:
        tally.faults.append(f"{_name(pod)} was not read completely: {error}")


@contextmanager
def _until_signal() -> Iterator[None]:
    """Let the first Ctrl-C end the following, which is how it ends; a second one ends the command."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    interrupted = False

    def end() -> None:
        nonlocal interrupted
        interrupted = True
        for each in SIGNALS:
            loop.remove_signal_handler(each)
        if task is not None:
            task.cancel()

    for each in SIGNALS:
        loop.add_signal_handler(each, end)
    try:
        yield
    except asyncio.CancelledError:
        if not interrupted or task is None:
            raise
        task.uncancel()
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


def _name(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
