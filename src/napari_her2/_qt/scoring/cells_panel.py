"""The cells of a result: what they come to, the thresholds they are judged by, and one of them."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_her2._qt.parts.jobs import Failure
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.cell_histogram import CellHistogram
from napari_her2._qt.scoring.cell_thresholds import ThresholdForm
from napari_her2._qt.scoring.cell_walk import CellWalk
from napari_her2._qt.scoring.cell_words import (
    borderline_line,
    calibration_line,
    score_line,
    summary_lines,
)
from napari_her2.cells.deciding import changed_words
from napari_her2.cells.rules import Rules
from napari_her2.cells.summary import summarised
from napari_her2.errors import Her2Error
from napari_her2.methods.catalogue import METHODS

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2.cells.reading import CellReading
    from napari_her2.inference.result import SlideResult

_WAIT_MS = 50


class CellsPanel(QWidget):
    """Everything about the cells of one result; there only where cells were read.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._result: SlideResult | None = None
        self._calibrated: tuple[str, float] = ("", Rules().gain)
        self._own = False
        self.summary, self.doubt = Label(wrap=True, selectable=True), Label(wrap=True, selectable=True)
        self.score, self.calibration = Label(wrap=True, selectable=True), Label(wrap=True)
        self.histogram = CellHistogram()
        self.thresholds = ThresholdForm()
        self.walk = CellWalk(session)
        # At most every 50 ms, and never more than half of the time: a drag shows where it goes.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._arrange()
        self._connect()
        self.set_colours(Colours())
        self.show_result(None)

    def _arrange(self) -> None:
        first = QWidget()
        inner = QVBoxLayout(first)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(4)
        for widget in (
            self.score,
            self.doubt,
            self.calibration,
            self.summary,
            self.histogram,
            self.thresholds,
        ):
            inner.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Section("Cells", first))
        layout.addWidget(Section("Cell", self.walk))

    def _connect(self) -> None:
        self._timer.timeout.connect(self._judge)
        self.thresholds.changed.connect(self._on_changed)
        self.thresholds.reset_wanted.connect(self.reset)
        self.histogram.threshold_moved.connect(self.thresholds.move)
        self.walk.chosen_changed.connect(self._mark)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.doubt.setStyleSheet(f"color: {colours.warning};")
        self._colour_calibration()
        self.score.setStyleSheet("font-weight: bold;")
        for part in (self.histogram, self.thresholds, self.walk):
            part.set_colours(colours)

    @property
    def reading(self) -> CellReading | None:
        """Cells that are shown."""
        return None if self._result is None else self._result.slides[0].cells

    def show_result(self, result: SlideResult | None) -> None:
        """Show the cells of a result, or nothing where it has none."""
        if result is not None and result.slides[0].cells is None:
            result = None
        self._result = result
        reading = self.reading
        self.setVisible(reading is not None)
        self.walk.show_reading("" if result is None else result.slide_id, reading)
        if reading is None:
            self._timer.stop()
            return
        if not self._own:
            self._timer.stop()  # what was wished for the cells before
            self._calibrated = (reading.calibration, reading.rules.gain if reading.calibration else 1.0)
            self.thresholds.set_rules(reading.rules)
        elif not self._timer.isActive():
            self.thresholds.set_rules(reading.rules)
        self._show_numbers(reading)

    def reset(self) -> None:
        """Go back to the thresholds of the specification, and to the gain of the calibration."""
        asked = self.thresholds.rules
        rules = replace(Rules(), gain=self._calibrated[1], gastric=asked.gastric, biopsy=asked.biopsy)
        self.thresholds.set_rules(rules)
        self._on_changed(rules)

    def shutdown(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self.walk.shutdown()

    def _show_numbers(self, reading: CellReading) -> None:
        summary = summarised(reading)
        self.score.setText(score_line(summary))
        _fill(self.doubt, borderline_line(summary))
        self.calibration.setText(calibration_line(reading))
        self._colour_calibration()
        self.summary.setText("\n".join(summary_lines(reading, summary)))
        self.histogram.set_reading(reading)
        self.thresholds.set_note(" ".join(changed_words(reading.rules)))
        self._mark()

    def _colour_calibration(self) -> None:
        """Warn where there is none."""
        calibrated = self.reading is not None and bool(self.reading.calibration)
        colour = self._colours.muted if calibrated else self._colours.warning
        self.calibration.setStyleSheet(f"color: {colour};")

    def _mark(self) -> None:
        reading, number = self.reading, self.walk.chosen
        if reading is None or number is None:
            self.histogram.set_marked(None)
        else:
            mass = float(reading.raw_mass[number]) / reading.rules.gain
            self.histogram.set_marked(float(reading.completeness[number]), mass)

    def _on_changed(self, rules: Rules) -> None:
        self.histogram.set_rules(rules)
        if not self._timer.isActive():
            self._timer.start()

    def _judge(self) -> None:
        """Judge the cells by what stands in the form."""
        result, rules = self._result, self.thresholds.rules
        if result is None or self.reading is None or rules == self.reading.rules:
            return
        name, gain = self._calibrated
        began = perf_counter()
        self._own = True
        try:
            calibration = name if rules.gain == gain else ""
            self._session.refresh_result(METHODS[result.method].rejudged(result, rules, calibration))
        except Her2Error as error:
            self.thresholds.set_rules(self.reading.rules)
            self.failed.emit(Failure(str(error)))
        finally:
            self._own = False
        self._timer.setInterval(max(_WAIT_MS, round(1000 * (perf_counter() - began))))


def _fill(label: Label, text: str) -> None:
    label.setText(text)
    label.setVisible(bool(text))
