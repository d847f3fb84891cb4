"""The real parts that this suite shares, each started once."""

import secrets
from collections.abc import Iterator

import pytest

from tests.parts.kube import VERSIONS, ControlPlane
from tests.parts.oracle import Oracle


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
