"""One training and how it goes: state, progress, curves, and what can be done with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.progress_row import RateMeter, time_left
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.training.curves_view import CurvesView
from napari_her2.training_runs.files import PREDICTIONS_FILE, REPORT_FILE
from napari_her2.training_runs.log import LogTail
from napari_her2.training_runs.processes import RunStatus, status_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari_her2.steps import Progress
    from napari_her2.training_runs.log import LogEntry

_LIVE_MS, _ENDED_MS, _BEHIND_MS = 1000, 3000, 0
_PATIENCE_S = 10.0
_SECOND_FOLD = "fold1"
_WORDS = {
    "starting": "Starting …",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "lost": "Ended unexpectedly",
    "absent": "Not there",
}


class TrainingRunView(QWidget):
    """Follows the training in a folder, whoever started it.

    Attributes
    ----------
    stop_wanted, end_wanted, resume_wanted, export_wanted, report_wanted : Signal()
    state_changed : Signal(str)
    """

    stop_wanted = Signal()
    end_wanted = Signal()
    resume_wanted = Signal()
    export_wanted = Signal()
    report_wanted = Signal()  # there is none yet
    state_changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = Colours()
        self._out: Path | None = None
        self._tail: LogTail | None = None
        self._meter = RateMeter()
        self._rate: tuple[float, float] | None = None
        self._asked: float | None = None  # when it was asked to stop
        self._exporting = self._reporting = False
        self.status = RunStatus("absent")
        self.state, self.words = Label(), Label()
        self.bar = ProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.bar.setAccessibleName("Progress of the training")
        self.curves = CurvesView()
        self.stop = _button("Stop", "End after the batch that is being worked on; it can be resumed")
        self.end = _button("End now", "End its process at once; it can be resumed from its last epoch")
        self.resume = _button("Resume", "Go on where it ended")
        self.export = _button("Add model to the list", "Export the model: HER2 Scoring then offers it")
        self.together = QCheckBox("All folds together (ensemble)")
        self.together.setToolTip(
            "All folds answer together, instead of the best one: slower to score with, and often steadier"
        )
        self.report = _button("Open report", "Measures and plots of this training, in the browser")
        self.folder = _button("Open folder", "The files of this training")
        self.timer = QTimer(self)
        self._arrange()
        self._connect()
        self.show_run(None)

    def _arrange(self) -> None:
        for label in (self.state, self.words):
            label.setWordWrap(True)
        # Room for two lines: what is below does not jump with a report.
        self.words.setMinimumHeight(2 * self.words.fontMetrics().lineSpacing() + 6)
        wanted, looked_at = QHBoxLayout(), QHBoxLayout()
        for button in (self.stop, self.end, self.resume, self.export):
            wanted.addWidget(button)
        for button in (self.report, self.folder):
            looked_at.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.state, self.bar, self.words, self.curves):
            layout.addWidget(widget)
        layout.addWidget(self.together)
        layout.addLayout(wanted)
        layout.addLayout(looked_at)

    def _connect(self) -> None:
        self.timer.timeout.connect(self.poll)
        self.stop.clicked.connect(self._on_stop)
        self.end.clicked.connect(self.end_wanted)
        self.resume.clicked.connect(self.resume_wanted)
        self.export.clicked.connect(self.export_wanted)
        self.report.clicked.connect(self._on_report)
        self.folder.clicked.connect(self._open_folder)

    @property
    def out(self) -> Path | None:
        """Folder of the training that is shown."""
        return self._out

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self._colours = colours
        self.curves.set_colours(colours)
        self._show()

    def show_run(self, out: Path | None) -> None:
        """Follow the training in a folder; None follows none."""
        self._out = out
        self._tail = None if out is None else LogTail(out)
        self._meter, self._rate, self._asked = RateMeter(), None, None
        self.curves.clear()
        self.setVisible(out is not None)
        if out is None:
            self.timer.stop()
            self.status = RunStatus("absent")
            return
        self.poll()

    def shutdown(self) -> None:
        """Look no more; the training itself goes on."""
        self.timer.stop()

    def set_exporting(self, exporting: bool) -> None:
        """Show that its model is being made, or no more."""
        self._exporting = exporting
        self._show()

    def set_reporting(self, reporting: bool) -> None:
        """Show that its report is being written, or no more."""
        self._reporting = reporting
        self._show()

    def poll(self) -> None:
        """Look how it stands, and read what it told since the last time."""
        if self._out is None or self._tail is None:
            return
        before = self.status
        self.status = status_of(self._out)
        entries, behind = self._tail.read()
        for entry in entries:
            self._rate = self._meter.update(entry.progress, entry.time)
        if any(entry.progress.values for entry in entries) or not self._tail.stages:
            self.curves.set_stages(self._tail.stages)
        if not self.status.is_live:
            self._asked = None
        self._show()
        wait = _BEHIND_MS if behind else _LIVE_MS if self.status.is_live else _ENDED_MS
        if not self.timer.isActive() or self.timer.interval() != wait:
            self.timer.start(wait)
        if before.state != self.status.state:
            self.state_changed.emit(self.status.state)

    def _show(self) -> None:
        status, live = self.status, self.status.is_live
        stopping = live and self._asked is not None
        colours = {"finished": self._colours.top_bar, "failed": self._colours.error}
        colours |= {"lost": self._colours.error, "stopped": self._colours.warning}
        style = f"font-weight: bold; color: {colours.get(status.state, self._colours.text)};"
        if style != self.state.styleSheet():  # Qt would polish the label anew at each look
            self.state.setStyleSheet(style)
        self.state.setText(f"{_WORDS[status.state]}{self._duration()}")
        self.words.setText(self._state_words())
        last = None if self._tail is None else self._tail.last
        self._show_bar(last)
        patient = self._asked is None or time.monotonic() - self._asked < _PATIENCE_S
        self.stop.setVisible(live)
        self.stop.setEnabled(not stopping)
        self.end.setVisible(stopping and not patient)
        self.resume.setVisible(status.state in ("stopped", "failed", "lost"))
        # What judged no slides (an encoder, a table, a comparison) has no model and no report of its own.
        finished = status.state == "finished" and self._judged
        self.export.setVisible(finished)
        self.export.setEnabled(not self._exporting)
        self.export.setText("Adding …" if self._exporting else "Add model to the list")
        reported = self._reported
        self.report.setVisible(finished or reported)
        self.report.setEnabled(not self._reporting)
        self.report.setText("Writing …" if self._reporting else "Open report" if reported else "Write report")
        self.together.setVisible(finished and self._out is not None and (self._out / _SECOND_FOLD).is_dir())
        self.folder.setVisible(status.state != "absent")
        self.curves.setVisible(live or bool(self._tail and self._tail.stages))

    def _show_bar(self, last: LogEntry | None) -> None:
        self.bar.setVisible(self.status.is_live)
        known = last is not None and last.progress.total > 0 and self.status.state == "running"
        self.bar.setRange(0, 1000 if known else 0)
        if known and last is not None:
            self.bar.setValue(round(1000 * min(last.progress.done / last.progress.total, 1)))

    def _duration(self) -> str:
        record = self.status.record
        if record is None or not record.started or self.status.state not in ("running", "finished"):
            return ""
        seconds = (record.ended or time.time()) - record.started
        return f" after {time_left(seconds)}" if record.ended else f" for {time_left(seconds)}"

    def _state_words(self) -> str:
        """Return what is said below the bar."""
        status = self.status
        last = None if self._tail is None else self._tail.last
        if self._asked is not None and status.is_live:
            if time.monotonic() - self._asked < _PATIENCE_S:
                return "Stopping after this batch …"
            return (
                "It has not stopped yet: some steps take minutes. Wait, or end it now; at most the epoch "
                "that it is in is lost."
            )
        if not status.is_live:
            if status.state == "finished" and status.record is not None and status.record.bundle is not None:
                return f"Model: {status.record.bundle.name}"
            return status.message
        if status.state == "starting" or last is None:
            return "PyTorch is being loaded; this takes some seconds."
        return self._in_words(last)

    def _in_words(self, entry: LogEntry) -> str:
        progress = entry.progress
        parts = [progress.title]
        if progress.epochs:  # its measures are in the curves
            parts += [f"epoch {progress.epoch} of {progress.epochs}"] if progress.epoch else []
        else:
            if progress.total > 0:
                parts.append(f"{progress.done:,} of {progress.total:,} {progress.unit}".strip())
            parts += [progress.note] if progress.note else []
        if self._rate is not None:
            parts.append(self._left(progress, *self._rate))
        return " · ".join(parts)

    @staticmethod
    def _left(progress: Progress, rate: float, seconds: float) -> str:
        words = f"{_unbroken(seconds)} left"
        if progress.fold >= progress.folds:
            return f"{words} in this step"
        folds = (progress.folds - progress.fold) * progress.total / rate
        return f"{words} in this fold, {_unbroken(seconds + folds)} in all"

    def _on_stop(self) -> None:
        self._asked = time.monotonic()
        self._show()
        self.stop_wanted.emit()

    @property
    def _reported(self) -> bool:
        return self._out is not None and (self._out / REPORT_FILE).is_file()

    @property
    def _judged(self) -> bool:
        return self._out is not None and (self._out / PREDICTIONS_FILE).is_file()

    def open_report(self) -> None:
        """Open the report in the browser."""
        if self._out is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._out / REPORT_FILE)))

    def _on_report(self) -> None:
        if self._reported:
            self.open_report()
        else:
            self.report_wanted.emit()

    def _open_folder(self) -> None:
        if self._out is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._out)))


def _unbroken(seconds: float) -> str:
    return time_left(seconds).replace(" ", "\u00a0")


def _button(caption: str, tip: str) -> QPushButton:
    button = QPushButton(caption)
    button.setToolTip(tip)
    return button
