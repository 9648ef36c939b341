"""The form of a new list: its cases, the models that score them, and where the results go."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_her2._napari.settings import ALWAYS, NEVER
from napari_her2._qt.day_list.cases import Cases
from napari_her2._qt.day_list.cluster_form import ClusterForm
from napari_her2._qt.day_list.model_ticks import ModelTicks
from napari_her2._qt.day_list.source_picker import SourcePicker
from napari_her2._qt.parts.case_slides import CaseSlides
from napari_her2._qt.parts.path_row import PathRow
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.smooth_maps import SmoothMaps
from napari_her2.cohort.day_cases import AUTO
from napari_her2.cohort.day_items import DaySettings
from napari_her2.cohort.day_list import entries_steps
from napari_her2.cohort.day_queue import DayQueue
from napari_her2.desk.kept_scales import kept_scale
from napari_her2.inference.options import ScoringOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2._napari.demands import Demands
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.cohort.day_list import DayList
    from napari_her2.steps import Progress

_CASES_WHAT = (
    "Rows of one case_id are slides of one case. A model that learnt from the tiles of a whole case is given "
    "them; of all others every slide is answered by itself, and the answers are joined."
)
_MOST = 4
"""Refusals that are told in words above the table, which has all."""


class NewList(QWidget):
    """Cases, models, options and folder of a list.

    Attributes
    ----------
    source_wanted : Signal()
        Cases are to be put together from what was chosen; see `looking`.
    changed : Signal()
        Another thing may be missing than before.
    """

    source_wanted = Signal()
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.source, self.cases, self.models = SourcePicker(), Cases(), ModelTicks()
        self.out = PathRow("Folder for the results", "A list that is there goes on; results stay in it.")
        self.case_slides = CaseSlides("As the model learnt it", _CASES_WHAT, rules=False)
        self.smooth_maps = SmoothMaps()
        self.cluster = ClusterForm()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (
            Section("Slides", self.source),
            self.cases,
            Section("Models", self.models),
            self.case_slides,
            self.smooth_maps,
            Section("Results", self.out),
            self.cluster,
        ):
            layout.addWidget(part)
        self.source.wanted.connect(self.source_wanted)
        self.models.changed.connect(self.changed)
        self.cases.model.dataChanged.connect(self._on_cases)
        self.out.changed.connect(self._on_out)
        self.out.browse_wanted.connect(self._choose_out)
        self.cases.set_entries(())
        self.case_slides.hide()

    def looking(self) -> Callable[[], Generator[Progress, None, DayList]]:
        """Return what puts the cases together, in a thread; then `take` shows them.

        Raises
        ------
        JobFailed
            If the names of the slides cannot tell cases apart.
        """
        return partial(
            entries_steps,
            self.source.paths,
            self.source.patterns(),
            subfolders=self.source.subfolders.isChecked(),
            known_scale=kept_scale,
        )

    def show_looking(self, progress: Progress) -> None:
        """Show how far that is."""
        count = f" {progress.done:,} of {progress.total:,}" if progress.total else ""
        self.source.set_words(f"{progress.stage}{count} …")

    def take(self, found: DayList) -> None:
        """Show the cases that were found, and what was refused."""
        refused = [f"{entry.name}: {entry.problem}" for entry in found.entries if entry.problem]
        left_out = [f"left out: {path.name} ({why})" for path, why in found.left_out]
        self.source.set_words("\n".join([found.in_words(), *refused[:_MOST], *left_out[:_MOST]]))
        self.cases.set_entries(found.entries)
        if not self.out.text and self.source.paths:
            first = self.source.paths[0]
            base = first if first.is_dir() else first.parent
            self.out.edit.setText(str(base / "her2-results"))
        self._on_cases()

    @property
    def missing(self) -> str:
        """What is missing before the list can start; empty where nothing is."""
        if not self.cases.model.chosen():
            return "Choose slides to score."
        if not self.models.chosen():
            return "Tick a model to score with."
        return "" if self.out.text else "Choose a folder for the results."

    def beginning(self, demands: Demands, settings: Settings) -> Callable[[], DayQueue]:
        """Return what makes the queue of the list, in a thread.

        Parameters
        ----------
        demands : Demands
            Of an answer.
        settings : Settings
        """
        options = ScoringOptions(
            batch_size=settings.batch_size or None,
            coverage=demands.coverage,
            min_familiarity=demands.min_familiarity,
            leave_out_poor={ALWAYS: True, NEVER: False}.get(settings.leave_out_poor),
            overlap=self.smooth_maps.overlap,
            quality_limits=settings.quality_limits,
        )
        way = self.case_slides.way or AUTO if self._several_slides() else AUTO
        models = [(entry.name, entry.card) for entry in self.models.chosen()]
        return partial(
            DayQueue.begin,
            Path(self.out.text),
            self.cases.model.chosen(),
            models,
            DaySettings(options, settings.device, case_slides=way),
        )

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        for part in (self.source, self.cases, self.out):
            part.set_colours(colours)

    def _several_slides(self) -> bool:
        """Whether a case of the list has several rows: only then is there something to join."""
        counts = Counter(entry.case_id for entry in self.cases.model.chosen() if entry.case_id)
        return any(count > 1 for count in counts.values())

    def _on_cases(self) -> None:
        self.case_slides.setVisible(self._several_slides())
        self.changed.emit()

    def _on_out(self) -> None:
        self.out.set_problem("")
        self.changed.emit()

    def _choose_out(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for the results", self.out.text)
        if chosen:
            self.out.edit.setText(chosen)
