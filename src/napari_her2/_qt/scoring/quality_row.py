"""Quality in the dock: whether poor tissue is left out, and a look at it without scoring."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_her2._napari.quality import looking_at_slide, show_quality
from napari_her2._napari.settings import ALWAYS, NEVER
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.progress_row import ProgressRow
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.theme import Colours
from napari_her2.errors import Her2Error
from napari_her2.explain.quality import QUALITY, share_in_words
from napari_her2.models.card import LEFT_OUT

if TYPE_CHECKING:
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.scoring.region_picker import RegionPicker
    from napari_her2.models.registry import ModelEntry
    from napari_her2.slide.quality import Quality

_WHAT = "tissue that is out of focus, under a pen, folded, under a bubble or blank"


class QualityRow(QWidget):
    """Tick, button, and what the last look found.

    Parameters
    ----------
    session : Session
    settings : Settings
    regions : RegionPicker
        Where the tissue preset is chosen.

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(
        self, session: Session, settings: Settings, regions: RegionPicker, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._settings, self._regions = session, settings, regions
        self._entry: ModelEntry | None = None
        self._slide_id = self._asked_id = ""
        self._wishes: dict[str, bool] = {}
        self.look_job = Job()
        self.jobs = (self.look_job,)
        self.leave_out = QCheckBox("&Leave out poor tissue")
        self.leave_out.clicked.connect(self._on_wish)
        self.progress = ProgressRow()
        self.progress.start.setText("Show &quality")
        self.progress.start.setToolTip(f"Marks {_WHAT} as a layer over the slide; nothing is scored")
        self.found = Label(wrap=True, selectable=True)
        self.found.setAccessibleName("Quality that was found")
        self.found.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.leave_out, self.progress, self.found):
            layout.addWidget(widget)
        self.progress.start_wanted.connect(self.look)
        self.progress.cancel_wanted.connect(self.look_job.cancel)
        self.look_job.running_changed.connect(self.progress.set_running)
        self.look_job.progressed.connect(self.progress.set_progress)
        self.look_job.returned.connect(self._on_looked)
        self.look_job.failed.connect(self.failed)
        self.set_colours(Colours())
        self.set_model(None)
        self.set_slide("")

    @property
    def wish(self) -> bool:
        """Whether poor tissue is to be left out."""
        return bool(self.leave_out.isChecked())

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.found.setStyleSheet(f"color: {colours.muted};")

    def set_model(self, entry: ModelEntry | None) -> None:
        """Take the chosen model, which says how the tick begins; a wish of the user's for it stays."""
        self._entry = entry
        learnt = entry is not None and entry.card.quality == LEFT_OUT
        begins = {ALWAYS: True, NEVER: False}.get(self._settings.leave_out_poor, learnt)
        name = "" if entry is None else entry.name
        self.leave_out.setChecked(self._wishes.get(name, begins))
        self.leave_out.setEnabled(entry is not None)
        if entry is None:
            words = "Choose a model first."
        elif learnt:
            words = f"{entry.name} learnt without such tissue, so that it is left out by default."
        else:
            words = (
                f"{entry.name} learnt from all tissue, poor or not, so that this is off by default: how "
                f"often its answers are right was not measured without it."
            )
        self.leave_out.setToolTip(f"Scores without {_WHAT}. {words} Limits are set in napari's Preferences.")

    def set_slide(self, slide_id: str) -> None:
        """Take the chosen slide."""
        if slide_id != self._slide_id:
            self.look_job.cancel()
            self.found.setVisible(False)
        self._slide_id = slide_id
        slide = self._session.slide_of(slide_id)
        missing = "" if slide is not None and slide.mpp is not None else " "
        self.progress.set_ready(missing)
        self.progress.stage.setVisible(False)  # what is missing is told above, where Score is

    def look(self) -> None:
        """Look at the quality of the chosen slide, in a thread."""
        slide = self._session.slide_of(self._slide_id)
        if slide is None or slide.mpp is None:
            return
        self._asked_id = self._slide_id
        card = None if self._entry is None else self._entry.card
        limits = self._settings.quality_limits
        self.look_job.start(partial(looking_at_slide, slide, card, self._regions.preset, limits))

    def shutdown(self) -> None:
        """Stop all work and wait for it."""
        self.look_job.shutdown()

    def _on_wish(self, wanted: bool) -> None:
        if self._entry is not None:
            self._wishes[self._entry.name] = wanted

    def _on_looked(self, quality: Quality) -> None:
        viewer, layer = self._session.viewer, self._session.layer_of(self._asked_id)
        if viewer is None or layer is None or self._asked_id != self._slide_id:
            return
        try:
            show_quality(viewer, quality, layer, self._settings.default_opacity)
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        shown = self._session.overlays(self._asked_id)
        if shown is not None:
            shown.show_only(QUALITY.kind)  # two maps over each other cannot be read
            self._session.look_changed.emit(self._asked_id)
        self.found.setText(f"Quality: {share_in_words(quality)}.")
        self.found.setVisible(True)
