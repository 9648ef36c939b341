"""Regions taken back and brought again: every state of a layer that a person came to, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from psygnal import Signal

from napari_her2._napari.region_kinds import KIND, NAME, give_kinds, is_dressed, kinds_of, names_of

if TYPE_CHECKING:
    from napari.layers import Shapes
    from numpy.typing import NDArray

MOST_STATES = 200
_SETTLED = ("added", "changed", "removed")


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """All shapes of a layer, with their kinds and names."""

    corners: tuple[NDArray[np.float64], ...]
    shapes: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]

    def same(self, other: _State) -> bool:
        """Whether two states differ in nothing."""
        words = (self.shapes, self.kinds, self.names) == (other.shapes, other.kinds, other.names)
        return words and all(map(np.array_equal, self.corners, other.corners))


class RegionHistory:
    """What was done to the regions of one layer.

    Parameters
    ----------
    layer : Shapes
        Held weakly.

    Attributes
    ----------
    changed : Signal()
        There is more or less to take back or to bring again.
    """

    changed = Signal()

    def __init__(self, layer: Shapes) -> None:
        self._layer = ref(layer)
        self._states = [_state(layer)]
        self._at = 0
        self._restoring = False
        layer.events.data.connect(self._on_change)
        layer.events.features.connect(self._on_change)

    def is_of(self, layer: Shapes) -> bool:
        """Whether it is of this layer."""
        return self._layer() is layer

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether something was taken back."""
        return self._at + 1 < len(self._states)

    def undo(self) -> None:
        """Take the last change back."""
        if self.can_undo:
            self._go_to(self._at - 1)

    def redo(self) -> None:
        """Bring back what was taken back last."""
        if self.can_redo:
            self._go_to(self._at + 1)

    def release(self) -> None:
        """Let go of the layer."""
        layer = self._layer()
        if layer is not None:
            layer.events.data.disconnect(self._on_change)
            layer.events.features.disconnect(self._on_change)

    def _go_to(self, at: int) -> None:
        layer = self._layer()
        if layer is None:
            return
        self._at, self._restoring = at, True
        try:
            _restore(layer, self._states[at])
        finally:
            self._restoring = False
        self.changed.emit()

    def _on_change(self, event: Any) -> None:  # noqa: ANN401 - a napari event
        action = str(getattr(event, "action", "changed")).lower().rsplit(".", 1)[-1]
        layer = self._layer()
        if layer is None or self._restoring or action not in _SETTLED:
            return
        if layer.nshapes != len(layer.features) or not is_dressed(layer):
            return  # in the midst of a change: a further event comes with the rest
        state = _state(layer)
        if state.same(self._states[self._at]):
            return
        self._states = [*self._states[: self._at + 1], state][-MOST_STATES:]
        self._at = len(self._states) - 1
        self.changed.emit()


def _state(layer: Shapes) -> _State:
    return _State(
        tuple(np.array(of, np.float64) for of in layer.data),
        tuple(map(str, layer.shape_type)),
        tuple(kinds_of(layer)),
        tuple(names_of(layer)),
    )


def _restore(layer: Shapes, state: _State) -> None:
    layer.selected_data = set()
    with layer.block_thumbnail_update():
        if layer.nshapes:
            layer.remove(list(range(layer.nshapes)))
        if state.corners:
            layer.add(list(map(np.array, state.corners)), shape_type=list(state.shapes))
    columns = {of: list(layer.features[of]) for of in layer.features if of not in (KIND, NAME)}
    typed = {KIND: np.array(state.kinds, object), NAME: np.array(state.names, object)}
    layer.features = {**columns, **typed}
    give_kinds(layer)
