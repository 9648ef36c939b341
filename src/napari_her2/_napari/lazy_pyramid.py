"""The correlated representation as lazy arrays: indexing copies what is there and asks for the rest.

Nothing is computed where napari indexes, which is the main thread: what is not there yet is clear. Whoever
has a thread to spare calls `CorrelatedSource.compute_next` until nothing is wanted any more.

napari (0.9) reads the coarsest level once, whole, and keeps the array that it got. The coarsest level here is
one field, and that array is filled in place when the field arrives.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_her2.explain.field_store import ColouredField, FieldKey, FieldStore, fields_in
from napari_her2.slide.lazy_level import RGBA, LazyLevel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.explain.correlated import CorrelatedPyramid
    from napari_her2.explain.correlated_colours import FieldColours

CACHE_BYTES = 1 << 29
_VALUE_BYTES = 2


class CorrelatedSource:
    """Fields of one slide, computed when they are asked for and kept within a bound of memory.

    Parameters
    ----------
    pyramid : CorrelatedPyramid
        Fitted.
    colours : FieldColours
    max_bytes : int
        Of what is kept.

    Attributes
    ----------
    levels : list of LazyLevel
        For a multiscale layer, largest first.
    wanted : Signal()
        There is something to compute. Emitted in the thread that indexed, as are the others in theirs.
    arrived : Signal()
        More of the picture is there, or it has other colours.
    """

    wanted = Signal()
    arrived = Signal()

    def __init__(
        self, pyramid: CorrelatedPyramid, colours: FieldColours, *, max_bytes: int = CACHE_BYTES
    ) -> None:
        side = pyramid.field_px
        self._pyramid: CorrelatedPyramid | None = pyramid
        self._colours = colours
        self._lock = threading.Lock()
        self._overview_key = FieldKey(len(pyramid.level_shapes) - 1, 0, 0)
        self._store = FieldStore(
            max_bytes=max_bytes,
            field_bytes=side * side * (_VALUE_BYTES * pyramid.channels + RGBA),
            always=self._overview_key,
        )
        self.field_px = side
        self._shapes = pyramid.level_shapes
        self._overview = np.zeros((*pyramid.level_shapes[-1], RGBA), np.uint8)
        self.levels = [
            LazyLevel(self, level, shape, side) for level, shape in enumerate(pyramid.level_shapes)
        ]

    @property
    def colours(self) -> FieldColours:
        """How it is shown."""
        return self._colours

    @property
    def closed(self) -> bool:
        """Whether everything was let go of."""
        return self._pyramid is None

    @property
    def pending(self) -> int:
        """Fields that are wanted or being computed."""
        return self._store.pending

    @property
    def damaged(self) -> tuple[FieldKey, ...]:
        """Fields met so far of which the file does not hold everything."""
        return self._store.damaged

    @property
    def nbytes(self) -> int:
        """Memory of the fields that are kept."""
        return self._store.nbytes

    def set_colours(self, colours: FieldColours) -> None:
        """Show it in other colours; what is in memory is coloured anew, not computed."""
        self._colours = colours
        self._overview[...] = 0
        self._store.want_overview()
        self.arrived.emit()

    def picture(self, level: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.uint8]:
        """Copy what is there of a window, and ask for what is not.

        Parameters
        ----------
        level : int
        rows, cols : tuple of int
            First pixel, and the one behind the last; inside the level.

        Returns
        -------
        (height, width, 4) uint8
            Clear where nothing is there.
        """
        out = np.zeros((rows[1] - rows[0], cols[1] - cols[0], RGBA), np.uint8)
        if self.closed or not out.size:
            return out
        keys = fields_in(level, self._shapes[level], self.field_px, rows, cols)
        found = self._store.request(keys, self._colours)
        for key, kept in found.items():
            self._copy(out, kept, key, rows, cols)
        if self._store.pending:
            self.wanted.emit()
        return out

    def overview(self) -> NDArray[np.uint8]:
        """Return the coarsest level: always the same array, filled when its field arrives."""
        if self._store.pending:
            self.wanted.emit()
        return self._overview

    def kept(self, level: int) -> NDArray[np.uint8]:
        """Copy what is there of a whole level, asking for nothing."""
        height, width = self._shapes[level]
        out = np.zeros((height, width, RGBA), np.uint8)
        for key in fields_in(level, (height, width), self.field_px, (0, height), (0, width)):
            kept = self._store.peek(key, self._colours)
            if kept is not None:
                self._copy(out, kept, key, (0, height), (0, width))
        return out

    def whole(self, level: int) -> NDArray[np.uint8]:
        """Return a whole level as it is: the overview, which is filled in place, or a copy."""
        return self.overview() if level == len(self.levels) - 1 else self.kept(level)

    def compute_next(self) -> bool:
        """Compute the most wanted field, in the thread that calls.

        Returns
        -------
        bool
            False where nothing was wanted.

        Raises
        ------
        SlideError
            If the slide was closed.
        """
        with self._lock:  # one field at a time, whoever calls
            pyramid, task = self._pyramid, self._store.take()
            if pyramid is None or task is None:
                return False
            key, field = task
            colours = self._colours
            try:
                field = field or pyramid.field(key)
                self._store.put(ColouredField(field, colours, colours.rgba(field.values)))
            except BaseException:
                self._store.give_up()
                raise
        if key == self._overview_key:
            self._show_overview(colours)
        if not self.closed:
            self.arrived.emit()
        return True

    def forget_requests(self) -> None:
        """Compute nothing of what was asked for, until it is asked for again."""
        self._store.forget_requests()

    def close(self) -> None:
        """Free memory, the network and the slide; the arrays stay, and are clear."""
        self._pyramid = None
        self._store.close()
        self._overview[...] = 0

    def _show_overview(self, colours: FieldColours) -> None:
        if colours is not self._colours:
            self._store.want_overview()
            return
        kept = self._store.peek(self._overview_key, colours)
        if kept is not None:
            height, width = self._overview.shape[:2]
            self._overview[...] = kept.rgba[:height, :width]

    def _copy(
        self,
        out: NDArray[np.uint8],
        kept: ColouredField,
        key: FieldKey,
        rows: tuple[int, int],
        cols: tuple[int, int],
    ) -> None:
        top, left = key.row * self.field_px, key.col * self.field_px
        a, b = max(rows[0], top), min(rows[1], top + self.field_px)
        c, d = max(cols[0], left), min(cols[1], left + self.field_px)
        out[a - rows[0] : b - rows[0], c - cols[0] : d - cols[0]] = kept.rgba[
            a - top : b - top, c - left : d - left
        ]
