"""The two slides of a case in the dock."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score, with_tissue
from pairs import models_of_pairs, open_case

from napari_her2._napari.session import session_of
from napari_her2._qt.pair.pair_picker import ALONE
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2.errors import ModelMisfit, SlideError
from napari_her2.steps import Progress
from scored import make_pair, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._napari.work import Equipment
    from napari_her2.inference.result import SlideResult
    from napari_her2.models.card import ModelCard


DISAGREE = "The two slides disagree by themselves. Look at both before you use the score."


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    return models_of_pairs(card)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Scoring answers at once, with a pair or with one slide, as it was asked."""
    asked: list[dict[str, object]] = []

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        asked.append({"slide": slide, "model": model, **options})
        yield Progress("Embedding tiles (H&E)", 10, 96, "tiles")
        if options["ihc"] is None:
            return with_tissue(replace(make_result(slide), head="H&E"))
        return with_tissue(replace(make_pair(slide, options["ihc"]), warnings=(DISAGREE,)))

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    return asked


def names(dock: object) -> list[str]:
    combo = dock.case.picker.combo
    return [combo.itemText(at) for at in range(combo.count())]


def test_the_ihc_slide_is_asked_for_where_the_model_takes_both(make_dock: object, add_slide: object) -> None:
    dock = make_dock()
    open_case(add_slide)
    add_slide(make_slide(name="case_2_HER2"))
    assert dock.case.picking.isVisibleTo(dock)
    assert names(dock) == [ALONE, "case_1_HER2", "case_2_HER2"]
    assert dock.case.picker.combo.currentText() == "case_1_HER2"  # of the same case, by its name
    assert dock.case.viewing.isVisibleTo(dock)
    dock.models.combo.setCurrentIndex(1)
    assert not dock.case.picking.isVisibleTo(dock)
    assert dock.case.ihc is None
    assert dock.case.viewing.isVisibleTo(dock)  # both are still on the screen
    dock.models.combo.setCurrentIndex(0)
    dock.case.picker.combo.setCurrentIndex(0)
    dock.case.picker.combo.activated.emit(0)
    assert dock.case.ihc is None
    assert not dock.case.viewing.isVisibleTo(dock)
    add_slide(make_slide(name="another"))
    assert dock.case.picker.combo.currentText() == ALONE  # what the user chose stays


def test_both_slides_are_scored_and_shown(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    _he, _ihc = open_case(add_slide)
    score(qtbot, dock)
    assert asked[0]["slide"].name == "case_1_HE"
    assert asked[0]["ihc"].name == "case_1_HER2"
    card = dock.result.card
    assert card.head.text() == "from both slides"
    for fact in ("H&amp;E", "<b>0: 50%</b>", "<b>2+: 70%</b>", "1+: 30%"):
        assert fact in card.heads.text()
    assert "agree on" not in card.heads.text()
    assert card.warnings.text().count("⚠") == 1
    assert f"⚠ {escape(DISAGREE)}" in card.warnings.text()
    assert "H&amp;E: 96 tiles" in card.facts.text()
    assert "IHC: 80 tiles" in card.facts.text()
    controls = dock.result.overlays
    assert "evidence" not in controls.boxes
    assert not controls.classes
    controls.opacity.setValue(30)
    controls.boxes["attention"].click()
    maps = [layer for layer in viewer.layers if "attention (regions" in layer.name]
    assert [layer.name.split(" · ")[1] for layer in maps] == ["case_1_HE", "case_1_HER2"]
    assert [(layer.opacity, layer.visible) for layer in maps] == [(pytest.approx(0.3), False)] * 2
    dock.result.manual.score.setCurrentText("3+")
    dock.slides.combo.setCurrentIndex(1)
    assert card.head.text() == "from both slides"  # the case is one, from whichever slide it is looked at
    assert dock.result.manual.score.currentText() == "3+"


def test_slides_that_agree_say_so(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        yield Progress("Embedding tiles")
        result = make_pair(slide, options["ihc"])
        heads = {**result.heads, "H&E": result.heads["IHC"]}
        return replace(result, heads=heads, warnings=())

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    open_case(add_slide)
    score(qtbot, dock)
    assert "they agree on 2+" in dock.result.card.heads.text()
    assert not dock.result.card.warnings.isVisibleTo(dock)


def test_a_slide_alone_says_which_head_answered(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    add_slide(make_slide())
    assert dock.case.picker.combo.currentText() == ALONE
    score(qtbot, dock)
    assert asked[0]["ihc"] is None
    assert dock.result.card.head.text() == "from the H&E slide alone"
    assert not dock.result.card.heads.isVisibleTo(dock)


def test_swapped_slides_can_be_swapped_back(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    open_case(add_slide)
    dock.slides.combo.setCurrentIndex(1)
    assert dock.case.picker.combo.currentText() == "case_1_HE"
    assert "press Swap" in dock.case.picker.hint.text()
    dock.case.picker.swap.click()
    assert dock.slides.combo.currentText() == "case_1_HE"
    assert dock.case.picker.combo.currentText() == "case_1_HER2"
    score(qtbot, dock)
    assert asked[0]["ihc"].name == "case_1_HER2"


def test_two_slides_of_different_cases_can_be_scored_all_the_same(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    overridden = []

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        yield Progress("Finding tissue")
        overridden.append((options["ihc"].name, options["override_fit"]))
        if not options["override_fit"]:
            raise ModelMisfit("The slides belong to two cases: choose the two slides of one case.")
        return make_pair(slide, options["ihc"])

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    dock = make_dock()
    open_case(add_slide)
    score(qtbot, dock)
    assert dock.message.action.text() == "Score anyway"
    with qtbot.waitSignal(dock.score_job.returned):
        dock.message.action.click()
    assert overridden == [("case_1_HER2", False), ("case_1_HER2", True)]


def test_an_ihc_slide_without_a_size_is_not_scored(make_dock: object, add_slide: object) -> None:
    dock = make_dock()
    add_slide(make_slide(name="case_1_HE"))
    add_slide(make_slide(name="case_1_HER2", mpp=None))
    assert not dock.progress.start.isEnabled()
    assert "IHC slide" in dock.progress.stage.text()


def test_closing_the_ihc_slide_cancels_its_scoring(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(slide: object, model: str, **options: object) -> Generator[Progress, None, None]:
        while True:
            yield Progress("Embedding tiles")

    monkeypatch.setattr(scoring_dock, "scoring", endless)
    dock = make_dock()
    _, ihc = open_case(add_slide)
    with qtbot.waitSignal(dock.score_job.cancelled):
        dock.score()
        viewer.layers.remove(ihc)


def test_the_ihc_slide_can_be_opened_from_a_file(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock = make_dock()
    add_slide(make_slide(name="one"))
    opened = make_slide(name="other")
    monkeypatch.setattr("napari_her2.slide.reader.open_slide", lambda path: opened)
    for _ in range(2):  # the second time it is open already
        with qtbot.waitSignal(dock.case.opener.opened):
            dock.case.open_file(opened.path)
        assert dock.case.ihc is opened or dock.case.ihc_id == opened.slide_id
        assert [layer.name for layer in viewer.layers] == ["one", "other"]


def test_the_slider_leads_from_one_slide_to_the_other(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    _he, ihc = open_case(add_slide)
    score(qtbot, dock)
    view, pairing = dock.case.view, session_of(viewer).pairing
    assert view.beside.isChecked()
    assert not view.fader.isEnabled()
    view.stacked.click()
    np.testing.assert_allclose(ihc.translate, (0, 0))
    view.fade.setValue(25)
    assert ihc.opacity == pytest.approx(0.25)
    panel = dock.result.tiles
    panel.pointer.moved.emit((20.0, 20.0))
    assert "Under the cursor: H&E, " in panel.inspector.hover.text()
    view.fade.setValue(75)
    panel.pointer.moved.emit((20.0, 20.0))
    assert "Under the cursor: IHC, " in panel.inspector.hover.text()
    panel.pointer.moved.emit((20.0, 290.0))  # the IHC slide does not reach that far
    assert "Under the cursor: H&E, " in panel.inspector.hover.text()
    assert pairing.arrangement == "stacked"


def test_galleries_lead_to_the_tiles_of_both_slides(
    qtbot: QtBot, make_dock: object, viewer: ViewerModel, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    _he, ihc = open_case(add_slide)
    ihc.metadata["napari_her2"].slide.image[450:, 350:] = (90, 60, 20)  # the tile with most attention
    dock.show()
    score(qtbot, dock)
    panel = dock.result.tiles
    gallery = panel.gallery
    assert [(strip.title, len(strip.tiles)) for strip in gallery.strips] == [
        ("H&E · most attended", 10),
        ("H&E · least attended", 10),
        ("IHC · most attended", 10),
        ("IHC · least attended", 10),
    ]
    assert gallery.strips[0].tiles[:2] == [95, 94]
    assert gallery.strips[3].tiles[:2] == [0, 1]
    qtbot.waitUntil(lambda: not any(strip.unread for strip in gallery.strips) and not gallery.job.running)
    first = gallery.lists[2].item(0)
    assert "Rank 1 of 80" in first.toolTip()
    middle = first.icon().pixmap(64, 64).toImage().pixelColor(32, 32)
    assert (middle.red(), middle.green(), middle.blue()) == pytest.approx((90, 60, 20), abs=2)
    with qtbot.waitSignal(panel.tile_read):
        gallery.lists[2].itemClicked.emit(first)
    assert panel.chosen == (ihc.metadata["napari_her2"].slide_id, 79)
    assert "IHC slide (case_1_HER2)" in panel.inspector.numbers.text()
    np.testing.assert_allclose(viewer.scene.camera.center[1:], ihc.data_to_world((475.0, 375.0)), atol=0.3)
    assert viewer.scene.camera.zoom * 25 >= 100  # px on the screen
    dock.case.view.stacked.click()
    gallery.lists[0].itemClicked.emit(gallery.lists[0].item(1))
    assert dock.case.view.fade.value() == 0  # the H&E slide is not looked at through the other
    viewer.layers.remove(ihc)
    assert [strip.title for strip in gallery.strips] == ["most attended", "least attended"]


def test_a_damaged_tile_is_no_picture(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    def damaged(*place: object) -> None:
        raise SlideError("The file is damaged at y 10, x 20.")

    dock = make_dock()
    slide = make_slide()
    slide.read = damaged
    add_slide(slide)
    dock.show()
    dock.models.combo.setCurrentIndex(1)
    score(qtbot, dock)
    gallery = dock.result.tiles.gallery
    assert [strip.title for strip in gallery.strips] == ["most attended", "least attended"]
    qtbot.waitUntil(lambda: not gallery.job.running and len(gallery.strips[1].unread) == 24)
    assert "damaged" in gallery.lists[0].item(0).toolTip()


def test_the_dock_with_a_pair_fits_a_small_screen(
    qtbot: QtBot, make_dock: object, add_slide: object, asked: list[dict[str, object]]
) -> None:
    dock = make_dock()
    open_case(add_slide)
    score(qtbot, dock)
    content = dock.scroll.widget()
    assert content.minimumSizeHint().width() <= 400
    assert dock.minimumSizeHint().width() <= 400
