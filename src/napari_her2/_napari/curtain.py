"""A curtain between the stacked slides of a case: the one left of a line, the other right of it.

napari's image layers know no clipping planes in two dimensions. So the IHC slide is shown by a layer of its
own whose pixels left of the line are clear: only what is on the screen is read and cut, when it is drawn.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.cut_overlays import CutOverlays
from napari_her2._napari.layers import AXES, MICROMETRE
from napari_her2._napari.placement import bounds, place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.tags import METADATA_KEY, MarkTag
from napari_her2.slide.lazy_level import LazyLevel

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_her2._napari.pairing import Pairing

GRIP_PX = 10.0
"""Screen pixels beside the line within which it is taken hold of."""
STEP_PX = 40.0
_CHUNK_PX = 512


class CutSlide:
    """Pixels of a slide with a fourth channel: clear where they lie left of a line in the window.

    Parameters
    ----------
    slide_layer : Image
        Held weakly.
    line : float
        x in the window, µm.
    """

    def __init__(self, slide_layer: Image, line: float) -> None:
        self._slide = weakref.ref(slide_layer)
        self._levels = list(slide_layer.data)
        full = self._levels[0].shape
        self._scales = [(full[0] / level.shape[0], full[1] / level.shape[1]) for level in self._levels]
        self.line = line
        # napari reads the last level once and keeps it: it is changed in place.
        last = len(self._levels) - 1
        self._overview = self.picture(last, *((0, side) for side in self._levels[last].shape[:2]))
        shapes = [(level.shape[0], level.shape[1]) for level in self._levels[:last]]
        lazy = [LazyLevel(self, number, shape, _CHUNK_PX) for number, shape in enumerate(shapes)]
        self.levels = [*lazy, self._overview]

    def move_to(self, line: float) -> None:
        """Cut the slide elsewhere."""
        self.line = line
        rows, cols = ((0, side) for side in self._overview.shape[:2])
        self._overview[..., 3] = self._alpha(len(self._levels) - 1, rows, cols)

    def picture(self, level: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        """Return a window of a level, (height, width, 4) uint8."""
        pixels = np.asarray(self._levels[level][slice(*rows), slice(*cols)])
        return np.dstack([pixels[..., :3], self._alpha(level, rows, cols)])

    def whole(self, level: int) -> NDArray[np.uint8]:
        """Return a whole level, (height, width, 4) uint8."""
        height, width = self._levels[level].shape[:2]
        return self.picture(level, (0, height), (0, width))

    def _alpha(self, level: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        slide = self._slide()
        if slide is None:
            return np.full((rows[1] - rows[0], cols[1] - cols[0]), 255, np.uint8)
        place, mpp, scale = place_of(slide), np.asarray(slide.scale)[-2:], self._scales[level]
        # Centres of the pixels, in µm from that of the first level-0 pixel.
        y, x = (
            (0.5 * (scale[axis] - 1) + scale[axis] * np.arange(*ends)) * mpp[axis]
            for axis, ends in ((0, rows), (1, cols))
        )
        there = place[1, 0] * y[:, None] + place[1, 1] * x[None] + place[1, 2]
        return np.where(there >= self.line, np.uint8(255), np.uint8(0))


class Curtain:
    """Shows the H&E slide left and the IHC slide right of a vertical line, each with its maps.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    pairing : Pairing
        Its slides are stacked, and the IHC slide itself is faded out meanwhile.
    """

    def __init__(self, viewer: ViewerModel, pairing: Pairing) -> None:
        from napari.layers import Image, Vectors

        self._viewer, self._pairing = weakref.ref(viewer), pairing
        pairing.set_arrangement("stacked")
        self._fade = pairing.fade
        pairing.set_fade(0.0)
        he, ihc = pairing.layers or (None, None)
        self.layer: Image | None = None
        self.mark: Vectors | None = None
        if he is None or ihc is None:
            return
        active = viewer.layers.selection.active
        self.source = CutSlide(ihc, _first_line(viewer, he, ihc))
        self.overlays = CutOverlays(viewer, *pairing.ids)
        self.overlays.cut(self.source.line)
        pairing.set_curtain(True)
        self.layer = Image(
            self.source.levels,
            rgb=True,
            multiscale=True,
            name=one_line(f"curtain · {ihc.name}"),
            scale=tuple(ihc.scale)[-2:],
            affine=place_of(ihc),
            units=MICROMETRE,
            axis_labels=AXES,
            cache=False,
            metadata={METADATA_KEY: MarkTag(pairing.ids[1])},
        )
        viewer.layers.insert(viewer.layers.index(ihc) + 1, self.layer)
        self.mark = Vectors(
            self._line_data(),
            edge_color="yellow",
            edge_width=self._width(),
            vector_style="line",
            name="curtain (drag it)",
            units=MICROMETRE,
            axis_labels=AXES,
        )
        viewer.add_layer(self.mark)
        viewer.layers.selection.active = active
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        me = weakref.ref(self)

        def on_drag(_viewer: ViewerModel, event: Any) -> Generator[None, None, None]:  # noqa: ANN401
            curtain = me()
            if curtain is None or not curtain.holds(float(event.position[-1])):
                return
            panned = bool(_viewer.scene.camera.mouse_pan)
            _viewer.scene.camera.mouse_pan = False
            yield
            while event.type == "mouse_move":
                curtain.move_to(float(event.position[-1]))
                yield
            _viewer.scene.camera.mouse_pan = panned

        self._on_drag = on_drag
        viewer.mouse_drag_callbacks.append(on_drag)

    def holds(self, x: float) -> bool:
        """Whether a place in the window is so near the line that a drag there moves it."""
        return abs(x - self.source.line) <= GRIP_PX * self._um_per_pixel()

    def move_to(self, x: float) -> None:
        """Put the line elsewhere; x in the window, µm."""
        viewer = self._viewer()
        if viewer is None or self.layer is None or self.mark is None or self.layer not in viewer.layers:
            return
        self.source.move_to(x)
        self.overlays.cut(x)
        self.layer.refresh(extent=False, thumbnail=False)
        self.mark.data = self._line_data()

    def step(self, steps: float) -> None:
        """Move the line by so many steps to the right."""
        viewer = self._viewer()
        if viewer is not None:
            self.move_to(self.source.line + steps * STEP_PX * self._um_per_pixel())

    def stop(self) -> None:
        """Draw the curtain back: the slides are faded into each other as before."""
        viewer = self._viewer()
        if viewer is not None and self.layer is not None:
            self.overlays.stop()
            viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
            if self._on_drag in viewer.mouse_drag_callbacks:
                viewer.mouse_drag_callbacks.remove(self._on_drag)
            take_out(viewer, self.layer, self.mark)
        self.layer = self.mark = None
        self._pairing.curtained = False
        self._pairing.set_fade(self._fade)

    def _on_zoom(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        if self.mark is not None:
            self.mark.edge_width = self._width()

    def _um_per_pixel(self) -> float:
        viewer = self._viewer()
        return 1.0 if viewer is None else 1 / max(float(viewer.scene.camera.zoom), 1e-9)

    def _width(self) -> float:
        return 2 * self._um_per_pixel()

    def _line_data(self) -> NDArray[np.float64]:
        layers = self._pairing.layers or ()
        boxes = np.array([bounds(layer, place_of(layer)) for layer in layers])
        low, high = (boxes[:, 0, 0].min(), boxes[:, 1, 0].max()) if len(boxes) else (0.0, 0.0)
        return np.array([[[low, self.source.line], [high - low, 0.0]]])


def _first_line(viewer: ViewerModel, *slides: Image) -> float:
    """Return x of the middle of the window, or of the slides where that lies beside them, µm."""
    boxes = np.array([bounds(layer, place_of(layer)) for layer in slides])
    low, high = float(boxes[:, 0, 1].min()), float(boxes[:, 1, 1].max())
    centre = float(viewer.scene.camera.center[-1])
    return centre if low < centre < high else (low + high) / 2
