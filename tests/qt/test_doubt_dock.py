"""How far an answer can be trusted, in the dock: sets with their promise, and answers that are withheld."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score, with_tissue
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel, QListWidget, QWidget

from cell_results import make_cell_result
from cells_by_hand import reading_by_hand
from doubted import doubted, with_another_answer
from napari_her2._napari.demands import Demands
from napari_her2._napari.settings import Settings
from napari_her2._napari.tags import METADATA_KEY, OverlayTag, tag_of
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring import dock as scoring_dock
from napari_her2._qt.scoring.result_card import ResultCard
from napari_her2.desk.own_score import ManualScore, category_beside
from napari_her2.explain.fields import REGION_CAM
from napari_her2.steps import Progress
from scored import make_field_result, make_pair, make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.inference.result import SlideResult

COLOURS = Colours()


@pytest.fixture
def show(
    qtbot: QtBot, make_dock: object, add_slide: object, monkeypatch: pytest.MonkeyPatch
) -> Callable[[SlideResult], ScoringDock]:
    """A dock in which this was found of a slide."""

    def shown(result: SlideResult) -> ScoringDock:
        asked.clear()

        def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, SlideResult]:
            asked.append(options)
            yield Progress("Embedding tiles", 10, 96, "tiles")
            return with_tissue(result)

        monkeypatch.setattr(scoring_dock, "scoring", scoring)
        dock = make_dock()
        for scored in result.slides:
            add_slide(make_slide(scored.grid.slide_shape_px0, name=scored.name))
        dock.slides.combo.setCurrentIndex(0)
        score(qtbot, dock)
        return dock

    asked: list[dict[str, object]] = []
    shown.asked = asked
    return shown


def enough(result: SlideResult) -> SlideResult:
    """The same result, whose tiles are enough for a score."""
    return replace(result, limits=replace(result.limits, min_tiles=1))


def seen_in(dock: ScoringDock, viewer: ViewerModel) -> list[object]:
    """Return whatever a person could read, hear or see in the dock, in layers, and under the cursor."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # what was replaced is gone
    found: list[object] = []
    for widget in dock.findChildren(QWidget):
        if not widget.isVisibleTo(dock):
            continue
        found.append((type(widget).__name__, widget.toolTip(), widget.accessibleName()))
        if isinstance(widget, QLabel | QAbstractButton):
            found.append((widget.text(), widget.styleSheet()))
        elif isinstance(widget, QComboBox):
            found.append((widget.currentText(), [widget.itemText(at) for at in range(widget.count())]))
        elif isinstance(widget, QListWidget):
            found.append([widget.item(at).toolTip() for at in range(widget.count())])
    for layer in viewer.layers:
        if isinstance(tag_of(layer), OverlayTag):
            data = [np.asarray(part).tolist() for part in layer.data] if layer.ndim == 2 else []
            found.append((layer.name, layer.visible, layer.opacity, data))
            if hasattr(layer, "features"):
                found.append(layer.features.to_dict("list"))
    return [repr(item) for item in found]


def test_a_set_is_the_answer_with_its_classes_marked_and_the_cases_behind_it(
    show: Callable[[SlideResult], ScoringDock],
) -> None:
    dock = show(doubted(enough(make_result()), "familiar"))
    card = dock.result.card
    assert card.label.text() == "1+ or 2+ (prediction)"
    assert card.bars.answer == ("1+", "2+")
    assert "the answer: 1+ or 2+" in card.bars.accessibleName()
    for fact in ("90 %", "the 160 it was calibrated on", "looks like what the model learnt from"):
        assert fact in card.trust.text()
    assert not card.show_anyway.isVisibleTo(card)
    assert not card.reason.isVisibleTo(card)
    assert "not how sure the model is" in card.facts.text()
    assert "not how sure the model is" in card.bars.toolTip()


def test_a_set_of_all_classes_is_indeterminate(show: Callable[[SlideResult], ScoringDock]) -> None:
    result = enough(make_result())
    flat = replace(result, score="0", probabilities={"0": 0.36, "1+": 0.14, "2+": 0.14, "3+": 0.36})
    dock = show(doubted(flat, "familiar", coverage=0.95))
    card = dock.result.card
    assert card.label.text() == "indeterminate"
    assert "95 %" in card.reason.text()
    assert card.reason.isVisibleTo(card)


@pytest.mark.parametrize("make", [make_result, make_field_result, make_pair])
def test_nothing_in_the_dock_depends_on_an_answer_that_is_withheld(
    qtbot: QtBot,
    viewer: ViewerModel,
    show: Callable[..., ScoringDock],
    make: Callable[[], SlideResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else the first answer would come back with its slide, and when it does is a matter of threads.
    monkeypatch.setattr("napari_her2._qt.parts.dock.read_settings", lambda: Settings(keep_work=False))
    seen, pictures = [], []
    for result in (make(), with_another_answer(make())):
        dock = show(doubted(enough(result), "unlike"))
        dock.result.manual.set_value(ManualScore("", "positive", ""))
        dock.result.tiles.inspect(3)
        dock.result.tiles._on_moved((100.0, 100.0))
        qtbot.waitUntil(lambda dock=dock: not any(job.running for job in dock.result.jobs))
        seen.append(seen_in(dock, viewer))
        pictures.append(dock.result.card.grab().toImage())
        dock.shutdown()
        viewer.layers.clear()
    assert seen[0] == seen[1]
    assert pictures[0] == pictures[1]


def test_a_withheld_answer_shows_why_and_the_strangest_and_nearest_tiles(
    qtbot: QtBot, viewer: ViewerModel, show: Callable[[SlideResult], ScoringDock]
) -> None:
    dock = show(doubted(enough(make_result()), "unlike"))
    panel, card = dock.result, dock.result.card
    assert card.label.text() == "withheld"
    assert card.reason.text() == "the slide is unlike what the model learnt from"
    assert COLOURS.warning in card.reason.styleSheet()
    assert "its cells and patterns" in card.trust.text()
    assert not card.bars.isVisibleTo(card)
    assert "%" not in card.facts.text()
    assert card.show_anyway.isVisibleTo(card)
    kinds = {tag_of(layer).kind: layer.visible for layer in viewer.layers if hasattr(tag_of(layer), "kind")}
    assert "evidence" not in kinds
    assert {kind for kind, visible in kinds.items() if visible} == {"unfamiliar", "tiles"}
    assert panel.strange_tiles.isVisibleTo(panel)
    assert not panel.tiles.most_and_least.isVisibleTo(panel)
    strangest, nearest = panel.strange.strips
    last = len(make_result().table) - 1
    assert strangest.tiles[:3] == [last, last - 1, last - 2]
    assert nearest.tiles[:3] == [0, 1, 2]
    assert not set(strangest.tiles) & set(nearest.tiles)
    assert panel.strange.lists[0].item(0).toolTip().startswith("5.0 times")
    with qtbot.waitSignal(panel.tiles.tile_read):
        panel.strange.lists[0].itemClicked.emit(panel.strange.lists[0].item(0))
    assert panel.tiles.chosen == ("id of case-1", last)
    # The last tile of 12 in 8 rows, 25 µm wide.
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (7.5 * 25, 11.5 * 25), atol=0.5)


def test_an_answer_that_is_withheld_can_be_shown_greyed_and_withheld_again(
    viewer: ViewerModel, show: Callable[[SlideResult], ScoringDock]
) -> None:
    dock = show(doubted(enough(make_result()), "unlike"))
    card, before = dock.result.card, seen_in(dock, viewer)
    card.show_anyway.click()
    kept = dock.session.result("id of case-1")
    assert kept.doubt.shown_anyway
    assert card.label.text() == "1+ or 2+ (prediction)"
    assert COLOURS.muted in card.label.styleSheet()
    assert card.bars.greyed
    assert "2+: 60%" in card.bars.accessibleName()
    assert "unlike what the model learnt from" in card.withheld.text()
    assert COLOURS.warning in card.withheld.styleSheet()
    assert not card.reason.isVisibleTo(card)
    order = [card.layout().itemAt(at).widget() for at in range(card.layout().count())]
    assert order.index(card.withheld) < order.index(card.label)
    layers = {tag_of(layer).kind: layer for layer in viewer.layers if hasattr(tag_of(layer), "kind")}
    assert layers["evidence"].name == "evidence for 2+ · case-1 · answer withheld"
    assert not layers["evidence"].visible
    assert layers["unfamiliar"].visible
    assert card.show_anyway.text() == "Withhold it again"
    card.show_anyway.click()
    assert not dock.session.result("id of case-1").doubt.shown_anyway
    assert seen_in(dock, viewer) == before


def test_what_was_computed_for_a_class_goes_with_an_answer_that_is_withheld_again(
    viewer: ViewerModel, show: Callable[[SlideResult], ScoringDock]
) -> None:
    dock = show(doubted(enough(make_field_result()), "unlike"))

    def of_request() -> bool:
        return any(getattr(tag_of(layer), "kind", "") == REGION_CAM.kind for layer in viewer.layers)

    metadata = {METADATA_KEY: OverlayTag(REGION_CAM.kind, "id of case-1", REGION_CAM)}
    viewer.add_image(np.zeros((4, 4), np.float32), metadata=metadata)
    dock.result.card.show_anyway.click()
    assert of_request()
    dock.result.card.show_anyway.click()
    assert not of_request()


def test_what_is_shown_anyway_is_exported_so(
    qtbot: QtBot,
    show: Callable[[SlideResult], ScoringDock],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    written = []

    def exporting(result: SlideResult, manual: object, folder: object) -> Generator[Progress, None, object]:
        yield Progress("Writing")
        written.append(result)
        return folder

    monkeypatch.setattr("napari_her2._qt.scoring.result_panel.exporting", exporting)
    dock = show(doubted(enough(make_result()), "unlike"))
    for _ in range(2):
        with qtbot.waitSignal(dock.result.export_job.returned):
            dock.result.export_to(tmp_path)
        dock.result.card.show_anyway.click()
    assert [result.doubt.shown_anyway for result in written] == [False, True]
    assert all(result.probabilities["2+"] == 0.6 for result in written)  # the files decide what they show


def test_another_coverage_changes_the_set_at_once_and_is_remembered(
    qtbot: QtBot, show: Callable[..., ScoringDock]
) -> None:
    dock = show(doubted(enough(make_result()), "familiar"))
    demands, card = dock.result.demands, dock.result.card
    assert demands.coverage.value() == 90
    assert show.asked[0]["demands"] == Demands(0.9, 0.01)
    demands.coverage.setValue(80)
    assert dock.session.result("id of case-1").doubt.answer.coverage == 0.8
    assert "80 %" in card.trust.text()
    score(qtbot, dock)
    assert show.asked[1]["demands"] == Demands(0.8, 0.01)
    assert demands.coverage.value() == 80


def test_the_least_familiarity_withholds_and_gives_back_at_once(
    viewer: ViewerModel, show: Callable[[SlideResult], ScoringDock]
) -> None:
    dock = show(doubted(enough(make_result()), "unlike"))
    demands, card = dock.result.demands, dock.result.card
    assert card.label.text() == "withheld"
    demands.familiarity.setValue(0)
    assert demands.familiarity.text() == "never"
    assert card.label.text() == "1+ or 2+ (prediction)"
    assert "unlike" in card.trust.text()  # nothing becomes familiar by looking away
    assert "evidence" in {getattr(tag_of(layer), "kind", "") for layer in viewer.layers}
    demands.familiarity.setValue(2.5)
    assert card.label.text() == "withheld"
    assert dock.session.demands == Demands(0.9, 0.025)


def test_all_results_of_the_session_are_judged_by_the_same_demands(
    show: Callable[[SlideResult], ScoringDock], add_slide: object
) -> None:
    dock = show(doubted(enough(make_result()), "familiar"))
    other = make_slide(name="case-2")
    add_slide(other)
    dock.session.set_result(
        doubted(enough(make_result(other)), "familiar"), dock.session.overlays("id of case-1").look
    )
    dock.result.demands.coverage.setValue(85)
    coverages = [dock.session.result(f"id of case-{n}").doubt.answer.coverage for n in (1, 2)]
    assert coverages == [0.85, 0.85]


def test_too_few_calibration_cases_promise_nothing_in_words(
    show: Callable[[SlideResult], ScoringDock],
) -> None:
    dock = show(doubted(enough(make_result()), "familiar", cases=5))
    assert dock.result.card.label.text() == "2+ (equivocal, ISH required)"
    for text in (dock.result.card.trust.text(), dock.result.demands.promise.text()):
        assert "nothing is promised" in text.lower()
        assert "5 calibration cases" in text


def test_an_older_model_is_not_known_to_be_familiar(show: Callable[[SlideResult], ScoringDock]) -> None:
    dock = show(doubted(enough(make_result()), "not known", cases=0))
    card = dock.result.card
    assert "is not known" in card.trust.text()
    assert COLOURS.muted in card.trust.styleSheet()
    assert "the slide looks like" not in card.trust.text().split("whether")[0]
    assert "keeps no calibration cases" in dock.result.demands.promise.text()
    assert card.bars.answer == ("2+",)
    assert not dock.result.strange_tiles.isVisibleTo(dock.result)


def test_cells_have_nothing_of_this(qtbot: QtBot, show: Callable[[SlideResult], ScoringDock]) -> None:
    slide = make_slide((1200, 1600))
    dock = show(make_cell_result(slide, reading_by_hand(2000, 1)))
    panel = dock.result
    assert not panel.how_sure.isVisibleTo(panel)
    assert not panel.strange_tiles.isVisibleTo(panel)
    for hidden in (panel.card.trust, panel.card.withheld, panel.card.show_anyway):
        assert not hidden.isVisibleTo(panel)


def test_of_a_case_the_strange_slide_is_named_and_shows_its_tiles(
    show: Callable[[SlideResult], ScoringDock],
) -> None:
    dock = show(doubted(enough(make_pair()), "familiar", "unlike"))
    card = dock.result.card
    assert card.label.text() == "withheld"
    assert "the IHC slide is unlike" in card.trust.text()
    assert not card.heads.isVisibleTo(card)
    assert [strip.title for strip in dock.result.strange.strips] == [
        "IHC · strangest",
        "IHC · most like what the model learnt from",
    ]


def test_unlike_in_part_keeps_the_answer_and_shows_where(
    viewer: ViewerModel, show: Callable[[SlideResult], ScoringDock]
) -> None:
    dock = show(doubted(enough(make_result()), "in part"))
    assert dock.result.card.label.text() == "1+ or 2+ (prediction)"
    assert "in part" in dock.result.card.trust.text()
    layers = {getattr(tag_of(layer), "kind", ""): layer for layer in viewer.layers}
    assert layers["unfamiliar"].visible
    assert not layers["attention"].visible  # two maps over each other cannot be read
    assert dock.result.overlays.boxes["unfamiliar"].isChecked()
    assert dock.result.strange_tiles.isVisibleTo(dock.result)
    assert dock.result.tiles.most_and_least.isVisibleTo(dock.result)


def test_an_ish_result_says_nothing_of_a_withheld_answer() -> None:
    manual = ManualScore("", "positive", "")
    assert category_beside(manual, doubted(enough(make_result()), "familiar"))
    for shown in (False, True):
        assert category_beside(manual, doubted(enough(make_result()), "unlike", show_withheld=shown)) == ""


def test_colours_follow_the_theme(qtbot: QtBot) -> None:
    card = ResultCard()
    qtbot.addWidget(card)
    card.set_result(doubted(enough(make_result()), "unlike", show_withheld=True))
    card.set_colours(Colours(muted="#123456", warning="#654321"))
    assert "#123456" in card.label.styleSheet()
    assert "#654321" in card.withheld.styleSheet()
