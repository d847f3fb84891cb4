"""
How a command asks a cluster: opened once, asked, closed, with errors that a person can read.

Imported where a cluster is asked for: files never pay for `kubernetes`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from certs.kube import KubeError
from webhook.cli.cluster_options import impersonated
from webhook.facts.access import Impersonation, KubeConfigInvalid
from webhook.facts.cluster import Cluster, ClusterUnreadable, open_cluster

T = TypeVar("T")


def ask(
    kubeconfig: str | None,
    context: str | None,
    work: Callable[[Cluster], Awaitable[T]],
    *,
    without: str = "no cluster",
) -> T:
    """
    Return what *work* makes of the cluster, opened as the running command's options say.

    Args:
        kubeconfig: The file, or a list of files as in the environment variable; None for kubectl's default.
        context: Its context; None for the current one.
        work: What asks it.
        without: How the error begins where there is no usable kubeconfig.

    Raises:
        click.UsageError: There is no usable kubeconfig.
        click.ClickException: The cluster did not grant something, or did not answer.

    """
    user, groups = impersonated()
    impersonation = Impersonation(user=user, groups=groups)

    async def run() -> T:
        async with open_cluster(kubeconfig, context, impersonation) as cluster:
            return await work(cluster)

    try:
        return asyncio.run(run())
    except KubeConfigInvalid as error:
        raise click.UsageError(f"{without}: {error}") from error
    except ClusterUnreadable as error:
        raise click.ClickException(f"the cluster cannot be read: {error}") from error
    except KubeError as error:
        raise click.ClickException(str(error)) from error
