"""The cells of a result in the dock: what they come to, and thresholds that are changed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, QPointF, Qt

from cell_results import CELL_METHOD, make_cell_result
from cells_by_hand import reading_by_hand
from napari_her2._napari.layers import OverlayLook, slide_layer
from napari_her2._napari.session import session_of
from napari_her2._napari.settings import Settings
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.cell_histogram import CellHistogram, counts_of
from napari_her2._qt.scoring.cell_thresholds import ThresholdForm, made_way
from napari_her2._qt.scoring.result_panel import ResultPanel
from napari_her2.cells.rules import Rules
from napari_her2.errors import JobFailed
from scored import make_result, make_slide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytestqt.qtbot import QtBot

    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading

SLIDE_PX = (1200, 1600)


@pytest.fixture
def show(qtbot: QtBot) -> Iterator[Callable[[CellReading], ResultPanel]]:
    panels = []

    def shown(reading: CellReading) -> ResultPanel:
        viewer, slide = ViewerModel(), make_slide(SLIDE_PX)
        session = session_of(viewer)
        data, options, _ = slide_layer(slide)
        viewer.add_image(data, **options)
        panel = ResultPanel(session, Settings())
        qtbot.addWidget(panel)
        panels.append((panel, viewer))
        result = make_cell_result(slide, reading)
        session.set_result(result, OverlayLook())
        panel.show_slide(result.slide_id)
        return panel

    yield shown
    for panel, _ in panels:
        panel.shutdown()


def session(panel: ResultPanel) -> Session:
    return panel._session


def judged(qtbot: QtBot, panel: ResultPanel) -> CellReading:
    """What stands in the session once the wish has been followed."""
    slide_id = panel.cells._result.slide_id
    with qtbot.waitSignal(panel.cells._timer.timeout):
        pass
    return session(panel).result(slide_id).slides[0].cells


def test_cells_are_counted_and_summed_up_in_words(show: Callable[[CellReading], ResultPanel]) -> None:
    reading = reading_by_hand(2000, 1, shares=(0.4, 0.3, 0.2, 0.1), left_out=0.1)
    panel = show(reading)
    words = panel.cells.summary.text()
    counted = (reading.region >= 0) & ~reading.left_out
    per_class = np.bincount(reading.classes[counted], minlength=4)
    percent = 100 * per_class / counted.sum()
    assert f"{counted.sum():,} cells of the tumour" in words
    assert f"{reading.left_out.sum():,} lymphocytes and stromal cells left out" in words
    assert "; with them the score would be " in words
    for name, share in zip(("0", "1+", "2+", "3+"), percent, strict=True):
        assert f"{name}: {share:.1f} %" in words
    assert f"no staining {percent[0]:.1f} %, with membrane staining {100 - percent[0]:.1f} %" in words
    assert f"H-score {percent @ [0, 1, 2, 3]:.0f}" in words
    product = (reading.completeness * reading.raw_mass)[counted]
    assert f"90th percentile: {np.percentile(product, 90):.2f} OD·µm" in words
    assert "Uncalibrated" in panel.cells.calibration.text()
    # Beside the score, and not twice.
    assert "uncalibrated" in panel.card.task.text()
    assert "not validated" in panel.card.notice.text()
    assert "H-score" not in panel.card.facts.text()


def test_the_score_stands_out_and_not_the_class_of_most_cells(
    show: Callable[[CellReading], ResultPanel],
) -> None:
    panel = show(reading_by_hand(2000, 1, shares=(0.2, 0.1, 0.5, 0.2), left_out=0))
    bars, result = panel.card.bars, panel.cells._result
    assert max(bars._shares, key=bars._shares.__getitem__) == "2+"
    assert (result.score,) == bars.answer == ("3+",)


def test_a_calibration_is_named(show: Callable[[CellReading], ResultPanel]) -> None:
    panel = show(reading_by_hand(300, calibration="Lab A, 4B5", rules=Rules(gain=1.31)))
    assert panel.cells.calibration.text() == "Calibration: Lab A, 4B5 (gain 1.31)"
    assert Colours().muted in panel.cells.calibration.styleSheet()  # a warning only where there is none
    panel = show(reading_by_hand(300))
    assert Colours().warning in panel.cells.calibration.styleSheet()


def test_without_a_region_there_is_no_score(show: Callable[[CellReading], ResultPanel]) -> None:
    panel = show(reading_by_hand(300, regions=()))
    assert panel.cells.score.text().startswith("No score. No tumour region is drawn")
    assert "no region is drawn" in panel.cells.summary.text()
    # A map is shown all the same, and the choice says which.
    names = [layer.name for layer in session(panel).viewer.layers]
    assert panel.overlays.classes["cells of a class"].currentText() == "3+"
    assert any(name.startswith("3+ (%)") for name in names)


def test_each_of_several_regions_is_told_by_itself(show: Callable[[CellReading], ResultPanel]) -> None:
    reading = reading_by_hand(1000, 6, regions=("Core", "Edge"), left_out=0)
    words = show(reading).cells.summary.text().splitlines()
    for number, name in enumerate(("Core", "Edge")):
        of = reading.classes[reading.region == number]
        share = 100 * np.bincount(of, minlength=4) / len(of)
        (line,) = [line for line in words if line.startswith(f"{name}: ")]
        assert f"{len(of)} cells · 0 {share[0]:.0f} %, 1+ {share[1]:.0f} %" in line


def test_a_slide_without_a_cell_is_shown(show: Callable[[CellReading], ResultPanel]) -> None:
    panel = show(reading_by_hand(0))
    assert panel.cells.summary.text() == "0 cells of the tumour"
    assert panel.cells.score.text().startswith("No score.")
    panel.cells.walk.go_next()
    assert panel.cells.walk.chosen is None


def test_tiles_are_not_offered_where_cells_were_read(
    qtbot: QtBot, show: Callable[[CellReading], ResultPanel]
) -> None:
    panel = show(reading_by_hand(300))
    assert not panel.cells.isHidden()
    assert panel.tiles.isHidden()
    assert panel.seen.isHidden()
    slide = make_slide(name="case-2")
    data, options, _ = slide_layer(slide)
    session(panel).viewer.add_image(data, **options)
    session(panel).set_result(make_result(slide), OverlayLook())
    panel.show_slide(slide.slide_id)
    assert panel.cells.isHidden()
    assert not panel.tiles.isHidden()


def test_a_changed_threshold_judges_all_cells_anew(
    qtbot: QtBot, show: Callable[[CellReading], ResultPanel]
) -> None:
    reading = reading_by_hand(2000, 2)
    panel = show(reading)
    layers = list(session(panel).viewer.layers)
    panel.cells.thresholds.mass[1].setValue(0.6)
    now = judged(qtbot, panel)
    assert now.rules.mass == (0.18, 0.6, 0.715)
    assert now.cells is reading.cells
    np.testing.assert_array_equal(now.classes, reading.judged_by(now.rules).classes)
    assert (now.classes != reading.classes).any()
    assert "mass of 2+ 0.6 instead of 0.385" in panel.cells.thresholds.note.text()
    assert "mass of 2+ 0.6 instead of 0.385" in " ".join(
        session(panel).result(panel.cells._result.slide_id).warnings
    )
    assert list(session(panel).viewer.layers) == layers
    two = 100 * (now.classes[now.counted] == 2).mean()
    assert f"2+: {two:.1f} %" in panel.cells.summary.text()


def test_several_changes_are_judged_once(qtbot: QtBot, show: Callable[[CellReading], ResultPanel]) -> None:
    panel = show(reading_by_hand(300))
    told: list[str] = []
    session(panel).result_changed.connect(told.append)
    for value in (0.5, 0.55, 0.58):
        panel.cells.thresholds.mass[1].setValue(value)
    assert judged(qtbot, panel).rules.mass[1] == pytest.approx(0.58)
    assert len(told) == 1


def test_reset_goes_back_to_the_specification_and_the_calibrated_gain(
    qtbot: QtBot, show: Callable[[CellReading], ResultPanel]
) -> None:
    panel = show(reading_by_hand(500, calibration="Lab A", rules=Rules(gain=1.25)))
    form = panel.cells.thresholds
    form.gain.setValue(0.8)
    form.completeness[0].setValue(20)
    now = judged(qtbot, panel)
    assert (now.calibration, now.rules.gain, now.rules.completeness[0]) == ("", 0.8, 0.2)
    assert panel.cells.calibration.text() == "Uncalibrated (gain 0.8, set by hand)"
    form.reset.click()
    now = judged(qtbot, panel)
    assert (now.calibration, now.rules) == ("Lab A", Rules(gain=1.25))
    assert form.note.isHidden()


def test_the_gastric_rule_is_a_choice_and_its_biopsies_another(
    qtbot: QtBot, show: Callable[[CellReading], ResultPanel]
) -> None:
    panel = show(reading_by_hand(500))
    form = panel.cells.thresholds
    assert not form.biopsy.isEnabled()
    form.gastric.click()
    assert form.biopsy.isEnabled()
    form.biopsy.click()
    rules = judged(qtbot, panel).rules
    assert rules.gastric
    assert rules.biopsy
    form.gastric.click()
    assert judged(qtbot, panel).rules == Rules()


def test_rules_that_cannot_be_are_said_and_taken_back(
    qtbot: QtBot, show: Callable[[CellReading], ResultPanel], monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = show(reading_by_hand(300))

    def refused(*_: object) -> None:
        raise JobFailed("No such rules.")

    monkeypatch.setattr(type(CELL_METHOD), "rejudged", refused)
    with qtbot.waitSignal(panel.failed) as failed:
        panel.cells.thresholds.gain.setValue(2)
    assert failed.args[0].message == "No such rules."
    assert panel.cells.thresholds.gain.value() == 1


def test_a_result_from_elsewhere_replaces_what_stands_in_the_form(
    show: Callable[[CellReading], ResultPanel],
) -> None:
    reading = reading_by_hand(300)
    panel = show(reading)
    slide_id = panel.cells._result.slide_id
    calibrated = CELL_METHOD.rejudged(session(panel).result(slide_id), Rules(gain=1.4), "Lab B")
    panel.cells.thresholds.mass[0].setValue(0.3)  # a wish that comes too late
    session(panel).refresh_result(calibrated)
    assert panel.cells.thresholds.rules == Rules(gain=1.4)
    assert "Lab B" in panel.cells.calibration.text()


# -- the form


def test_thresholds_make_way() -> None:
    assert made_way((0.33, 0.60, 0.65), 0, 0.62) == (0.62, 0.62, 0.65)
    assert made_way((0.33, 0.60, 0.65), 2, 0.2) == (0.2, 0.2, 0.2)


def test_what_was_not_changed_keeps_its_digits(qtbot: QtBot) -> None:
    form = ThresholdForm()
    qtbot.addWidget(form)
    rules = Rules(completeness=(0.33333, 0.6, 0.65), mass=(0.18, 0.38571, 0.715), gain=1.23456)
    form.set_rules(rules)
    with qtbot.waitSignal(form.changed) as changed:
        form.mass[0].setValue(0.2)
    assert changed.args[0] == replace(rules, mass=(0.2, 0.38571, 0.715))


def test_a_threshold_is_typed_and_stepped_by_key(qtbot: QtBot) -> None:
    form = ThresholdForm()
    qtbot.addWidget(form)
    form.show()
    box = form.completeness[2]
    box.selectAll()
    qtbot.keyClicks(box, "70")
    assert form.rules == Rules()  # the 7 of 70 pushes nothing down
    qtbot.keyClick(box, Qt.Key.Key_Return)
    assert form.rules.completeness == (0.33, 0.60, 0.70)
    qtbot.keyClick(box, Qt.Key.Key_Up)
    assert form.rules.completeness[2] == pytest.approx(0.71)


# -- the histogram


def test_the_histogram_counts_every_counted_cell() -> None:
    reading = reading_by_hand(5000, 3, left_out=0.2, outside=0.1, rules=Rules(gain=1.3))
    counts = counts_of(reading, 1.0)
    chosen = reading.counted
    mass = np.minimum(reading.raw_mass[chosen] / np.float32(1.3), 0.999)
    edges = (np.linspace(0, 1, 61), (np.arange(34) - 0.5) / 32)
    expected, _, _ = np.histogram2d(mass, reading.completeness[chosen], bins=edges)
    assert counts.sum() == chosen.sum()
    # A cell on an edge may fall to either side, by rounding.
    assert np.abs(counts - expected).sum() <= 4


def test_a_line_of_the_histogram_is_dragged(qtbot: QtBot) -> None:
    histogram = CellHistogram()
    qtbot.addWidget(histogram)
    histogram.resize(320, 200)
    histogram.set_reading(reading_by_hand(500))
    corner, end = histogram.point(0.60, 0.385), histogram.point(0.50, 0.385)
    begin = QPointF(corner.x(), corner.y() - 20).toPoint()
    assert histogram.line_at(begin.x(), begin.y()) == ("completeness", 1)
    moved: list[tuple[str, int, float]] = []
    histogram.threshold_moved.connect(lambda *values: moved.append(values))
    qtbot.mousePress(histogram, Qt.MouseButton.LeftButton, pos=begin)
    qtbot.mouseMove(histogram, QPoint(round(end.x()), begin.y()))
    qtbot.mouseMove(histogram, QPoint(0, begin.y()))
    qtbot.mouseRelease(histogram, Qt.MouseButton.LeftButton, pos=QPoint(0, begin.y()))
    assert [of[:2] for of in moved] == [("completeness", 1)] * 2
    assert moved[0][2] == pytest.approx(0.50, abs=0.01)
    assert moved[1][2] == pytest.approx(0.33)  # not below that of 1+


def test_an_empty_histogram_is_painted(qtbot: QtBot) -> None:
    histogram = CellHistogram()
    qtbot.addWidget(histogram)
    histogram.set_reading(reading_by_hand(0))
    assert not histogram.grab().isNull()
    assert histogram.counts.sum() == 0
