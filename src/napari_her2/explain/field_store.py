"""Fields that were computed, within a bound of memory, and those that are still wanted.

Between the viewer, which asks and never waits, and one thread that computes. The latest request replaces
the one before: what left the view is not computed any more. Of what is kept, the fields that were not
looked at for the longest time go first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.explain.correlated_colours import FieldColours


class FieldKey(NamedTuple):
    """Which field: level, and row and column among the fields of that level."""

    level: int
    row: int
    col: int


@dataclass(frozen=True, slots=True, eq=False)
class CorrelatedField:
    """The representation of one field.

    Parameters
    ----------
    key : FieldKey
    values : (d, f, f) float16
        NaN outside the slide and where the file is damaged.
    damaged : bool
        Whether any of it is missing because the file is damaged.
    """

    key: FieldKey
    values: NDArray[np.float16]
    damaged: bool


def fields_in(
    level: int, shape: tuple[int, int], field_px: int, rows: tuple[int, int], cols: tuple[int, int]
) -> list[FieldKey]:
    """Fields that a window of a level touches, those nearest to its middle first.

    Parameters
    ----------
    level : int
    shape : tuple of int
        (height, width) of the level.
    field_px : int
        Side of a field.
    rows, cols : tuple of int
        First pixel, and the one behind the last.

    Returns
    -------
    list of FieldKey

    Examples
    --------
    >>> fields_in(0, (100, 100), 50, (0, 10), (0, 100))
    [FieldKey(level=0, row=0, col=0), FieldKey(level=0, row=0, col=1)]
    """
    (top, bottom), (left, right) = (
        (max(0, first) // field_px, -(-min(behind, size) // field_px))
        for (first, behind), size in zip((rows, cols), shape, strict=True)
    )
    y, x = (top + bottom - 1) / 2, (left + right - 1) / 2
    keys = [FieldKey(level, row, col) for row in range(top, bottom) for col in range(left, right)]
    return sorted(keys, key=lambda key: (key.row - y) ** 2 + (key.col - x) ** 2)


@dataclass(frozen=True, slots=True, eq=False)
class ColouredField:
    """A field and its picture.

    Parameters
    ----------
    field : CorrelatedField
    colours : FieldColours
        The picture was made with.
    rgba : (f, f, 4) uint8
    """

    field: CorrelatedField
    colours: FieldColours
    rgba: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Memory of both."""
        return self.field.values.nbytes + self.rgba.nbytes


class FieldStore:
    """Keeps fields and requests; safe from many threads at once.

    Parameters
    ----------
    max_bytes : int
        Of all fields that are kept.
    field_bytes : int
        Of one of them, with its picture.
    always : FieldKey
        The overview: wanted until it is there, and never dropped.
    """

    def __init__(self, *, max_bytes: int, field_bytes: int, always: FieldKey) -> None:
        self.max_fields = max(2, max_bytes // field_bytes)
        self._max_bytes = self.max_fields * field_bytes
        self._always = always
        self._lock = threading.Lock()
        self._fields: OrderedDict[FieldKey, ColouredField] = OrderedDict()
        self._wanted: list[FieldKey] = [always]
        self._computing: FieldKey | None = None
        self._damaged: set[FieldKey] = set()
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Memory of what is kept."""
        with self._lock:
            return sum(kept.nbytes for kept in self._fields.values())

    @property
    def pending(self) -> int:
        """How many fields are wanted or being computed."""
        with self._lock:
            return len(self._wanted) + (self._computing is not None)

    @property
    def damaged(self) -> tuple[FieldKey, ...]:
        """Fields met so far of which the file does not hold everything."""
        with self._lock:
            return tuple(sorted(self._damaged))

    def request(self, keys: Sequence[FieldKey], colours: FieldColours) -> dict[FieldKey, ColouredField]:
        """Take what is there in these colours, and want what is not, instead of all that was wanted.

        Parameters
        ----------
        keys : sequence of FieldKey
            In view, the most important first. More than memory holds are not wanted.
        colours : FieldColours

        Returns
        -------
        dict of FieldKey to ColouredField
        """
        with self._lock:
            if self._closed:
                return {}
            found = {}
            missing = []
            for key in keys[: self.max_fields - 1]:
                kept = self._fields.get(key)
                if kept is not None and kept.colours is colours:
                    found[key] = kept
                    self._fields.move_to_end(key)
                elif key != self._computing:
                    missing.append(key)
            overview = self._fields.get(self._always)
            due = (overview is None or overview.colours is not colours) and self._computing != self._always
            self._wanted = [self._always] * due + [key for key in missing if key != self._always]
            return found

    def peek(self, key: FieldKey, colours: FieldColours) -> ColouredField | None:
        """Return a field in these colours if it is there; nothing is wanted and nothing counts as seen."""
        with self._lock:
            kept = self._fields.get(key)
            return kept if kept is not None and kept.colours is colours else None

    def take(self) -> tuple[FieldKey, CorrelatedField | None] | None:
        """Take the next field to compute, and its values where only its colours are missing.

        Returns
        -------
        tuple of FieldKey and CorrelatedField or None, or None
            None where nothing is wanted. `put` or `give_up` says when it is done.
        """
        with self._lock:
            if self._closed or not self._wanted:
                return None
            key = self._computing = self._wanted.pop(0)
            kept = self._fields.get(key)
            return key, None if kept is None else kept.field

    def put(self, coloured: ColouredField) -> None:
        """Keep a field; dropped if the store was closed meanwhile."""
        with self._lock:
            self._computing = None
            if self._closed:
                return
            key = coloured.field.key
            if coloured.field.damaged:
                self._damaged.add(key)
            self._fields[key] = coloured
            self._fields.move_to_end(key)
            total = sum(kept.nbytes for kept in self._fields.values())
            for oldest in list(self._fields):
                if total <= self._max_bytes:
                    break
                if oldest not in (self._always, key):
                    total -= self._fields.pop(oldest).nbytes

    def give_up(self) -> None:
        """Say that the field that was taken could not be computed."""
        with self._lock:
            self._computing = None

    def want_overview(self) -> None:
        """Want the overview again: its colours are not the right ones any more."""
        with self._lock:
            if not self._closed and self._always not in self._wanted:
                self._wanted.insert(0, self._always)

    def forget_requests(self) -> None:
        """Want nothing but the overview: the layer is hidden, or the overview is all that is shown."""
        with self._lock:
            self._wanted = [key for key in self._wanted if key == self._always]

    def close(self) -> None:
        """Free all memory, and compute nothing any more."""
        with self._lock:
            self._closed = True
            self._fields.clear()
            self._wanted.clear()
            self._computing = None
