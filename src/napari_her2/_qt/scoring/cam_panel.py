"""Grad-CAM in the dock: of which class, over which part of the slide, and whether it is faithful."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakMethod

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_her2._napari.cam_layers import bounds_px0, cam_of, show_cam, viewed_px0
from napari_her2._napari.gradcam import checking, explaining
from napari_her2._qt.parts.jobs import Failure, Job
from napari_her2._qt.parts.progress_row import ProgressRow
from napari_her2._qt.parts.subscriptions import Subscriptions
from napari_her2._qt.parts.text import Combo, Label
from napari_her2._qt.parts.theme import Colours
from napari_her2._qt.scoring.faithfulness_plot import FaithfulnessView
from napari_her2.errors import Her2Error
from napari_her2.explain.fields import REGION_CAM
from napari_her2.inference.class_words import class_name, class_names
from napari_her2.methods.catalogue import can_explain
from napari_her2.number_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2._napari.gradcam import CamModel, Checked, Explained
    from napari_her2._napari.session import Session
    from napari_her2._napari.settings import Settings
    from napari_her2._qt.scoring.tile_panel import TilePanel
    from napari_her2.models.registry import ModelEntry

Part = Literal["view", "region", "slide"]
_PARTS: tuple[tuple[str, Part], ...] = (
    ("Viewed field", "view"),
    ("Region", "region"),
    ("Whole slide", "slide"),
)
_MEANING = (
    "Regions the model used for the chosen class, not regions that are HER2-positive. Values are in logits, "
    "on one scale for the whole map."
)


class CamPanel(QWidget):
    """Computes Grad-CAM of one slide at a time and shows it over the slide.

    Parameters
    ----------
    session : Session
    settings : Settings
    regions : bound method
        Gives the regions chosen in the dock as shapely polygons, None for the whole slide. Held weakly: a
        dock that its own panel holds would be freed by the garbage collector, in any thread.
    tiles : TilePanel
        Where a tile is shown enlarged.

    Attributes
    ----------
    failed : Signal(Failure)
    """

    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        settings: Settings,
        *,
        regions: Callable[[], list[Any] | None],
        tiles: TilePanel,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._settings = session, settings
        self._regions, self._tiles = WeakMethod(regions), tiles
        self._model = ""
        self._slide_id = ""
        self._asked_id = ""
        self._ready: CamModel | None = None
        self.cam_job, self.check_job = Job(), Job()
        self.jobs = (self.cam_job, self.check_job)
        self._make_widgets()
        self._connect()
        self.set_colours(Colours())
        self.setVisible(False)

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of the theme."""
        self.meaning.setStyleSheet(f"color: {colours.muted};")
        self.cautions.setStyleSheet(f"color: {colours.warning};")
        self.faithfulness.set_colours(colours)

    def set_model(self, entry: ModelEntry | None) -> None:
        """Take the chosen model; the controls are there only where Grad-CAM can explain it."""
        card = entry.card if entry is not None and can_explain(entry.card, "region Grad-CAM") else None
        name = entry.name if entry is not None and card is not None else ""
        if name != self._model:
            self._model = name
            self._forget()
            self.class_name.clear()
            if card is not None:
                for score, named in class_names(card.classes, card.class_scores).items():
                    self.class_name.addItem(named, score)
            self._choose_class()
        self.setVisible(bool(name))
        self._show_check()

    def set_slide(self, slide_id: str) -> None:
        """Take the chosen slide."""
        if slide_id != self._slide_id:
            self._slide_id = slide_id
            self._forget()
            self._choose_class()
        slide = self._session.slide_of(slide_id)
        missing = "" if slide is not None and slide.mpp is not None else "Open a slide of known µm/px first."
        for row in (self.progress, self.check_progress):
            row.set_ready(missing)
        self._show_check()

    def compute(self) -> None:
        """Compute the map that is chosen, in a thread."""
        viewer, slide = self._session.viewer, self._session.slide_of(self._slide_id)
        layer = self._session.layer_of(self._slide_id)
        if viewer is None or slide is None or layer is None or not self._model:
            return
        part: Part = self.part.currentData()
        region, outlines = None, None
        try:
            if part == "region":
                chosen_regions = self._regions()
                outlines = chosen_regions() if chosen_regions is not None else None
                if outlines is None:
                    raise Her2Error("Choose a layer of regions under Region, or add one and draw.")
                region = bounds_px0(outlines)
            elif part == "view":
                region = viewed_px0(viewer, layer)
                if region is None:
                    raise Her2Error("The slide is not in view: move the view to it.")
        except Her2Error as error:
            self.failed.emit(Failure(str(error)))
            return
        self.cautions.setVisible(False)
        self._asked_id = self._slide_id
        self.cam_job.start(
            partial(
                explaining,
                slide,
                self._model,
                self._settings,
                self.class_name.currentData(),
                region,
                ready=self._ready,
                outlines=outlines,
            )
        )

    def check(self) -> None:
        """Measure how faithful the map of the enlarged tile is, in a thread."""
        chosen = self._tiles.chosen
        if chosen is None:
            self.failed.emit(Failure("Click a scored tile on the slide first: its map is what is checked."))
            return
        slide_id, tile = chosen
        result, slide = self._session.result(slide_id), self._session.slide_of(slide_id)
        if result is None or slide is None or slide_id != self._slide_id or result.model != self._model:
            return
        self.faithfulness.clear()
        self.check_job.start(
            partial(
                checking,
                slide,
                self._model,
                self._settings,
                self.class_name.currentData(),
                result,
                tile,
                ready=self._ready,
            )
        )

    def shutdown(self) -> None:
        """Stop all work, wait for it, and let go of the viewer."""
        for job in self.jobs:
            job.shutdown()
        self._ready = None
        self._subscriptions.end()

    def _make_widgets(self) -> None:
        heading = Label("Grad-CAM")
        heading.setStyleSheet("font-weight: bold;")
        self.meaning = Label(_MEANING, wrap=True)
        self.part = Combo()
        self.part.setAccessibleName("Part of the slide that is explained")
        for text, part in _PARTS:
            self.part.addItem(text, part)
        self.part.setToolTip(
            "What is in view now; the regions chosen under Region; or all tissue, which takes as long as "
            "scoring several times"
        )
        self.class_name = Combo()
        self.class_name.setAccessibleName("Score that is explained")
        self.progress = _row("Compute Grad-CAM", "Show what the model used for this score")
        self.cautions = Label(wrap=True)
        self.cautions.setVisible(False)
        self.check_progress = _row(
            "Check the map of the enlarged tile",
            "Deletes and inserts the pixels that the map marks, beside the same map moved elsewhere",
        )
        self.faithfulness = FaithfulnessView()
        choices = QHBoxLayout()
        choices.addWidget(self.part, 1)
        choices.addWidget(Label("for"))
        choices.addWidget(self.class_name, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.setSpacing(4)
        layout.addWidget(heading)
        layout.addLayout(choices)
        for widget in (self.progress, self.cautions, self.meaning, self.check_progress, self.faithfulness):
            layout.addWidget(widget)

    def _connect(self) -> None:
        for row, job, start in (
            (self.progress, self.cam_job, self.compute),
            (self.check_progress, self.check_job, self.check),
        ):
            row.start_wanted.connect(start)
            row.cancel_wanted.connect(job.cancel)
            job.running_changed.connect(row.set_running)
            job.progressed.connect(row.set_progress)
            job.failed.connect(self.failed)
        self.cam_job.returned.connect(self._on_explained)
        self.check_job.returned.connect(self._on_checked)
        self._subscriptions = Subscriptions(self)
        self._subscriptions.add(self._session.slides_changed, self._on_slides)
        self._subscriptions.add(self._session.result_changed, self._on_result)

    def _forget(self) -> None:
        """Stop what concerns another slide or model, and free the model."""
        for job in self.jobs:
            job.cancel()
        self._ready = None
        self.cautions.setVisible(False)
        self.faithfulness.clear()

    def _choose_class(self) -> None:
        result = self._session.shown(self._slide_id)
        if result is not None and result.model == self._model:
            # The first class, which says nothing, where the answer is withheld.
            self.class_name.setCurrentIndex(max(self.class_name.findData(result.score), 0))

    def _on_slides(self) -> None:
        """Let go of a slide that was closed, or opened anew with another µm/px."""
        slide = self._session.slide_of(self._slide_id)
        if self._ready is not None and self._ready.slide is not slide:
            self._forget()

    def _on_result(self, slide_id: str) -> None:
        if slide_id == self._slide_id:
            self.faithfulness.clear()
            self._choose_class()
            self._show_check()

    def _show_check(self) -> None:
        """Offer the check where there are tiles to enlarge, whose probabilities may be seen."""
        result = self._session.shown(self._slide_id)
        of_model = result is not None and result.model == self._model
        self.check_progress.setVisible(of_model and result is not None and not result.doubt.hidden)

    def _keep(self, ready: CamModel) -> bool:
        """Whether what came back is still of the chosen slide and model."""
        slide = self._session.slide_of(self._slide_id)
        current = ready.slide is slide and ready.model == self._model
        if current:
            self._ready = ready
        return current

    def _on_explained(self, explained: Explained) -> None:
        viewer, layer = self._session.viewer, self._session.layer_of(self._asked_id)
        if not self._keep(explained.ready) or viewer is None or layer is None:
            return
        shown = self._session.overlays(self._slide_id)
        before = cam_of(viewer, self._slide_id)
        opacity = shown.look.opacity if shown is not None else self._settings.default_opacity
        show_cam(viewer, explained.cam, layer, opacity if before is None else before.opacity)
        if shown is not None:
            shown.show_only(REGION_CAM.kind)  # the one that was asked for last
            self._session.look_changed.emit(self._slide_id)
        cautions = list(explained.ready.warnings)
        damaged = len(explained.cam.damaged_px0)
        if damaged:
            cautions.append(
                f"The file is damaged in {counted(damaged, 'field')}: what only they cover stays clear."
            )
        self.cautions.setText("\n".join(f"⚠ {line}" for line in cautions))
        self.cautions.setVisible(bool(cautions))

    def _on_checked(self, checked: Checked) -> None:
        if self._keep(checked.ready) and self._tiles.chosen == (self._slide_id, checked.tile):
            named = class_name(checked.class_name, checked.ready.card.class_scores)
            self.faithfulness.show_found(checked.found, named)


def _row(caption: str, tip: str) -> ProgressRow:
    row = ProgressRow()
    row.start.setText(caption)
    row.start.setToolTip(tip)
    return row
