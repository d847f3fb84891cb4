"""The real parts that this suite shares, each started once."""

import secrets
from collections.abc import Iterator

import pytest

from tests.cases.case import Case
from tests.parts.kube import VERSIONS, ControlPlane
from tests.parts.oracle import Oracle


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on the minor that was asked for; the newest is what users of `make test` wait for."""
    if "control_plane" in metafunc.fixturenames:
        minor = metafunc.config.getoption("--kubernetes")
        metafunc.parametrize("control_plane", [minor], indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave the variants of a test after its first to `make test-slow`, where the module says that they are slow.

    On another minor than the newest, what has run with the newest already is left out.
    """
    if config.getoption("--kubernetes") != VERSIONS[0]:
        items[:] = [item for item in items if "control_plane" in getattr(item, "fixturenames", ())]
    seen: set[tuple[object, ...]] = set()
    for item in items:
        if isinstance(item, pytest.Function) and getattr(item.module, "VARIANTS_ARE_SLOW", False):
            key = (item.path, item.originalname, *_kind_of(item))
            if key in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(key)


def _kind_of(item: pytest.Function) -> tuple[object, ...]:
    """Return what a variant is the first of: of the cases, which all run without an API server too, one a reason."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return (case.expect.reason, case.object["kind"]) if isinstance(case, Case) else ()


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane; tests share it, each in a namespace."""
    with ControlPlane(request.param, tmp_path_factory.mktemp("kube")) as plane:
        yield plane


@pytest.fixture(scope="session")
def scheduler(control_plane: ControlPlane) -> ControlPlane:
    """The same, from now on with kube-scheduler."""
    control_plane.start_scheduler()
    return control_plane


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
