"""The dashboard says what each panel shows, in units, from whatever data source the reader has."""

from typing import Any

import pytest

from tests.monitoring.picture import PICTURE, titles_of
from tests.monitoring.shipped import dashboard, panels


def test_it_has_a_name_of_its_own_and_leaves_the_data_source_to_the_reader() -> None:
    read = dashboard()
    assert read["uid"] == "client-ip-webhook"
    assert [each["name"] for each in read["templating"]["list"]] == ["datasource", "namespace"]
    ids = [panel["id"] for panel in read["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_has_a_description_a_unit_and_an_expression(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["expr"]
        assert target["datasource"]["uid"] == "${datasource}"


def test_panels_do_not_overlap_and_fit_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_picture_in_the_documentation_shows_every_panel() -> None:
    """It is drawn by `make dashboard`; a panel that is new or renamed needs a new one."""
    assert titles_of(PICTURE.read_bytes()) == [panel["title"] for panel in panels()]
    assert PICTURE.stat().st_size < 200_000
