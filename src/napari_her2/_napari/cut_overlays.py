"""The overlays of two stacked slides cut along a line: those of the one left of it, of the other right of it.

Maps lie on the grid of tiles and are small, so what lies beyond the line is made clear in the array that is
shown, a millisecond a map; napari knows no clipping planes in two dimensions. What changes meanwhile (another
map is shown, or of another score, or the answer follows a region) is cut as soon as it is there. Frames,
outlines and cells are drawn by other layers and stay whole.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.tags import OverlayTag, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray


_WATCHED = ("data", "visible", "scale", "translate", "affine")
"""What of a map decides where it is cut."""


class CutOverlays:
    """Cuts the maps of two slides, also those that come or change while it does, and gives them back whole.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    left, right : str
        Id of the slide whose maps are seen left of the line, and of the other one.
    """

    def __init__(self, viewer: ViewerModel, left: str, right: str) -> None:
        self._viewer = weakref.ref(viewer)
        self._left, self._right = left, right
        self._whole: weakref.WeakKeyDictionary[Layer, tuple[Any, Any]] = weakref.WeakKeyDictionary()
        self._watched: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._line, self._cutting = 0.0, False
        viewer.layers.events.inserted.connect(self._on_inserted)

    def cut(self, line: float) -> None:
        """Cut the maps that are visible.

        Parameters
        ----------
        line : float
            x in the window, µm.
        """
        self._line = line
        for layer, slide_id in self._maps():
            if layer not in self._watched:
                self._watched.add(layer)
                for name in _WATCHED:
                    layer.events[name].connect(self._on_change)
            self._cut(layer, slide_id)

    def stop(self) -> None:
        """Show all maps whole again, and cut none that come."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in self._watched:
            for name in _WATCHED:
                layer.events[name].disconnect(self._on_change)
        self._watched.clear()
        for layer, _ in self._maps():
            self._give_back(layer)

    def _cut(self, layer: Image | Labels, slide_id: str) -> None:
        if not layer.visible:
            self._give_back(layer)
            return
        whole, shown = self._whole.get(layer, (None, None))
        fresh = shown is not layer.data  # it is new, or shows another answer since
        if fresh:
            whole = layer.data
        beyond = _x_of(layer) >= self._line if slide_id == self._left else _x_of(layer) < self._line
        clear = np.nan if whole.dtype.kind == "f" else 0
        cut = np.where(beyond, clear, whole).astype(whole.dtype)
        if fresh:
            self._show(layer, cut)
            self._whole[layer] = whole, layer.data
        else:  # in place: napari takes some ten milliseconds for each array that it is given
            shown[...] = cut
            layer.refresh(extent=False, thumbnail=False)

    def _give_back(self, layer: Image | Labels) -> None:
        whole, shown = self._whole.pop(layer, (None, None))
        if whole is not None and shown is layer.data:
            self._show(layer, whole)

    def _show(self, layer: Image | Labels, data: NDArray[Any]) -> None:
        self._cutting = True
        try:
            layer.data = data
        finally:
            self._cutting = False

    def _on_inserted(self, event: Any = None) -> None:  # noqa: ANN401 - a napari event
        self.cut(self._line)

    def _on_change(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        tag = tag_of(event.source)
        if not self._cutting and isinstance(tag, OverlayTag):
            self._cut(event.source, tag.slide_id)

    def _maps(self) -> list[tuple[Any, str]]:
        from napari.layers import Image, Labels

        viewer = self._viewer()
        found = []
        for layer in () if viewer is None else viewer.layers:
            tag = tag_of(layer)
            if not isinstance(tag, OverlayTag) or tag.slide_id not in (self._left, self._right):
                continue
            plain = isinstance(layer, Image | Labels) and not layer.multiscale
            if plain and isinstance(layer.data, np.ndarray) and layer.data.ndim == 2:
                found.append((layer, tag.slide_id))
        return found


def _x_of(layer: Image | Labels) -> NDArray[np.float64]:
    """Return x in the window of the centres of the pixels of a map, (rows, columns), µm."""
    origin, down, right = (layer.data_to_world(point)[-1] for point in ((0, 0), (1, 0), (0, 1)))
    rows, cols = layer.data.shape
    return np.asarray(
        origin + (down - origin) * np.arange(rows)[:, None] + (right - origin) * np.arange(cols)[None]
    )
