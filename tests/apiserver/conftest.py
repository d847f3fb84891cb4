"""The real parts that this suite shares, each started once."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.kube import VERSIONS, ControlPlane
from tests.parts.oracle import Oracle


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares a control plane in one process, where `pytest -n` runs several."""
    for item in items:
        call = getattr(item, "callspec", None)
        version = call.params.get("control_plane") if call is not None else None
        group = item.path.stem if version is None else f"control-plane-{version}"
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", params=VERSIONS)
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with a scheduler, of each supported end of the range; tests share it, each in a namespace."""
    with ControlPlane(request.param, tmp_path_factory.mktemp("kube"), scheduler=True) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A new namespace; nobody deletes it, since the control plane goes away whole."""
    name = f"test-{secrets.token_hex(4)}"
    with control_plane.client() as client:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """kube-scheduler's own filters."""
    with Oracle() as running:
        yield running
