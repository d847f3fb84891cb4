"""`client-ip serve`: settings of the server, and what it is put together from."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from certs.authority import service_names
from certs.lifecycle import Settings
from certs.pair import PairError
from certs.rotator import Location, Rotator
from certs.serving import MountedClientCA, ServingCertificate, read_file
from webhook.facts.files import FilesInvalid
from webhook.facts.scanresult import ScanFile
from webhook.facts.source import FactSource, FileSource
from webhook.rules import wellknown
from webhook.server import memory, tls
from webhook.server.app import DEFAULT_MEMORY_BYTES, Address, serve
from webhook.server.edge import State
from webhook.server.metrics import Metrics
from webhook.server.sampling import traces_url

if TYPE_CHECKING:
    from webhook.facts.kube import KubeClient
    from webhook.server.tracing import Tracing

log: Final = logging.getLogger("client-ip")
Task = Callable[[], Awaitable[None]]
LEAST_MEMORY_BYTES: Final = 64 << 20
"""What the interpreter and an empty cluster take."""


class AddressType(click.ParamType[Address]):
    """HOST:PORT, [HOST]:PORT or :PORT."""

    name = "HOST:PORT"

    def convert(self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Return the address that *value* writes."""
        if isinstance(value, Address):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 0.0.0.0:8443 or [::]:8443", param, ctx)
        return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104  # what ":8443" means everywhere


class MemoryType(click.ParamType[int]):
    """Bytes, or a quantity such as 256Mi."""

    name = "QUANTITY"
    units: Final = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes that *value* writes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,15})([A-Za-z]{0,2})", value, re.ASCII)
        if found is None or found[2] not in self.units:
            self.fail(f"{value!r} is not a quantity such as 256Mi", param, ctx)
        count = int(found[1]) * self.units[found[2]]
        if count < LEAST_MEMORY_BYTES:
            self.fail(f"{value} is too small: at least {LEAST_MEMORY_BYTES >> 20}Mi are required", param, ctx)
        return count


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as JSON."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up_logging(log_format: str, level: str) -> None:
    """Log to standard error, as text or as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # uvloop says it of what is written to a peer that is gone: anybody can have it said, as often as they like.
    logging.getLogger("asyncio").addFilter(lambda record: record.msg != "SSL connection is closed")


@click.command(
    "serve",
    context_settings={"auto_envvar_prefix": "CLIENT_IP"},
    epilog="""\b
Examples:
  client-ip serve --state examples/cluster --tls-self-signed --ca-out ca.pem
  client-ip serve --kubeconfig ~/.kube/config --tls-cert tls.crt --tls-key tls.key
  client-ip serve --tls-secret client-ip-webhook-tls          (in a pod: its ServiceAccount)
  client-ip serve --tls-secret client-ip-webhook-tls --client-ca ca.crt --client-name front-proxy-client""",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    envvar="CLIENT_IP_STATE",
    metavar="PATH",
    help="File or folder of Kubernetes objects to read instead of a cluster; read again when it changes. Repeatable.",
)
@click.option(
    "--kubeconfig", metavar="FILE", help="Kubeconfig of the cluster; in a pod, the pod's ServiceAccount is used."
)
@click.option("--context", metavar="NAME", help="The kubeconfig's context, if not its current one.")
@click.option("--listen", type=AddressType(), default=":8443", show_default=True, help="Address for reviews (HTTPS).")
@click.option(
    "--probe-listen",
    type=AddressType(),
    default=":8080",
    show_default=True,
    help="Address for probes and metrics (HTTP).",
)
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="Certificate, PEM; reloaded when it changes."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="Private key of the certificate, PEM.")
@click.option("--tls-self-signed", is_flag=True, help="Create a CA and a certificate for this process.")
@click.option(
    "--tls-secret",
    metavar="NAME",
    help="Secret that the replicas share; its certificates are created, renewed and trusted automatically.",
)
@click.option(
    "--tls-ca-days",
    type=click.IntRange(3, 3650),
    default=365,
    show_default=True,
    help="Lifetime of a CA in --tls-secret.",
)
@click.option(
    "--tls-leaf-days",
    type=click.IntRange(1, 1000),
    default=90,
    show_default=True,
    help="Lifetime of a certificate in --tls-secret; it is renewed after two thirds.",
)
@click.option(
    "--service",
    default=wellknown.CONFIGURATION,
    show_default=True,
    help="Service by which the API server calls the webhook.",
)
@click.option(
    "--client-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CA certificates, PEM. Accept only callers with a certificate signed by one of them. Reloaded on change.",
)
@click.option(
    "--client-name",
    "client_names",
    multiple=True,
    envvar="CLIENT_IP_CLIENT_NAME",
    metavar="NAME",
    help="A common name or subject alternative name that the caller's certificate must have. Repeatable.",
)
@click.option(
    "--tls-host",
    "tls_hosts",
    multiple=True,
    envvar="CLIENT_IP_TLS_HOST",
    metavar="NAME",
    help="Name or address in a created certificate. Repeatable. [default: loopback, or the Service's names]",
)
@click.option(
    "--ca-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the self-signed CA's certificate to.",
)
@click.option(
    "--namespace",
    default=wellknown.OWN_NAMESPACE,
    show_default=True,
    help="Namespace of the webhook. Objects in it are never changed.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 300),
    default=15.0,
    show_default=True,
    help="How long to continue answering after SIGTERM, until its endpoint is removed everywhere.",
)
@click.option(
    "--memory-limit",
    type=MemoryType(),
    help="Memory limit, such as 256Mi. It bounds what callers can use. [default: the container's limit]",
)
@click.option(
    "--mark-reasons",
    is_flag=True,
    help="Annotate objects that are not patched with client-ip.dev/reason, for the policy of `render final-state`.",
)
@click.option(
    "--scan-result",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the outcome of the last `client-ip scan --record`, mounted from its ConfigMap. Exposed as metrics.",
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    envvar=["CLIENT_IP_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    help="Collector to send traces to (OTLP over HTTP), such as http://collector.observability:4318; requires the extra"
    " client-ip-webhook[tracing]. [default: OTEL_EXPORTER_OTLP_ENDPOINT; without either, no traces]",
)
@click.option(
    "--traces-per-second",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Maximum number of traced reviews per second. Bursts of five times this number are allowed.",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Log format."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Lowest level that is logged.",
)
def command(
    *,
    states: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    listen: Address,
    probe_listen: Address,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_self_signed: bool,
    tls_secret: str | None,
    tls_ca_days: int,
    tls_leaf_days: int,
    client_ca: Path | None,
    client_names: tuple[str, ...],
    service: str,
    tls_hosts: tuple[str, ...],
    ca_out: Path | None,
    namespace: str,
    drain_seconds: float,
    memory_limit: int | None,
    mark_reasons: bool,
    scan_result: Path | None,
    otlp_endpoint: str | None,
    traces_per_second: int,
    log_format: str,
    log_level: str,
) -> None:
    """
    Answer the API server's admission reviews over HTTPS.

    Nodes, namespaces and policies are read from files (--state) or from a cluster. The certificate is read from files
    (--tls-cert, --tls-key), created for this process (--tls-self-signed), or kept in a Secret that all replicas share
    (--tls-secret).

    Every option can also be set in the environment, for example as CLIENT_IP_LISTEN.
    """
    set_up_logging(log_format, log_level)
    chosen = (tls_cert is not None or tls_key is not None) + tls_self_signed + (tls_secret is not None)
    if chosen != 1:
        raise click.UsageError("use one of: --tls-cert with --tls-key, --tls-self-signed, --tls-secret")
    if tls_secret is not None and states:
        raise click.UsageError("--tls-secret needs a cluster, and cannot be combined with --state")
    if client_names and client_ca is None:
        raise click.UsageError("--client-name needs --client-ca")
    clients = _client_ca(client_ca)
    rotator = client = None
    if tls_secret is not None:
        certificate = ServingCertificate(client_ca=clients)
        names = tls_hosts or service_names(service, namespace)
        life = timedelta(days=tls_ca_days), timedelta(days=tls_leaf_days)
        rotator, client = _rotator(certificate, kubeconfig, context, namespace, tls_secret, names, life)
        tasks: list[Task] = [rotator.run]
    else:
        certificate, tasks = _certificate(tls_cert, tls_key, tls_hosts, ca_out, clients, self_signed=tls_self_signed)
    if client_ca is not None:
        tasks.append(MountedClientCA(certificate, client_ca).run)
    # An emptied caBundle is seen by the watch, and need not wait for the next look at it.
    changed = rotator.wake if rotator is not None else None
    source = _source(states, kubeconfig, context, namespace, client, changed)
    tracing = _tracing(otlp_endpoint, traces_per_second, namespace)
    metrics = Metrics(
        source,
        certificate,
        rotator,
        spans=None if tracing is None else tracing.counts,
        scan=None if scan_result is None else ScanFile(scan_result).read,
    )
    state = State(
        source=source,
        certificate=certificate,
        metrics=metrics,
        rotator=rotator,
        marks=mark_reasons,
        client_names=frozenset(client_names),
        sample=None if tracing is None else tracing.sample,
    )
    _require_parser()

    def started(reviews: Address, probes: Address) -> None:
        log.info("answering reviews on https://%s/mutate, probes and metrics on http://%s", reviews, probes)

    running = serve(
        state,
        listen=listen,
        probe_listen=probe_listen,
        drain_seconds=drain_seconds,
        memory_bytes=memory_limit or memory.limit_bytes() or DEFAULT_MEMORY_BYTES,
        tasks=[*tasks, source.run],
        started=started,
    )
    try:
        _run(running)
    except OSError as error:
        raise click.ClickException(f"cannot listen: {error}") from error
    finally:
        if tracing is not None:
            tracing.close()


def _run(main: Awaitable[None]) -> None:
    import uvloop  # noqa: PLC0415  # `--help` must not pay for it

    async def run() -> None:
        await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _certificate(
    certificate: Path | None,
    key: Path | None,
    hosts: tuple[str, ...],
    ca_out: Path | None,
    clients: bytes | None,
    *,
    self_signed: bool,
) -> tuple[ServingCertificate, list[Task]]:
    if self_signed:
        try:
            return tls.self_signed(hosts or ("localhost", "127.0.0.1", "::1"), ca_out, client_ca=clients), []
        except (OSError, ValueError) as error:
            raise click.UsageError(
                f"--ca-out: {error}" if isinstance(error, OSError) else f"--tls-host: {error}"
            ) from error
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key must be used together")
    if ca_out is not None or hosts:
        raise click.UsageError("--ca-out and --tls-host need --tls-self-signed")
    try:
        serving, follow = tls.mounted(certificate, key, client_ca=clients)
    except PairError as error:
        raise click.UsageError(str(error)) from error
    return serving, [follow]


def _client_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        read = read_file(path)
        ServingCertificate(client_ca=read)
    except PairError as error:
        raise click.UsageError(f"--client-ca: {error}") from error
    return read


def _rotator(
    certificate: ServingCertificate,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    secret: str,
    names: tuple[str, ...],
    life: tuple[timedelta, timedelta],
) -> "tuple[Rotator, KubeClient]":
    from webhook.facts.access import KubeConfigInvalid  # noqa: PLC0415
    from webhook.facts.kube import connect  # noqa: PLC0415  # files never pay for a client

    try:
        settings = Settings(names=names, organization=tls.ORGANIZATION, ca_life=life[0], leaf_life=life[1])
        location = Location(namespace=namespace, secret=secret, configurations=(wellknown.CONFIGURATION,))
        client = connect(kubeconfig, context)
        return Rotator(client, certificate, location=location, settings=settings), client
    except (ValueError, KubeConfigInvalid) as error:
        raise click.UsageError(f"--tls-secret: {error}") from error


def _source(
    states: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    client: "KubeClient | None",
    changed: Callable[[], None] | None,
) -> FactSource:
    """Return where the facts come from: files, or the cluster, which *client* reaches already if it is given."""
    if states:
        if kubeconfig or context:
            raise click.UsageError("--state cannot be combined with --kubeconfig or --context")
        try:
            return FileSource(states, own_namespace=namespace)
        except FilesInvalid as error:
            raise click.UsageError(f"--state:\n{error}") from error
    from webhook.facts.access import KubeConfigInvalid  # noqa: PLC0415
    from webhook.facts.kube import connect  # noqa: PLC0415  # files never pay for a client
    from webhook.facts.watch import ClusterSource  # noqa: PLC0415

    try:
        own = connect(kubeconfig, context) if client is None else client.another()
        return ClusterSource(own, own_namespace=namespace, configuration_changed=changed)
    except KubeConfigInvalid as error:
        raise click.UsageError(f"no cluster ({error}) and no --state") from error


def _tracing(endpoint: str | None, per_second: int, namespace: str) -> "Tracing | None":
    """Return what sends traces; None, and nothing imported, where no collector is named."""
    named = click.get_current_context().get_parameter_source("otlp_endpoint") is ParameterSource.COMMANDLINE
    try:
        url = traces_url(endpoint, {} if named else os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if url is None:
        return None
    try:
        from webhook.server.tracing import Tracing, place  # noqa: PLC0415  # twenty megabytes that few need
    except ModuleNotFoundError as error:
        raise click.UsageError(f"traces need the extra client-ip-webhook[tracing]: {error}") from error
    try:
        made = Tracing(url, per_second=per_second, namespace=namespace)
    except (ValueError, OSError) as error:
        raise click.UsageError(f"OpenTelemetry's environment variables are invalid: {error}") from error
    log.info("sending at most %d traces a second to %s", per_second, place(url))
    return made


def _require_parser() -> None:
    """Say it when aiohttp runs on its Python parser, which costs half as much again for each review."""
    from aiohttp import http_parser  # noqa: PLC0415

    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        log.warning("aiohttp's C parser is missing: reviews cost 1.4 times as much")
