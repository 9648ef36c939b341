"""Mouse on the slide: which pixel is under the cursor, and which was clicked."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.components import ViewerModel


class Pointer(QObject):
    """Reports world positions of the cursor; a drag, which pans, is no click.

    Parameters
    ----------
    viewer : ViewerModel
        Held weakly, and holds the pointer weakly: its list of callbacks would keep a dock alive.

    Attributes
    ----------
    moved, clicked : Signal(tuple)
        (y, x), world.
    """

    moved = Signal(object)
    clicked = Signal(object)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        me = weakref.ref(self)

        def on_move(_viewer: ViewerModel, event: Any) -> None:  # noqa: ANN401 - a napari mouse event
            pointer = me()
            if pointer is not None:
                pointer.moved.emit(tuple(event.position[-2:]))

        def on_drag(viewer: ViewerModel, event: Any) -> Generator[None, None, None]:  # noqa: ANN401
            position, button = tuple(event.position[-2:]), event.button
            yield
            dragged = False
            while event.type == "mouse_move":
                dragged = True
                yield
            active = viewer.layers.selection.active
            drawing = active is not None and str(active.mode) != "pan_zoom"
            pointer = me()
            if pointer is not None and not dragged and not drawing and button == 1:
                pointer.clicked.emit(position)

        self._move, self._drag = on_move, on_drag
        viewer.mouse_move_callbacks.append(on_move)
        viewer.mouse_drag_callbacks.append(on_drag)

    def stop(self) -> None:
        """Report nothing any more."""
        viewer = self._viewer()
        if viewer is not None:
            for callbacks, callback in (
                (viewer.mouse_move_callbacks, self._move),
                (viewer.mouse_drag_callbacks, self._drag),
            ):
                if callback in callbacks:
                    callbacks.remove(callback)
