"""What is in the image, and that it runs as the chart runs it."""

import http.client
import json
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.image import build
from tests.image.container import USER, Container
from tests.parts.cache import ROOT
from tests.serve.server import POD, review
from webhook import __version__
from webhook.server.review import decode_response

CLUSTER: Final = ROOT / "examples" / "cluster"
JSON: Final = ROOT / "build" / "image.json"
SERVE: Final = (
    *("serve", "--listen", "127.0.0.1:0", "--probe-listen", "127.0.0.1:0", "--drain-seconds", "0"),
    *("--tls-self-signed", "--ca-out", "/tmp/ca.pem", "--state", "/mnt"),
)
FORBIDDEN: Final = ("pip", "pip3", "gcc", "cc", "g++", "make", "go", "curl", "wget")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The image's files."""
    lacking = build.missing()
    if lacking:
        pytest.fail("make image-test lacks " + "; ".join(lacking), pytrace=False)
    build.build()
    container, folder = build.mount()
    yield folder
    build.buildah("umount", container)
    build.remove()


@pytest.fixture(scope="module")
def image(root: Path) -> dict[str, Any]:
    """The image's configuration; it exists once its files do."""
    assert root.is_dir()
    return build.inspect()


def test_the_configuration_is_what_a_cluster_needs(image: dict[str, Any]) -> None:
    config = image["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["client-ip"]
    assert config["Cmd"] == ["serve"]
    assert set(config["ExposedPorts"]) == {"8443/tcp", "8080/tcp"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "client-ip-webhook"
    assert labels["org.opencontainers.image.version"] == __version__
    assert {"revision", "created", "source", "licenses"} <= {each.rpartition(".")[2] for each in labels}


def test_nothing_in_it_builds_or_installs(root: Path) -> None:
    folders = [root / "usr/bin", root / "usr/local/bin", root / "opt/client-ip/bin"]
    found = {path.name for folder in folders if folder.exists() for path in folder.iterdir()}
    assert found.isdisjoint(FORBIDDEN)
    packages = root / "opt/client-ip/lib"
    assert not list(packages.rglob("site-packages/pip")) + list(packages.rglob("site-packages/setuptools"))
    assert not list((root / "var/lib/apt/lists").glob("*Packages*"))


def test_its_user_can_change_nothing(root: Path) -> None:
    """What runs is root's and written by nobody else."""
    for path in (root / "opt").rglob("*"):
        status = path.lstat()
        assert status.st_uid == 0, path
        assert stat.S_ISLNK(status.st_mode) or not status.st_mode & stat.S_IWOTH, path


def test_it_is_compiled_for_its_own_python(root: Path) -> None:
    """Unchecked bytecode (PEP 552, flags 1): nothing is written or looked at when it starts."""
    (packages,) = (root / "opt/client-ip/lib").glob("python3*/site-packages")
    for folder in ("webhook", "certs", "aiohttp"):
        sources = [path for path in (packages / folder).rglob("*.py") if "__pycache__" not in path.parts]
        assert sources
        for source in sources:
            (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
            assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00", compiled


def test_it_runs_as_the_chart_runs_it(root: Path, image: dict[str, Any], tmp_path: Path) -> None:
    """Its own user, a read-only root, no capability; ready, and one real review over real TLS."""
    with Container(root, image["config"], SERVE, state=CLUSTER, log=tmp_path / "log") as container:
        address, probes = container.addresses()
        while not _ready(probes):
            assert time.monotonic() < container.started + 30, container.log.read_text()
            time.sleep(0.01)
        seconds = time.monotonic() - container.started
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{container.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == [str(USER)] * 4
        assert status["Gid"].split() == [str(USER)] * 4
        assert int(status["CapEff"], 16) == 0
        mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
        (own,) = [line.split() for line in mounts if line.split()[4] == "/"]
        assert "ro" in own[5].split(","), own
        assert container.pid != 0

        context = ssl.create_default_context(cadata=Path(f"/proc/{container.pid}/root/tmp/ca.pem").read_text())
        connection = http.client.HTTPSConnection(*address, context=context, timeout=10)
        connection.request("POST", "/mutate?timeout=2s", json.dumps(review(POD)), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        response = decode_response(answer.read())
        connection.close()
        assert response["auditAnnotations"]["reason"] == "tproxy"
        assert len(response["patch"]) == 2
        resident = int(status["VmRSS"].split()[0]) / 1024
        assert container.terminate() == 0, container.log.read_text()
    size = build.size_of(root)
    base = build.base().stat().st_size
    figures = {
        "bytes": size,
        "base_bytes": base,
        "ready_seconds": round(seconds, 2),
        "resident_mib": round(resident, 1),
    }
    JSON.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"\nimage: {size / 1e6:.0f} MB ({(size - base) / 1e6:.0f} MB above its base), "
        f"ready in {seconds:.2f} s, {resident:.0f} MiB resident"
    )


def test_it_has_what_traces_need(root: Path, image: dict[str, Any], tmp_path: Path) -> None:
    arguments = (*SERVE, "--otlp-endpoint", "http://127.0.0.1:1")
    with Container(root, image["config"], arguments, state=CLUSTER, log=tmp_path / "log") as container:
        container.addresses()
        assert "sending at most 10 traces a second to http://127.0.0.1:1" in container.log.read_text()
        assert container.terminate() == 0, container.log.read_text()


def _ready(address: tuple[str, int]) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def test_it_reads_kubeconfigs_with_what_is_left_of_the_client(
    root: Path, image: dict[str, Any], tmp_path: Path
) -> None:
    """The Kubernetes client's models are not in the image: credentials and connections work without."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "config").write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"exec": EXEC}}],
            }
        )
    )
    (state / "pod.json").write_text(json.dumps(POD))
    arguments = ("check", "--kubeconfig", "/mnt/config", "/mnt/pod.json")
    with Container(root, image["config"], arguments, state=state, log=tmp_path / "log") as container:
        assert container.process.wait(60) == 1
        said = container.log.read_text()
    assert "the cluster cannot be read" in said
    assert "127.0.0.1:1" in said
    assert "Traceback" not in said


EXEC: Final = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": "/bin/sh",
    "args": [
        "-c",
        """echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}'""",
    ],
    "interactiveMode": "Never",
}
