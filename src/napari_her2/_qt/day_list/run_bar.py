"""Start, Pause, Stop and Retry of a list, and how far it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.progress_row import RateMeter, time_left
from napari_her2._qt.parts.text import Label

if TYPE_CHECKING:
    from napari_her2.cohort.day_items import State
    from napari_her2.steps import Progress

_RUNNING_TIP = "Finish the slide that is being scored, then wait; go on with Start"


class RunBar(QWidget):
    """Buttons and bar of a list.

    Attributes
    ----------
    start_wanted, pause_wanted, stop_wanted, retry_wanted : Signal()
    """

    start_wanted = Signal()
    pause_wanted = Signal()
    stop_wanted = Signal()
    retry_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._meter = RateMeter()
        self._missing, self._counts = "", dict["State", int]()
        self._begun: tuple[float, int] | None = None
        self.start, self.pause, self.stop, self.retry = (
            QPushButton(name) for name in ("St&art", "Pa&use", "Stop &now", "Retr&y failed")
        )
        self.start.setToolTip("Score what waits; what is finished stays")
        self.pause.setToolTip(_RUNNING_TIP)
        self.stop.setToolTip("Stop at once; what is computed of the slide is kept, and Start goes on with it")
        self.retry.setToolTip("Try again what failed, and slides that were refused")
        self.bar = ProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.bar.setAccessibleName("Progress of the list")
        self.summary, self.stage = Label(wrap=True), Label(wrap=True)
        # Room for two lines: what is below does not jump with a report.
        self.stage.setMinimumHeight(2 * self.stage.fontMetrics().lineSpacing() + 8)
        buttons = QHBoxLayout()
        for button in (self.start, self.pause, self.stop, self.retry):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(buttons)
        for widget in (self.bar, self.summary, self.stage):
            layout.addWidget(widget)
        self.start.clicked.connect(self.start_wanted)
        self.pause.clicked.connect(self._on_pause)
        self.stop.clicked.connect(self._on_stop)
        self.retry.clicked.connect(self.retry_wanted)
        self.set_running(False)

    def set_ready(self, missing: str) -> None:
        """Say what is missing before a list can start; empty where nothing is."""
        self._missing = missing
        self.start.setEnabled(not missing)
        if not self.stop.isVisibleTo(self):
            self.stage.setText(missing)

    def set_running(self, running: bool) -> None:
        """Show that the list is worked on, or rests."""
        self._meter, self._begun = RateMeter(), None
        self.start.setVisible(not running)
        self.pause.setVisible(running)
        self.stop.setVisible(running)
        self.pause.setEnabled(running)
        self.stop.setEnabled(running)
        self.bar.setVisible(running)
        self.stage.setText("Starting" if running else self._missing)
        self._show_retry()

    def set_counts(self, counts: dict[State, int]) -> None:
        """Show how many rows are in each state."""
        self._counts = counts
        total, waiting = sum(counts.values()), counts.get("waiting", 0) + counts.get("running", 0)
        self.bar.setRange(0, max(total, 1))
        self.bar.setValue(total - waiting)
        words = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        self.summary.setText(words + self._time_left(waiting, counts))
        self.summary.setVisible(bool(words))
        self._show_retry()

    def set_progress(self, progress: Progress) -> str:
        """Show a report; return it in few words, for the row of its slide."""
        rate = self._meter.update(progress, time.monotonic())
        parts, short = [progress.title], progress.stage.rpartition(": ")[2]
        if progress.total > 0:
            parts.append(f"{progress.done:,} of {progress.total:,} {progress.unit}".strip())
            short = f"{short} {progress.done / progress.total:.0%}"
        if rate is not None:
            parts.append(f"{rate[0]:,.0f} {progress.unit or 'steps'}/s, {time_left(rate[1])} left")
        if progress.note:
            parts.append(progress.note)
        if self.pause.isEnabled() and self.stop.isEnabled():
            self.stage.setText(" · ".join(parts))
        return short

    def _time_left(self, waiting: int, counts: dict[State, int]) -> str:
        """Words for how long the rest takes, from what was finished since the start."""
        finished = counts.get("done", 0) + counts.get("failed", 0)
        now = time.monotonic()
        if not self.stop.isVisibleTo(self) or not waiting:
            return ""
        if self._begun is None:
            self._begun = (now, finished)
            return ""
        done = finished - self._begun[1]
        if done <= 0:
            return ""
        return f" · about {time_left((now - self._begun[0]) / done * waiting)} left"

    def _show_retry(self) -> None:
        again = self._counts.get("failed", 0) + self._counts.get("skipped", 0)
        self.retry.setEnabled(bool(again) and not self.stop.isVisibleTo(self))

    def _on_pause(self) -> None:
        self.pause.setEnabled(False)
        self.stage.setText("Pausing after the slide that is being scored")
        self.pause_wanted.emit()

    def _on_stop(self) -> None:
        self.pause.setEnabled(False)
        self.stop.setEnabled(False)
        self.stage.setText("Stopping")
        self.stop_wanted.emit()
