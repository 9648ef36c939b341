"""A slide scored from one small image, in the dock: its own words, its maps, and what it saw."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score, with_tissue
from qtpy.QtCore import QPoint, Qt

from napari_her2._napari.seen import seen_of
from napari_her2._napari.tags import tag_of
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring.probability_bars import ProbabilityBars
from napari_her2._qt.scoring.result_card import ResultCard
from napari_her2.steps import Progress
from scored import make_field_result, make_image_result, make_result, make_slide, without_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.inference.result import SlideResult

LOW = "1+/2+ (ISH unknown)"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> list[SlideResult]:
    """Scoring answers with what is in the list."""
    answers: list[SlideResult] = []

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
        yield Progress("Scoring", 1, 8, "views")
        return answers[-1]

    monkeypatch.setattr(scoring_dock, "scoring", scoring)
    return answers


@pytest.fixture
def scored(
    qtbot: QtBot, make_dock: object, add_slide: object, answer: list[SlideResult]
) -> Callable[[], ScoringDock]:
    """Gives a dock with a result; a fixture that is the dock would outlive the end of its test."""

    def make() -> ScoringDock:
        dock, slide = make_dock(), make_slide()
        add_slide(slide)
        answer.append(with_tissue(make_image_result(slide, images=2)))
        score(qtbot, dock)
        return dock

    return make


def test_the_card_speaks_of_images_and_never_of_tiles(scored: Callable[[], ScoringDock]) -> None:
    dock = scored()
    card = dock.result.card
    facts = card.facts.text()
    assert card.label.text() == LOW
    assert "2 images of 64 × 64 px at 5 µm/px · 12.3 mm² tissue" in facts
    assert "Score of the slide: mean of 8 views" in facts
    assert "Scored in 2.1 s on cpu" in facts
    assert "tiles" not in facts
    assert f"{LOW}: 70%" in card.bars.accessibleName()
    for text in (facts, card.label.text(), card.bars.accessibleName()):
        assert "HER2-low" not in text
        assert "Low" not in text


def test_the_second_class_is_named_in_full(qtbot: QtBot) -> None:
    card = ResultCard()
    qtbot.addWidget(card)
    result = replace(make_image_result(), probabilities={"0": 0.6, "Low": 0.3, "High": 0.1}, score="0")
    card.set_result(result)
    assert f"Margin over {LOW}: 30" in card.facts.text()


def test_long_names_of_classes_do_not_run_into_their_bars(qtbot: QtBot) -> None:
    bars = ProbabilityBars()
    qtbot.addWidget(bars)
    bars.resize(320, 80)
    bars.set_values({"0": 0.5, LOW: 0.5})
    bars.grab()
    assert bars.fontMetrics().horizontalAdvance(LOW) < bars._label_px < 240
    bars.set_values({"0": 0.5, "3+": 0.5})
    bars.grab()
    assert bars._label_px == 44


def test_controls_show_grad_cam_of_a_chosen_class_and_nothing_of_attention(
    scored: Callable[[], ScoringDock], viewer: ViewerModel
) -> None:
    dock = scored()
    controls = dock.result.overlays
    assert set(controls.boxes) == {"signed Grad-CAM", "tissue"}
    assert not controls.scales
    assert dock.result.tiles.most_and_least.isHidden()
    assert not dock.cam.isVisibleTo(dock)
    assert not dock.correlated.isVisibleTo(dock)
    assert controls.classes["signed Grad-CAM"].currentText() == LOW
    assert controls.boxes["signed Grad-CAM"].isChecked()
    controls.classes["signed Grad-CAM"].setCurrentIndex(2)
    controls.classes["signed Grad-CAM"].activated.emit(2)
    names = [layer.name for layer in viewer.layers]
    assert "Grad-CAM High (3+): regions the model used · case-1" in names
    assert sum("Grad-CAM" in name for name in names) == 1
    controls.boxes["signed Grad-CAM"].click()
    layer = next(item for item in viewer.layers if "Grad-CAM" in item.name)
    assert not layer.visible


def test_a_click_on_the_slide_tells_grad_cam_and_shows_the_place(
    qtbot: QtBot, scored: Callable[[], ScoringDock]
) -> None:
    dock = scored()
    panel = dock.result.tiles
    assert "Click a place on the slide" in panel.inspector.hint.text()
    assert panel.single.heading.text() == "Place on the slide"
    with qtbot.waitSignal(panel.tile_job.returned):
        panel.pointer.clicked.emit((5.0, 5.0))
    assert "not this place" in panel.inspector.numbers.text()
    assert f"{LOW} -1" in panel.inspector.numbers.text()
    panel.pointer.moved.emit((5.0, 5.0))
    assert f"Under the cursor: Grad-CAM here: 0 +0.5, {LOW} -1" in panel.inspector.hover.text()


def test_what_the_model_saw_leads_to_the_slide(
    qtbot: QtBot, scored: Callable[[], ScoringDock], viewer: ViewerModel
) -> None:
    dock = scored()
    seen = dock.result.seen_images
    assert not dock.result.seen.isHidden()
    assert "weak spot" in seen.limit.text()
    assert seen.which.text() == "Image 1 of 2"
    seen.picture.resize(300, 300)
    place = seen.picture.place()
    at = QPoint(int(place.left() + 0.25 * place.width()), int(place.top() + 0.75 * place.height()))
    qtbot.mouseClick(seen.picture, Qt.MouseButton.LeftButton, pos=at)
    # Three quarters down an image of 640 px that begins at -120, a quarter along one that begins at -20.
    np.testing.assert_allclose(viewer.scene.camera.center[1:], (0.5 * 359.5, 0.5 * 139.5), atol=0.5)
    seen.next.click()
    assert seen.which.text() == "Image 2 of 2"
    assert not seen.next.isEnabled()


def test_the_image_is_laid_over_the_slide_and_follows_what_is_chosen(
    qtbot: QtBot, scored: Callable[[], ScoringDock], viewer: ViewerModel, answer: list[SlideResult]
) -> None:
    dock = scored()
    seen, slide_id = dock.result.seen_images, answer[-1].slide_id
    seen.over.click()
    assert seen_of(viewer, slide_id).name.endswith("(1 of 2) · case-1")
    seen.next.click()
    assert seen_of(viewer, slide_id).name.endswith("(2 of 2) · case-1")
    viewer.layers.remove(seen_of(viewer, slide_id))
    assert not seen.over.isChecked()
    seen.over.click()
    score(qtbot, dock)
    assert seen_of(viewer, slide_id) is None
    assert not seen.over.isChecked()


def test_ish_changes_the_category_and_never_the_prediction(
    scored: Callable[[], ScoringDock], answer: list[SlideResult]
) -> None:
    dock = scored()
    card, form, panel = dock.result.card, dock.result.manual, dock.result
    before = (card.label.text(), card.bars.accessibleName(), card.facts.text())
    form.ish.setCurrentText("negative")
    assert form.category.text() == "With ISH negative: 1+ or 2+ would be HER2-low."
    assert card.category.text() == form.category.text()
    form.ish.setCurrentText("positive")
    assert "the model cannot tell 1+ from 2+" in card.category.text()
    form.score.setCurrentText("2+")
    assert card.category.text() == "By your own reading: HER2-positive (2+, ISH positive)"
    assert (card.label.text(), card.bars.accessibleName(), card.facts.text()) == before
    shown = dock.session.result(answer[-1].slide_id)
    assert shown.probabilities == answer[-1].probabilities
    assert (shown.score, shown.label) == ("Low", LOW)
    form.score.setCurrentIndex(0)
    form.ish.setCurrentIndex(0)
    assert card.category.isHidden()
    assert panel.manual.category.text() == "–"


def test_without_an_answer_ish_completes_none(
    qtbot: QtBot, scored: Callable[[], ScoringDock], answer: list[SlideResult]
) -> None:
    dock = scored()
    answer.append(replace(answer[-1], label="indeterminate: only 0.1 mm² of tissue", abstained=True))
    score(qtbot, dock)
    dock.result.manual.ish.setCurrentText("negative")
    assert dock.result.card.category.isHidden()


def test_a_result_of_tiles_takes_the_place_of_one_of_an_image(
    qtbot: QtBot, scored: Callable[[], ScoringDock], viewer: ViewerModel, answer: list[SlideResult]
) -> None:
    dock = scored()
    answer.append(make_result(make_slide()))
    score(qtbot, dock)
    assert dock.result.seen.isHidden()
    assert not any("Grad-CAM" in layer.name for layer in viewer.layers)
    assert "signed Grad-CAM" not in dock.result.overlays.boxes
    assert dock.result.tiles.single.heading.text() == "Tile"


def test_patches_show_the_score_of_each(
    qtbot: QtBot, scored: Callable[[], ScoringDock], viewer: ViewerModel, answer: list[SlideResult]
) -> None:
    dock = scored()
    answer.append(with_tissue(without_attention(make_field_result(make_slide()))))
    score(qtbot, dock)
    roles = [getattr(tag_of(layer), "kind", "slide") for layer in viewer.layers]
    assert roles == ["slide", "tissue", "score", "tiles"]
    assert set(dock.result.overlays.boxes) == {"score", "tissue"}
    panel = dock.result.tiles
    with qtbot.waitSignal(panel.tile_job.returned):
        panel.pointer.clicked.emit((3 * 25 + 5.0, 5.0))
    assert "This tile by itself: 0, probability 70%\n" in panel.inspector.numbers.text()


def test_a_dock_that_shows_an_image_goes_without_the_garbage_collector(
    scored: Callable[[], ScoringDock],
) -> None:
    gc.collect()
    gc.disable()
    try:
        dock = scored()
        dock.result.seen_images.over.click()
        ref = weakref.ref(dock)
        dock.shutdown()
        dock.close()
        del dock
        assert ref() is None
    finally:
        gc.enable()
