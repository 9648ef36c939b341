"""The dock HER2 Scoring: from an open slide to a score with the maps that explain it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

from napari_her2._napari.judging import demands_of
from napari_her2._napari.kept_layers import own_region_layers
from napari_her2._napari.layers import OverlayLook
from napari_her2._napari.slide_layers import named_slides
from napari_her2._napari.work import scoring
from napari_her2._qt.pair.case_section import CaseSection
from napari_her2._qt.parts.appearing_dock import AppearingDock
from napari_her2._qt.parts.file_drop import dropped_files, holds_files, leave_drops_to
from napari_her2._qt.parts.jobs import Failure
from napari_her2._qt.parts.keeper import keeper_of
from napari_her2._qt.parts.message_box import MessageBox
from napari_her2._qt.parts.progress_row import ProgressRow
from napari_her2._qt.parts.sections import Section
from napari_her2._qt.parts.smooth_maps import SmoothMaps
from napari_her2._qt.parts.smooth_panning import SmoothPanning
from napari_her2._qt.parts.text import Label
from napari_her2._qt.parts.turns import Stepwise, one_a_turn
from napari_her2._qt.scoring.calibration_panel import CalibrationPanel
from napari_her2._qt.scoring.cam_panel import CamPanel
from napari_her2._qt.scoring.correlated_panel import CorrelatedPanel
from napari_her2._qt.scoring.drawn_regions import DrawnRegions, is_region_file
from napari_her2._qt.scoring.finding_ahead import FindingAhead
from napari_her2._qt.scoring.kept_row import KeptRow
from napari_her2._qt.scoring.model_picker import ModelPicker
from napari_her2._qt.scoring.model_shelf import ModelShelf
from napari_her2._qt.scoring.proposal_panel import ProposalPanel
from napari_her2._qt.scoring.quality_row import QualityRow
from napari_her2._qt.scoring.reader_questions import ReaderQuestions
from napari_her2._qt.scoring.readiness import missing_to_score, no_overlap
from napari_her2._qt.scoring.region_follower import RegionFollower
from napari_her2._qt.scoring.result_panel import ResultPanel
from napari_her2._qt.scoring.score_run import ScoreRun
from napari_her2._qt.scoring.slide_picker import SlidePicker
from napari_her2.errors import Her2Error, ModelMisfit
from napari_her2.methods.catalogue import method_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari.components import ViewerModel
    from qtpy.QtGui import QDropEvent

    from napari_her2._qt.parts.theme import Colours
    from napari_her2.desk.kept_slide import GivenScale
    from napari_her2.inference.result import SlideResult

    _ModelsOwn = ProposalPanel | CalibrationPanel | CorrelatedPanel | CamPanel


class ScoringDock(AppearingDock):
    """Scores slides of a viewer.

    Parameters
    ----------
    napari_viewer : ViewerModel
        Or the proxy that napari hands to plugins.
    """

    PARTS = (
        *(
            "slides",
            "kept",
            "case",
            "regions",
            "follower",
            "proposal",
            "calibration",
            "quality",
            "smooth_maps",
        ),
        *("progress", "result", "correlated", "cam", "smooth", "questions", "ahead"),
    )

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(napari_viewer, one_a_turn)
        self.session.use_turns(one_a_turn)
        self._action: Callable[[ScoringDock], None] | None = None  # of the class: a dock never holds itself
        self.message, self.models = MessageBox(), ModelPicker()
        self.device = Label("Device: looking …", wrap=True)
        self.run = ScoreRun(self.session)
        self.shelf = ModelShelf(self.models, self.device)
        self.score_job, self.look_job, self.add_job = self.run.job, self.shelf.look_job, self.shelf.add_job
        self.stop_with_dock(self.score_job, self.look_job, self.add_job)
        self._models_own: list[_ModelsOwn] = []  # what only some models have
        self.holding.append(self.shelf)
        self._came_early: list[str] = []
        self.keeper = keeper_of(self.session, self.settings, self)
        if self.keeper is not None:
            self.keeper.failed.connect(self._show_failure)
            self.keeper.brought_back.connect(self._on_brought_back)
        self._arriving = Stepwise(self, one_a_turn)
        self.begin(self._appear())

    def _appear(self) -> Iterator[None]:
        """Make one part after the other and put it below those before; the keyboard goes the same way."""
        self.slides = SlidePicker(self.session)
        self.holding.append(self.slides)
        self.slides.set_slides(named_slides(self.session.slide_layers()))
        self.kept = KeptRow(self.keeper)
        self.hold((Section("Slide", self.slides), self.kept))
        yield
        self.case = CaseSection(self.session)
        self.holding.insert(0, self.case)  # it shows what is left once the slides are let go of
        self.hold((Section("Model", self.models), self.case))
        yield
        self.regions = DrawnRegions(self.session)
        self.follower = RegionFollower(self.session, self.regions, self.settings)
        self.holding.insert(0, self.regions)  # and so do they
        self.holding.append(self.follower)
        self.hold((Section("Region", self.regions),))
        yield
        self.proposal = ProposalPanel(self.session, self.regions)
        self.calibration = CalibrationPanel(self.session, self.regions)
        self._models_own += (self.proposal, self.calibration)
        self.holding += self._models_own
        self.hold((self.proposal, self.calibration))
        yield
        self.quality = QualityRow(self.session, self.settings, self.regions)
        self.holding.append(self.quality)
        self.smooth_maps = SmoothMaps()
        self.progress = ProgressRow()
        self.hold((Section("Quality", self.quality), self.smooth_maps, self.device))
        self.hold((self.progress, self.message))
        yield
        self.result = ResultPanel(self.session, self.settings, turns=one_a_turn)
        self.holding.append(self.result)
        yield
        self.hold((self.result,))
        yield
        self.correlated = CorrelatedPanel(self.session, self.settings)
        tiles = self.result.tiles
        self.cam = CamPanel(self.session, self.settings, regions=self.regions.regions, tiles=tiles)
        self._models_own += (self.correlated, self.cam)
        self.holding += (self.correlated, self.cam)
        self.smooth = SmoothPanning()
        self.hold((self.correlated, self.cam, self.smooth))
        yield
        self.questions = ReaderQuestions(self.session)
        self.holding.append(self.questions)
        self.put_on_top(self.questions)
        self.ahead = FindingAhead()
        leave_drops_to(self)
        self._connect()
        parts = (self.case, self.regions, self.quality, self.result, *self._models_own)
        self.live_with(
            (self.ahead.job, *self.slides.jobs, *self.questions.jobs),
            others=[self.follower.job, *(job for part in parts for job in part.jobs)],
        )
        yield
        self._show_slides()
        self.result.show_slide(self.slides.slide_id)
        self._look_around()
        self.whole = True
        for slide_id in self._came_early:
            self._on_brought_back(slide_id)

    def _connect(self) -> None:
        self.slides.changed.connect(self._on_slide)
        self.slides.scale_given.connect(self._on_scale)
        self.slides.failed.connect(self._show_failure)
        self.questions.opened.connect(self.slides.choose)
        self.questions.failed.connect(self._show_failure)
        self.models.changed.connect(self._show_case)
        self.case.changed.connect(self._update_ready)
        self.case.slide_wanted.connect(self.slides.choose)
        self.case.failed.connect(self._show_failure)
        self.regions.failed.connect(self._show_failure)
        self.regions.tissue.currentIndexChanged.connect(self._look_ahead)
        self.follower.followed.connect(self.regions.show_followed)
        self.follower.noted.connect(self.regions.sides.set_note)
        self.progress.start_wanted.connect(self.score)
        self.progress.cancel_wanted.connect(self.score_job.cancel)
        self.message.action_wanted.connect(self._take_action)
        self.result.failed.connect(self._show_failure)
        self.quality.failed.connect(self._show_failure)
        for part in self._models_own:
            part.failed.connect(self._show_failure)
        self.score_job.running_changed.connect(self.progress.set_running)
        self.score_job.running_changed.connect(self.slides.set_busy)
        self.score_job.progressed.connect(self.progress.set_progress)
        self.score_job.returned.connect(self._on_scored)
        self.score_job.failed.connect(self._on_score_failed)
        self.shelf.adding.connect(self.message.clear)
        self.shelf.found.connect(self._update_ready)
        self.shelf.failed.connect(self._show_failure)
        self.shelf.name_taken.connect(self._on_name_taken)
        self.subscriptions.add(self.session.slides_changed, self._show_slides)
        self.subscriptions.add(self.session.models_changed, self._look_around)

    # -- the user's wishes

    def score(self, *, override_fit: bool = False) -> None:
        """Score the chosen slide, or the two slides of the case, with the chosen model, in a thread.

        Parameters
        ----------
        override_fit : bool
            Also where the model was not made for the slide; the result then carries a warning.
        """
        slide, model, ihc = self.slides.slide, self.models.name, self.case.ihc
        if slide is None or self._missing():
            return
        self.message.clear()
        try:
            regions = self.regions.regions()
        except Her2Error as error:
            self._show_failure(Failure(str(error)))
            return
        self.run.begin(
            partial(
                scoring,
                slide,
                model,
                ihc=ihc,
                preset=self.regions.preset,
                settings=self.settings,
                override_fit=override_fit,
                calibration=self.calibration.used,
                leave_out_poor=self.quality.wish,
                overlap=self.smooth_maps.overlap,
                demands=demands_of(self.session, self.settings),
            ),
            [key for key in (self.slides.slide_id, self.case.ihc_id) if key],
            regions,
            self._opacity(),
        )

    def add_model_file(self, path: Path, *, force: bool = False) -> None:
        """Check a model file and install it, in a thread.

        Parameters
        ----------
        path : Path
        force : bool
            Also where another model of its name is installed.
        """
        self.shelf.add_file(path, force=force)

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open what is dropped as slides, and GeoJSON as regions of the chosen slide."""
        if event is None or not holds_files(event.mimeData()):
            return
        event.acceptProposedAction()
        paths, refusal = dropped_files(event.mimeData())
        self.message.clear()
        slides = [path for path in paths if not is_region_file(path)]
        for path in paths:
            if is_region_file(path):
                self.regions.load_file(path)
        if slides:
            self.slides.opener.open_files(slides)
        if refusal:
            self._show_failure(Failure(refusal))

    def shutdown(self) -> None:
        """Stop all work, wait for it, and let go of the viewer."""
        super().shutdown()
        self._arriving.end()
        self.run.stop_filling()
        if self.keeper is not None:
            self.keeper.release(self)
        self.let_go()

    # -- what changes around it

    def _look_around(self) -> None:
        self.shelf.look(self.settings)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        top = (self.questions, self.slides, self.kept, self.models, self.shelf, self.case, self.regions)
        for part in (*top, self.message, self.result, self.quality, *self._models_own):
            part.set_colours(colours)

    def _show_slides(self) -> None:
        slides = named_slides(self.session.slide_layers())
        self.slides.set_slides(slides)
        known = [key for key, _, _ in slides]
        self.regions.keep_only(known)
        self.follower.keep_only(known)
        self.run.keep_only(known)
        self._show_regions()
        self._show_case()

    def _show_case(self) -> None:
        entry = self.models.entry
        self.quality.set_model(entry)
        self.quality.set_slide(self.slides.slide_id)
        for part in self._models_own:
            part.set_model(entry)
            part.set_slide(self.slides.slide_id)
        self.smooth_maps.set_reason(no_overlap(entry))
        takes_pair = entry is not None and method_of(entry.card).takes_pair
        slides = named_slides(self.session.slide_layers())
        self.case.show_slides(slides, self.slides.slide_id, takes_pair=takes_pair)
        self._update_ready()

    def _show_regions(self) -> None:
        self.regions.show_slide(self.slides.slide_id)
        self.kept.show_slide(self.slides.slide_id)

    def _update_ready(self) -> None:
        self.progress.set_ready(self._missing())
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Find what can be known before Score is pressed, once it can be."""
        wanted = () if self._missing() else (self.slides.slide, self.case.ihc)
        slides = [slide for slide in wanted if slide is not None]
        self.ahead.look_at(slides, self.regions.preset, self.models.entry, self.settings.device)

    def _missing(self) -> str:
        """Tell what is missing before the slide can be scored; empty where nothing is."""
        blinded = self.session.blinded
        return missing_to_score(self.slides.slide, self.case.ihc, self.models.name, blinded=blinded)

    def _on_slide(self, slide_id: str) -> None:
        self._show_regions()
        self._show_case()
        self.result.show_slide(slide_id)

    def _on_brought_back(self, slide_id: str) -> None:
        """Choose the regions that came back, unless the whole slide was scored."""
        if not self.whole:
            self._came_early.append(slide_id)
            return
        viewer, result = self.session.viewer, self.session.result(slide_id)
        if viewer is None or slide_id != self.slides.slide_id or self.regions.layer_name:
            return
        layers = own_region_layers(viewer, slide_id)
        if layers and (result is None or result.regions is not None):
            self.regions.show_slide(slide_id, layers[0].name)

    def _on_scale(self, slide_id: str, scale: GivenScale | None) -> None:
        try:
            self.session.give_scale(slide_id, scale)
        except Her2Error as error:
            self._show_failure(Failure(str(error)))

    # -- what the jobs report

    def _opacity(self) -> float:
        before = self.session.overlays(self.slides.slide_id)
        return self.settings.default_opacity if before is None else before.look.opacity

    def _on_scored(self, result: SlideResult) -> None:
        self._arriving.begin(self._arrive(result))

    def _arrive(self, result: SlideResult) -> Iterator[None]:
        """Show a result: what is slow for napari or Qt in a turn of its own."""
        look = OverlayLook(opacity=self.settings.default_opacity)
        before = self.session.overlays(result.slide_id)
        if before is not None:
            look = replace(before.look, class_names={})
        self.session.set_result(result, look)
        self.follower.keep(self.run.kept, self.run.regions)
        yield from self.run.make_room()
        while not self.result.whole:
            yield
        if self.result.isVisibleTo(self):
            # After the layout has made room for it.
            QTimer.singleShot(0, self._scroll_to_result)

    def _scroll_to_message(self) -> None:
        self.scroll.ensureWidgetVisible(self.message)

    def _scroll_to_result(self) -> None:
        self.scroll.verticalScrollBar().setValue(self.result.y() - self.progress.height() - 8)

    def _on_score_failed(self, failure: Failure) -> None:
        if failure.kind is ModelMisfit:
            self._show_failure(failure, "Score anyway", partial(ScoringDock.score, override_fit=True))
        else:
            self._show_failure(failure)

    def _on_name_taken(self, failure: Failure) -> None:
        self._show_failure(failure, "Replace it", lambda dock: dock.shelf.replace())

    def _show_failure(
        self, failure: Failure, caption: str = "", action: Callable[[ScoringDock], None] | None = None
    ) -> None:
        self._action = action
        self.message.show_failure(failure, caption)
        QTimer.singleShot(0, self._scroll_to_message)  # after the layout has made room for it

    def _take_action(self) -> None:
        if self._action is not None:
            self._action(self)
