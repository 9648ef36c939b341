"""The demonstration: a synthetic case is opened in napari, scored, and shown with its maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2._napari.sample_data import PhantomCase, phantom_layers
from napari_her2._qt.window import need_display
from napari_her2.errors import Her2Error, JobFailed

if TYPE_CHECKING:
    from pathlib import Path

    from napari import Viewer
    from napari_her2._napari.layers import LayerData
    from napari_her2._qt.parts.jobs import Failure
    from napari_her2._qt.scoring.dock import ScoringDock

CASE = PhantomCase("demo", "3+", seed=2026, size_px=8192, mpp=0.25)
MODEL = "demo-attention-mil"

_PICTURE = (1600, 1000)  # else a picture has the size that napari last had on this computer
_TURN_MS = 50
_FRAMES = 12  # turns of the event loop after scoring, so that all tiles and overlays are drawn


def run_demo(
    screenshot: Path | None = None,
    *,
    slide: Path | None = None,
    ihc: Path | None = None,
    case: PhantomCase = CASE,
    model: str = MODEL,
    size: tuple[int, int] | None = None,
) -> None:
    """Open a slide in napari, score it and show why; by default a phantom case.

    A model that takes both slides of a case is given both, one of IHC that of IHC, any other the H&E slide.
    What a model can show beside its score is shown too: its correlated representation, its Grad-CAM.

    Parameters
    ----------
    screenshot : Path, optional
        Saves the whole window as a PNG once all is shown, and closes it; by default the window stays.
    slide : Path, optional
        An H&E slide that states its µm/px, instead of the phantom case.
    ihc : Path, optional
        The IHC slide of the same case.
    case : PhantomCase
    model : str
        Name of a model.
    size : tuple of int, optional
        (width, height) of the window, pixels; 1600 x 1000 for a picture.

    Raises
    ------
    JobFailed
        If there is no display, or scoring failed.
    """
    need_display("demo --screenshot demo.png")
    if screenshot is not None and not screenshot.parent.is_dir():
        raise JobFailed(f"There is no folder {screenshot.parent}: make it, or name another place.")
    import napari

    layers = phantom_layers(case) if slide is None else _layers_of(slide, ihc)
    viewer = napari.Viewer(title="napari-her2 demonstration", show=True)
    if screenshot is not None:
        size = size or _PICTURE
    if size is not None:
        viewer.window.resize(*size)
    for data, options, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **options)
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.reset_view()
    del layers, data
    demonstration = Demonstration(viewer, model, screenshot)
    napari.run()
    if demonstration.failure is not None:
        raise demonstration.failure


class Demonstration:
    """Drives the dock as a user would.

    Parameters
    ----------
    viewer : Viewer
        With the slides in it, the one to score first.
    model : str
    screenshot : Path or None

    Attributes
    ----------
    failure : Her2Error or None
        Why there is no screenshot.
    """

    def __init__(self, viewer: Viewer, model: str, screenshot: Path | None) -> None:
        self.failure: Her2Error | None = None
        self._viewer, self._model, self._screenshot = viewer, model, screenshot
        _, dock = viewer.window.add_plugin_dock_widget("napari-her2", "HER2 Scoring")
        self._dock: ScoringDock = dock
        dock.look_job.returned.connect(self._on_ready)
        dock.look_job.failed.connect(self._on_failed)
        dock.score_job.returned.connect(self._on_scored)
        dock.score_job.failed.connect(self._on_failed)

    def _on_ready(self) -> None:
        dock = self._dock
        names = [entry.name for entry in dock.models.entries]
        if self._model not in names:
            self._stop(JobFailed(f"The model {self._model} is not installed: reinstall napari-her2."))
            return
        index, slides = names.index(self._model), dock.slides.combo.count()
        dock.models.combo.setCurrentIndex(index)
        of_ihc = dock.models.entries[index].card.stain == "IHC"
        dock.slides.combo.setCurrentIndex(slides - 1 if of_ihc else 0)
        if slides > 1:
            dock.case.picker.choose(str(dock.slides.combo.itemData(1)))
        dock.score()

    def _on_scored(self) -> None:
        from qtpy.QtCore import QTimer

        result = self._dock.result
        if not result.whole:
            QTimer.singleShot(_TURN_MS, self._on_scored)
            return
        self._viewer.reset_view()  # by now the dock has taken its share of the window
        first = result.tiles.first_tile
        if first is not None:
            result.tiles.inspect(first)
        correlated, cam = self._dock.correlated, self._dock.cam
        if correlated.isVisibleTo(self._dock):
            for box in result.overlays.boxes.values():
                box.setChecked(False)  # they would lie over it
            correlated.view.setCurrentIndex(correlated.view.findData("PCA"))
            correlated.box.setChecked(True)
        elif cam.isVisibleTo(self._dock):
            cam.part.setCurrentIndex(cam.part.findData("slide"))
            cam.compute()
        if self._screenshot is not None:
            self._wait(_FRAMES)

    def _on_failed(self, failure: Failure) -> None:
        self._stop(JobFailed(failure.message))

    def _wait(self, frames: int) -> None:
        from qtpy.QtCore import QTimer

        self._dock.questions.hide()  # asked of whoever sits before a window, not of a picture
        if frames or self._busy():
            QTimer.singleShot(_TURN_MS, lambda: self._wait(max(frames - 1, 0)))
            return
        self._viewer.screenshot(str(self._screenshot), canvas_only=False, flash=False)
        self._viewer.close()

    def _busy(self) -> bool:
        parts = (self._dock.result.tiles, self._dock.correlated, self._dock.cam)
        source = self._dock.correlated.source
        overlays = self._dock.session.overlays(self._dock.slides.slide_id)
        if overlays is not None and not overlays.whole:
            return True  # they come one a turn, and go so where an earlier result was brought back
        return any(job.running for part in parts for job in part.jobs) or bool(source and source.pending)

    def _stop(self, failure: Her2Error) -> None:
        if self._screenshot is not None:
            self.failure = failure
            self._viewer.close()


def _layers_of(slide: Path, ihc: Path | None) -> list[LayerData]:
    from napari_her2._napari.layers import beside, slide_layer
    from napari_her2.slide.reader import open_slide

    first = open_slide(slide)
    layers = [slide_layer(first)]
    return layers if ihc is None else [*layers, beside(slide_layer(open_slide(ihc)), first)]
