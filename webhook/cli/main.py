"""The command `client-ip`: one subcommand for each file beside this one, imported when it is called."""

import importlib
import sys
from typing import Any, Final

import click

import webhook
from webhook.cli.streams import let_go_of_output, set_up_streams

COMMANDS: Final = {
    "serve": "Answer the API server's admission reviews over HTTPS.",
    "demo": "Show real manifests being decided and patched over HTTPS.",
    "check": "Decide manifests and print what would happen to each.",
    "explain": "Answer each question of a decision with the fact it rests on.",
    "test": "Decide cases and compare with what they expect.",
    "scan": "Judge every workload of a cluster, now and after a restart.",
    "doctor": "Check the installation, and the way from the API server to it.",
    "verify": "Tell from Envoy's access log whether the client's IP is preserved.",
    "render": "Print the manifests that the webhook needs in a cluster.",
    "revert": "Print, or do, what undoes the webhook's work: opting out does not.",
    "certs": "Show, renew and bootstrap the webhook's certificates.",
}
"""Listed without importing them: `client-ip serve` must not pay for the others."""


class _Commands(click.Group):
    """Imports a subcommand's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a newcomer's need."""
        return [name for name in COMMANDS if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        try:
            module: Any = importlib.import_module(f"webhook.cli.{cmd_name}")
        except ModuleNotFoundError as error:
            if error.name == f"webhook.cli.{cmd_name}":
                return None
            raise
        command: click.Command = module.command
        return command


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "CLIENT_IP",
        "max_content_width": 100,
    },
    epilog='Shell completion: eval "$(_CLIENT_IP_COMPLETE=bash_source client-ip)" (or zsh_source, fish_source).',
)
@click.version_option(webhook.__version__, prog_name="client-ip")
def client_ip() -> None:
    """Applications behind Istio see who really called them."""


def main() -> None:
    """Run the command line; `kubectl client-ip …` comes here as well. Wrong options end with one line and exit 2."""
    set_up_streams()
    name = "client-ip"
    if sys.argv and sys.argv[0].endswith("kubectl-client_ip"):
        name = "kubectl client-ip"
    try:
        code = client_ip.main(prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else name
        print(f"{path}: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print(f"{name}: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # `client-ip check … | head`: the reader has seen enough.
        let_go_of_output()
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)
