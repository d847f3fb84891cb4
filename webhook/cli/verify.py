"""`client-ip verify`: what a sidecar's access log proves about the client's IP, request by request."""

import io
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from webhook.cli.cluster_options import CONTEXT, KUBECONFIG
from webhook.cli.judging import Log, injected, own_addresses
from webhook.cli.manifests import kind_of
from webhook.cli.verified import JSONPrinter, PodMode, Tally, TextPrinter
from webhook.facts.collect import FactError
from webhook.facts.files import read
from webhook.facts.problem import Problem
from webhook.rules.decision import shown
from webhook.running.accesslog import NO_OWN

STDIN: Final = "-"
CHUNK_BYTES: Final = 256 << 10
_DURATION: Final = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?(?:ms|h|m|s))+", re.ASCII)
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|h|m|s)", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class DurationType(click.ParamType[int]):
    """A duration as kubectl takes it (90s, 5m, 1h30m), in whole seconds."""

    name = "DURATION"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds, at least one."""
        if isinstance(value, int):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"{value!r} is not a duration such as 90s, 5m or 1h30m", param, ctx)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
        if seconds <= 0:
            self.fail(f"{value!r}: must be greater than zero", param, ctx)
        return max(1, round(seconds))


@click.command(
    "verify",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip verify -n shop deploy/reviews                      (all of its pods)
  client-ip verify -n shop deploy/reviews --since 10m --follow (until Ctrl-C; then prints the result)
  kubectl logs -n shop -l app=reviews -c istio-proxy --prefix | client-ip verify -
  client-ip verify --pod <(kubectl get pod -n shop reviews-7d4b9-x2x4z -o yaml) istio-proxy.log
  client-ip verify -o json istio-proxy.log

\b
Exit status: 0 at least one request reached the application, and all of those are preserved; 1 a request is lost, or
nothing was proved: no request, or lines that look like requests and could not be read; 2 invalid input.""",
)
@click.argument("logs", nargs=-1, required=True, metavar="LOG...|KIND/NAME...")
@click.option(
    "--pod",
    "pod_file",
    metavar="FILE",
    help="The pod's manifest from the cluster, for its injected mode.",
)
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of KIND/NAME.  [default: the kubeconfig context's]")
@click.option("--since", type=DurationType(), help="KIND/NAME: only newer entries, such as 90s, 5m or 1h30m.")
@click.option("-f", "--follow", is_flag=True, help="KIND/NAME: follow the log until Ctrl-C.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Format."
)
@KUBECONFIG
@CONTEXT
def command(
    *,
    logs: tuple[str, ...],
    pod_file: str | None,
    namespace: str | None,
    since: int | None,
    follow: bool,
    output: str,
    kubeconfig: str | None,
    context: str | None,
) -> int:
    """
    Show from Envoy's access log whether the application saw the client's IP.

    LOG is a file with the output of an istio-proxy container, or - for standard input. The format is JSON or Istio's
    default text format, with or without the prefixes of kubectl, stern and container runtimes. KIND/NAME
    (deploy/reviews, pod/reviews-7d4b9-x2x4z) reads the logs of all its pods from the cluster, unless a file has that
    name.

    Each inbound request is preserved, lost or unknown. upstream_local_address decides, because it is the peer of the
    application's socket. downstream_remote_address follows X-Forwarded-For, which callers can forge, so it proves
    nothing. Behind a gateway, the peer is the gateway, and the client is in X-Forwarded-For.
    """
    named = [each for each in logs if _is_name(each)]
    if named and len(named) != len(logs):
        raise click.UsageError("use either logs, or KIND/NAME in a cluster")
    if named and pod_file is not None:
        raise click.UsageError("--pod can only be used with a log, not with KIND/NAME")
    if not named and (since is not None or follow or namespace is not None):
        raise click.UsageError("--since, --follow and --namespace can only be used with KIND/NAME")
    tally = Tally(JSONPrinter() if output == "json" else TextPrinter(live=follow or STDIN in logs))
    if named:
        from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`
        from webhook.cli.verify_running import Asked, verify_running  # noqa: PLC0415

        asked = Asked(names=named, namespace=namespace, since_seconds=since, follow=follow)
        ask(kubeconfig, context, lambda cluster: verify_running(cluster, asked, tally))
    else:
        _verify_files(logs, pod_file, tally)
    tally.end()
    for remark in tally.remarks():
        click.echo(shown(remark), err=True)
    return 0 if tally.proved else 1


def _is_name(text: str) -> bool:
    """A file of that name comes first."""
    kind, slash, name = text.partition("/")
    return bool(slash) and bool(name) and kind_of(kind) is not None and not Path(text).exists()


def _verify_files(logs: Sequence[str], pod_file: str | None, tally: Tally) -> None:
    if logs.count(STDIN) + (pod_file == STDIN) > 1:
        raise click.UsageError("standard input can be read only once")
    for name in logs:
        _look_at(name)
    pods = _pods(pod_file) if pod_file is not None else []
    own = frozenset().union(*(own_addresses(pod) for pod, _ in pods)) if len(pods) == 1 else NO_OWN
    tally.begin([mode for _, mode in pods])
    for name in logs:
        log = Log(tally, name, own=own)
        try:
            for chunk in _chunks(name):
                log.feed(chunk)
                if name == STDIN:
                    tally.flush()
        except KeyboardInterrupt:
            if name != STDIN:
                raise
            # `kubectl logs --follow | client-ip verify -` ends like this: what was read has its verdict.
        log.end()


def _look_at(name: str) -> None:
    """Refuse a file that can't be read before anything is printed."""
    if name == STDIN:
        return
    try:
        if stat.S_ISFIFO(Path(name).stat().st_mode):
            return  # to open it twice would end who writes it
        with Path(name).open("rb"):
            pass
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}{_hint(name)}") from error


def _hint(name: str) -> str:
    plain = "/" not in name and not Path(name).suffix
    return f" (in the cluster: pod/{name}, deploy/{name})" if plain else ""


def _chunks(name: str) -> Iterator[bytes]:
    try:
        if name == STDIN:
            yield from _standard_input()
            return
        with Path(name).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from error


def _standard_input() -> Iterator[bytes]:
    """Yield what comes as soon as it comes: `kubectl logs --follow` may be what writes it."""
    buffer = sys.stdin.buffer
    while chunk := buffer.read1(CHUNK_BYTES) if isinstance(buffer, io.BufferedReader) else buffer.read(CHUNK_BYTES):
        yield chunk


def _pods(file: str) -> list[tuple[dict[str, Any], PodMode]]:
    try:
        text = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--pod {file}: {error.strerror}") from error
    problems: list[Problem] = []
    pods = [dict(found.value) for found in read(file, text, problems) if found.kind == "Pod"]
    if problems:
        raise click.UsageError("--pod:\n" + "\n".join(map(str, problems)))
    if not pods:
        raise click.UsageError(f"--pod {file}: it contains no Pod")
    try:
        return [(pod, injected(pod)) for pod in pods]
    except FactError as error:
        raise click.UsageError(f"--pod {file}: {error}") from error
