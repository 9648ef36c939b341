"""Score, Cancel, and how far the work is."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.text import Label

if TYPE_CHECKING:
    from napari_her2.steps import Progress

_WINDOW_S = 10.0  # the rate is taken over the last seconds, so that a slow start is forgotten


class RateMeter:
    """Units a second and seconds left, from the latest reports of one stage."""

    def __init__(self) -> None:
        self._stage = ""
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, progress: Progress, now: float) -> tuple[float, float] | None:
        """Take a report.

        Parameters
        ----------
        progress : Progress
        now : float
            Seconds of a clock that never goes back.

        Returns
        -------
        tuple of float or None
            Units a second and seconds left; None while that cannot be told.
        """
        if progress.title != self._stage or (self._seen and progress.done < self._seen[-1][1]):
            self._stage = progress.title
            self._seen.clear()
        self._seen.append((now, progress.done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        seconds, done = now - self._seen[0][0], progress.done - self._seen[0][1]
        if seconds < 0.5 or done <= 0 or progress.total <= 0:
            return None
        rate = done / seconds
        return rate, (progress.total - progress.done) / rate


def time_left(seconds: float) -> str:
    """Words for a duration: "8 s", "3 min", "1 h 20 min"."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class ProgressRow(QWidget):
    """Buttons and bar of one job.

    Attributes
    ----------
    start_wanted, cancel_wanted : Signal()
    """

    start_wanted = Signal()
    cancel_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._meter = RateMeter()
        self._missing = ""
        self.start = QPushButton("Score")
        self.start.setToolTip("Score the chosen slide with the chosen model")
        self.start.clicked.connect(self.start_wanted)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop after the batch that is being worked on")
        self.cancel.clicked.connect(self._on_cancel)
        self.bar = ProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.bar.setAccessibleName("Progress")
        self.stage = Label(wrap=True)
        self.stage.setAlignment(Qt.AlignmentFlag.AlignTop)
        # Room for two lines and the padding of the theme: what is below does not jump with a report.
        self.stage.setMinimumHeight(2 * self.stage.fontMetrics().lineSpacing() + 18)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.cancel, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.stage)
        self.set_running(False)

    def set_ready(self, missing: str) -> None:
        """Say what is missing before work can start; empty where nothing is."""
        self._missing = missing
        self.start.setEnabled(not missing)
        if not self.cancel.isVisibleTo(self):
            self.stage.setText(missing)
            self.stage.setVisible(bool(missing))

    def set_running(self, running: bool) -> None:
        """Show that work goes on, or has ended."""
        self._meter = RateMeter()
        self.start.setVisible(not running)
        self.cancel.setVisible(running)
        self.cancel.setEnabled(running)
        self.bar.setVisible(running)
        self.bar.setRange(0, 0)
        self.stage.setVisible(running or bool(self._missing))
        self.stage.setText("Starting" if running else self._missing)

    def set_progress(self, progress: Progress) -> None:
        """Show a report: stage, bar, rate and time left."""
        rate = self._meter.update(progress, time.monotonic())
        # A long total may not fit Qt's 32-bit range.
        known = progress.total > 0
        self.bar.setRange(0, 1000 if known else 0)
        if known:
            self.bar.setValue(round(1000 * min(progress.done / progress.total, 1)))
        parts = [progress.title]
        if known:
            parts.append(f"{progress.done:,} of {progress.total:,} {progress.unit}".strip())
        if rate is not None:
            parts.append(f"{rate[0]:,.0f} {progress.unit or 'steps'}/s, {time_left(rate[1])} left")
        if progress.note:
            parts.append(progress.note)
        self.stage.setText(" · ".join(parts))

    def _on_cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.stage.setText("Stopping after this batch")
        self.cancel_wanted.emit()
