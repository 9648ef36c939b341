"""Where the cursor is on one slide of a case, shown on the other one: a cross that follows the alignment.

Both slides lie in one canvas under one camera, so that they have the same zoom always. Side by side the cross
says which place of the other slide is meant; stacked the two places are one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.collecting import take_out
from napari_her2._napari.colormaps import MARK_COLOUR
from napari_her2._napari.layers import AXES, MICROMETRE
from napari_her2._napari.placement import bounds, place_of
from napari_her2._napari.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Points
    from numpy.typing import NDArray

    from napari_her2._napari.pairing import Pairing

_SIZE_PX = 28.0


class LinkedCursor:
    """A cross on the slide that the cursor is not on.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    pairing : Pairing
    """

    def __init__(self, viewer: ViewerModel, pairing: Pairing) -> None:
        from napari.layers import Points

        self._viewer = weakref.ref(viewer)
        self._pairing = pairing
        active = viewer.layers.selection.active
        self.layer: Points = Points(
            np.zeros((0, 2)),
            ndim=2,
            name=one_line("cursor on the other slide"),
            symbol="cross",
            face_color=MARK_COLOUR,
            border_width=0,
            units=MICROMETRE,
            axis_labels=AXES,
        )
        self.layer.editable = False
        viewer.add_layer(self.layer)
        viewer.layers.selection.active = active
        me = weakref.ref(self)

        def on_move(_viewer: ViewerModel, event: Any) -> None:  # noqa: ANN401 - a napari mouse event
            cursor = me()
            if cursor is not None:
                cursor.follow(event.position)

        self._on_move = on_move
        viewer.mouse_move_callbacks.append(on_move)

    def follow(self, position: Sequence[float]) -> None:
        """Show the place on the other slide of a place in the window, (y, x) or with more axes before."""
        viewer = self._viewer()
        other = self.other(np.asarray(position, np.float64)[-2:])
        if viewer is None or self.layer not in viewer.layers:
            return
        if other is None:
            if len(self.layer.data):
                self.layer.data = np.zeros((0, 2))
            return
        self.layer.data = other[None]
        self.layer.size = _SIZE_PX / max(float(viewer.scene.camera.zoom), 1e-9)

    def other(self, position: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the place in the window of the same tissue on the other slide.

        Parameters
        ----------
        position : (2,) float64
            (y, x) in the window.

        Returns
        -------
        (2,) float64 or None
            None beside the slides, and where they lie on each other.
        """
        layers = self._pairing.layers
        if layers is None or self._pairing.arrangement == "stacked":
            return None
        places = [place_of(layer) for layer in layers]
        alignment = self._pairing.alignment
        for at, (layer, place) in enumerate(zip(layers, places, strict=True)):
            low, high = bounds(layer, place)
            if (low <= position).all() and (position <= high).all():
                on_slide = np.linalg.solve(place, (*position, 1.0))[:2]
                between = alignment.inverse() if at == 0 else alignment
                there = between.apply(on_slide[None])[0]
                return np.asarray((places[1 - at] @ (*there, 1.0))[:2], np.float64)
        return None

    def stop(self) -> None:
        """Take the cross away."""
        viewer = self._viewer()
        if viewer is None:
            return
        if self._on_move in viewer.mouse_move_callbacks:
            viewer.mouse_move_callbacks.remove(self._on_move)
        take_out(viewer, self.layer)
