from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from driving import give_mpp, score, with_tissue

from napari_her2._napari.session import session_of
from napari_her2._napari.tags import tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring import model_shelf, result_panel
from napari_her2.desk.own_score import ManualScore
from napari_her2.errors import ModelMisfit, ModelNameTaken, SlideError
from napari_her2.models.card import NOTICE
from napari_her2.steps import Progress
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2.inference.result import SlideResult


def test_an_empty_viewer_says_what_to_do(make_dock: object) -> None:
    dock = make_dock()
    assert "Drop slides here" in dock.slides.facts.text()
    assert not dock.progress.start.isEnabled()
    assert dock.banner.text() == NOTICE
    assert "no CUDA" in dock.device.text()


def test_the_picker_lists_only_our_slides(make_dock: object, viewer: ViewerModel, add_slide: object) -> None:
    dock = make_dock()
    viewer.add_image(np.zeros((20, 20)), name="someone else's")
    layer = add_slide(make_slide())
    assert [dock.slides.combo.itemText(at) for at in range(dock.slides.combo.count())] == ["case-1"]
    for fact in ("600 × 400 px", "0.5 µm/px (given by the user)", "20× objective", "by hand 1.0"):
        assert fact in dock.slides.facts.text()
    assert dock.progress.start.isEnabled()
    viewer.layers.remove(layer)
    assert dock.slides.combo.count() == 0
    assert not dock.progress.start.isEnabled()


def test_missing_size_is_asked_for_and_never_guessed(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide(mpp=None))
    assert dock.slides.scale.panel.isVisibleTo(dock)
    assert dock.slides.scale.mpp.text() == "?"
    assert not dock.slides.scale.use.isEnabled()
    assert not dock.progress.start.isEnabled()
    assert "µm/px" in dock.progress.stage.text()
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path, mpp, **_: make_slide(mpp=mpp))
    give_mpp(dock, 0.25)
    np.testing.assert_allclose(layer.scale, (0.25, 0.25))
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert dock.progress.start.isEnabled()


def test_a_plain_jpeg_opens_in_the_dock_and_is_asked_for_its_size(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, tmp_path: Path
) -> None:
    dock = make_dock()
    path = tmp_path / "core.jpg"
    cv2.imwrite(str(path), np.full((300, 400, 3), (205, 180, 230), np.uint8))
    for _ in range(2):  # the second time it is open already
        with qtbot.waitSignal(dock.slides.opener.opened):
            dock.slides.opener.open_file(path)
        assert [layer.name for layer in viewer.layers] == ["core"]
    assert "400 × 300 px" in dock.slides.facts.text()
    assert dock.slides.scale.panel.isVisibleTo(dock)
    give_mpp(dock, 0.23)
    assert dock.slides.slide.mpp == (0.23, 0.23)
    np.testing.assert_allclose(viewer.layers[0].scale, (0.23, 0.23))
    assert dock.progress.start.isEnabled()


def test_a_file_that_is_no_slide_is_refused_in_words(qtbot: QtBot, make_dock: object, tmp_path: Path) -> None:
    dock = make_dock()
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing more")
    with qtbot.waitSignal(dock.slides.failed):
        dock.slides.opener.open_file(tmp_path / "cut.jpg")
    assert "cut.jpg cannot be read" in dock.message.text.text()


def test_a_size_that_cannot_be_right_is_refused_in_words(
    make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise SlideError("90 is no µm/px of a slide.")

    monkeypatch.setattr("napari_her2.slide.reader.open_slide", refuse)
    dock = make_dock()
    add_slide(make_slide(mpp=None))
    give_mpp(dock, 90)
    assert "no µm/px of a slide" in dock.message.text.text()


def test_the_model_card_is_shown(make_dock: object) -> None:
    dock = make_dock()
    assert "H&E-based prediction" in dock.models.summary.text()
    text = dock.models.card.text()
    for fact in ("Attention MIL", "60 synthetic cases", "macro AUC 0.97", "ASCO/CAP 2018", NOTICE):
        assert fact in text
    assert "Familiarity: not known" in text
    assert "Sets with a promise: no sets" in text
    assert not dock.models.card.isVisibleTo(dock)
    dock.models.more.click()
    assert dock.models.card.isVisibleTo(dock)


def test_a_score_is_shown_with_everything_that_belongs_to_it(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    slide = make_slide()
    add_slide(slide)
    score(qtbot, dock)
    assert asked[0]["slide"] is slide
    assert asked[0]["model"] == "hand-model"
    assert asked[0]["regions"] is None
    assert not asked[0]["override_fit"]
    card = dock.result.card
    assert card.task.text() == "H&E-based prediction of the HER2 IHC score"
    assert card.label.text() == "2+ (equivocal, ISH required)"
    assert "2+: 60%" in card.bars.accessibleName()
    assert "Margin over 1+: 40 percentage points" in card.facts.text()
    assert "96 tiles" in card.facts.text()
    assert "few tiles" in card.warnings.text()
    roles = [getattr(tag_of(layer), "kind", "slide") for layer in viewer.layers]
    assert roles == ["slide", "tissue", "evidence", "attention", "top tiles", "tiles"]
    assert viewer.layers.selection.active.name == "case-1"


def test_scoring_again_replaces_the_overlays_as_a_set(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    add_slide(make_slide())
    score(qtbot, dock)
    dock.result.overlays.opacity.setValue(30)
    names = [layer.name for layer in viewer.layers]
    score(qtbot, dock)
    assert [layer.name for layer in viewer.layers] == names
    attention = next(layer for layer in viewer.layers if "attention (" in layer.name)
    assert attention.opacity == pytest.approx(0.3)


def test_overlays_follow_the_controls(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    add_slide(make_slide())
    score(qtbot, dock)
    controls = dock.result.overlays

    def layer(role: str) -> object:
        return next(item for item in viewer.layers if getattr(tag_of(item), "kind", "") == role)

    assert controls.boxes["attention"].isChecked()
    controls.boxes["attention"].click()
    assert not layer("attention").visible
    controls.boxes["evidence"].click()
    assert layer("evidence").visible
    assert layer("evidence").colorbar.visible
    controls.classes["evidence"].setCurrentIndex(0)
    controls.classes["evidence"].activated.emit(0)
    assert layer("evidence").name.startswith("evidence for 0")
    low, high = layer("evidence").contrast_limits
    assert low == pytest.approx(-high)
    controls.scales["attention"].setCurrentIndex(1)
    controls.scales["attention"].activated.emit(1)
    np.testing.assert_allclose(np.nansum(layer("attention").data), 1, rtol=1e-5)
    controls.hold.pressed.emit()
    assert not any(item.visible for item in viewer.layers if "·" in item.name)
    controls.hold.released.emit()
    assert layer("evidence").visible
    assert not layer("attention").visible


def test_a_clicked_tile_is_shown_enlarged_with_its_numbers(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    slide = make_slide()
    slide.image[350:400, 550:600] = (10, 20, 30)
    add_slide(slide)
    score(qtbot, dock)
    panel = dock.result.tiles
    with qtbot.waitSignal(panel.tile_job.returned) as read:
        panel.pointer.clicked.emit((7.5 * 25, 11.5 * 25))
    (view,) = read.args
    assert view.pixels.shape == (100, 100, 3)
    assert (view.pixels[25:75, 25:75] == (10, 20, 30)).all()
    assert view.frame == (0.25, 0.25, 0.75, 0.75)
    assert "Row 7, column 11" in panel.inspector.numbers.text()
    assert "rank 1 of 96" in panel.inspector.numbers.text()
    panel.pointer.moved.emit((0.0, 0.0))
    assert "attention percentile 1," in panel.inspector.hover.text()
    panel.pointer.moved.emit((-50.0, 0.0))
    assert panel.inspector.hover.text() == ""


def test_a_damaged_tile_says_so_instead_of_showing_pixels(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]], monkeypatch: object
) -> None:
    def damaged(*place: object) -> None:
        raise SlideError("The file is damaged at y 10, x 20.")

    dock = make_dock()
    slide = make_slide()
    add_slide(slide)
    score(qtbot, dock)
    monkeypatch.setattr(slide, "read", damaged)
    with qtbot.waitSignal(dock.result.tiles.tile_job.failed):
        dock.result.tiles.inspect(3)
    assert "damaged at y 10" in dock.result.tiles.inspector.numbers.text()
    assert not dock.result.tiles.inspector.picture.isVisibleTo(dock)


def test_a_model_that_does_not_fit_can_be_used_all_the_same(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    overridden = []

    def scoring(
        slide: object, model: str, *, override_fit: bool, **options: object
    ) -> Generator[Progress, None, SlideResult]:
        yield Progress("Finding tissue")
        overridden.append(override_fit)
        if not override_fit:
            raise ModelMisfit("It does not fit this slide: choose another model.")
        return with_tissue(make_result(slide))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    add_slide(make_slide())
    score(qtbot, dock)
    assert "does not fit" in dock.message.text.text()
    assert dock.message.action.text() == "Score anyway"
    with qtbot.waitSignal(dock.score_job.returned):
        dock.message.action.click()
    assert overridden == [False, True]
    assert not dock.message.isVisibleTo(dock)


def test_an_error_that_cannot_be_overridden_offers_no_such_button(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        yield Progress("Finding tissue")
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    add_slide(make_slide())
    score(qtbot, dock)
    assert "CUDA out of memory" in dock.message.text.text()
    assert not dock.message.action.isVisibleTo(dock)
    assert not dock.message.details.isVisibleTo(dock)
    dock.message.details_button.click()
    assert dock.message.details.isVisibleTo(dock)
    assert dock.progress.start.isVisibleTo(dock)


def test_only_drawn_regions_are_scored(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    layer = add_slide(make_slide())
    layer.translate = (100.0, 50.0)
    dock.regions.add.click()
    shapes = viewer.layers.selection.active
    assert shapes.mode == "add_polygon"
    assert dock.regions.layer_name == shapes.name
    shapes.mode = "pan_zoom"
    dock.score()
    assert "no closed region" in dock.message.text.text()
    assert not asked
    # From the centre of one pixel to that of another.
    shapes.add(np.array([[10, 20], [10, 119], [59, 119], [59, 20]]), shape_type="polygon")
    score(qtbot, dock)
    (region,) = asked[0]["regions"]
    assert (region.kind, region.name) == ("tumour", "tumour 1")
    assert region.polygon.bounds == pytest.approx((20.5, 10.5, 119.5, 59.5))


def test_a_region_layer_that_is_gone_never_means_the_whole_slide(
    make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    add_slide(make_slide())
    dock.regions.add.click()
    viewer.layers.selection.active.name = "renamed"
    dock.score()
    assert "is gone" in dock.message.text.text()
    assert not asked


def test_a_region_layer_that_was_deleted_stays_chosen_until_another_is(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    first, second = make_slide(), make_slide(name="case-2")
    add_slide(first)
    add_slide(second)
    dock.slides.choose(first.slide_id)
    dock.regions.add.click()
    name = dock.regions.layer_name
    viewer.layers.remove(name)
    for _ in range(2):
        assert dock.regions.combo.currentText() == f"{name} (deleted)"
        dock.score()
        assert f'"{name}" is gone' in dock.message.text.text()
    dock.slides.choose(second.slide_id)  # of which nothing was deleted
    assert dock.regions.layer_name == ""
    dock.slides.choose(first.slide_id)
    assert dock.regions.layer_name == name
    dock.score()
    assert not asked
    dock.regions.combo.setCurrentIndex(0)
    score(qtbot, dock)
    assert [one["regions"] for one in asked] == [None]


def test_the_pathologists_own_score_is_kept_and_never_mixed(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    slide = make_slide()
    add_slide(slide)
    score(qtbot, dock)
    form = dock.result.manual
    form.score.setCurrentText("2+")
    assert form.category.text() == "equivocal: ISH required"
    form.ish.setCurrentText("negative")
    assert "HER2-low" in form.category.text()
    assert session_of(viewer).manual(slide.slide_id) == ManualScore("2+", "negative")
    assert dock.result.card.label.text() == "2+ (equivocal, ISH required)"


def test_export_writes_where_it_says(
    qtbot: QtBot,
    make_dock: object,
    add_slide: object,
    asked: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def exporting(result: object, manual: ManualScore, folder: Path) -> Generator[Progress, None, Path]:
        yield Progress("Writing")
        return folder / result.slide

    monkeypatch.setattr(result_panel, "exporting", exporting)
    dock = make_dock()
    add_slide(make_slide())
    score(qtbot, dock)
    with qtbot.waitSignal(dock.result.export_job.returned):
        dock.result.export_to(tmp_path)
    assert str(tmp_path / "case-1") in dock.result.exported.text()


def test_a_model_whose_name_is_taken_can_replace_the_other(
    qtbot: QtBot, make_dock: object, equipment: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forced = []

    def adding_model(path: Path, *, force: bool = False) -> Generator[Progress, None, object]:
        yield Progress("Checking the model")
        forced.append(force)
        if not force:
            raise ModelNameTaken("Another model of this name is installed: rename this one.")
        return equipment.models[0]

    monkeypatch.setattr(model_shelf, "adding_model", adding_model)
    dock = make_dock()
    with qtbot.waitSignal(dock.add_job.failed):
        dock.add_model_file(tmp_path / "model.safetensors")
    assert dock.message.action.text() == "Replace it"
    with qtbot.waitSignal(dock.add_job.returned):
        dock.message.action.click()
    assert forced == [False, True]
    assert dock.models.combo.count() == 1
