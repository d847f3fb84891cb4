"""`client-ip demo`: the server on real TLS, asked about real manifests as the API server would ask."""

import difflib
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
from pathlib import Path
from typing import Any, Final

import click
import yaml

from webhook.cli.check import patched
from webhook.cli.report import COLOURS
from webhook.facts.files import FilesInvalid, Found, expand, read
from webhook.rules.decision import ADVICE, Outcome, Reason
from webhook.rules.objects import GROUPS
from webhook.rules.patch import Patch, PatchOperation
from webhook.server.review import decode_response

START_SECONDS: Final = 15.0
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
def command(*, files: tuple[str, ...], cluster: str) -> None:
    """
    Show real manifests being decided and patched over HTTPS.

    Starts the server with an example cluster, sends it the manifests (examples/apps) as the API server would, prints
    what happened to each and why, and stops.
    """
    manifests = _manifests(files or ("examples/apps",), cluster)
    click.secho("The cluster:", bold=True)
    for line in _cluster(cluster):
        click.echo(f"  {line}")
    shown: tuple[dict[str, Any], dict[str, Any]] | None = None
    with _server(cluster) as (address, context):
        connection = http.client.HTTPSConnection(*address, context=context, timeout=10)
        click.secho(f"\nAsked over HTTPS at {address[0]}:{address[1]}:", bold=True)
        for found in manifests:
            response = _ask(connection, found)
            patch = _patch(response)
            _print(found, response, patch)
            if patch and shown is None and found.kind == "Pod":
                before = dict(found.value)
                shown = before, patched(before, patch)
        connection.close()
    if shown is not None:
        click.secho("\nWhat the API server stores of the first patched pod:", bold=True)
        _diff(*shown)
    click.echo("\nNext: client-ip check --state examples/cluster FILE…, client-ip explain, README.md")


def _manifests(files: Sequence[str], cluster: str) -> list[Found]:
    problems: list[Any] = []
    try:
        expand([cluster])
        found = [each for path in expand(files) for each in read(str(path), path.read_bytes(), problems)]
    except FilesInvalid as error:
        raise click.UsageError(f"{error} (run it in the checkout, or name the files)") from error
    if problems:
        raise click.UsageError("\n".join(map(str, problems)))
    return [each for each in found if each.kind in GROUPS]


def _cluster(folder: str) -> Iterator[str]:
    for path in expand([folder]):
        for found in read(str(path), path.read_bytes(), []):
            name = found.value["metadata"]["name"]
            if found.kind == "Node":
                info = found.value["status"]["nodeInfo"]
                yield f"node {name}: {info['osImage'] or 'no osImage'} {info['kernelVersion']}".rstrip()
            elif found.kind == "Namespace":
                labels = found.value["metadata"].get("labels", {})
                yield f"namespace {name}: " + ", ".join(f"{key}={value}" for key, value in labels.items())
            else:
                yield f"{found.kind} {name}"


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


def _patch(response: dict[str, Any]) -> Patch:
    operations = []
    for operation in response.get("patch", ()):
        value = operation["value"]
        entry = next(iter(value.items())) if isinstance(value, dict) else value
        operations.append(PatchOperation(operation["path"], entry))
    return tuple(operations)


def _print(found: Found, response: dict[str, Any], patch: Patch) -> None:
    audit = response["auditAnnotations"]
    reason = Reason(audit["reason"])
    metadata = found.value["metadata"]
    name = metadata.get("name") or f"{metadata.get('generateName', '')}…"
    title = f"{found.kind} {metadata.get('namespace', 'default')}/{name}"
    colour = COLOURS[Outcome(audit["outcome"])]
    done = "patched" if patch else "audit, not patched" if audit["mode"] == "audit" else "left alone"
    click.echo(f"  {title:<42} {done:<19} {click.style(reason.value, fg=colour, bold=True)}")
    click.echo(f"      {audit['cause']}")
    click.echo(f"      → {ADVICE[reason]}")


def _diff(before: dict[str, Any], after: dict[str, Any]) -> None:
    sent, stored = (
        yaml.safe_dump(each, sort_keys=False, default_flow_style=False).splitlines(keepends=True)
        for each in (before, after)
    )
    for line in difflib.unified_diff(sent, stored, "as it was sent", "as it is stored"):
        colour = "green" if line.startswith("+") else "red" if line.startswith("-") else None
        click.secho(f"  {line.rstrip()}", fg=colour)
