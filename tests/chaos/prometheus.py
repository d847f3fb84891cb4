"""
A real Prometheus that looks at the lab as one looks at a cluster, with the chart's alerts, and what they said.

The alerts' windows are scaled by one factor, `SCALE`, since a fault lasts seconds here: a minute is a second. What must
fire, and what must not, is asked of Prometheus' own series `ALERTS`.
"""

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from tests.chaos.kubelet import Pod
from tests.monitoring.shipped import ALERTS, panels
from tests.parts.build import binaries
from tests.parts.process import Process, wait_until

SCALE: Final = 60
"""Of the alerts' windows alone; thresholds are as shipped."""
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
INTERVAL: Final = "1s"
"""Between scrapes, and between evaluations: half a minute, scaled, is hardly less."""
ADDRESS: Final = ("127.0.0.1", 9090)
"""In a network namespace where nobody else listens."""
READY_SECONDS: Final = 60.0
FIRE_SECONDS: Final = 60.0
"""How long an alert may take that must fire: a busy machine evaluates late."""
RATE_INTERVAL: Final = "10s"
"""What the dashboard's $__rate_interval is here: some scrapes, as Grafana has it."""
POINTS: Final = 400
API_SERVER: Final = "kubernetes-apiservers"
KEPT: Final = "apiserver_admission_webhook_.+|apiserver_validating_admission_policy_.+"
"""What is stored of the API server's ten thousand series."""

DOWN: Final = "ClientIPWebhookDown"
FAILS_OPEN: Final = "ClientIPWebhookFailsOpen"
SLOW: Final = "ClientIPWebhookSlow"
NOT_TRUSTED: Final = "ClientIPCertificateNotTrusted"
NOT_REGISTERED: Final = "ClientIPWebhookNotRegistered"
BEHIND: Final = "ClientIPWebhookBehindInjector"
ALWAYS_ALLOWED: Final = frozenset({SLOW})
"""What depends on the machine: calls that wait for a CPU are slow."""
STARTING: Final = frozenset({DOWN, NOT_TRUSTED})
"""
What a replica that starts may raise: seconds are minutes to the alerts, and are not to the replica.

Where it can't look, for want of an API server or a token, it does not know that it is trusted either.
"""


def scaled(text: str) -> str:
    """Return a rule file with every window in its expressions, and every `for`, divided by `SCALE`."""
    groups: dict[str, Any] = yaml.safe_load(text)
    for group in groups["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(
                r"\[(\d+[smhd])\]|\boffset (\d+[smhd])\b",
                lambda found: f"[{_shorter(found[1])}]" if found[1] else f"offset {_shorter(found[2])}",
                rule["expr"],
            )
            if "for" in rule:
                rule["for"] = _shorter(rule["for"])
    return yaml.safe_dump(groups)


def _shorter(duration: str) -> str:
    return f"{int(duration[:-1]) * SECONDS[duration[-1]] * 1000 // SCALE}ms"


class Prometheus:
    """The running Prometheus."""

    def __init__(self, folder: Path, *, api_server: str, ca: Path, token: str, pods: Callable[[], list[Pod]]) -> None:
        self._folder = folder
        self._pods = pods
        self._targets = folder / "targets.json"
        self._stop = threading.Event()
        self.began = 0.0
        folder.mkdir()
        (folder / "token").write_text(token)
        (folder / "alerts.yaml").write_text(scaled(ALERTS.read_text()))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(self._configuration(api_server, ca)))
        self._targets.write_text("[]")
        self.process = Process(
            "prometheus",
            [
                binaries("prometheus")["prometheus"],
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={ADDRESS[0]}:{ADDRESS[1]}",
                "--log.level=warn",
            ],
            log=folder.parent / "log" / "prometheus.log",
            environment={"GOMAXPROCS": "1"},
        )
        self._thread = threading.Thread(target=self._follow, name="targets")

    def _configuration(self, api_server: str, ca: Path) -> dict[str, Any]:
        webhook = {"job_name": "client-ip-webhook", "file_sd_configs": [{"files": [str(self._targets)]}]}
        api = {
            "job_name": API_SERVER,
            "scheme": "https",
            "authorization": {"credentials_file": str(self._folder / "token")},
            "tls_config": {"ca_file": str(ca)},
            "static_configs": [{"targets": [api_server.removeprefix("https://")]}],
            "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": KEPT, "action": "keep"}],
        }
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [str(self._folder / "alerts.yaml")],
            "scrape_configs": [webhook, api],
        }

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.process.start()
        self._thread.start()
        self.process.wait_until(lambda: self._get("/-/ready") is not None, what="Prometheus", seconds=READY_SECONDS)
        self.began = time.time()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.process.kill()

    def _follow(self) -> None:
        """Tell it of pods as they come and go, as the operator's service discovery does."""
        written = None
        while not self._stop.wait(0.1):
            found = [
                {
                    "targets": [f"{pod.address}:{pod.probes['readiness'].port}"],
                    "labels": {"namespace": "client-ip-system", "pod": pod.name},
                }
                for pod in list(self._pods())
            ]
            if found != written:
                new = self._targets.with_suffix(".new")
                new.write_text(json.dumps(found))
                new.rename(self._targets)
                written = found

    # --- What it knows

    def _get(self, path: str, **query: str | float) -> Any:
        connection = http.client.HTTPConnection(*ADDRESS, timeout=30)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"Prometheus answered {path} with {answer.status}: {body[:300]!r}")
            return json.loads(body)["data"] if path.startswith("/api/") else body
        finally:
            connection.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression is now."""
        found: list[dict[str, Any]] = self._get("/api/v1/query", query=expression)["result"]
        return found

    def settle(self) -> None:
        """Return when the alerts rest on what the API server and the replicas say after this was called."""
        now = time.time()

        def settled() -> bool:
            targets = self._get("/api/v1/targets", state="active")["activeTargets"]
            scraped = [_time(target["lastScrape"]) for target in targets]
            if not scraped or min(scraped) <= now:
                return False
            groups = self._get("/api/v1/rules", type="alert")["groups"]
            return all(_time(group["lastEvaluation"]) > max(scraped) for group in groups)

        wait_until(settled, what="Prometheus to look", seconds=FIRE_SECONDS, passing=(OSError,))

    def active(self) -> dict[str, float]:
        """Return the alerts that are pending or firing, and since when."""
        found: dict[str, float] = {}
        for alert in self._get("/api/v1/alerts")["alerts"]:
            name = alert["labels"]["alertname"]
            found[name] = min(found.get(name, time.time()), _time(alert["activeAt"]))
        return found

    def firing(self, name: str) -> bool:
        """Return whether an alert fires now."""
        return bool(self.query(f'ALERTS{{alertname="{name}",alertstate="firing"}}'))

    def fired(self, since: float) -> set[str]:
        """Return the alerts that fired at any time since then."""
        seconds = max(1, int(time.time() - since))
        found = self.query(f'count by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{seconds}s]))')
        return {each["metric"]["alertname"] for each in found}

    # --- The dashboard

    def dashboard(self) -> Iterator[dict[str, Any]]:
        """Yield each panel with what its expressions were from the start until now."""
        now = time.time()
        run = f"{int(now - self.began)}s"
        step = max(1.0, (now - self.began) / POINTS)
        for panel in panels():
            series = []
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$namespace", ".*")
                expression = expression.replace("[24h]", f"[{run}]")
                if panel["type"] == "timeseries":
                    read = self._get(
                        "/api/v1/query_range", query=expression, start=self.began, end=now, step=f"{step:.3f}"
                    )["result"]
                else:
                    read = [{"metric": each["metric"], "values": [each["value"]]} for each in self.query(expression)]
                series += [{**each, "legend": target.get("legendFormat", "")} for each in read]
            yield {**{key: panel[key] for key in ("title", "type", "gridPos", "fieldConfig")}, "series": series}


class Watched:
    """What Prometheus said of one fault."""

    def __init__(self, prometheus: Prometheus) -> None:
        """Begin: what is active by now belongs to what was before, and is neither asked for nor held against it."""
        self._prometheus = prometheus
        prometheus.settle()
        self._since = time.time()
        self._before = frozenset(prometheus.active())

    def over(self, *, required: Collection[str], allowed: Collection[str]) -> tuple[str, ...]:
        """
        Return the alerts that it raised, sorted, once all that are pending have fired or are gone.

        Raises:
            AssertionError: One is missing, or one fired that neither is *required* nor *allowed*.

        """
        prometheus = self._prometheus
        prometheus.settle()
        must = set(required) - self._before
        may = {*required, *allowed, *ALWAYS_ALLOWED} | self._before

        def told() -> bool:
            fired = prometheus.fired(self._since)
            return must <= fired and not set(prometheus.active()) - fired - may

        end = time.monotonic() + FIRE_SECONDS
        while not told() and time.monotonic() < end:
            time.sleep(0.2)  # between questions: Prometheus evaluates once a second
        fired = prometheus.fired(self._since)
        assert must <= fired, f"these did not fire: {sorted(must - fired)}; active: {prometheus.active()}"
        assert fired <= may, f"these fired: {sorted(fired - may)}; active: {prometheus.active()}"
        return tuple(sorted(fired - self._before))


def _time(text: str) -> float:
    """Return a time of Prometheus', which has nanoseconds, in Unix time; one that never was is long ago."""
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return (moment - datetime.fromisoformat("1970-01-01T00:00:00Z")) / timedelta(seconds=1)
