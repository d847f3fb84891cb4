"""Files that are made from others are what they would be made today."""

from tests.deploy.manifests import (
    CHART,
    CHARTED_CRD,
    CRD,
    INSTALL,
    NAMESPACE,
    charted_files,
    documents,
    install_manifest,
    render,
)


def test_install_yaml_is_what_make_manifests_writes() -> None:
    assert INSTALL.read_text() == install_manifest(), "run `make manifests` and commit what it wrote"


def test_install_yaml_is_the_namespace_and_the_default_render() -> None:
    first, *rest = documents(INSTALL.read_text())
    assert (first["kind"], first["metadata"]["name"]) == ("Namespace", NAMESPACE)
    assert rest == render()


def test_the_chart_carries_the_crd_that_the_command_prints() -> None:
    assert CHARTED_CRD.read_text() == CRD.read_text()


def test_the_chart_carries_the_files_that_the_command_prints_from() -> None:
    for name, text in charted_files().items():
        assert (CHART / "files" / name).read_text() == text, f"{name}: run `make manifests`"
