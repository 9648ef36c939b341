"""The calibration in the dock: which one is used, and how to make one from controls on the slide."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_her2._napari.calibrating import (
    CalibrationNames,
    controls_among,
    controls_in_words,
    making_calibration,
    recalibrated,
)
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.progress_row import ProgressRow
from napari_her2._qt.parts.question_bar import QuestionBar
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.cells.calibration import LONGEST_NAME
from napari_her2.cells.calibration_store import (
    check_free,
    kept_calibrations,
    remove_calibration,
)
from napari_her2.errors import CalibrationKept, Her2Error
from napari_her2.methods.catalogue import can_explain

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2._qt.scoring.drawn_regions import DrawnRegions
    from napari_her2.cells.calibration import Calibration
    from napari_her2.models.registry import ModelEntry

NONE = "none: uncalibrated"
_UNCALIBRATED = (
    "Uncalibrated: membranes of other laboratories, antibodies and scanners come out stronger or weaker."
)
_DRAW = "Draw the 3+ control under Region, as control tissue 3+ (and 1+ and 0, if there are any)."
_FIELDS = ("name", "laboratory", "antibody", "scanner")


class CalibrationPanel(QWidget):
    """Chooses, makes and removes calibrations; shown for models that read cells.

    Parameters
    ----------
    session : Session
    regions : DrawnRegions
        Whose controls a calibration is made from.

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(self, session: Session, regions: DrawnRegions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session, self._regions = session, regions
        self._slide_id = self._asked_id = ""
        self._asking = self._gone = ""
        self._reads_cells = False
        self._kept: dict[str, Calibration] = {}
        self._broken: list[str] = []  # what is wrong with files that are no calibration
        self._colours = Colours()
        self.job = Job()
        self.jobs = (self.job,)
        self._make_widgets()
        self._arrange()
        self._connect()
        self.set_colours(self._colours)
        self.show_kept()
        self.setVisible(False)

    @property
    def name(self) -> str:
        """Name of the chosen calibration; empty for none."""
        return str(self.combo.currentData() or "")

    @property
    def used(self) -> str:
        """Name of the calibration to score with; empty where the model reads no cells."""
        return self.name if self._reads_cells else ""

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.controls.setStyleSheet(f"color: {colours.muted};")
        self.question.set_colours(colours)
        self._show_words()

    def set_model(self, entry: ModelEntry | None) -> None:
        """Take the chosen model; the panel is there only where the model reads cells."""
        self._reads_cells = entry is not None and can_explain(entry.card, "cells")
        self.setVisible(self._reads_cells)

    def set_slide(self, slide_id: str) -> None:
        """Take the chosen slide."""
        if slide_id != self._slide_id:
            self._slide_id = slide_id
            self.job.cancel()
            self._on_result(slide_id)
        self._show_ready()

    def show_kept(self, chosen: str | None = None) -> None:
        """Show the calibrations that are kept; what was chosen stays chosen where it is still there.

        Parameters
        ----------
        chosen : str or None
            Name of the one to choose; one that is not kept any more is named, and none is chosen.
        """
        wanted = self.name if chosen is None else chosen
        found, broken = kept_calibrations()
        self._kept = {calibration.name: calibration for calibration in found}
        self.combo.blockSignals(True)
        self.combo.clear()
        self.combo.addItem(NONE, "")
        for calibration in found:
            self.combo.addItem(calibration.name, calibration.name)
        self.combo.setCurrentIndex(self.combo.findData(wanted))
        self.combo.blockSignals(False)
        self._gone = "" if wanted in ("", *self._kept) else wanted
        self._broken = [item.problem for item in broken]
        self._show_words()

    def calibrate(self, *, replace_same: bool = False) -> None:
        """Make a calibration from the controls that are drawn, in a thread; keep it and choose it."""
        slide = self._session.slide_of(self._slide_id)
        if slide is None:
            return
        try:
            check_free(self._edits["name"].text(), replace=replace_same)
            regions = self._regions.regions()
            controls_among(regions or [])
        except CalibrationKept as error:
            self._ask("replace", str(error), "Replace it", "Cancel")
            return
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        self._asked_id = self._slide_id
        names = CalibrationNames(**{of: self._edits[of].text().strip() for of in _FIELDS})
        self.job.start(partial(making_calibration, slide, regions or [], names, replace_same=replace_same))

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        self.job.shutdown()
        self._subscriptions.end()

    def _make_widgets(self) -> None:
        self.combo = Combo("Calibration")
        self.combo.setToolTip(
            "From control tissue of the same staining run; what is chosen is applied at once"
        )
        self.make = QPushButton("Calibrate here…")
        self.make.setCheckable(True)
        self.make.setToolTip("Make a calibration from control tissue on this slide")
        self.remove = QPushButton("Remove")
        self.remove.setToolTip(
            "Delete the chosen calibration; results that were made with it keep its values"
        )
        self.words = Label(wrap=True)
        self.question = QuestionBar()
        self.form = QWidget()
        self.controls = Label(wrap=True)
        self._edits = {of: QLineEdit() for of in _FIELDS}
        for of, edit in self._edits.items():
            edit.setMaxLength(LONGEST_NAME)
            edit.setAccessibleName(f"{of.capitalize()} of the calibration")
        self._edits["name"].setPlaceholderText("such as: our lab 4B5, week 12")
        self.progress = ProgressRow()
        self.progress.start.setText("Calibrate")
        self.progress.start.setToolTip("Reads the cells of the controls, and keeps the gain by its name")

    def _arrange(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.make, 1)
        row.addWidget(self.remove, 1)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(4)
        for of, edit in self._edits.items():
            form.addRow(Label(of.capitalize()), edit)
        making = QVBoxLayout(self.form)
        making.setContentsMargins(0, 0, 0, 0)
        making.setSpacing(4)
        making.addWidget(self.controls)
        making.addLayout(form)
        making.addWidget(self.progress)
        heading = Label("Calibration")
        heading.setStyleSheet("font-weight: bold;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(heading)
        layout.addWidget(self.combo)
        layout.addWidget(self.words)
        layout.addLayout(row)
        layout.addWidget(self.question)
        layout.addWidget(self.form)
        self.form.setVisible(False)

    def _connect(self) -> None:
        self.combo.activated.connect(self._on_chosen)
        self.make.toggled.connect(self._on_make)
        self.remove.clicked.connect(self._on_remove)
        self.question.answered.connect(self._on_answer)
        self._edits["name"].textChanged.connect(self._show_ready)
        self.progress.start_wanted.connect(self.calibrate)
        self.progress.cancel_wanted.connect(self.job.cancel)
        self.job.running_changed.connect(self.progress.set_running)
        self.job.progressed.connect(self.progress.set_progress)
        self.job.returned.connect(self._on_made)
        self.job.failed.connect(self.failed)
        self._regions.changed.connect(self._show_ready)
        self._regions.editor.changed.connect(self._show_ready)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(self._session.result_changed, self._on_result)

    def _show_words(self) -> None:
        calibration = self._kept.get(self.name)
        lines = [_UNCALIBRATED] if calibration is None else [calibration.words, *calibration.remarks]
        if self._gone:
            lines = [
                f"This result was made with {self._gone}, which is not kept any more: choose another one."
            ]
        doubtful = calibration is None or bool(calibration.remarks)
        self.words.setText("\n".join([*lines, *self._broken]))
        colour = self._colours.warning if doubtful or self._broken else self._colours.muted
        self.words.setStyleSheet(f"color: {colour};")
        self.remove.setEnabled(calibration is not None)

    def _show_ready(self) -> None:
        """Say which controls there are, and what is missing; only while a calibration is to be made."""
        if not self.make.isChecked():
            return
        try:
            found = controls_in_words(self._regions.regions() or [])
        except Her2Error:
            found = ""
        self.controls.setText(f"Controls on this slide: {found}." if found else _DRAW)
        missing = "" if self._edits["name"].text().strip() else "Give the calibration a name."
        slide = self._session.slide_of(self._slide_id)
        if slide is None or slide.mpp is None:
            missing = "Open a slide of known µm/px first."
        elif not found:
            missing = "No control tissue is drawn."
        self.progress.set_ready(missing)

    def _on_make(self, wanted: bool) -> None:
        self.form.setVisible(wanted)
        self._show_ready()

    def _on_chosen(self) -> None:
        self._gone = ""
        self._show_words()
        self._apply(self._slide_id)

    def _apply(self, slide_id: str) -> None:
        """Judge the cells of a result anew; nothing is read again."""
        result = self._session.result(slide_id)
        if result is None or result.slides[0].cells is None:
            return
        try:
            self._session.refresh_result(recalibrated(result, self._kept.get(self.name)))
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))

    def _on_made(self, made: Calibration) -> None:
        self.show_kept(made.name)
        self.make.setChecked(False)
        if self._asked_id == self._slide_id:
            self._apply(self._slide_id)

    def _on_result(self, slide_id: str) -> None:
        """Show which calibration the result of the slide was made with."""
        result = self._session.result(slide_id) if slide_id == self._slide_id else None
        reading = result.slides[0].cells if result is not None else None
        if reading is not None:
            self.show_kept(reading.calibration)

    def _ask(self, about: str, question: str, yes: str, no: str) -> None:
        self._asking = about
        self.question.ask(question, yes, no)

    def _on_remove(self) -> None:
        if self.name:
            self._ask("remove", f"Delete the calibration {self.name}?", "Delete it", "Keep it")

    def _on_answer(self, yes: bool) -> None:
        if yes and self._asking == "replace":
            self.calibrate(replace_same=True)
        elif yes and self._asking == "remove":
            try:
                remove_calibration(self.name)
            except Her2Error as error:
                self.failed.emit(Failure(str(error)))
            self.show_kept("")
            self._on_result(self._slide_id)
