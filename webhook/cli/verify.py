"""`client-ip verify`: what a sidecar's access log proves about the client's IP, request by request."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from webhook.facts.collect import FactError, decode
from webhook.facts.files import Found, Problem, read
from webhook.rules import wellknown
from webhook.rules.accesslog import Entry, Finding, Verdict, judge, parse
from webhook.rules.objects import Pod
from webhook.rules.sidecar import injected_mode, own_mode

COLOURS: Final = {Verdict.PRESERVED: "green", Verdict.LOST: "red", Verdict.UNKNOWN: "yellow"}
STDIN: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """The interception mode that a pod was injected with, and what contradicts it."""

    pod: str
    mode: str | None
    fact: str
    contradiction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One inbound line of a log, with where it stands."""

    file: str
    line: int
    entry: Entry
    finding: Finding


@click.command(
    "verify",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  kubectl logs -n shop deploy/reviews -c istio-proxy | client-ip verify -
  client-ip verify --pod <(kubectl get pod -n shop reviews-7d4b9-x2x4z -o yaml) istio-proxy.log
  client-ip verify -o json istio-proxy.log

\b
Exit status: 0 every request that reached the application is preserved, and there was one;
1 one is lost, or nothing was proved; 2 bad input.""",
)
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "--pod", "pod_file", metavar="FILE", help="The pod as the cluster has it, YAML or JSON: its injected mode."
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print it."
)
def command(*, logs: tuple[str, ...], pod_file: str | None, output: str) -> int:
    """
    Tell from Envoy's access log whether the application saw who called it.

    LOG is a file with the output of an istio-proxy container, or - for standard input: JSON or Istio's default text
    format. Each inbound request is preserved, lost or unknown. upstream_local_address decides: it is the peer of the
    application's socket. downstream_remote_address follows X-Forwarded-For, which callers can forge, and proves
    nothing. Behind a gateway the peer is the gateway; the client is then in X-Forwarded-For.
    """
    if logs.count(STDIN) + (pod_file == STDIN) > 1:
        raise click.UsageError("standard input can be read once")
    pods = _pods(pod_file) if pod_file is not None else []
    judged: list[Judged] = []
    lines = entries = 0
    for name, number, line in _lines(logs):
        lines += 1
        entry = parse(line)
        if entry is None:
            continue
        entries += 1
        finding = judge(entry)
        if finding is not None:
            judged.append(Judged(file=name, line=number, entry=entry, finding=finding))
    if output == "json":
        _print_json(pods, judged)
    else:
        _print_table(pods, judged)
    if not judged:
        click.echo(_nothing(lines, entries), err=True)
    counts = Counter(each.finding.verdict for each in judged)
    proved = counts[Verdict.PRESERVED] > 0 and counts[Verdict.LOST] == 0
    return 0 if proved and not any(pod.contradiction for pod in pods) else 1


def _lines(logs: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    for name in logs:
        try:
            # Logs hold what callers sent: bytes that are no text must not end the reading.
            data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        except OSError as error:
            raise click.UsageError(f"{name}: {error.strerror}") from error
        for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
            if line.strip():
                yield name, number, line


def _nothing(lines: int, entries: int) -> str:
    if entries:
        return f"nothing proved: none of the {entries} requests in the log is inbound (a gateway's, or outbound calls)"
    return (
        f"nothing proved: no access log among {lines} lines; Istio writes one where the mesh's accessLogFile or a "
        "Telemetry resource says so, in JSON or its default text format"
    )


def _pods(file: str) -> list[Injected]:
    try:
        text = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--pod {file}: {error.strerror}") from error
    problems: list[Problem] = []
    pods = [_injected(found) for found in read(file, text, problems) if found.kind == "Pod"]
    if problems:
        raise click.UsageError("--pod:\n" + "\n".join(map(str, problems)))
    if not pods:
        raise click.UsageError(f"--pod {file}: there is no Pod in it")
    return pods


def _injected(found: Found) -> Injected:
    try:
        pod: Pod = decode(found.value, Pod)
    except FactError as error:
        raise click.UsageError(f"--pod {found.file}: {error}") from error
    name = "/".join(part for part in (pod.metadata.namespace, pod.metadata.name) if part)
    told = injected_mode(pod)
    asked = own_mode(pod.metadata.annotations or {})
    if told is None:
        return Injected(pod=name, mode=None, fact=f"no {wellknown.PROXY_CONTAINER} was injected")
    mode, fact = told
    lies = asked is not None and mode is not None and asked[0] != mode
    contradiction = f"{asked[1]} came after the injection: it lies" if lies and asked is not None else None
    return Injected(pod=name, mode=mode, fact=fact, contradiction=contradiction)


def _print_json(pods: list[Injected], judged: list[Judged]) -> None:
    document: dict[str, Any] = {
        "pods": [{"pod": p.pod, "mode": p.mode, "fact": p.fact, "contradiction": p.contradiction} for p in pods],
        "requests": [_element(each) for each in judged],
        "counts": {str(verdict): sum(each.finding.verdict is verdict for each in judged) for verdict in Verdict},
    }
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def _element(judged: Judged) -> dict[str, Any]:
    entry, finding = judged.entry, judged.finding
    return {
        "file": judged.file,
        "line": judged.line,
        "verdict": finding.verdict.value,
        "field": finding.field,
        "why": finding.why,
        "peer": finding.peer,
        "method": entry.method,
        "path": entry.path,
        "upstreamLocalAddress": entry.upstream_local_address,
        "downstreamRemoteAddress": entry.downstream_remote_address,
        "xForwardedFor": entry.x_forwarded_for,
    }


def _print_table(pods: list[Injected], judged: list[Judged]) -> None:
    for pod in pods:
        click.echo(f"{pod.pod}: injected mode {pod.mode or 'not said'} ({pod.fact})")
        if pod.contradiction:
            click.echo(click.style(f"! {pod.contradiction}", fg="red"))
    if not judged:
        return
    rows = [_row(each) for each in judged]
    heads = ("VERDICT", "REQUEST", "UPSTREAM_LOCAL_ADDRESS", "WHY")
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(3)]
    click.echo(click.style(_columns(heads, widths), bold=True))
    for each, row in zip(judged, rows, strict=True):
        line = _columns(row, widths)
        verdict = click.style(line[: widths[0]], fg=COLOURS[each.finding.verdict])
        click.echo(f"{verdict}{line[widths[0] :]}")
    counts = Counter(each.finding.verdict for each in judged)
    click.echo(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict))


def _row(judged: Judged) -> tuple[str, str, str, str]:
    entry, finding = judged.entry, judged.finding
    request = " ".join(part for part in (entry.method, entry.path) if part) or "TCP connection"
    address = entry.upstream_local_address or "-"
    why = finding.why if finding.field == "upstream_local_address" else f"{finding.field}: {finding.why}"
    return finding.verdict.value, _printable(request, 40), address, why


def _printable(text: str, width: int) -> str:
    """Return *text*, which a caller wrote, without control characters and no longer than *width*."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def _columns(row: Iterable[str], widths: list[int]) -> str:
    first, second, third, last = row
    return f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third:<{widths[2]}}  {last}"
