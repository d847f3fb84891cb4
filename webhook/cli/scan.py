"""`client-ip scan`: every workload of a cluster, now and after a restart, and what to do about it."""

import io
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from webhook.cli.check import CONTEXT, KUBECONFIG, NOW, POLICY, STATE
from webhook.cli.manifests import now_or
from webhook.cli.printing import Bar, console, progress
from webhook.cli.scanned import print_scan
from webhook.facts.collect import Collector
from webhook.facts.files import FilesInvalid, expand, read, read_bytes, take_all
from webhook.facts.problem import Problem
from webhook.rules.decision import shown
from webhook.running.as_csv import as_csv
from webhook.running.as_html import as_html
from webhook.running.as_junit import as_junit
from webhook.running.as_markdown import as_markdown
from webhook.running.baseline import BaselineInvalid, read_baseline
from webhook.running.dumps import read_files
from webhook.running.findings import OWNER_KEYS, Change, Scan, Scope
from webhook.running.fold import Fold
from webhook.running.grouping import GroupBy
from webhook.running.scanning import scan_of

if TYPE_CHECKING:
    from webhook.facts.cluster import Cluster

FAILURES_SHOWN: Final = 10
FORMATS: Final = ("table", "json", "csv", "markdown", "html", "junit")


class ConfigMapName(click.ParamType[tuple[str, str]]):
    """NAMESPACE/NAME."""

    name = "NAMESPACE/NAME"
    written: Final = re.compile(
        r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?)", re.ASCII
    )

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the namespace and the name."""
        if isinstance(value, tuple):
            return value
        found = self.written.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not NAMESPACE/NAME of a ConfigMap", param, ctx)
        return found[1], found[3]


@dataclass(frozen=True, slots=True)
class Publishing:
    """What is to be written into the cluster."""

    api: str | None
    """The name of the only one that will do; None: the first that is served."""
    events: bool


@click.command(
    "scan",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip scan                                     (all namespaces of the kubeconfig's cluster)
  client-ip scan -n shop -n bank --group-by owner
  client-ip scan -o json --output-file today.json
  client-ip scan --baseline yesterday.json --fail-on new
  client-ip scan --state dump/ -o html --output-file report.html
  client-ip scan --write-reports                     (OpenReports, or PolicyReport)

\b
Exit status: 0 success; 1 the condition of --fail-on is met; 2 invalid input, or the cluster cannot be read.""",
)
@click.option("-n", "--namespace", "namespaces", multiple=True, metavar="NS", help="Only this namespace. Repeatable.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces (default).")
@STATE
@POLICY
@click.option(
    "--group-by",
    type=click.Choice([each.value for each in GroupBy]),
    default=GroupBy.ADVICE.value,
    show_default=True,
    help="How rows are grouped, in the formats for people.",
)
@click.option("--baseline", metavar="FILE", help="An earlier -o json, to show what is new, resolved or unchanged.")
@click.option(
    "--fail-on",
    type=click.Choice(["new", "lost", "never"]),
    default="never",
    show_default=True,
    help="Exit with status 1 if a client's IP is lost (lost), or is lost and was not in the baseline (new).",
)
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="Format.")
@click.option("--output-file", metavar="FILE", help="Write to this file instead of standard output.")
@click.option("--preserved", is_flag=True, help="Also list the preserved workloads, not only their number.")
@click.option(
    "--owner-key",
    "owner_keys",
    multiple=True,
    metavar="KEY",
    help=f"Annotation or label with a workload's owner. Repeatable. [default: {', '.join(OWNER_KEYS)}]",
)
@click.option(
    "--write-reports", is_flag=True, help="Write the findings to the cluster, as one report in each namespace."
)
@click.option(
    "--reports-api",
    type=click.Choice(["Auto", "OpenReports", "PolicyReport"]),
    default="Auto",
    show_default=True,
    help="The API of the reports. Auto: OpenReports if the cluster serves it, else PolicyReport, else none.",
)
@click.option(
    "--events",
    is_flag=True,
    help="With --write-reports: create an Event for each workload that newly loses the client's IP.",
)
@click.option(
    "--record",
    type=ConfigMapName(),
    help="Record the outcome in this ConfigMap, for the metrics of `client-ip serve --scan-result`. It must exist.",
)
@click.option(
    "--jitter-seconds",
    type=click.IntRange(0, 3600),
    default=0,
    metavar="N",
    help="Wait a random time of up to N seconds before the scan; for CronJobs.",
)
@click.option(
    "--docs-url",
    default="",
    metavar="URL",
    help="URL of a published copy of the docs/ folder; -o html then links each Reason to decisions.md.",
)
@KUBECONFIG
@CONTEXT
@NOW
def command(
    *,
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    states: tuple[str, ...],
    policy: str | None,
    group_by: str,
    baseline: str | None,
    fail_on: str,
    output: str,
    output_file: str | None,
    preserved: bool,
    owner_keys: tuple[str, ...],
    write_reports: bool,
    reports_api: str,
    events: bool,
    record: tuple[str, str] | None,
    jitter_seconds: int,
    docs_url: str,
    kubeconfig: str | None,
    context: str | None,
    now: datetime | None,
) -> int:
    """
    Report for every workload whether the client's IP is preserved now, and after a restart.

    "Now" is decided from the running pods, "after a restart" from the pod template, both by the code that decides
    admission. The report says which workloads are at risk, which to restart, which to change first, which read the
    header, and which are waived and until when.
    """
    if namespaces and all_namespaces:
        raise click.UsageError("-n and -A cannot be combined")
    if fail_on == "new" and baseline is None:
        raise click.UsageError("--fail-on new needs --baseline")
    if write_reports and states:
        raise click.UsageError("--write-reports needs a cluster, and cannot be combined with --state")
    if events and not write_reports:
        raise click.UsageError("--events needs --write-reports: the reports show which losses are new")
    if record is not None and (states or namespaces):
        raise click.UsageError("--record is for a scan of the whole cluster: without --state and -n")
    former = _baseline(baseline)
    if jitter_seconds:
        time.sleep(random.uniform(0, jitter_seconds))  # noqa: S311
    moment = now_or(now)
    keys = owner_keys or OWNER_KEYS
    chosen = tuple(dict.fromkeys(namespaces)) or None
    if states:
        fold, scope = from_files(states, policy, chosen, keys, moment)
    else:
        publishing = Publishing(None if reports_api == "Auto" else reports_api, events) if write_reports else None
        fold, scope = _from_cluster(policy, kubeconfig, context, chosen, keys, moment, publishing)
    scan = scan_of(fold, scope, at=moment, baseline=former, preserved=preserved)
    by = GroupBy(group_by)
    if output_file is not None:
        _write(_printed(scan, output, by, fail_on, docs_url), output_file)
    elif output == "table":
        print_scan(console(), scan, by)
    else:
        click.echo(_printed(scan, output, by, fail_on, docs_url), nl=False)
    _say(scan)
    if record is not None:
        _record(scan, kubeconfig, context, record)
    return 1 if _fails(scan, fail_on) else 0


def _baseline(path: str | None) -> Scan | None:
    if path is None:
        return None
    try:
        return read_baseline(Path(path).read_bytes())
    except OSError as error:
        raise click.UsageError(f"--baseline {path}: {error.strerror or error}") from error
    except BaselineInvalid as error:
        raise click.UsageError(f"--baseline {path}: {error}") from error


def from_files(
    states: Sequence[str], policy: str | None, namespaces: Sequence[str] | None, keys: Sequence[str], now: datetime
) -> tuple[Fold, Scope]:
    """Return what the files hold, folded, and what was looked at."""
    problems: list[Problem] = []
    collector = Collector(from_files=True)
    try:
        paths = expand([*states, *([policy] if policy else [])])
    except FilesInvalid as error:
        raise click.UsageError(str(error)) from error
    found = [each for path in paths for each in read(str(path), read_bytes(path, problems), problems)]
    take_all(found, collector, problems)
    fold = Fold(collector.snapshot(), now=now, owner_keys=keys)
    read_files(found, fold, namespaces, problems)
    if problems:
        raise click.UsageError("invalid input:\n" + "\n".join(map(str, problems)))
    scope = Scope(source=", ".join(states), namespaces=sorted(namespaces) if namespaces is not None else None)
    return fold, scope


def _from_cluster(
    policy: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespaces: Sequence[str] | None,
    keys: Sequence[str],
    now: datetime,
    publishing: Publishing | None,
) -> tuple[Fold, Scope]:
    from webhook.cli.opened import ask  # noqa: PLC0415  # files never pay for `kubernetes`
    from webhook.facts.cluster import Cluster  # noqa: PLC0415
    from webhook.running.reading import ClusterReader, NothingReadable  # noqa: PLC0415

    async def scan(cluster: Cluster) -> tuple[Fold, Scope]:
        with progress("reading the facts") as bar:
            collector = await cluster.collect()
            fold = Fold(_with_policy(collector, policy).snapshot(), now=now, owner_keys=keys)
            scope = await ClusterReader(cluster, _shown_on(bar)).read(fold, namespaces)
            if publishing is not None:
                bar.say("writing reports")
                await _publish(cluster, fold, scope, now, publishing)
            return fold, scope

    try:
        return ask(kubeconfig, context, scan, without="no --state, and no cluster")
    except NothingReadable as error:
        raise click.UsageError(f"the cluster cannot be read: {error}") from error
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise click.UsageError(error.message) from error  # status 1 is a verdict


async def _publish(cluster: "Cluster", fold: Fold, scope: Scope, now: datetime, publishing: Publishing) -> None:
    """Write the reports; where the cluster serves none, that is said, and is no error: the scan goes on."""
    from webhook.running.as_report import APIS  # noqa: PLC0415
    from webhook.running.publishing import NoReportAPI, Publisher, served_api  # noqa: PLC0415

    asked = next((api for api in APIS if api.name == publishing.api), None)
    try:
        api = await served_api(cluster, asked)
    except NoReportAPI as error:
        if asked is not None:
            raise click.UsageError(str(error)) from error
        click.echo(shown(str(error)), err=True)
        return
    written = await Publisher(cluster, api).publish(list(fold.rows()), scope, at=now, events=publishing.events)
    click.echo(shown(str(written)), err=True)
    for failed in written.failed[:FAILURES_SHOWN]:
        click.echo(f"not written: {shown(failed)}", err=True)


def _shown_on(bar: Bar) -> Callable[[str, int, int], None]:
    """Show how far the reading is."""
    last = 0

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        bar.say(f"reading {what}: {done:,} of {total:,}" if total else f"reading {what}: {done:,}")
        bar.advance(done - last if done > last else done)
        last = done

    return show


def _with_policy(collector: Collector, policy: str | None) -> Collector:
    if policy is None:
        return collector
    problems: list[Problem] = []
    path = Path(policy)
    take_all(read(policy, read_bytes(path, problems), problems), collector, problems)
    if problems:
        raise click.UsageError("invalid input:\n" + "\n".join(map(str, problems)))
    if collector.rules_changed:
        raise click.UsageError("--policy has other nodes.rules than the cluster: use it with --state")
    return collector


def _printed(scan: Scan, output: str, by: GroupBy, fail_on: str, docs_url: str) -> str:
    """Return the scan in a form for machines, or to be forwarded."""
    match output:
        case "json":
            return msgspec.json.format(msgspec.json.encode(scan), indent=2).decode() + "\n"
        case "csv":
            return as_csv(scan)
        case "markdown":
            return as_markdown(scan, by)
        case "junit":
            return as_junit(scan, new_only=fail_on == "new")
        case "html":
            return as_html(scan, by, docs_url=docs_url)
        case _:
            text = io.StringIO()
            out = console()
            out.file = text
            print_scan(out, scan, by)
            return text.getvalue()


def _write(text: str, path: str) -> None:
    """Write the file whole or not at all: whoever reads it while it is written sees the former one."""
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        # As it is: CSV's line ends are its own.
        part.write_text(text, newline="")
        part.replace(target)
    except OSError as error:
        raise click.UsageError(f"--output-file {path}: {error.strerror or error}") from error
    click.echo(f"written to {path}", err=True)


def _record(scan: Scan, kubeconfig: str | None, context: str | None, where: tuple[str, str]) -> None:
    """Leave the outcome in the cluster; one that saw only part of it is none."""
    from webhook.cli.opened import ask  # noqa: PLC0415
    from webhook.running.outcome import record  # noqa: PLC0415

    namespace, name = where
    if scan.scope.unreadable:
        raise click.UsageError(f"not recorded in {namespace}/{name}: not everything could be read")
    try:
        ask(kubeconfig, context, lambda cluster: record(cluster, scan, namespace=namespace, name=name))
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise click.UsageError(f"--record: {error.message}") from error  # status 1 is a verdict
    click.echo(f"recorded in {namespace}/{name}", err=True)


def _say(scan: Scan) -> None:
    """What must be heard whatever the form: on standard error, so that a file stays one."""
    for what, why in scan.scope.unreadable.items():
        print(f"not read: {what}: {why}", file=sys.stderr)


def _fails(scan: Scan, fail_on: str) -> bool:
    lost = [row for row in scan.rows if row.is_lost]
    match fail_on:
        case "lost":
            return bool(lost)
        case "new":
            return any(row.change is Change.NEW for row in lost)
        case _:
            return False
