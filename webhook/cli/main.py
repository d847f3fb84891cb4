"""The command `client-ip`: one subcommand for each file beside this one, imported when it is called."""

import importlib
import sys
from typing import Any, Final

import click

import webhook
from webhook.cli.streams import let_go_of_output, set_up_streams

COMMANDS: Final = {
    "serve": "Answer the API server's admission reviews over HTTPS.",
    "demo": "Try the webhook on manifests, without a cluster.",
    "check": "Decide manifests as the webhook would, and print the result for each.",
    "explain": "Show every step of a decision, with the facts behind it.",
    "test": "Test your policies: compare decisions with what cases expect.",
    "scan": "Report whether each workload preserves the client's IP, now and after a restart.",
    "doctor": "Check the installation, its connection to the API server, and the mesh.",
    "verify": "Show from Envoy's access log whether the application saw the client's IP.",
    "render": "Print the manifests that the webhook needs in a cluster.",
    "revert": "Print or apply the changes that revert the webhook's patches.",
    "certs": "Show, rotate or create the webhook's certificates.",
}
"""Listed without importing them: `client-ip serve` must not pay for the others."""


class _Commands(click.Group):
    """Imports a subcommand's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"webhook.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """Write the list of commands, whole sentences, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


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
    """Preserve the client's IP address for applications behind Istio sidecars and gateways."""


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
        _complain(path, error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _complain(name, error)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # `client-ip check … | head`: the reader has seen enough.
        let_go_of_output()
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(name: str, error: click.ClickException) -> None:
    """Say what is wrong: files and clusters have a word in it, so that nothing is left that a terminal obeys."""
    from webhook.rules.decision import shown_lines  # noqa: PLC0415  # nobody else here pays for it

    print(shown_lines(f"{name}: {error.format_message()}"), file=sys.stderr)
