"""
The options that name a cluster and as whom it is asked, the same for every command and as kubectl has them.

Whom to impersonate is kept in the command's context, where `opened.ask` finds it: no command hands it on.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

USER: Final = "client-ip.impersonate-user"
GROUPS: Final = "client-ip.impersonate-groups"
KUBECONFIG: Final = click.option(
    "--kubeconfig",
    metavar="FILE",
    help="The kubeconfig file.  [default: $KUBECONFIG, ~/.kube/config]",
)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
        ctx.meta[name] = value
        return value

    return keep


def CONTEXT(command: Command) -> Command:  # noqa: N802  # a decorator as its like are
    """Add the options that choose the context, and as whom the cluster is asked."""
    for option in (
        click.option(
            "--as-group",
            "as_groups",
            multiple=True,
            metavar="GROUP",
            expose_value=False,
            callback=_keep(GROUPS),
            help="Impersonate this group, in addition to --as. Repeatable.",
        ),
        click.option(
            "--as",
            "as_user",
            metavar="USER",
            expose_value=False,
            callback=_keep(USER),
            help="Impersonate this user (requires the verb `impersonate`).",
        ),
        click.option("--context", metavar="NAME", help="The context to use.  [default: the current context]"),
    ):
        command = option(command)
    return command


def impersonated() -> tuple[str, tuple[str, ...]]:
    """Return the user and the groups that the running command was given; empty without any."""
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return "", ()
    return ctx.meta.get(USER) or "", tuple(ctx.meta.get(GROUPS) or ())
