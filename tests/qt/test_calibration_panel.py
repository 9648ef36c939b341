"""The calibration in the dock: chosen, made from drawn controls, applied at once, and removed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from driving import score

from cell_results import CELL_METHOD, make_cell_result
from cells_by_hand import reading_by_hand
from napari_her2._napari import calibrating as work
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.region_kinds import set_kind
from napari_her2._napari.work import Equipment
from napari_her2._qt.scoring.calibration_panel import NONE
from napari_her2.cells.calibration import Calibration
from napari_her2.cells.calibration_store import keep_calibration, kept_calibrations, load_calibration
from napari_her2.cells.rules import Rules
from napari_her2.errors import JobFailed
from napari_her2.steps import Progress
from scored import make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.components import ViewerModel
    from pytestqt.qtbot import QtBot

    from napari_her2._qt.scoring.calibration_panel import CalibrationPanel
    from napari_her2._qt.scoring.dock import ScoringDock
    from napari_her2.cells.reading import CellReading
    from napari_her2.models.card import ModelCard

GAIN = 1.6


def made(name: str, gain: float = GAIN, **more: object) -> Calibration:
    return Calibration(name, gain, "2026-11-28", "control.svs", "f" * 64, 420, **more)


@pytest.fixture
def equipment(card: ModelCard) -> Equipment:
    """A model that reads cells, and one that reads none."""
    cells = replace(card, name="rules", method=CELL_METHOD.name, stain="IHC")
    entries = [SimpleNamespace(name=of.name, path=None, card=of, origin="bundled") for of in (cells, card)]
    return Equipment(tuple(entries), (), "cpu")


@pytest.fixture
def dock(make_dock: Callable[[], ScoringDock], add_slide: Callable[..., object]) -> ScoringDock:
    for name, gain in (("Lab B", 0.8), ("Lab A", GAIN)):
        keep_calibration(made(name, gain))
    dock = make_dock()
    add_slide(make_slide((1200, 1600)))
    dock.models.combo.setCurrentIndex(0)
    return dock


def panel(dock: ScoringDock) -> CalibrationPanel:
    return dock.calibration


def choose(dock: ScoringDock, text: str) -> None:
    combo = dock.calibration.combo
    at = combo.findText(text)
    assert at >= 0, text
    combo.setCurrentIndex(at)
    combo.activated.emit(at)


def show_result(dock: ScoringDock, **made: object) -> CellReading:
    result = make_cell_result(dock.slides.slide, reading_by_hand(900, 4, **made))
    dock.session.set_result(result, OverlayLook())
    return result.slides[0].cells


def reading(dock: ScoringDock) -> CellReading:
    return dock.session.result(dock.slides.slide_id).slides[0].cells


def draw_controls(dock: ScoringDock, viewer: ViewerModel, *names: str) -> None:
    """A tumour, a fold, and a control of each name."""
    dock.regions.add.click()
    layer = viewer.layers.selection.active
    layer.mode = "pan_zoom"
    wanted = [("tumour", ""), ("fold", ""), *(("control", name) for name in names)]
    for number, (kind, name) in enumerate(wanted):
        set_kind(layer, kind, name)
        layer.add(np.array([[10, 20], [10, 60], [50, 60], [50, 20]]) + 60 * number, shape_type="polygon")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Controls are not read; what was asked for is kept."""
    asked: list[dict[str, object]] = []

    def calibrating(
        slide: object, regions: object, name: str, **texts: str
    ) -> Generator[Progress, None, Calibration]:
        asked.append({"slide": slide, "regions": regions, "name": name, **texts})
        yield Progress("Reading the controls", 1, 2, "windows")
        return made(name, 2.0, **texts)

    monkeypatch.setattr("napari_her2.inference.calibrating.calibrating", calibrating)
    return asked


def start(qtbot: QtBot, dock: ScoringDock) -> None:
    with qtbot.waitSignal(panel(dock).job.running_changed, check_params_cb=lambda running: not running):
        panel(dock).progress.start.click()


def test_it_is_there_for_models_that_read_cells_alone(dock: ScoringDock) -> None:
    combo = panel(dock).combo
    assert panel(dock).isVisibleTo(dock)
    assert [combo.itemText(at) for at in range(combo.count())] == [NONE, "Lab A", "Lab B"]
    assert combo.currentText() == NONE
    assert panel(dock).words.text().startswith("Uncalibrated")
    choose(dock, "Lab A")
    assert panel(dock).used == "Lab A"
    dock.models.combo.setCurrentIndex(dock.models.combo.findText("hand-model"))
    assert not panel(dock).isVisibleTo(dock)
    assert panel(dock).used == ""


def test_the_chosen_one_goes_into_the_scoring(
    qtbot: QtBot, dock: ScoringDock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def scoring(slide: object, model: str, **options: object) -> Generator[Progress, None, object]:
        seen.append(options["calibration"])
        yield Progress("Reading cells")
        return make_cell_result(slide, reading_by_hand(300, calibration=options["calibration"]))

    monkeypatch.setattr("napari_her2._qt.scoring.dock.scoring", scoring)
    score(qtbot, dock)
    choose(dock, "Lab B")
    score(qtbot, dock)
    assert seen == ["", "Lab B"]
    assert panel(dock).name == "Lab B"


def test_a_result_that_is_there_follows_at_once(dock: ScoringDock) -> None:
    before = show_result(dock, rules=replace(Rules(), mass=(0.2, 0.4, 0.8)))
    assert "Uncalibrated" in dock.result.cells.calibration.text()  # beside the score
    choose(dock, "Lab A")
    after = reading(dock)
    assert (after.calibration, after.rules.gain) == ("Lab A", GAIN)
    assert after.rules.mass == (0.2, 0.4, 0.8)  # thresholds that the user set stay
    assert after.cells is before.cells
    mass, complete = before.cells.mass.astype(float).mean(axis=1) / GAIN, before.completeness
    by_hand = sum(
        (complete >= np.float32(c)) & (mass >= m) for c, m in ((0.33, 0.2), (0.6, 0.4), (0.65, 0.8))
    )
    np.testing.assert_array_equal(after.classes, by_hand)
    assert "Lab A" in dock.result.cells.calibration.text()
    assert "gain 1.600 from 420 cells of control.svs" in panel(dock).words.text()
    choose(dock, NONE)
    assert (reading(dock).calibration, reading(dock).rules.gain) == ("", 1.0)
    np.testing.assert_array_equal(reading(dock).classes, before.classes)


def test_it_shows_what_the_result_of_the_slide_was_made_with(
    dock: ScoringDock, add_slide: Callable[..., object]
) -> None:
    show_result(dock, calibration="Lab B", rules=Rules(gain=0.8))
    assert panel(dock).name == "Lab B"
    first = dock.slides.slide_id
    other = make_slide((1200, 1600), name="case-2")
    add_slide(other)
    dock.slides.choose(other.slide_id)
    choose(dock, "Lab A")
    dock.slides.choose(first)
    assert panel(dock).name == "Lab B"
    assert reading(dock).calibration == "Lab B"


def test_controls_on_the_slide_make_one_that_is_kept_chosen_and_applied(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, asked: list[dict[str, object]]
) -> None:
    show_result(dock)
    make = panel(dock)
    make.make.setChecked(True)
    assert "Draw the 3+ control" in make.controls.text()
    assert not make.progress.start.isEnabled()
    draw_controls(dock, viewer, "3+", "3+", "0")
    assert make.controls.text() == "Controls on this slide: 3+ (2 regions), 0 (1 region)."
    assert make.progress.stage.text() == "Give the calibration a name."
    for of, text in (("name", " Our lab "), ("laboratory", "St. A"), ("antibody", "4B5"), ("scanner", "X")):
        make._edits[of].setText(text)
    start(qtbot, dock)
    (request,) = asked
    assert [(of.kind, of.name) for of in request["regions"]] == [
        ("fold", "fold 1"),
        ("control", "3+"),
        ("control", "3+"),
        ("control", "0"),
    ]
    assert request["slide"] is dock.slides.slide
    assert (request["name"], request["laboratory"], request["antibody"]) == ("Our lab", "St. A", "4B5")
    assert load_calibration("Our lab").scanner == "X"
    assert make.name == "Our lab"
    assert (reading(dock).calibration, reading(dock).rules.gain) == ("Our lab", 2.0)
    assert not make.form.isVisibleTo(dock)


def test_control_tissue_is_left_out_of_the_score(dock: ScoringDock, viewer: ViewerModel) -> None:
    draw_controls(dock, viewer, "3+")
    assert dock.regions.editor.summary.text() == "1 tumour region; left out: 1 control tissue, 1 fold"
    assert [of.included for of in dock.regions.regions()] == [True, False, False]


def test_tumour_is_never_taken_for_a_control(dock: ScoringDock, viewer: ViewerModel) -> None:
    draw_controls(dock, viewer)
    panel(dock).make.setChecked(True)
    panel(dock)._edits["name"].setText("x")
    assert panel(dock).progress.stage.text() == "No control tissue is drawn."
    panel(dock).calibrate()
    assert "draw the 3+ control" in dock.message.text.text()
    with pytest.raises(JobFailed, match="No control tissue"):
        work.controls_among([of for of in dock.regions.regions() if of.included])


def test_a_name_that_is_taken_is_asked_about_before_anything_is_read(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, asked: list[dict[str, object]]
) -> None:
    draw_controls(dock, viewer, "3+")
    make = panel(dock)
    make.make.setChecked(True)
    make._edits["name"].setText("Lab A")
    make.progress.start.click()
    assert "Lab A is kept already" in make.question.text.text()
    make.question.no.click()
    assert load_calibration("Lab A").gain == GAIN
    make.progress.start.click()
    with qtbot.waitSignal(make.job.running_changed, check_params_cb=lambda running: not running):
        make.question.yes.click()
    assert load_calibration("Lab A").gain == 2.0
    assert len(asked) == 1


def test_a_failure_is_said_and_keeps_nothing(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrating(*args: object, **texts: str) -> Generator[Progress, None, Calibration]:
        yield Progress("Reading the controls")
        raise JobFailed("The 3+ control holds 3 cells with a complete membrane.")

    monkeypatch.setattr("napari_her2.inference.calibrating.calibrating", calibrating)
    draw_controls(dock, viewer, "3+")
    panel(dock).make.setChecked(True)
    panel(dock)._edits["name"].setText("new")
    start(qtbot, dock)
    assert "3 cells with a complete membrane" in dock.message.text.text()
    assert [of.name for of in kept_calibrations()[0]] == ["Lab A", "Lab B"]
    assert panel(dock).form.isVisibleTo(dock)  # nothing that was typed is lost


def test_cancel_keeps_nothing(
    qtbot: QtBot, dock: ScoringDock, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, closed = threading.Event(), threading.Event()

    def calibrating(*args: object, **texts: str) -> Generator[Progress, None, Calibration]:
        try:
            while True:
                begun.set()
                yield Progress("Reading the controls")
                time.sleep(0.01)
        finally:
            closed.set()

    monkeypatch.setattr("napari_her2.inference.calibrating.calibrating", calibrating)
    draw_controls(dock, viewer, "3+")
    panel(dock).make.setChecked(True)
    panel(dock)._edits["name"].setText("new")
    panel(dock).progress.start.click()
    qtbot.waitUntil(begun.is_set)
    with qtbot.waitSignal(panel(dock).job.cancelled):
        panel(dock).progress.cancel.click()
    assert closed.is_set()
    assert [of.name for of in kept_calibrations()[0]] == ["Lab A", "Lab B"]


def test_removing_asks_first_and_leaves_the_result_its_values(dock: ScoringDock) -> None:
    show_result(dock)
    choose(dock, "Lab A")
    remove = panel(dock)
    remove.remove.click()
    assert remove.question.text.text() == "Delete the calibration Lab A?"
    remove.question.no.click()
    assert load_calibration("Lab A")
    remove.remove.click()
    remove.question.yes.click()
    assert [of.name for of in kept_calibrations()[0]] == ["Lab B"]
    assert (reading(dock).calibration, reading(dock).rules.gain) == ("Lab A", GAIN)
    assert "made with Lab A, which is not kept any more" in remove.words.text()
    assert remove.name == ""
    choose(dock, "Lab B")
    assert reading(dock).rules.gain == 0.8


def test_doubts_about_a_calibration_stand_beside_it(dock: ScoringDock) -> None:
    keep_calibration(made("Lab C", remarks=("In the 0 control 30 % of the cells come out above 0.",)))
    panel(dock).show_kept("Lab C")
    assert "30 % of the cells come out above 0" in panel(dock).words.text()
