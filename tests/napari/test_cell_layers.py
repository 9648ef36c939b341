"""Cells over a slide: layers that follow other rules in place, and the cell under the cursor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from cells_by_hand import reading_by_hand
from napari_her2._napari.cells import cell_at, show_cell
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2.cells.rules import Rules
from napari_her2.explain.cells import CELLS, CellBorders, cell_grid, cell_maps, levels_of, tiles_with_cells
from napari_her2.inference.result import TileTable
from scored import make_result, make_slide

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading
    from napari_her2.inference.result import SlideResult
    from scored import HandSlide

STRICT = Rules(completeness=(0.4, 0.8, 0.95), mass=(0.3, 0.6, 1.0))


def result_of(slide: HandSlide, reading: CellReading) -> SlideResult:
    """A result as a method makes it that reads cells."""
    result = make_result(slide)
    grid = cell_grid(slide.shape, slide.mpp)
    index = tiles_with_cells(reading, grid)
    own = replace(
        result.slides[0],
        table=TileTable(index, grid.origins_px0(index), None, None),
        maps=cell_maps(reading, grid),
        grid=grid,
        extras=(CellBorders(CELLS, reading),),
    )
    return replace(result, slides=(own,))


@pytest.fixture
def shown() -> tuple[ViewerModel, Session, HandSlide, CellReading]:
    viewer, slide = ViewerModel(), make_slide((1200, 1600))
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    layer = viewer.add_image(data, **options)
    viewer.layers.selection.active = layer
    reading = reading_by_hand(1500, columns=50, outside=0.1, regions=("Tumour 1", "Tumour 2"))
    session.set_result(result_of(slide, reading), OverlayLook())
    return viewer, session, slide, reading


def test_refreshing_changes_every_layer_in_place(shown) -> None:
    viewer, session, slide, reading = shown
    overlays = session.overlays(slide.slide_id)
    before = {tag_of(layer).kind: layer for layer in overlays.layers()}
    assert set(before) == {"cells", "cells of a class", "completeness", "cell density", "tiles"}
    before["completeness"].visible = True
    before["cells of a class"].opacity = 0.31
    viewer.layers.move(viewer.layers.index(before["cells"]), 1)
    order, old = list(viewer.layers), before["cells of a class"].data.copy()
    levels = levels_of(before["cells"])
    drawn = levels.levels[3][:200, :200]
    told = []
    session.result_changed.connect(told.append)

    strict = reading.judged_by(STRICT)
    session.refresh_result(result_of(slide, strict))

    assert list(viewer.layers) == order
    assert before["completeness"].visible
    assert before["cells of a class"].opacity == pytest.approx(0.31)
    assert told == [slide.slide_id]
    assert session.result(slide.slide_id).slides[0].extras[0].reading is strict
    expected = result_of(slide, strict).map("cells of a class", "2+").values
    np.testing.assert_array_equal(before["cells of a class"].data, expected)
    assert not np.array_equal(before["cells of a class"].data, old, equal_nan=True)
    assert levels_of(before["cells"]) is levels
    assert levels.reading is strict
    assert not np.array_equal(levels.levels[3][:200, :200], drawn)
    features = before["tiles"].features
    index = session.result(slide.slide_id).table.index
    np.testing.assert_allclose(
        features["2+ and above (%)"].to_numpy()[1:], np.round(expected[index[:, 0], index[:, 1]])
    )


def test_the_cell_under_the_cursor_is_told_instead_of_the_tile(shown) -> None:
    viewer, session, slide, reading = shown
    viewer.mouse_over_canvas = True
    viewer.scene.camera.zoom = 1.0
    number = int(np.flatnonzero(reading.counted)[700])
    y, x = reading.cells.centre_um[number] - 0.25
    assert cell_at(session, slide.slide_id, (y, x)) == number
    viewer.cursor.position = (y, x)
    status = viewer.status["coordinates"]
    assert f" · cell {number + 1:,}: " in status
    assert "tile" not in status
    assert f"region {('Tumour 1', 'Tumour 2')[reading.region[number]]}" in status
    borders = session.overlays(slide.slide_id).layer("cells")
    borders.visible = False
    viewer.cursor.position = (y, x + 0.1)
    assert " · tile " in viewer.status["coordinates"]


def test_showing_a_cell_moves_there_and_marks_it(shown) -> None:
    viewer, session, slide, reading = shown
    borders = session.overlays(slide.slide_id).layer("cells")
    borders.visible = False
    show_cell(session, slide.slide_id, 321)
    np.testing.assert_allclose(viewer.scene.camera.center[1:], reading.cells.centre_um[321] - 0.25, atol=1e-3)
    assert levels_of(borders).marked == 321
    assert borders.visible
    assert viewer.scene.camera.zoom >= 6
