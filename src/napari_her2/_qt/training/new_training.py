"""A training that is asked for: its form, the check of its cases, and the wish to start it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.jobs import Job
from napari_her2._qt.parts.progress_bar import ProgressBar
from napari_her2._qt.parts.text import Label
from napari_her2._qt.training.check import CheckView
from napari_her2._qt.training.form import TrainingForm
from napari_her2.training_runs.work import checking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.training_runs.work import CheckReport, MethodChoice


class NewTraining(QWidget):
    """Form, check and start of a training.

    Attributes
    ----------
    start_wanted : Signal(RunRequest)
    check_began : Signal()
    failed : Signal(Failure)
        The check could not be done.
    """

    start_wanted = Signal(object)
    check_began = Signal()
    failed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.form = TrainingForm()
        self.check, self.start = QPushButton("Check"), QPushButton("Start training")
        self.cancel_check = QPushButton("Cancel")
        self.check_bar, self.hint = ProgressBar(), Label()
        self.checked = CheckView()
        self.check_job = Job()
        self._arrange()
        self.form.changed.connect(self._on_form)
        self.check.clicked.connect(self.check_cases)
        self.cancel_check.clicked.connect(self.check_job.cancel)
        self.start.clicked.connect(self._on_start)
        self.check_job.running_changed.connect(self._on_checking)
        self.check_job.returned.connect(self._on_checked)
        self.check_job.failed.connect(self.failed)
        self._on_checking(False)

    def _arrange(self) -> None:
        self.hint.setWordWrap(True)
        self.check.setToolTip("Look at cases, files and splits, and estimate the time; nothing is trained")
        self.start.setToolTip("Train in a process of its own; napari can be used or closed meanwhile")
        self.check_bar.setRange(0, 0)
        self.check_bar.setTextVisible(False)
        self.check_bar.setFixedHeight(10)
        self.check_bar.setAccessibleName("Checking")
        buttons = QHBoxLayout()
        for widget, stretch in ((self.check, 1), (self.cancel_check, 1), (self.start, 2)):
            buttons.addWidget(widget, stretch)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.form)
        layout.addLayout(buttons)
        for widget in (self.check_bar, self.hint, self.checked):
            layout.addWidget(widget)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.hint.setStyleSheet(f"color: {colours.muted};")
        self.form.set_colours(colours)
        self.checked.set_colours(colours)

    def set_methods(self, methods: Sequence[MethodChoice]) -> None:
        """Show the methods there are; with none, nothing can be asked for."""
        self.form.set_methods(methods)
        self.form.setEnabled(bool(methods))
        self._update_ready()

    def check_cases(self) -> None:
        """Check cases, files and splits, in a process of its own."""
        if not self.form.missing:
            self.checked.clear()
            self.check_began.emit()
            self.check_job.start(partial(checking, self.form.request))

    def look_again(self) -> None:
        """Look at the paths again, since a training began or ended."""
        self.form.look_again()
        self._update_ready()

    def _update_ready(self) -> None:
        missing, report = self.form.missing, self.checked.report
        checks = self.check_job.running
        self.hint.setText("Checking the cases, their files and splits …" if checks else missing)
        self.hint.setVisible(bool(self.hint.text()))
        self.check.setEnabled(not missing)
        self.start.setEnabled(not missing and not (report is not None and report.faults))

    def _on_form(self) -> None:
        self.check_job.cancel()
        self.checked.clear()
        self._update_ready()

    def _on_start(self) -> None:
        if not self.form.missing:
            self.start_wanted.emit(self.form.request)

    def _on_checking(self, running: bool) -> None:
        self.check.setVisible(not running)
        self.cancel_check.setVisible(running)
        self.check_bar.setVisible(running)
        self._update_ready()

    def _on_checked(self, report: CheckReport) -> None:
        self.checked.show_report(report)
        self._update_ready()
