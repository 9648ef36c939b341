"""Lines that a user draws over something of known length, to measure the µm/px of a slide."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_her2._napari.collecting import take_out
from napari_her2._napari.colormaps import MARK_COLOUR
from napari_her2._napari.layers import AXES
from napari_her2._napari.placement import place_of
from napari_her2._napari.plain_text import one_line
from napari_her2._napari.regions import to_slide
from napari_her2._napari.tags import METADATA_KEY, MarkTag, slide_tag

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray

_LINES = ("line", "path")
_WIDTH_PX = 2.0  # on the screen


class MeasuringLines:
    """A layer of lines over one slide.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    slide_layer : Image

    Attributes
    ----------
    changed : Signal()
        A line was drawn, moved or deleted, or the layer is gone.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, slide_layer: Image) -> None:
        tag = slide_tag(slide_layer)
        self._viewer = weakref.ref(viewer)
        self.slide_id = "" if tag is None else tag.slide_id
        self._scale = float(np.asarray(slide_layer.scale)[-1])
        self._layer: Shapes | None = viewer.add_shapes(
            name=one_line(f"lines to measure with · {slide_layer.name}"),
            ndim=2,
            scale=slide_layer.scale,
            units=slide_layer.units,
            affine=place_of(slide_layer),
            axis_labels=AXES,
            edge_color=MARK_COLOUR,
            face_color="transparent",
            edge_width=self._width(viewer),
            opacity=1.0,
            metadata={METADATA_KEY: MarkTag(self.slide_id)},
        )
        self._layer.mode = "add_line"
        viewer.layers.selection.active = self._layer
        self._layer.events.data.connect(self._on_change)
        viewer.layers.events.removed.connect(self._on_change)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)

    @property
    def alive(self) -> bool:
        """Whether the layer is still there."""
        viewer = self._viewer()
        return viewer is not None and self._layer is not None and self._layer in viewer.layers

    def lines_px0(self, slide_layer: Image) -> list[NDArray[np.float64]]:
        """Return the lines, (N, 2) float64 points (y, x) in level-0 pixels each."""
        layer = self._layer
        if layer is None or not self.alive:
            return []
        matrix, shift = to_slide(layer, slide_layer)
        drawn = zip(layer.data, layer.shape_type, strict=True)
        return [np.asarray(points)[:, -2:] @ matrix.T + shift for points, shape in drawn if shape in _LINES]

    def remove(self) -> None:
        """Take the layer away."""
        viewer, layer = self._viewer(), self._layer
        self._layer = None
        if viewer is not None and layer is not None:
            viewer.layers.events.removed.disconnect(self._on_change)
            viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
            take_out(viewer, layer)

    def _width(self, viewer: ViewerModel) -> float:
        """Width of lines that are as thin on the screen at every zoom, in pixels of the slide."""
        return _WIDTH_PX / (max(float(viewer.scene.camera.zoom), 1e-9) * self._scale)

    def _on_zoom(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        viewer, layer = self._viewer(), self._layer
        if viewer is not None and layer is not None and layer in viewer.layers:
            width = self._width(viewer)
            layer.current_edge_width = width
            if layer.nshapes:
                layer.edge_width = width

    def _on_change(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        action = str(getattr(event, "action", "")).lower().rsplit(".", 1)[-1]
        if action not in ("adding", "changing", "removing"):
            self.changed.emit()
