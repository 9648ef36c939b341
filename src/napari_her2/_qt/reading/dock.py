"""The dock HER2 Reading: the cases of a study, one by one, under neutral names until they are scored."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_her2._qt.parts.dock import Dock
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.message_box import MessageBox
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.reading.case_view import CaseView
from napari_her2._qt.reading.reading_panel import ReadingPanel
from napari_her2._qt.reading.study_picker import StudyPicker
from napari_her2._qt.reading.work import (
    Begun,
    Revealed,
    beginning,
    opening_study,
    revealing,
    saving,
    skipping,
)
from napari_her2.reading.sitting import Sitting, Stopwatch

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.reading.readings import Reading
    from napari_her2.reading.worklist import Study

_TICK_MS = 500
_MOST_FAILURES = 3
"""So many cases in a row that cannot be opened end a sitting: then it is the disk, and not the slides."""


class ReadingDock(Dock):
    """Shows a reader the cases of a study and keeps what they read.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer)
        self._begun: Begun | None = None
        self._failures = 0
        self.watch = Stopwatch()
        self.picker, self.panel, self.message = StudyPicker(), ReadingPanel(), MessageBox()
        self.view = CaseView(self.session, self.settings)
        self.study_job, self.begin_job, self.save_job, self.reveal_job = Job(), Job(), Job(), Job()
        self.ticking = QTimer(self)
        self.ticking.setInterval(_TICK_MS)
        self._section = Section("Study", self.picker)
        self.hold((self._section, self.message, self.panel))
        self.panel.setVisible(False)
        self._connect()
        self.live_with(
            (self.study_job, self.begin_job, self.save_job, self.reveal_job), others=self.view.jobs
        )

    def _connect(self) -> None:
        self.picker.open_wanted.connect(self._choose_study)
        self.picker.start_wanted.connect(self.begin)
        self.picker.form.make_wanted.connect(self.make_study)
        self.message.action_wanted.connect(self._close_others)
        self.panel.save_wanted.connect(self.save)
        self.panel.skip_wanted.connect(self.skip)
        self.panel.previous_wanted.connect(self.go_back)
        self.panel.next_wanted.connect(self.go_forward)
        self.panel.on_wanted.connect(self.go_on)
        self.panel.stop_wanted.connect(self.stop)
        self.view.opened.connect(self._on_opened)
        self.view.failed.connect(self._on_not_opened)
        self.view.changed_content.connect(self._on_other_content)
        for job, slot in (
            (self.study_job, self._on_study),
            (self.begin_job, self._on_begun),
            (self.save_job, self._on_saved),
            (self.reveal_job, self._on_revealed),
        ):
            job.returned.connect(slot)
            job.failed.connect(self._on_failed)
        self.ticking.timeout.connect(self._tick)
        app = QGuiApplication.instance()
        if app is not None:
            app.applicationStateChanged.connect(self._tick)

    @property
    def sitting(self) -> Sitting | None:
        """The reader at work; None where nobody reads."""
        return None if self._begun is None else self._begun.sitting

    # -- the user's wishes

    def open_study(self, folder: Path) -> None:
        """Open a study, in a thread."""
        self.message.clear()
        self.study_job.start(partial(opening_study, folder))

    def make_study(self) -> None:
        """Make the study that is entered, in a thread, and open it."""
        self.message.clear()
        missing = self.picker.form.missing
        if missing:
            self._show_failure(missing)
        else:
            self.study_job.start(self.picker.form.steps())

    def begin(self) -> None:
        """Begin to read as the chosen reader in the chosen round."""
        self.message.clear()
        study, folder = self.picker.study, self.picker.folder
        if study is None or folder is None:
            return
        if self.session.slide_layers():
            seen = " Their names and results can be seen." if study.blinded else ""
            self._show_failure(f"Other slides are open: close them before you read.{seen}", "Close them")
            return
        reader, round_name = self.picker.reader.currentData(), self.picker.round.currentData()
        self.picker.set_reading(True)
        self.begin_job.start(partial(beginning, folder, study, reader, round_name))

    def save(self) -> None:
        """Save what is entered, in a thread; then show what may be seen, or the next case."""
        sitting, entered = self.sitting, self.panel.form.entered
        if sitting is None or self.save_job.running or not self.view.layers:
            return
        self.message.clear()
        if not entered.score:
            self._show_failure("Choose a score first: 0, U (ultralow), 1, 2 or 3. Or skip the case.")
            return
        self.watch.run(False)
        self.panel.set_open(False)
        self.save_job.start(
            partial(
                saving,
                sitting,
                entered.score,
                percentage=entered.percentage,
                ish=entered.ish,
                comment=entered.comment,
                seconds=self.watch.seconds,
                model_seen=self.view.has_results,
                fingerprints=self.view.fingerprints,
            )
        )

    def skip(self, reason: str) -> None:
        """Leave the case unread, with a reason, and go on."""
        sitting = self.sitting
        if sitting is not None and not self.save_job.running:
            self.message.clear()
            self.panel.set_open(False)
            self.save_job.start(partial(skipping, sitting, reason, self.watch.seconds))

    def go_on(self) -> None:
        """Go to the next case that is not read; where there is none, the round is over."""
        sitting = self.sitting
        if sitting is None:
            return
        following = sitting.next_open(sitting.at)
        if following is None:
            self._finish()
        else:
            self._go(following)

    def go_forward(self) -> None:
        """Go to the case behind this one, read or not."""
        self._step(1)

    def go_back(self) -> None:
        """Go to the case before this one, read or not."""
        self._step(-1)

    def stop(self) -> None:
        """Close the case and let others read; the reader goes on here the next time."""
        self.ticking.stop()
        self.watch.reset()
        self.view.close()
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.sitting.close()
        self.panel.setVisible(False)
        self.panel.set_open(False)
        self.picker.set_reading(False)

    def shutdown(self) -> None:
        """Stop all work, close the case, and let go of the viewer."""
        super().shutdown()
        self.stop()

    # -- the way from case to case

    def _step(self, by: int) -> None:
        sitting = self.sitting
        if sitting is not None:
            self._go((sitting.at + by) % len(sitting.order))

    def _go(self, place: int) -> None:
        sitting = self.sitting
        if sitting is None:
            return
        sitting.at = place
        self.watch.reset()
        self.panel.clear()
        hidden = sitting.study.blinded and not sitting.is_revealed
        self.view.open(sitting.folder, sitting.case, sitting.neutral_name, blinded=hidden)
        self._show_place()
        self.panel.show_note("Opening the slide …")

    def _show_place(self) -> None:
        sitting = self.sitting
        if sitting is not None:
            name = sitting.neutral_name if self.view.blinded else sitting.case.case_id
            self.panel.show_case(name, sitting.at, sitting.counts)

    def _finish(self) -> None:
        sitting = self.sitting
        if sitting is None:
            return
        read, skipped, total = sitting.counts
        words = f"Every case of this round is read: {read} of {total}. Thank you."
        if skipped:
            words = f"{read} of {total} cases are read; {skipped} could not be read, and are skipped."
        self.stop()
        self.message.clear()
        self.picker.facts.setText(words)

    def _tick(self, _state: object = None) -> None:
        active = QGuiApplication.applicationState() == Qt.ApplicationState.ApplicationActive
        self.set_active(active and not self.window().isMinimized())

    def set_active(self, active: bool) -> None:
        """Let the time count while a case can be read and napari is the active program."""
        self.watch.run(active and bool(self.view.layers) and self.panel.form.isEnabled())
        self.panel.show_time(self.watch.seconds, self.watch.running)

    # -- what the jobs report

    def _on_study(self, opened: tuple[Path, Study, tuple[str, ...]] | tuple[Path, tuple[str, ...]]) -> None:
        if len(opened) == 2:  # it was made
            folder, notes = opened
            self.picker.form.clear()
            self.study_job.start(partial(opening_study, folder, notes))
            return
        folder, study, notes = opened
        self.picker.show_study(folder, study)
        if notes:
            self._show_failure("\n".join(notes))

    def _on_begun(self, begun: Begun) -> None:
        self._begun, self._failures = begun, 0
        self.panel.setVisible(True)
        self.ticking.start()
        if begun.notes:
            self._show_failure("\n".join(begun.notes))
        self._go(begun.sitting.at)

    def _on_opened(self) -> None:
        sitting = self.sitting
        if sitting is None:
            return
        self._failures = 0
        self.panel.begin(sitting.latest)
        self._show_place()
        self.panel.show_note(_scores_before(sitting))
        self._tick()
        self.panel.form.scores.setFocus()
        if sitting.is_revealed:
            self._reveal()

    def _on_not_opened(self, failure: Failure) -> None:
        sitting = self.sitting
        if sitting is None:
            return
        self._failures += 1
        there = all(slide.path.exists() for slide in sitting.case.slides)
        why = "is damaged, or is no slide" if there else "is not there"
        if self._failures >= _MOST_FAILURES:
            self.stop()
            self._show_failure(
                f"{_MOST_FAILURES} cases in a row could not be opened; of the last one a file {why}. Check "
                f"that the disk of the slides is there, then start again."
            )
            return
        self._show_failure(
            f"{sitting.neutral_name} is skipped, because a file of it {why}. The reason is kept with the "
            f"readings."
        )
        self.save_job.start(partial(skipping, sitting, failure.message))

    def _on_saved(self, reading: Reading) -> None:
        sitting = self.sitting
        if sitting is None:
            return
        self.watch.reset()  # a correction has its own time
        if reading.skipped or not sitting.is_revealed:
            self.go_on()
        else:
            self._show_place()
            self._reveal()

    def _reveal(self) -> None:
        begun = self._begun
        if begun is not None:
            self.reveal_job.start(
                partial(revealing, begun, self.view.case, self.view.slides, dict(self.view.fingerprints))
            )

    def _on_revealed(self, revealed: Revealed) -> None:
        sitting = self.sitting
        if sitting is None or not self.view.layers or revealed.case_id != sitting.case.case_id:
            return
        self.view.reveal(revealed)
        self._show_place()
        self.panel.show_after(revealed.lines)

    def _on_other_content(self) -> None:
        self.panel.show_note(
            "This is not the slide that was read before as this case: its content is another one. Skip it, "
            "and tell whoever runs the study."
        )

    def _on_failed(self, failure: Failure) -> None:
        if self.sitting is None:
            self.picker.set_reading(False)
        elif self.view.layers:
            self.panel.set_open(True)
        self.message.show_failure(failure)

    # -- small things

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for part in (self.picker, self.panel, self.message):
            part.set_colours(colours)

    def _choose_study(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder of a study")
        if chosen:
            self.open_study(Path(chosen))

    def _close_others(self) -> None:
        viewer = self.session.viewer
        if viewer is None:
            return
        for layer in self.session.slide_layers():
            viewer.layers.remove(layer)
        self.begin()

    def _show_failure(self, words: str, action: str = "") -> None:
        self.message.show_failure(Failure(words), action)


def _scores_before(sitting: Sitting) -> str:
    scores = sitting.scores_of_others()
    return f"Read before as: {'; '.join(scores)}." if scores else ""
