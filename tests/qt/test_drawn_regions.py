"""Regions of a slide in the dock: their kinds, their files, and what is handed to a scoring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import shapely
from driving import score
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_her2._napari.region_kinds import kinds_of, names_of
from napari_her2.inference.regions import read_named_regions
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Shapes
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2._qt.scoring.region_editor import RegionEditor

SQUARE = np.array([[10, 20], [10, 60], [50, 60], [50, 20]], float) - 0.5


@pytest.fixture
def dock(make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]) -> ScoringDock:
    dock = make_dock()
    add_slide(make_slide())
    return dock


def choose(editor: RegionEditor, text: str) -> None:
    at = editor.kind.findText(text)
    assert at >= 0, text
    editor.kind.setCurrentIndex(at)
    editor.kind.activated.emit(at)


def add_layer(dock: ScoringDock, viewer: ViewerModel) -> Shapes:
    dock.regions.add.click()
    layer = viewer.layers.selection.active
    assert layer.mode == "add_polygon"
    return layer


def finish_drawing(layer: Shapes, shift: float = 0.0) -> None:
    """As napari does with the mouse: the new shape is selected."""
    layer.add(SQUARE + shift, shape_type="polygon", gui=True)
    layer.selected_data = {layer.nshapes - 1}
    layer.events.data(value=layer.data, action="added", data_indices=(-1,), vertex_indices=((),))
    layer.events.features()


def write(path: Path, *regions: tuple[str, str, shapely.Polygon]) -> Path:
    """A file as QuPath exports it."""
    features = []
    for name, named_class, polygon in regions:
        properties: dict[str, object] = {"objectType": "annotation", "name": name}
        if named_class:
            properties["classification"] = {"name": named_class, "color": [200, 0, 0]}
        geometry = shapely.geometry.mapping(polygon)
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def load(qtbot: QtBot, dock: ScoringDock, path: Path) -> None:
    with qtbot.waitSignal(dock.regions.load_job.running_changed, check_params_cb=lambda running: not running):
        dock.regions.load_file(path)


def test_the_kind_is_that_of_the_next_region_while_drawing(dock: ScoringDock, viewer: ViewerModel) -> None:
    layer, editor = add_layer(dock, viewer), dock.regions.editor
    assert editor.isVisibleTo(dock)
    assert (editor.subject.text(), editor.kind.currentText()) == ("Next", "tumour")
    finish_drawing(layer)
    choose(editor, "DCIS (left out)")  # the one just drawn is selected, and stays what it is
    finish_drawing(layer, 60)
    choose(editor, "control tissue 3+ (left out)")
    finish_drawing(layer, 120)
    assert list(zip(kinds_of(layer), names_of(layer), strict=True)) == [
        ("tumour", "tumour 1"),
        ("dcis", "DCIS 1"),
        ("control", "3+"),
    ]
    assert editor.summary.text() == "1 tumour region; left out: 1 DCIS, 1 control tissue"


def test_the_kind_is_that_of_what_is_selected_otherwise(dock: ScoringDock, viewer: ViewerModel) -> None:
    layer, editor = add_layer(dock, viewer), dock.regions.editor
    for number in range(3):
        finish_drawing(layer, 60 * number)
    layer.mode = "select"
    layer.selected_data = {1}
    assert (editor.subject.text(), editor.name.text()) == ("Selected", "tumour 2")
    choose(editor, "necrosis (left out)")
    assert kinds_of(layer) == ["tumour", "necrosis", "tumour"]
    editor.name.setText("the middle")
    editor.name.editingFinished.emit()
    assert names_of(layer) == ["tumour 1", "the middle", "tumour 3"]
    layer.selected_data = {0, 1}
    assert editor.subject.text() == "2 selected"
    assert editor.kind.currentIndex() == -1  # they differ
    assert editor.name.text() == ""
    editor.name.editingFinished.emit()  # nothing was typed: nothing changes
    assert names_of(layer) == ["tumour 1", "the middle", "tumour 3"]
    layer.selected_data = set()
    assert (editor.subject.text(), editor.kind.currentText()) == ("Next", "tumour")
    assert not editor.name.isEnabled()


def test_a_scoring_is_handed_what_is_left_out(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, asked: list[dict[str, object]]
) -> None:
    layer, editor = add_layer(dock, viewer), dock.regions.editor
    finish_drawing(layer)
    choose(editor, "fold (left out)")
    finish_drawing(layer, 20)
    layer.mode = "pan_zoom"
    score(qtbot, dock)
    assert [(of.kind, of.name, of.included) for of in asked[0]["regions"]] == [
        ("tumour", "tumour 1", True),
        ("fold", "fold 1", False),
    ]


def test_a_layer_of_the_users_own_is_tumour_until_a_kind_is_given(
    dock: ScoringDock, viewer: ViewerModel
) -> None:
    layer = viewer.add_shapes([SQUARE, SQUARE + 60], shape_type="polygon", scale=(0.5, 0.5), name="mine")
    dock.regions.show_slide(dock.slides.slide_id, "mine")
    assert [of.kind for of in dock.regions.regions()] == ["tumour", "tumour"]
    assert "kind" not in layer.features.columns
    layer.mode = "select"
    layer.selected_data = {1}
    choose(dock.regions.editor, "other (left out)")
    assert [of.kind for of in dock.regions.regions()] == ["tumour", "other"]


def test_regions_of_qupath_come_with_names_and_kinds(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, tmp_path: Path
) -> None:
    holed = shapely.box(100, 50, 300, 250) - shapely.box(150, 100, 200, 150)
    path = write(
        tmp_path / "case.geojson",
        ("Invasive front", "Tumor", holed),
        ("duct", "DCIS", shapely.box(220, 60, 260, 90)),
        ("", "Ignore*", shapely.box(10, 10, 30, 30)),
        ("unclassified", "", shapely.box(400, 200, 450, 260)),
    )
    load(qtbot, dock, path)
    layer = dock.regions.layer
    assert layer.name == "regions · case.geojson"
    assert viewer.layers.selection.active is layer
    assert kinds_of(layer) == ["tumour", "dcis", "other", "tumour"]
    assert names_of(layer) == ["Invasive front", "duct", "other 1", "unclassified"]
    regions = dock.regions.regions()
    assert regions[0].area.symmetric_difference(holed).area < 1e-6
    assert not dock.message.isVisibleTo(dock)


def test_saved_regions_are_those_that_were_drawn(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, tmp_path: Path
) -> None:
    layer = add_layer(dock, viewer)
    finish_drawing(layer)
    choose(dock.regions.editor, "control tissue 0 (left out)")
    finish_drawing(layer, 100)
    path = tmp_path / "out.geojson"
    with qtbot.waitSignal(dock.regions.save_job.running_changed, check_params_cb=lambda running: not running):
        dock.regions.save_file(path)
    tumour, control = read_named_regions(path)
    assert (tumour.kind, tumour.name) == ("tumour", "tumour 1")
    assert (control.kind, control.name) == ("control", "0")
    assert tumour.polygon.bounds == pytest.approx((20, 10, 60, 50))
    assert control.polygon.bounds == pytest.approx((120, 110, 160, 150))


def test_a_file_that_is_dropped_is_shown_over_the_slide(
    qtbot: QtBot, dock: ScoringDock, tmp_path: Path
) -> None:
    path = write(tmp_path / "drop me.geojson", ("A", "Tumor", shapely.box(10, 10, 90, 90)))
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    with qtbot.waitSignal(dock.regions.load_job.running_changed, check_params_cb=lambda running: not running):
        dock.dropEvent(event)
    (region,) = dock.regions.regions()
    assert (region.name, region.polygon.area) == ("A", pytest.approx(6400))


def test_a_file_without_regions_is_refused_in_words(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, tmp_path: Path
) -> None:
    (tmp_path / "x.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    load(qtbot, dock, tmp_path / "x.geojson")
    assert "no polygon" in dock.message.text.text()
    assert dock.regions.layer_name == ""


def test_a_file_needs_a_slide(qtbot: QtBot, make_dock: Callable[[], ScoringDock], tmp_path: Path) -> None:
    dock = make_dock()
    dock.regions.load_file(write(tmp_path / "x.geojson", ("A", "", shapely.box(0, 0, 9, 9))))
    assert "Open the slide first" in dock.message.text.text()


def test_regions_of_a_slide_that_was_left_meanwhile_are_not_laid_over_another(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, add_slide: Callable[..., object], tmp_path: Path
) -> None:
    other = make_slide(name="case-2")
    add_slide(other)
    path = write(tmp_path / "x.geojson", ("A", "", shapely.box(0, 0, 9, 9)))
    with qtbot.waitSignal(dock.regions.load_job.running_changed, check_params_cb=lambda running: not running):
        dock.regions.load_file(path)
        dock.slides.choose(other.slide_id if dock.slides.slide_id != other.slide_id else "id of case-1")
    assert not [layer for layer in viewer.layers if layer.name.startswith("regions")]


def test_a_slide_that_is_closed_takes_its_editor_along(dock: ScoringDock, viewer: ViewerModel) -> None:
    layer = add_layer(dock, viewer)
    finish_drawing(layer)
    viewer.layers.remove(layer)
    assert not dock.regions.editor.isVisibleTo(dock)
    assert dock.regions.editor.layer is None
    layer.add(SQUARE, shape_type="polygon")  # nobody listens any more
