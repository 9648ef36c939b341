"""Cells over a slide: layers that follow other rules in place, and the cell under the cursor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from cell_results import make_cell_result
from cells_by_hand import reading_by_hand
from napari_her2._napari.cells import cell_at, show_cell
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2.cells.rules import Rules
from napari_her2.explain.cells import levels_of
from scored import make_result, make_slide

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading
    from scored import HandSlide

STRICT = Rules(completeness=(0.4, 0.8, 0.95), mass=(0.3, 0.6, 1.0))


def drawn_at(borders: Image, position: tuple[float, float] | np.ndarray) -> np.ndarray:
    """Place on the slide, µm, whose cells are drawn at a place in the window."""
    levels = levels_of(borders)
    return (np.asarray(borders.world_to_data(position))[-2:] + 0.5) * levels.pixel_um + levels.origin_um


@pytest.fixture
def shown() -> tuple[ViewerModel, Session, HandSlide, CellReading]:
    viewer, slide = ViewerModel(), make_slide((1200, 1600))
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    layer = viewer.add_image(data, **options)
    viewer.layers.selection.active = layer
    reading = reading_by_hand(1500, columns=50, outside=0.1, regions=("Tumour 1", "Tumour 2"))
    session.set_result(make_cell_result(slide, reading), OverlayLook())
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
    session.refresh_result(make_cell_result(slide, strict))

    assert list(viewer.layers) == order
    assert before["completeness"].visible
    assert before["cells of a class"].opacity == pytest.approx(0.31)
    assert told == [slide.slide_id]
    assert session.result(slide.slide_id).slides[0].cells is strict
    expected = make_cell_result(slide, strict).map("cells of a class", "2+").values
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


def test_between_cells_and_from_afar_the_tile_is_told(shown) -> None:
    viewer, session, slide, _ = shown
    viewer.mouse_over_canvas = True
    viewer.scene.camera.zoom = 1.0
    gap = next(
        (y, x)
        for y in np.arange(60, 90, 1.0)
        for x in np.arange(60, 90, 1.0)
        if cell_at(session, slide.slide_id, (y, x)) < 0
    )
    viewer.cursor.position = gap
    assert " · tile " in viewer.status["coordinates"]
    number = 700
    viewer.scene.camera.zoom = 0.1  # 10 µm a screen pixel: cells are not drawn
    viewer.cursor.position = session.result(slide.slide_id).slides[0].cells.cells.centre_um[number]
    assert " · tile " in viewer.status["coordinates"]
    assert cell_at(session, slide.slide_id, (1e5, 1e5)) == cell_at(session, "another", gap) == -1


def test_cells_follow_a_slide_that_is_moved_and_turned(shown) -> None:
    viewer, session, slide, reading = shown
    layer = session.layer_of(slide.slide_id)
    layer.affine = np.array([[0, -1, 900], [1, 0, 50], [0, 0, 1.0]])
    y, x = reading.cells.centre_um[321] - 0.25
    there = (900 - x, 50 + y)
    assert cell_at(session, slide.slide_id, there) == 321
    borders = session.overlays(slide.slide_id).layer("cells")
    place = np.asarray(borders.world_to_data(there))[-2:] + 0.5
    levels = levels_of(borders)
    np.testing.assert_allclose(
        place * levels.pixel_um + levels.origin_um, reading.cells.centre_um[321], atol=1e-3
    )
    show_cell(session, slide.slide_id, 321)
    np.testing.assert_allclose(viewer.scene.camera.center[1:], there, atol=1e-3)


def test_the_map_of_classes_steps_back_near_cells_unless_it_is_asked_for(shown) -> None:
    viewer, session, slide, _ = shown
    overlays = session.overlays(slide.slide_id)
    share, other = overlays.layer("cells of a class"), overlays.layer("completeness")
    viewer.scene.camera.zoom = 0.1
    assert share.opacity == pytest.approx(0.6)
    assert share.colorbar.visible
    viewer.scene.camera.zoom = 2.0
    assert share.opacity == 0
    assert not share.colorbar.visible
    assert other.opacity == pytest.approx(0.6)
    overlays.set_opacity(0.3)
    assert share.opacity == 0
    viewer.scene.camera.zoom = 0.1
    assert share.opacity == pytest.approx(0.3)
    viewer.scene.camera.zoom = 2.0
    overlays.set_visible("cells of a class", False)
    overlays.set_visible("cells of a class", True)
    assert share.opacity == pytest.approx(0.3)
    viewer.scene.camera.zoom = 4.0
    assert share.opacity == pytest.approx(0.3)


def test_a_class_that_is_chosen_near_cells_is_seen(shown) -> None:
    viewer, session, slide, _ = shown
    overlays = session.overlays(slide.slide_id)
    share = overlays.layer("cells of a class")
    viewer.scene.camera.zoom = 2.0
    assert share.opacity == 0
    overlays.set_class("cells of a class", "3+")
    assert share.name.startswith("3+ (%)")
    assert share.opacity == pytest.approx(0.6)
    np.testing.assert_array_equal(share.data, overlays.result.map("cells of a class", "3+").values)


def test_zooming_near_leaves_an_opacity_that_the_user_gave_a_layer(shown) -> None:
    viewer, session, slide, _ = shown
    share = session.overlays(slide.slide_id).layer("cells of a class")
    viewer.scene.camera.zoom = 0.1
    share.opacity = 0.9
    viewer.scene.camera.zoom = 0.05
    assert share.opacity == pytest.approx(0.9)


def test_other_cells_are_put_where_they_lie(shown) -> None:
    _, session, slide, reading = shown
    borders = session.overlays(slide.slide_id).layer("cells")
    other = reading_by_hand(40, seed=8, columns=8, origin_um=(200.0, 300.0))
    session.refresh_result(make_cell_result(slide, other))
    levels = levels_of(borders)
    assert levels.reading is other
    place = np.asarray(borders.world_to_data(other.cells.centre_um[7] - 0.25))[-2:] + 0.5
    np.testing.assert_allclose(
        place * levels.pixel_um + levels.origin_um, other.cells.centre_um[7], atol=1e-3
    )
    assert borders.contrast_limits == [0, 255]
    assert reading.cells is not other.cells


def test_what_is_refreshed_is_a_slide_that_is_shown(shown) -> None:
    viewer, session, slide, reading = shown
    told = []
    session.result_changed.connect(told.append)
    session.refresh_result(make_cell_result(make_slide(name="never scored"), reading))
    viewer.layers.remove(session.layer_of(slide.slide_id))
    session.refresh_result(make_cell_result(slide, reading.judged_by(STRICT)))
    assert told == []
    assert session.result(slide.slide_id) is None


def test_a_layer_that_the_user_removed_stays_away(shown) -> None:
    viewer, session, slide, reading = shown
    viewer.layers.remove(session.overlays(slide.slide_id).layer("cells"))
    session.refresh_result(make_cell_result(slide, reading.judged_by(STRICT)))
    assert session.overlays(slide.slide_id).layer("cells") is None
    show_cell(session, slide.slide_id, 3)  # there is nothing to mark


def test_frames_and_outlines_are_refreshed_as_well() -> None:
    viewer, slide = ViewerModel(), make_slide()
    session = session_of(viewer)
    data, options, _ = slide_layer(slide)
    viewer.add_image(data, **options)
    result = make_result(slide)
    session.set_result(result, OverlayLook())
    overlays = session.overlays(slide.slide_id)
    frames = overlays.layer("top tiles")
    first = np.array(frames.data[0])
    maps = tuple(
        replace(of, values=(1 + of.grid.tile_um / of.grid.tile_um - of.values))
        if of.kind == "attention"
        else of
        for of in result.maps
    )
    turned = replace(result, slides=(replace(result.slides[0], maps=maps),))
    session.refresh_result(turned)
    assert overlays.layer("top tiles") is frames
    assert len(frames.data) == 12
    assert not np.array_equal(frames.data[0], first)
    np.testing.assert_array_equal(frames.features["rank"], np.arange(1, 13))
    assert not frames.editable


def test_showing_a_cell_moves_there_and_marks_it(shown) -> None:
    viewer, session, slide, reading = shown
    borders = session.overlays(slide.slide_id).layer("cells")
    borders.visible = False
    show_cell(session, slide.slide_id, 321)
    np.testing.assert_allclose(viewer.scene.camera.center[1:], reading.cells.centre_um[321] - 0.25, atol=1e-3)
    assert levels_of(borders).marked == 321
    assert borders.visible
    assert viewer.scene.camera.zoom >= 6
