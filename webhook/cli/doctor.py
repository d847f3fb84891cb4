"""`client-ip doctor`: is everything as it should be, and if not, what is wrong and what to do about it."""

import asyncio
import time
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.text import Text

import webhook
from webhook.checks.bundle import LOG_LINES, BundleInvalid, read_bundle, write_bundle
from webhook.checks.check import Checked, CheckedGroup, Level, anchor, as_json, run, worst
from webhook.checks.evidence import Evidence
from webhook.checks.groups import GROUPS
from webhook.cli.check import CONTEXT, KUBECONFIG
from webhook.cli.printing import console, progress, say, styled
from webhook.cli.render import SERVICE, configuration
from webhook.facts.cluster import Cluster
from webhook.rules import wellknown
from webhook.rules.decision import shown

SYMBOLS: Final = {Level.OK: "✓", Level.WARNING: "!", Level.ERROR: "✗", Level.SKIPPED: "\u2013"}
WORDS: Final = {Level.OK: "ok", Level.WARNING: "warn", Level.ERROR: "FAIL", Level.SKIPPED: "skip"}
STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red", Level.SKIPPED: "bright_black"}
WAIT_SECONDS: Final = 2.0
"""Between two looks with --wait."""
METRICS_PORT: Final = 8080


@click.command(
    "doctor",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip doctor                            (the kubeconfig's cluster)
  client-ip doctor -n shop                    (only namespace shop; the test pod is created there)
  client-ip doctor --wait 2m                  (after an installation: wait until no check fails)
  client-ip doctor -o json --strict           (in CI)
  client-ip doctor --bundle doctor.tgz        (a bundle for support)
  client-ip doctor --state doctor.tgz         (run the checks on a bundle)

\b
Nothing is stored in the cluster. One pod is created twice as a dry run, unless --no-dry-run is set.
Exit status: 0 no check failed (with --strict, no warning either); 1 a check failed; 2 the cluster cannot be read.""",
)
@click.option(
    "-n", "--namespace", default="", metavar="NS", help="Check only this namespace, in checks that look at namespaces."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "short", "json"]),
    default="table",
    show_default=True,
    help="Format. short: only problems; json: as `linkerd check -o json`, with ids.",
)
@click.option(
    "--wait", metavar="DURATION", default="", help="Repeat until no check fails, for at most this long (90s, 5m)."
)
@click.option("--strict", is_flag=True, help="Treat warnings as failures in the exit status.")
@click.option("--dry-run/--no-dry-run", default=True, show_default=True, help="Create the test pod, as a dry run.")
@click.option("--bundle", metavar="FILE", help="Write what was read to this .tgz file, without secrets.")
@click.option("--redact-names", is_flag=True, help="With --bundle: replace names by tokens.")
@click.option("--state", metavar="FILE", help="Check this bundle instead of a cluster.")
@click.option(
    "--own-namespace",
    default=wellknown.OWN_NAMESPACE,
    show_default=True,
    metavar="NS",
    help="The namespace of the webhook.",
)
@KUBECONFIG
@CONTEXT
def command(
    *,
    namespace: str,
    output: str,
    wait: str,
    strict: bool,
    dry_run: bool,
    bundle: str | None,
    redact_names: bool,
    state: str | None,
    own_namespace: str,
    kubeconfig: str | None,
    context: str | None,
) -> int:
    """Check the installation, its connection to the API server, the mesh, nodes, gateways and policies."""
    if redact_names and bundle is None:
        raise click.UsageError("--redact-names needs --bundle")
    if state is not None:
        if bundle is not None or wait:
            raise click.UsageError("--state cannot be combined with --bundle or --wait")
        return _tell(run(GROUPS, _from(Path(state))), output, strict=strict)
    deadline = time.monotonic() + _seconds(wait)
    from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`

    async def look(cluster: Cluster) -> list[CheckedGroup]:
        while True:
            with progress("reading the cluster"):
                evidence = await _read(cluster, namespace, own_namespace, dry_run=dry_run)
            groups = run(GROUPS, evidence)
            if worst(groups) is not Level.ERROR or time.monotonic() >= deadline:
                break
            await asyncio.sleep(WAIT_SECONDS)
        if bundle is not None:
            await _write(cluster, evidence, Path(bundle), redact_names=redact_names)
        return groups

    return _tell(ask(kubeconfig, context, look), output, strict=strict)


def _seconds(text: str) -> float:
    """Return a duration such as `90s`, `5m` or `1h` in seconds; 0 for none."""
    if not text:
        return 0.0
    units = {"s": 1, "m": 60, "h": 3600}
    number = text[:-1]
    if text[-1] not in units or not number.isdecimal() or len(number) > 5:
        raise click.UsageError(f"--wait: {text!r} is not a duration such as 90s, 5m or 1h")
    return float(int(number) * units[text[-1]])


def _from(path: Path) -> Evidence:
    try:
        return read_bundle(path)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from error
    except BundleInvalid as error:
        raise click.UsageError(str(error)) from error


async def _read(cluster: Cluster, namespace: str, own_namespace: str, *, dry_run: bool) -> Evidence:
    from webhook.checks.reading import read_cluster  # noqa: PLC0415

    service = {"service": {"namespace": own_namespace, "name": SERVICE, "path": "/mutate"}}
    return await read_cluster(
        cluster,
        own_namespace=own_namespace,
        expected=configuration(service, own_namespace),
        namespace=namespace,
        dry_run=dry_run,
    )


async def _write(cluster: Cluster, evidence: Evidence, path: Path, *, redact_names: bool) -> None:
    from webhook.checks.reading import read_logs, read_metrics  # noqa: PLC0415

    with progress("reading metrics and logs"):
        metrics = await read_metrics(cluster, evidence, METRICS_PORT)
        logs = await read_logs(cluster, evidence, LOG_LINES)
    try:
        write_bundle(path, evidence, client=webhook.__version__, metrics=metrics, logs=logs, redact_names=redact_names)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from error
    click.echo(f"wrote {path}: review it before you send it", err=True)


def _tell(groups: list[CheckedGroup], output: str, *, strict: bool) -> int:
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(groups)), indent=2).decode())
    else:
        _print(groups, short=output == "short")
    level = worst(groups)
    return 1 if level is Level.ERROR or (strict and level is Level.WARNING) else 0


def _print(groups: list[CheckedGroup], *, short: bool) -> None:
    out = console()
    plain = out.no_color or not out.encoding.lower().startswith("utf")
    for group in groups:
        rows = [each for each in group.checked if not short or each.finding.level in {Level.WARNING, Level.ERROR}]
        if not rows:
            continue
        say(out, styled(group.name, "bold"))
        for checked in rows:
            _print_one(checked, plain=plain)
    counts = {level: sum(each.finding.level is level for group in groups for each in group.checked) for level in Level}
    say(
        out,
        f"{sum(counts.values())} checks: {counts[Level.OK]} passed, {counts[Level.WARNING]} warnings, "
        f"{counts[Level.ERROR]} failed, {counts[Level.SKIPPED]} skipped",
    )


def _print_one(checked: Checked, *, plain: bool) -> None:
    out = console()
    check, finding = checked.check, checked.finding
    mark = (WORDS if plain else SYMBOLS)[finding.level]
    line = Text.assemble(
        "  ", styled(mark, STYLES[finding.level]), f" {check.id}: ", styled(finding.says, "default"), style="default"
    )
    out.print(line, soft_wrap=True)
    if finding.level in {Level.WARNING, Level.ERROR}:
        for hint in finding.hint.splitlines():
            out.print(Text(f"      {shown(hint)}"), soft_wrap=True)
        out.print(Text(f"      see {anchor(check)}", style="bright_black"), soft_wrap=True)
