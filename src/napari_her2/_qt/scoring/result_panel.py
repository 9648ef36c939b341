"""Everything about the result of the chosen slide: card, own score, cells, overlays, tiles, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_her2._napari.judging import demands_of, judge_anew, show_withheld
from napari_her2._napari.model_rows import cases_of
from napari_her2._napari.turns import at_once
from napari_her2._napari.work import exporting
from napari_her2._qt.parts.jobs import Job
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.turns import Stepwise
from napari_her2._qt.scoring.cells_panel import CellsPanel
from napari_her2._qt.scoring.gallery import Gallery
from napari_her2._qt.scoring.how_sure import HowSure
from napari_her2._qt.scoring.manual_score import ManualScoreForm
from napari_her2._qt.scoring.model_table import ModelTable
from napari_her2._qt.scoring.overlay_controls import OverlayControls
from napari_her2._qt.scoring.report_job import (
    FILTERS,
    PDF,
    open_slides,
    reporting,
    session_regions,
    with_ending,
)
from napari_her2._qt.scoring.result_card import ResultCard
from napari_her2._qt.scoring.seen_image import SeenImages
from napari_her2._qt.scoring.strange_tiles import strange_strips
from napari_her2._qt.scoring.tile_panel import TilePanel
from napari_her2.desk.own_score import category_beside
from napari_her2.methods.catalogue import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2._napari.demands import Demands
    from napari_her2._napari.overlays import OverlaySet
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._napari.turns import Turns
    from napari_her2._qt.parts.theme import Colours
    from napari_her2.desk.own_score import ManualScore
    from napari_her2.inference.result import SlideResult


class ResultPanel(QWidget):
    """Result of one slide of the session, or of the case that it belongs to.

    Parameters
    ----------
    session : Session
    settings : Settings
    turns : callable
        Shows the parts of a result, one a step.

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        settings: Settings,
        parent: QWidget | None = None,
        *,
        turns: Turns = at_once,
    ) -> None:
        super().__init__(parent)
        self._session, self._settings = session, settings
        self._showing = Stepwise(self, turns)
        self._slide_id = ""
        self.models = ModelTable(session)
        self.several_models = Section("Answers for this slide and its case", self.models)
        self.card = ResultCard()
        self.strange = Gallery(session.slide_of)
        self.strange_tiles = Section("How unlike the slide is", self.strange)
        self.demands = HowSure()
        self.how_sure = Section("How sure it has to be", self.demands)
        self.cells = CellsPanel(session)
        self.manual = ManualScoreForm()
        self.overlays = OverlayControls()
        self.seen_images = SeenImages(session)
        self.seen = Section("What the model saw", self.seen_images)
        self.tiles = TilePanel(session)
        self.exported = Label(wrap=True)
        self.exported.setVisible(False)
        self.export_job, self.report_job = Job(), Job()
        self.jobs = (*self.tiles.jobs, self.strange.job, self.export_job, self.report_job)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (
            self.several_models,
            Section("Result", self.card),
            self.how_sure,
            self.cells,
            Section("Your own reading", self.manual),
            Section("Overlays", self.overlays),
            self.seen,
            self.tiles,
        ):
            layout.addWidget(widget)
        self.card.put_before_facts(self.strange_tiles)
        self.card.layout().addWidget(self.exported)
        self._connect()
        self.show_slide("")

    def _connect(self) -> None:
        self.manual.changed.connect(self._on_manual)
        self.cells.failed.connect(self.failed)
        self.card.export_wanted.connect(self._choose_folder)
        self.card.report_wanted.connect(self._choose_report)
        self.card.show_wanted.connect(self._on_show_wanted)
        self.strange.chosen.connect(self.tiles.lead_to)
        self.demands.changed.connect(self._on_demands)
        controls = self.overlays
        controls.visible_changed.connect(self._on_visible)
        controls.class_changed.connect(self._on_class)
        controls.scale_changed.connect(self._on_scale)
        controls.opacity_changed.connect(self._on_opacity)
        controls.held.connect(self._on_held)
        self.export_job.returned.connect(self._on_exported)
        self.export_job.failed.connect(self.failed)
        self.report_job.returned.connect(self._on_exported)
        self.report_job.failed.connect(self.failed)
        self.report_job.running_changed.connect(self.card.report.setDisabled)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(self._session.result_changed, self._on_result)
        self._subscriptions.add(self._session.results_changed, self._on_results)
        self._subscriptions.add(self._session.result_followed, self._on_followed)
        self._subscriptions.add(self._session.look_changed, self._on_look)
        self._subscriptions.add(self._session.demands_changed, self._show_demands)
        self._subscriptions.add(self._session.slides_changed, self._on_slides)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.card.set_colours(colours)
        self.strange.set_colours(colours)
        self.demands.set_colours(colours)
        self.cells.set_colours(colours)
        self.seen_images.set_colours(colours)
        self.tiles.set_colours(colours)

    @property
    def whole(self) -> bool:
        """Whether all of the result is shown, not only its first parts."""
        return not self._showing.running

    def show_slide(self, slide_id: str) -> None:
        """Show the result of a slide, or nothing where there is none."""
        self._slide_id = slide_id
        self._showing.begin(self._show_parts())

    def _show_parts(self) -> Iterator[None]:
        """Show part after part; a panel that was not there appears when it is whole."""
        result = self._session.shown(self._slide_id)
        if result is None:
            self.setVisible(False)
        self.models.show_slide(self._slide_id)
        self.several_models.setVisible(self.models.count > 1)
        self.card.set_result(result)
        self.how_sure.setVisible(result is not None and METHODS[result.method].needs_weights)
        self.demands.set_result(result)
        self._show_demands()
        self.exported.setVisible(False)
        self._show_own(result)
        yield
        self.seen_images.show_result(result)
        self.seen.setVisible(self.seen_images.count > 0)
        self.cells.show_result(result)
        self._show_overlays()
        yield
        self._show_tiles(result)
        self.setVisible(result is not None)

    def _show_own(self, result: SlideResult | None) -> None:
        """Show the pathologist's own score beside a result."""
        self.manual.set_value(self._session.manual(self._read_id))
        self.manual.set_result(result)
        self._show_category()

    def export_to(self, folder: Path) -> None:
        """Write the result to a folder, in a thread."""
        result = self._session.result(self._slide_id)
        if result is not None:
            manual = self._session.manual(self._read_id)
            self.export_job.start(lambda: exporting(result, manual, folder))

    def report_to(self, path: Path) -> None:
        """Write one page about the result, in a thread."""
        result = self._session.result(self._slide_id)
        if result is None:
            return
        from napari_her2.reports.of_result import Desk

        slides = open_slides(self._session, result)
        regions = session_regions(self._session, result.slide_id)
        cases = cases_of(self._session, self._slide_id)
        case = next((of for of in cases if of.model == result.model), None)
        desk = Desk(self._session.manual(self._read_id), regions, case=case)
        self.report_job.start(lambda: reporting(result, slides, desk, path))

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer."""
        self._showing.end()
        self.models.shutdown()
        self.cells.shutdown()
        self.tiles.shutdown()
        self.strange.shutdown()
        self.export_job.shutdown()
        self.report_job.shutdown()
        self._subscriptions.end()

    @property
    def _read_id(self) -> str:
        """Slide that keeps the pathologist's own score: one for a case, from whichever slide it is seen."""
        result = self._session.shown(self._slide_id)
        if result is None or len(result.slides) < 2:
            return self._slide_id
        return next((slide.slide_id for slide in result.slides if slide.stain == "H&E"), self._slide_id)

    @property
    def _overlay_sets(self) -> list[OverlaySet]:
        """Overlays of all open slides of the result: the controls are for the case."""
        result = self._session.shown(self._slide_id)
        return [] if result is None else self._session.overlay_sets(result)

    def _show_overlays(self) -> None:
        sets = self._overlay_sets
        if not sets:
            return
        shown = sets[0]
        self.overlays.set_overlays(
            tuple(shown.overlays.values()), shown.look, shown.result.score, shown.result.named
        )
        visible: dict[str, bool | None] = {}
        for kind in self.overlays.boxes:
            layers = [layer for of in sets if (layer := of.layer(kind)) is not None]
            visible[kind] = any(layer.visible for layer in layers) if layers else None
        self.overlays.set_visible(visible)

    def _show_tiles(self, result: SlideResult | None) -> None:
        """Show the tiles of a result; where cells were read, they are what can be clicked."""
        if result is not None and result.slides[0].cells is not None:
            result = None
        self.tiles.show_result(result)
        self.tiles.setVisible(result is not None)
        self.strange.set_strips(strange_strips(self.tiles.lookups))
        self.strange_tiles.setVisible(bool(self.strange.strips))

    def _show_demands(self) -> None:
        self.demands.set_demands(demands_of(self._session, self._settings))

    def _show_category(self) -> None:
        """Show beside the prediction what follows from the user's own entries."""
        manual = self._session.manual(self._read_id)
        of = "By your own reading: " if manual.category() else ""
        self.card.set_category(of + category_beside(manual, self._session.shown(self._slide_id)))

    def _on_result(self, slide_id: str) -> None:
        if slide_id == self._slide_id:
            self.show_slide(slide_id)

    def _on_results(self, slide_id: str) -> None:
        """Show the table of models as soon as there is a choice."""
        if slide_id == self._slide_id:
            self.several_models.setVisible(self.models.count > 1)

    def _on_followed(self, slide_id: str) -> None:
        """Show the answer for regions that are being drawn; pictures of tiles come once that rests."""
        if slide_id == self._slide_id:
            result = self._session.shown(slide_id)
            self.card.set_result(result)
            self.demands.set_result(result)
            self._show_category()

    def _on_look(self, slide_id: str) -> None:
        """Show in the controls what another part of the dock did to the overlays."""
        if slide_id == self._slide_id:
            self._show_overlays()

    def _on_slides(self) -> None:
        """Forget the tiles of a slide that was closed, and an image that was taken off it."""
        self.seen_images.sync()
        if not all(self._session.slide_of(slide_id) for slide_id in self.tiles.slide_ids):
            self._show_tiles(self._session.shown(self._slide_id))

    def _on_manual(self, manual: ManualScore) -> None:
        self._session.set_manual(self._read_id, manual)
        self._show_category()

    def _on_show_wanted(self, wanted: bool) -> None:
        show_withheld(self._session, self._slide_id, shown=wanted)

    def _on_demands(self, demands: Demands) -> None:
        judge_anew(self._session, demands)

    def _on_visible(self, kind: str, visible: bool) -> None:
        for shown in self._overlay_sets:
            shown.set_visible(kind, visible)

    def _on_class(self, kind: str, name: str) -> None:
        for shown in self._overlay_sets:
            shown.set_class(kind, name)

    def _on_scale(self, kind: str, scale: str) -> None:
        for shown in self._overlay_sets:
            shown.set_scale(kind, scale)

    def _on_opacity(self, opacity: float) -> None:
        for shown in self._overlay_sets:
            shown.set_opacity(opacity)

    def _on_held(self, held: bool) -> None:
        for shown in self._overlay_sets:
            (shown.hide if held else shown.show)()

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder to write the result to")
        if chosen:
            self.export_to(Path(chosen))

    def _choose_report(self) -> None:
        result = self._session.shown(self._slide_id)
        name = "" if result is None else f"{result.slide}-her2-report{PDF}"
        chosen, _ = QFileDialog.getSaveFileName(self, "Where to write the report", name, FILTERS)
        if chosen:
            self.report_to(with_ending(Path(chosen)))

    def _on_exported(self, folder: Path) -> None:
        self.exported.setText(f"Written to {folder}")
        self.exported.setVisible(True)
