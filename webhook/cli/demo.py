"""`client-ip demo`: a server with real TLS that receives reviews of manifests as the API server would send them."""

import http.client
import json
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import click
from rich.console import Console

from webhook.cli.patching import applied, difference
from webhook.cli.printing import Cell, console, print_table, say, styled
from webhook.cli.report import COLOURS
from webhook.cli.scan import from_files
from webhook.facts.files import FilesInvalid, Found, expand, read
from webhook.rules.decision import ADVICE, Outcome, Reason
from webhook.rules.objects import GROUPS
from webhook.running.as_html import as_html
from webhook.running.findings import OWNER_KEYS
from webhook.running.scanning import scan_of
from webhook.server.review import decode_response

RUNNING: Final = "examples/running"
START_SECONDS: Final = 60.0
Operations: TypeAlias = list[dict[str, Any]]
PLURALS: Final = {kind: f"{kind.lower()}s" for kind in GROUPS}


@click.command(
    "demo",
    epilog="""\b
Examples:
  client-ip demo
  client-ip demo --cluster examples/cluster examples/apps/httpbin.yaml""",
)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--cluster", default="examples/cluster", show_default=True, help="The example cluster's objects.")
@click.option(
    "--report",
    default="build/demo-report.html",
    show_default=True,
    metavar="FILE",
    help="File for the HTML report of the example cluster's workloads.",
)
def command(*, files: tuple[str, ...], cluster: str, report: str) -> None:
    """
    Try the webhook on manifests, without a cluster.

    The command starts the server with an example cluster, sends it manifests (examples/apps) over HTTPS as the API
    server would, prints the decision and the patch for each, and stops the server.
    """
    manifests = _manifests(files or ("examples/apps",), cluster)
    out = console()
    say(out, styled("The example cluster:", "bold"))
    print_table(out, ("KIND", "NAME", "DETAILS"), list(_cluster(cluster)))
    shown: tuple[Found, Operations] | None = None
    rows: list[tuple[Cell, ...]] = []
    with _server(cluster) as (address, context):
        connection = http.client.HTTPSConnection(*address, context=context, timeout=10)
        say(out, "")
        say(out, styled(f"Reviews, answered over HTTPS by {address[0]}:{address[1]}:", "bold"))
        for found in manifests:
            response = _ask(connection, found)
            operations = response.get("patch", [])
            rows.append(_row(found, response))
            if operations and shown is None and found.kind == "Pod":
                shown = found, operations
        connection.close()
    print_table(out, ("OBJECT", "ACTION", "REASON", "EXPLANATION"), rows)
    if shown is not None:
        say(out, "")
        say(out, styled("The first patched pod, as the API server stores it:", "bold"))
        _diff(out, *shown)
    if not files:
        _report(out, cluster, report)
    say(out, "")
    say(out, "Next, try your own manifests: client-ip check --state examples/cluster FILE…, or client-ip explain")


def _report(out: Console, cluster: str, report: str) -> None:
    """Scan the workloads of the example cluster, and write the HTML report."""
    now = datetime.now(UTC)
    gateways = str(Path(cluster).parent / "apps" / "gateway.yaml")
    states = [each for each in (cluster, RUNNING, gateways) if Path(each).exists()]
    fold, scope = from_files(states, None, None, OWNER_KEYS, now)
    scan = scan_of(fold, scope, at=now)
    path = Path(report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_html(scan))
    except OSError as error:
        raise click.UsageError(f"--report {report}: {error.strerror or error}") from error
    say(out, "")
    say(out, styled("The workloads that already run in the cluster, by client-ip scan:", "bold"))
    say(out, f"  {scan.sentence}")
    say(out, f"  HTML report: {path.resolve().as_uri()}")


def _manifests(files: Sequence[str], cluster: str) -> list[Found]:
    problems: list[Any] = []
    try:
        expand([cluster])
        found = [each for path in expand(files) for each in read(str(path), path.read_bytes(), problems)]
    except FilesInvalid as error:
        raise click.UsageError(f"{error} (run the demo in the checkout, or name the files)") from error
    if problems:
        raise click.UsageError("\n".join(map(str, problems)))
    return [each for each in found if each.kind in GROUPS]


def _cluster(folder: str) -> Iterator[tuple[Cell, ...]]:
    for path in expand([folder]):
        for found in read(str(path), path.read_bytes(), []):
            metadata = found.value["metadata"]
            counts = ""
            if found.kind == "Node":
                info = found.value["status"]["nodeInfo"]
                counts = f"{info['osImage'] or 'no osImage'} {info['kernelVersion']}".rstrip()
            elif found.kind == "Namespace":
                counts = ", ".join(f"{key}={value}" for key, value in metadata.get("labels", {}).items())
            yield found.kind, metadata["name"], counts


@contextmanager
def _server(cluster: str) -> Iterator[tuple[tuple[str, int], ssl.SSLContext]]:
    """Start the server as a user would, on free ports; stop it whatever happens."""
    with tempfile.TemporaryDirectory(prefix="client-ip-demo-") as folder:
        ca = Path(folder) / "ca.pem"
        log = Path(folder) / "log"
        options = ["--listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0", "--drain-seconds", "0"]
        trust = ["--tls-self-signed", "--ca-out", str(ca)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "webhook.cli", "serve", "--state", cluster, *options, *trust],
                stdout=output,
                stderr=output,
            )
        try:
            yield _address(process, log), ssl.create_default_context(cafile=str(ca))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, int]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"answering reviews on https://([^/]+):(\d+)/", log.read_text())
        if found is not None:
            return found.group(1), int(found.group(2))
        time.sleep(0.05)
    raise click.ClickException(f"the server did not start:\n{log.read_text()}")


def _ask(connection: http.client.HTTPSConnection, found: Found) -> dict[str, Any]:
    group = GROUPS[found.kind]
    value = dict(found.value)
    metadata = dict(value["metadata"])
    namespace = metadata.setdefault("namespace", "default")
    value["metadata"] = metadata
    resource = PLURALS[found.kind]
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "00000000-0000-4000-8000-000000000000",
            "kind": {"group": group, "version": "v1", "kind": found.kind},
            "resource": {"group": group, "version": "v1", "resource": resource},
            "operation": "CREATE",
            "namespace": namespace,
            "name": metadata.get("name", ""),
            "userInfo": {"username": "demo"},
            "object": value,
            "oldObject": None,
            "dryRun": False,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    }
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/mutate?timeout=2s", json.dumps(review), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise click.ClickException(f"the server answered {answer.status}: {body.decode()}")
    return decode_response(body)


def _row(found: Found, response: dict[str, Any]) -> tuple[Cell, ...]:
    audit = response["auditAnnotations"]
    reason = Reason(audit["reason"])
    metadata = found.value["metadata"]
    name = metadata.get("name") or f"{metadata.get('generateName', '')}…"
    done = "patched" if response.get("patch") else "audit, not patched" if audit["mode"] == "audit" else "not patched"
    if found.kind not in {"Pod", "Service"} and reason in {Reason.TPROXY, Reason.X_FORWARDED_FOR}:
        done = "pods are patched"
    return (
        f"{metadata.get('namespace', 'default')}/{found.kind}/{name}",
        done,
        styled(reason.value, f"bold {COLOURS[Outcome(audit['outcome'])]}"),
        f"{audit['cause']}\n→ {ADVICE[reason]}",
    )


def _diff(out: Console, sent: Found, operations: Operations) -> None:
    """Print what jsonpatch makes of the operations that came over HTTPS."""
    for line in difference(sent.value, applied(sent.value, operations)):
        say(out, styled(f"  {line}", "green" if line.startswith("+") else "red" if line.startswith("-") else ""))
