"""The dock HER2 Day's List: cases from a folder or a table, scored one after the other, in one table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_her2._napari.day_work import (
    DayBegun,
    changing_day,
    opening_day,
    opening_row,
    running_day,
    writing_day,
)
from napari_her2._napari.judging import demands_of
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.opening import add_slides
from napari_her2._napari.work import ModelsFound, finding_equipment
from napari_her2._qt.day_list.new_list import NewList
from napari_her2._qt.day_list.rows_view import RowsView
from napari_her2._qt.day_list.run_bar import RunBar
from napari_her2._qt.parts.dock import Dock
from napari_her2._qt.parts.file_drop import dropped_files, holds_files, leave_drops_to
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.message_box import MessageBox
from napari_her2.cohort.day_file import DAY_FILE
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.cohort.day_run import DayProgress
from napari_her2.errors import Her2Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel
    from qtpy.QtGui import QDropEvent

    from napari_her2._napari.day_work import Day, OpenedRow
    from napari_her2._napari.work import Equipment
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.cohort.day_run import Workers
    from napari_her2.steps import Progress


class DayListDock(Dock):
    """Puts a list together, scores it, and shows its rows; a list goes on when napari was closed in between.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        self.day: Day | None = None
        self.message = MessageBox()
        self.new, self.kept = QToolButton(), QPushButton("Open a list…")
        self.form = NewList()
        self.run, self.rows = RunBar(), RowsView()
        self.look_job, self.list_job, self.run_job = Job(), Job(), Job()
        self.open_job, self.row_job, self.table_job, self.change_job = Job(), Job(), Job(), Job()
        self._arrange()
        self._connect()
        self.live_with(self._all_jobs())
        self.new.setChecked(True)
        self._update_ready()
        self._look_around()

    def _arrange(self) -> None:
        self.new.setText("New list")
        self.new.setStyleSheet("font-weight: bold;")
        self.new.setCheckable(True)
        self.new.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.kept.setToolTip("Show, or go on with, a list by the folder of its results")
        head = QWidget()
        line = QHBoxLayout(head)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.new)
        line.addStretch()
        line.addWidget(self.kept)
        self.hold((head, self.form, self.run, self.message, self.rows))
        content = self.scroll.widget()
        layout = None if content is None else content.layout()
        if isinstance(layout, QVBoxLayout):
            layout.setStretchFactor(self.rows, 1)  # the table takes what room there is
        leave_drops_to(self)

    def _connect(self) -> None:
        self.new.toggled.connect(self._show_new)
        self.kept.clicked.connect(self._choose_list)
        self.form.source_wanted.connect(self.look_at_source)
        self.form.changed.connect(self._update_ready)
        self.run.start_wanted.connect(self.start)
        self.run.pause_wanted.connect(self.pause)
        self.run.stop_wanted.connect(self.run_job.cancel)
        self.run.retry_wanted.connect(self.retry_failed)
        self.rows.open_wanted.connect(self.open_row)
        self.rows.retry_wanted.connect(self.retry_rows)
        self.rows.leave_out_wanted.connect(self.leave_out)
        self.rows.export_wanted.connect(self._choose_table)
        self.look_job.progressed.connect(self._on_looking)
        self.look_job.returned.connect(self._on_equipment)
        self.list_job.progressed.connect(self.form.show_looking)
        self.list_job.returned.connect(self.form.take)
        self.run_job.progressed.connect(self._on_progress)
        self.run_job.running_changed.connect(self._on_running)
        self.open_job.returned.connect(self.show_day)
        self.row_job.progressed.connect(self._on_row_progress)
        self.row_job.returned.connect(self._on_row)
        self.table_job.returned.connect(self._on_table)
        self.change_job.running_changed.connect(self._catch_up)
        for job in self._all_jobs():
            job.failed.connect(self._show_failure)
        self.subscriptions.add(self.session.models_changed, self._look_around)
        self.subscriptions.add(self.session.manual_changed, self._on_manual)

    def _all_jobs(self) -> tuple[Job, ...]:
        own = (self.look_job, self.list_job, self.run_job)
        return (*own, self.open_job, self.row_job, self.table_job, self.change_job)

    # -- the user's wishes

    def look_at_source(self) -> None:
        """Put the cases together from what was chosen, in a thread."""
        self.message.clear()
        try:
            looking = self.form.looking()
        except Her2Error as error:
            self._show_failure(Failure(str(error)))
            return
        self.new.setChecked(True)
        self.list_job.start(looking)

    def start(self) -> None:
        """Score the chosen cases with the ticked models, or go on with the list that is shown."""
        workers = self._workers()
        if self._missing() or workers is False:
            return
        self._begin(self._beginning(), workers, retry=False)

    def pause(self) -> None:
        """Begin no other slide."""
        if self.day is not None:
            self.day.queue.pause()

    def retry_failed(self) -> None:
        """Try again what failed, and what had a problem."""
        workers = self._workers()
        if self.day is not None and workers is not False and not self.run_job.running:
            self._begin(partial(DayQueue, self.day.queue.folder), workers, retry=True)

    def retry_rows(self, numbers: Sequence[int]) -> None:
        """Let rows wait again; Start scores them."""
        self._change(lambda queue: queue.retry(numbers))

    def leave_out(self, numbers: Sequence[int]) -> None:
        """Skip rows that wait."""
        self._change(lambda queue: queue.leave_out(numbers))

    def open_list(self, folder: Path) -> None:
        """Show the list in a folder, in a thread."""
        self.message.clear()
        self.open_job.start(partial(opening_day, folder))

    def open_row(self, number: int) -> None:
        """Open the slides of a row with its result, in a thread; nothing is scored."""
        if self.day is not None:
            self.message.clear()
            self.row_job.start(partial(opening_row, self.day, number))

    def write_table(self, path: Path) -> None:
        """Write the rows that are shown as CSV or XLSX, in a thread."""
        if self.day is not None:
            self.message.clear()
            self.table_job.start(partial(writing_day, self.day, path, self.rows.shown.numbers()))

    def show_day(self, day: Day) -> None:
        """Show a list."""
        self.day = day
        self.rows.set_day(day)
        self.run.set_counts(day.queue.counts())
        self.form.out.edit.setText(str(day.queue.folder))
        self.new.setChecked(False)
        self._update_ready()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Make a list of what is dropped; a folder that holds a list is opened."""
        if event is None or not holds_files(event.mimeData()):
            return
        event.acceptProposedAction()
        paths, refusal = dropped_files(event.mimeData())
        self.message.clear()
        if len(paths) == 1 and (paths[0] / DAY_FILE).is_file():
            self.open_list(paths[0])
        elif paths:
            self.form.source.take(tuple(paths))
        if refusal:
            self._show_failure(Failure(refusal))

    # -- what changes around it

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for part in (self.form, self.message, self.rows):
            part.set_colours(colours)

    def _look_around(self) -> None:
        self.look_job.start(partial(finding_equipment, self.settings))

    def _show_new(self, shown: bool) -> None:
        self.new.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)
        self.form.setVisible(shown)
        self._update_ready()

    def _update_ready(self) -> None:
        self.run.set_ready(self._missing())

    def _missing(self) -> str:
        """Tell what is missing before a list can start; empty where nothing is."""
        if not self.new.isChecked():
            waits = self.day is not None and self.day.queue.counts()["waiting"]
            return "" if waits else "Nothing waits: make a new list, or retry what failed."
        return self.form.missing

    def _workers(self) -> Workers | bool | None:
        """Return the cluster; False where its form is not filled in rightly."""
        try:
            return self.form.cluster.workers()
        except Her2Error as error:
            self._show_failure(Failure(str(error)))
            return False

    def _beginning(self) -> Callable[[], DayQueue]:
        """Return what makes the queue, in the thread."""
        if not self.new.isChecked() and self.day is not None:
            return partial(DayQueue, self.day.queue.folder)
        return self.form.beginning(demands_of(self.session, self.settings), self.settings)

    def _begin(self, begin: Callable[[], DayQueue], workers: Workers | bool | None, *, retry: bool) -> None:
        self.message.clear()
        cluster = None if isinstance(workers, bool) else workers
        self.run_job.start(partial(running_day, begin, cluster, retry=retry))

    def _change(self, change: Callable[[DayQueue], object]) -> None:
        if self.day is not None:
            self.message.clear()
            self.change_job.start(partial(changing_day, partial(change, self.day.queue)))

    def _catch_up(self, _running: bool = False) -> None:
        if self.day is not None:
            self.rows.rows.catch_up()
            self.run.set_counts(self.day.queue.counts())
            self._update_ready()

    # -- what the jobs report

    def _on_looking(self, progress: Progress) -> None:
        if isinstance(progress, ModelsFound):
            self.form.models.set_models(progress.models)

    def _on_equipment(self, equipment: Equipment) -> None:
        self.form.models.set_models(equipment.models)
        if equipment.problems:
            self._show_failure(Failure("\n".join(equipment.problems)))

    def _on_progress(self, progress: Progress) -> None:
        if isinstance(progress, DayBegun) and progress.day is not None:
            self.show_day(progress.day)
        words = self.run.set_progress(progress)
        if isinstance(progress, DayProgress):
            if progress.warning:
                self._show_failure(Failure(progress.warning))
            self._catch_up()
            if progress.number >= 0 and progress.outcome is None:
                self.rows.rows.show_progress(progress.number, words)

    def _on_running(self, running: bool) -> None:
        self.run.set_running(running)
        self.new.setEnabled(not running)
        self.form.setEnabled(not running)
        self.kept.setEnabled(not running)
        if not running:
            self._catch_up()
            self.rows.filter()
        self._update_ready()

    def _on_row_progress(self, progress: Progress) -> None:
        if not self.run_job.running:
            self.run.stage.setText(progress.title)

    def _on_row(self, opened: OpenedRow) -> None:
        viewer = self.session.viewer
        self._update_ready()
        if viewer is None:
            for slide in opened.slides:
                slide.close()
            return
        add_slides(viewer, opened.slides)
        look = OverlayLook(opacity=self.settings.default_opacity)
        self.session.set_result(opened.result, look, when=opened.when)
        layer = self.session.layer_of(opened.result.slide_id)
        if layer is not None:
            viewer.layers.selection.active = layer

    def _on_table(self, path: Path) -> None:
        self.run.stage.setText(f"The table is written: {path}")

    def _on_manual(self, slide_id: str) -> None:
        result = self.session.result(slide_id)
        if self.day is None or result is None:
            return
        fingerprint = result.seen_from(slide_id).slides[0].fingerprint
        self.day.own[fingerprint] = self.session.manual(slide_id)
        self.rows.rows.show_own(fingerprint)

    def _show_failure(self, failure: Failure) -> None:
        self.message.show_failure(failure)
        self.scroll.ensureWidgetVisible(self.message)

    # -- dialogs

    def _choose_list(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of a list", self.form.out.text)
        if chosen:
            self.open_list(Path(chosen))

    def _choose_table(self) -> None:
        name = str(Path(self.form.out.text or Path.home()) / "day_list.xlsx")
        kinds = "Workbook (*.xlsx);;CSV (*.csv)"
        chosen, kind = QFileDialog.getSaveFileName(self, "Table of the list", name, kinds)
        if chosen:
            path = Path(chosen)
            ending = ".csv" if "csv" in kind else ".xlsx"
            self.write_table(path if path.suffix else path.with_suffix(ending))
