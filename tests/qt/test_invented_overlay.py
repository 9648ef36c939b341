"""A kind of map that nobody has heard of is shown, listed, read and written from its description alone."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.settings import Settings
from napari_her2._napari.tags import tag_of
from napari_her2._napari.tile import TileLookup
from napari_her2._qt.scoring.result_panel import ResultPanel
from napari_her2.explain.maps import TileMap
from napari_her2.explain.overlays import Column, Outlined, OverlayInfo, Ranking, TileWords
from napari_her2.export.kept_result import KEPT_NAME, read_kept
from napari_her2.export.tables import write_result
from napari_her2.methods.catalogue import METHODS
from scored import CLASSES, make_result, make_slide

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_her2._napari.session import Session
    from napari_her2.inference.result import SlideResult
    from scored import HandSlide

SHARE = OverlayInfo(
    "share of cells",
    title="Share of cells",
    layer_name="share of {class_name} cells",
    meaning="How many of the cells of each tile are {class_name}, in per cent.",
    unit="%",
    limits=(0.0, 100.0),
    visible=True,
    order=5,
    hover=Column("share {class_name}", decimals=1),
    exported=Column("cells_percent_{class_name}", decimals=2),
    words=TileWords("{class_name} {value:.0f} %", before="Cells: ", short="greatest"),
    outlined=Outlined("Cells: {class_name}", "cells {class_name} (%)", (1, 2, 3), above=50),
)
DENSITY = OverlayInfo(
    "cell density",
    title="Cell density",
    layer_name="cell density",
    meaning="Cells a square millimetre.",
    unit="cells/mm²",
    order=6,
)
FOCUS = OverlayInfo(
    "focus",
    title="Focus",
    layer_name="focus",
    meaning="Whether each tile is in focus.",
    order=7,
    hover=Column("focus", decimals=0),
).of_categories(("sharp", "blurred"))
CENTRES = OverlayInfo(
    "centres",
    title="Centres",
    layer_name="cell centres",
    meaning="Where a nucleus was found.",
    colours="#112233",
    visible=True,
    order=8,
    depth=45,
)


@dataclass(frozen=True, eq=False)
class Centres:
    """A geometry of its own, which a method brings along."""

    points_px0: np.ndarray
    info: OverlayInfo = CENTRES
    class_name: str | None = None

    def layer_data(self, mpp: tuple[float, float]) -> tuple[Any, dict[str, Any], str]:
        return self.points_px0 * np.array(mpp), {"size": 5, "face_color": self.info.colours}, "points"


def invented(slide: HandSlide) -> SlideResult:
    """Result of a method with shares of cells a class, their density on two scales, focus, and centres."""
    result = make_result(slide)
    index, grid = result.table.index, result.grid
    count = len(index)

    def painted(info: OverlayInfo, values: np.ndarray, name: str | None = None) -> TileMap:
        return TileMap(info, grid.paint(index, values), grid, name)

    shares = [painted(SHARE, np.linspace(0, 100 - 20 * of, count), name) for of, name in enumerate(CLASSES)]
    density = painted(DENSITY, np.arange(count, 0, -1.0))
    ranks = density.percentile()
    ranks = replace(ranks, info=replace(ranks.info, ranking=Ranking("density", "crowded")))
    focus = painted(FOCUS, np.arange(count) % 2)
    own = replace(
        result.slides[0],
        maps=(*shares, density, ranks, focus),
        extras=(Centres(np.array([[10.0, 20.0], [30.0, 40.0]])),),
    )
    return replace(result, slides=(own,))


@pytest.fixture
def shown(qtbot: QtBot) -> tuple[ResultPanel, Session, SlideResult]:
    viewer, slide = ViewerModel(), make_slide()
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    panel = ResultPanel(session, Settings())
    qtbot.addWidget(panel)
    result = invented(slide)
    session.set_result(result, OverlayLook())
    panel.show_slide(result.slide_id)
    yield panel, session, result
    panel.shutdown()


def test_each_has_a_layer_in_its_place_with_its_colours_and_its_bar(shown) -> None:
    _, session, result = shown
    overlays = session.overlays(result.slide_id)
    kinds = [tag_of(layer).kind for layer in overlays.layers()]
    assert kinds == ["focus", "cell density", "share of cells", "top tiles", "centres", "tiles"]
    share = overlays.layer("share of cells")
    assert share.name == "share of 2+ cells · case-1"
    assert (share.visible, share.colorbar.visible, share.contrast_limits) == (True, True, [0, 100])
    assert not overlays.layer("cell density").visible
    assert not overlays.layer("focus").colorbar.visible
    assert overlays.layer("top tiles").name == "12 most crowded tiles · case-1"
    centres = overlays.layer("centres")
    np.testing.assert_allclose(centres.data, [[5, 10], [15, 20]])
    assert [str(unit) for unit in centres.units] == ["micrometer", "micrometer"]


def test_each_has_a_box_that_says_what_it_means_and_the_choices_that_it_needs(shown) -> None:
    panel, session, result = shown
    controls = panel.overlays
    assert list(controls.boxes) == ["share of cells", "cell density", "focus", "centres", "top tiles"]
    assert "in per cent" in controls.boxes["share of cells"].toolTip()
    for name in ("sharp", "blurred"):
        assert name in controls.legends["focus"].text()
    overlays = session.overlays(result.slide_id)
    controls.boxes["focus"].click()
    assert overlays.layer("focus").visible
    choice = controls.classes["share of cells"]
    choice.setCurrentIndex(choice.findData("0"))
    choice.activated.emit(choice.currentIndex())
    assert overlays.layer("share of cells").name.startswith("share of 0 cells")
    assert np.nanmax(overlays.layer("share of cells").data) == 100
    scale = controls.scales["cell density"]
    assert [scale.itemText(at) for at in range(scale.count())] == ["cells/mm²", "percentile"]
    scale.setCurrentIndex(1)
    scale.activated.emit(1)
    assert overlays.layer("cell density").contrast_limits == [0, 1]
    controls.opacity.setValue(30)
    assert overlays.layer("share of cells").opacity == pytest.approx(0.3)
    assert overlays.layer("centres").opacity == 1


def test_each_is_read_under_the_cursor_and_of_a_tile(shown) -> None:
    panel, session, result = shown
    viewer = session.viewer
    viewer.layers.selection.active = session.layer_of(result.slide_id)
    viewer.mouse_over_canvas = True
    viewer.cursor.position = (190, 290)  # the last tile
    status = viewer.status["coordinates"]
    assert "share 0: 100, share 1+: 80, share 2+: 60, share 3+: 40, focus: blurred" in status
    lookup = TileLookup(result)
    assert lookup.short_words(95) == "0 100 %"
    assert "Cells: 0 100 %, 1+ 80 %, 2+ 60 %, 3+ 40 %" in lookup.words(95)
    assert "density: rank 1 of 96" in lookup.words(0)
    assert panel.tiles.inspector.next.text() == "Less crowded ▶"
    assert [strip.title for strip in panel.tiles.gallery.strips] == ["most crowded", "least crowded"]


def test_each_is_written_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invented(make_slide())
    monkeypatch.setattr(type(METHODS[result.method]), "drawings", (Centres,))
    folder = write_result(result, tmp_path)
    (centres,) = read_kept(folder / KEPT_NAME).slides[0].extras
    np.testing.assert_array_equal(centres.points_px0, [[10, 20], [30, 40]])
    with (folder / "tiles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[-1][f"cells_percent_{name}"] for name in CLASSES] == ["100.00", "80.00", "60.00", "40.00"]
    with np.load(folder / "maps.npz") as maps:
        np.testing.assert_array_equal(maps["share_of_cells_2+"], result.map("share of cells", "2+").values)
        assert {"cell_density", "cell_density_percentile", "focus"} <= set(maps.files)
    regions = json.loads((folder / "regions.geojson").read_text(encoding="utf-8"))["features"]
    outlined = [of["properties"] for of in regions if of["properties"]["name"].startswith("Cells: 2+")]
    assert len(outlined) == 16  # above 50 %
    assert outlined[0]["measurements"] == {"rank": 1, "cells 2+ (%)": 60}
