"""The mouse moves the IHC slide of a pair: drag to move, with Shift to turn."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2._napari.placement import place_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_her2._napari.pairing import Pairing

_TURN = "Shift"


class SlideDrag:
    """While it is on, a drag in the window moves the IHC slide instead of the view.

    The size is never changed: sections of one block have one size, and a stretch made by accident is
    not seen.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly.
    pairing : Pairing
    """

    def __init__(self, viewer: ViewerModel, pairing: Pairing) -> None:
        self._viewer = weakref.ref(viewer)
        self._pairing = pairing
        me = weakref.ref(self)

        def on_drag(_viewer: ViewerModel, event: Any) -> Generator[None, None, None]:  # noqa: ANN401
            # The event is changed in place while the drag goes on.
            last = np.asarray(event.position[-2:], np.float64)
            centre = np.asarray(_viewer.scene.camera.center[-2:], np.float64)
            yield
            while event.type == "mouse_move":
                now = np.asarray(event.position[-2:], np.float64)
                drag = me()
                if drag is not None:
                    drag.move(last, now, about=centre if _TURN in event.modifiers else None)
                last = now
                yield

        self._on_drag = on_drag
        self._panned = bool(viewer.scene.camera.mouse_pan)
        viewer.scene.camera.mouse_pan = False
        viewer.mouse_drag_callbacks.append(on_drag)

    def move(
        self,
        start: NDArray[np.float64],
        end: NDArray[np.float64],
        about: NDArray[np.float64] | None = None,
    ) -> None:
        """Move the slide as the mouse moved.

        Parameters
        ----------
        start, end : (2,) float
            (y, x) in the window.
        about : (2,) float or None
            Turn about this point instead of moving.
        """
        layers = self._pairing.layers
        if layers is None:
            return
        to_fixed = np.linalg.inv(place_of(layers[0]))

        def on_slide(point: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(to_fixed[:2, :2] @ point + to_fixed[:2, 2], np.float64)

        start, end = on_slide(start), on_slide(end)
        alignment = self._pairing.alignment
        if about is None:
            self._pairing.set_alignment(alignment.shifted(end - start))
            return
        centre = on_slide(about)
        (y0, x0), (y1, x1) = start - centre, end - centre
        degrees = float(np.rad2deg(np.arctan2(x1, y1) - np.arctan2(x0, y0)))
        self._pairing.set_alignment(alignment.turned(degrees, centre))

    def stop(self) -> None:
        """Let the mouse move the view again."""
        viewer = self._viewer()
        if viewer is None:
            return
        if self._on_drag in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_drag)
        viewer.scene.camera.mouse_pan = self._panned
