"""The map of a scoring that is not finished: it fills in, from where somebody looks."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.layers import Over, OverlayLook, draw
from napari_her2._napari.overlay_layers import active_kept, make_layer, overlays_of
from napari_her2._napari.placement import layer_of
from napari_her2._napari.tags import slide_tag, tag_of
from napari_her2.explain.early import READ
from napari_her2.inference.early import EarlyTiles
from napari_her2.inference.front import Front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_her2.inference.early import SoFar

_READ_OPACITY = 0.2  # it says little, and hides no tissue


class FillingMaps:
    """Maps over the slides of one scoring while it runs, and where its front is.

    napari takes a fifth of a second for a new layer; so a map is put over its slide, clear, while its first
    tiles are read.

    While they are there, the other maps of these slides are hidden, and the window says that the scoring is
    not finished.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    slide_ids : sequence of str
    opacity : float
        Of the maps, in [0, 1].

    Attributes
    ----------
    front : Front
    early : EarlyTiles
        Both for the thread that scores.
    """

    def __init__(self, viewer: ViewerModel, slide_ids: Sequence[str], opacity: float) -> None:
        self.front, self.early = Front(), EarlyTiles()
        self._viewer = weakref.ref(viewer)
        self._slide_ids, self._opacity = tuple(slide_ids), opacity
        self._layers: dict[str, Image] = {}
        self._hidden: list[Layer] = []
        self._words: tuple[str, bool] | None = None
        self.follow_view()
        viewer.scene.camera.events.connect(self.follow_view)

    def follow_view(self, event: object = None) -> None:
        """Let the scoring go on from the middle of the view."""
        viewer = self._viewer()
        if viewer is None:
            return
        centre = np.asarray(viewer.scene.camera.center)[-2:]
        for slide_id in self._slide_ids:
            layer = layer_of(viewer, slide_id)
            if layer is not None:
                # napari counts from the centre of the first pixel
                y, x = (float(of) + 0.5 for of in layer.world_to_data(centre)[-2:])
                self.front.move(slide_id, (y, x))

    def show(self) -> None:
        """Show what has come since the last time."""
        viewer, shown = self._viewer(), self.early.take()
        if viewer is None:
            return
        for so_far in shown:
            self._show(viewer, so_far)
        if shown:
            done, total = shown[-1].done, shown[-1].total
            words = viewer.canvas.overlays.text
            if self._words is None:
                self._words = words.text, words.visible
            words.text = f"Scoring is not finished: {done:,} of {total:,} tiles. There is no score yet."
            words.visible = True

    def stop(self, *, scored: bool) -> None:
        """Take the maps away; those before come back, unless there is a result to take their place."""
        viewer = self._viewer()
        if viewer is None:
            return
        viewer.scene.camera.events.disconnect(self.follow_view)
        take_out(viewer, *self._layers.values())
        for layer in () if scored else self._hidden:
            layer.visible = True
        if self._words is not None:
            words = viewer.canvas.overlays.text
            words.text, words.visible = self._words
        self._layers, self._hidden, self._words = {}, [], None
        self._slide_ids = ()

    def _show(self, viewer: ViewerModel, so_far: SoFar) -> None:
        slide_layer = layer_of(viewer, so_far.slide_id)
        layer = self._layers.get(so_far.slide_id)
        if slide_layer is None or (layer is not None and layer not in viewer.layers):
            return  # one that the user took away stays away
        tag = slide_tag(slide_layer)
        if tag is None or tag.slide.mpp is None:
            return
        over = Over(tag.slide.name, so_far.slide_id, tag.slide.mpp)
        data = draw(so_far.tile_map, over, OverlayLook(opacity=self._opacity))
        if layer is None:
            self._layers[so_far.slide_id] = self._made(viewer, slide_layer, make_layer(data, slide_layer))
            return
        empty = not np.isfinite(layer.data).any()
        layer.data = data[0]
        low, high = data[1]["contrast_limits"]
        # Colours that settle, instead of changing with each batch.
        if empty or high > layer.contrast_limits[1]:
            layer.contrast_limits_range = layer.contrast_limits = (low, high)

    def _made(self, viewer: ViewerModel, slide_layer: Image, layer: Image) -> Image:
        before = overlays_of(viewer, tag.slide_id) if (tag := slide_tag(slide_layer)) is not None else []
        for other in before:
            info = getattr(tag_of(other), "info", None)
            if other.visible and info is not None and info.is_map:
                other.visible = False
                self._hidden.append(other)
        if not getattr(tag_of(layer), "info", READ).is_map:
            layer.opacity = _READ_OPACITY
        above = [viewer.layers.index(slide_layer), *(viewer.layers.index(other) for other in before)]
        with active_kept(viewer, slide_layer):
            viewer.layers.insert(max(above) + 1, layer)
        return layer
