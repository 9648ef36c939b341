"""The dock HER2 Training: from a table of cases to a model, trained in a process of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_her2._qt.parts.dock import Dock
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.message_box import MessageBox
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.training.new_training import NewTraining
from napari_her2._qt.training.run import TrainingRunView
from napari_her2.errors import Her2Error, ModelNameTaken
from napari_her2.training_runs.processes import (
    RunRequest,
    end_now,
    known_runs,
    missing_extra,
    remember,
    request_stop,
    run_in,
    start_training,
    status_of,
)
from napari_her2.training_runs.work import exporting_run, listing_methods, reporting_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.training_runs.work import MethodChoice


class TrainingDock(Dock):
    """Checks, starts, follows, stops and resumes trainings, and hands their models to the scoring dock.

    A training is a process of its own: it goes on when the dock or napari is closed, and a dock that is
    opened later follows it.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        self._runs: tuple[RunRequest, ...] = ()
        self._exported, self._reported = Path(), Path()
        self.message = MessageBox()
        self.new = QToolButton()
        self.asked = NewTraining()
        self.runs = Combo()
        self.open_run = QPushButton("Open…")
        self.no_run = Label("No training yet. Trainings that run, and those before, are listed here.")
        self.run = TrainingRunView()
        self.exported = Label()
        self.list_job, self.export_job, self.report_job = Job(), Job(), Job()
        self._arrange()
        self._connect()
        self.live_with((self.list_job, self.asked.check_job, self.export_job, self.report_job))
        self.asked.form.choose_device(self.settings.device)
        self._show_runs()
        self.new.setChecked(not self.run.status.is_live)
        self._show_new(self.new.isChecked())
        self._look_for_methods()

    def _arrange(self) -> None:
        for label in (self.no_run, self.exported):
            label.setWordWrap(True)
        self.exported.setVisible(False)
        self.runs.setAccessibleName("Trainings")
        self.open_run.setToolTip("Follow or resume a training by its output folder")
        self.open_run.setAccessibleName("Open a training by its folder")
        chosen = QHBoxLayout()
        chosen.addWidget(self.runs, 1)
        chosen.addWidget(self.open_run)
        trainings = QWidget()
        inside = QVBoxLayout(trainings)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addLayout(chosen)
        for widget in (self.no_run, self.run, self.exported):
            inside.addWidget(widget)
        self.new.setText("New training")
        self.new.setStyleSheet("font-weight: bold;")
        self.new.setCheckable(True)
        self.new.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.hold((self.new, self.asked, self.message, _rule(), Section("Trainings", trainings)))

    def _connect(self) -> None:
        self.new.toggled.connect(self._show_new)
        self.asked.start_wanted.connect(self.start_run)
        self.asked.check_began.connect(self.message.clear)
        self.asked.failed.connect(self._show_failure)
        self.runs.currentIndexChanged.connect(self._on_run)
        self.open_run.clicked.connect(self._choose_run)
        self.run.stop_wanted.connect(self._stop_run)
        self.run.end_wanted.connect(self._end_run)
        self.run.resume_wanted.connect(self.resume_run)
        self.run.export_wanted.connect(self.export_run)
        self.run.state_changed.connect(self._on_state)
        self.list_job.returned.connect(self._on_methods)
        self.list_job.failed.connect(self._on_no_methods)
        self.export_job.running_changed.connect(self.run.set_exporting)
        self.export_job.returned.connect(self._on_exported)
        self.export_job.failed.connect(self._on_export_failed)
        self.message.action_wanted.connect(self._replace_model)
        self.run.report_wanted.connect(self.write_report)
        self.report_job.running_changed.connect(self.run.set_reporting)
        self.report_job.returned.connect(self._on_reported)
        self.report_job.failed.connect(self._show_failure)

    # -- the user's wishes

    def start_run(self, request: RunRequest) -> None:
        """Start a training."""
        self._begin(request, resume=False)

    def resume_run(self) -> None:
        """Go on with the training that is shown."""
        chosen = self._chosen
        if chosen is not None:
            self._begin(chosen, resume=True)

    def export_run(self) -> None:
        """Make the model of the training that is shown and install it, in a process of its own."""
        out = self.run.out
        if out is not None:
            self._exported = out
            self._export(force=False)

    def write_report(self) -> None:
        """Write the report of the training that is shown, in a process of its own, and open it."""
        out = self.run.out
        if out is not None:
            self.message.clear()
            self._reported = out
            self.report_job.start(partial(reporting_run, out))

    def open_folder(self, out: Path) -> None:
        """Follow the training in a folder, whoever started it."""
        try:
            remember(run_in(out))
        except Her2Error as error:
            self._show_failure(Failure(str(error)))
            return
        self._show_runs(out)

    def shutdown(self) -> None:
        """Stop what the dock does, and let go of the viewer; trainings go on."""
        super().shutdown()
        self.run.shutdown()

    # -- what changes around it

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.no_run.setStyleSheet(f"color: {colours.muted};")
        for part in (self.asked, self.message, self.run):
            part.set_colours(colours)

    def _show_new(self, shown: bool) -> None:
        self.new.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.asked.setVisible(shown)

    def _look_for_methods(self) -> None:
        missing = missing_extra()
        if missing:
            self._on_no_methods(Failure(missing))
        else:
            self.list_job.start(listing_methods)

    def _on_methods(self, methods: Sequence[MethodChoice]) -> None:
        self.asked.set_methods(methods)
        if self._runs and not self.asked.form.data.text:
            self.asked.form.set_request(self._runs[0])

    def _on_no_methods(self, failure: Failure) -> None:
        self.asked.set_methods([])
        self._show_failure(failure)

    # -- trainings

    @property
    def _chosen(self) -> RunRequest | None:
        at = self.runs.currentIndex()
        return self._runs[at] if 0 <= at < len(self._runs) else None

    def _show_runs(self, chosen: Path | None = None) -> None:
        """List the known trainings; show one, else one that runs, else the latest."""
        self._runs = known_runs()
        folders = [run.folder for run in self._runs]
        if chosen is None:
            live = [folder for folder in folders if status_of(folder).is_live]
            chosen = next(iter([*live, *folders]), None)
        self.runs.blockSignals(True)
        self.runs.clear()
        for run in self._runs:
            self.runs.addItem(f"{run.folder.name} ({run.method})", run.out)
            self.runs.setItemData(self.runs.count() - 1, run.out, Qt.ItemDataRole.ToolTipRole)
        self.runs.setCurrentIndex(folders.index(chosen) if chosen in folders else -1)
        self.runs.blockSignals(False)
        self.runs.setVisible(bool(folders))
        self.no_run.setVisible(not folders)
        self._on_run()

    def _on_run(self) -> None:
        chosen = self._chosen
        self.exported.setVisible(False)
        self.runs.setToolTip("" if chosen is None else chosen.out)
        self.run.show_run(None if chosen is None else chosen.folder)

    def _choose_run(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Output folder of a training")
        if chosen:
            self.open_folder(Path(chosen))

    def _begin(self, request: RunRequest, *, resume: bool) -> None:
        if self._do(partial(start_training, request, resume=resume)):
            self.asked.checked.clear()
            self._show_runs(request.folder)
            self.asked.look_again()
            self.new.setChecked(False)  # makes room for its curves

    def _stop_run(self) -> None:
        out = self.run.out
        if out is not None:
            self._do(partial(request_stop, out))

    def _end_run(self) -> None:
        out = self.run.out
        if out is not None and self._do(partial(end_now, out)):
            self.run.poll()

    def _do(self, action: Callable[[], None]) -> bool:
        self.message.clear()
        try:
            action()
        except Her2Error as error:
            self._show_failure(Failure(str(error)))
            return False
        return True

    def _on_state(self) -> None:
        self.exported.setVisible(False)
        self.asked.look_again()

    # -- what the jobs report

    def _on_exported(self, words: str) -> None:
        if self.run.out == self._exported:
            self.exported.setText(f"{words.rstrip('.')}. HER2 Scoring offers it now.")
            self.exported.setVisible(True)
        self.session.models_changed.emit()

    def _on_export_failed(self, failure: Failure) -> None:
        if failure.kind is ModelNameTaken:
            self.message.show_failure(failure, "Replace it")
        else:
            self._show_failure(failure)

    def _replace_model(self) -> None:
        self._export(force=True)

    def _export(self, *, force: bool) -> None:
        self.message.clear()
        self.exported.setVisible(False)
        together = self.run.together.isVisibleTo(self.run) and self.run.together.isChecked()
        self.export_job.start(partial(exporting_run, self._exported, ensemble=together, force=force))

    def _on_reported(self) -> None:
        self.run.poll()
        if self.run.out == self._reported:
            self.run.open_report()

    def _show_failure(self, failure: Failure) -> None:
        self.message.show_failure(failure)


def _rule() -> QFrame:
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    rule.setFrameShadow(QFrame.Shadow.Sunken)
    return rule
