"""Which of many points, or of many squares, lie in a polygon: the same answers as GEOS gives, in less time.

A lattice is laid over the points. Of each of its squares GEOS says whether it lies wholly inside
or wholly outside; so it has to be asked only of the points in the squares that the outline runs through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FEW = 2_000
"""Points that GEOS is asked of one by one: a lattice for them costs as much."""
_MOST_SIDE = 128
_POINTS_A_SQUARE = 32
_APART = 4
"""Into so many squares, in each direction, a block is taken apart that the outline runs through."""
_SLACK = 1e-6
"""Share of a square that is added on each side of it: rounding must not put a point into the next one."""
_OUTSIDE, _INSIDE, _CROSSED = np.uint8(0), np.uint8(1), np.uint8(2)


def intersects_xy(area: Any, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:  # noqa: ANN401 - shapely
    """Which points lie in an area or on its border, (N,) bool, as ``shapely.intersects_xy`` says.

    Parameters
    ----------
    area : shapely geometry
        Valid polygons; prepared by this.
    x, y : (N,) float
    """
    return _points(shapely.intersects_xy, area, np.asarray(x, np.float64), np.asarray(y, np.float64))


def contains_xy(area: Any, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:  # noqa: ANN401 - shapely
    """Which points lie in an area and not on its border, (N,) bool, as ``shapely.contains_xy`` says.

    Parameters
    ----------
    area : shapely geometry
        Valid polygons; prepared by this.
    x, y : (N,) float
    """
    return _points(shapely.contains_xy, area, np.asarray(x, np.float64), np.asarray(y, np.float64))


def contains_grid(area: Any, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.bool_]:  # noqa: ANN401 - shapely
    """Which points of a grid lie in an area and not on its border.

    Parameters
    ----------
    area : shapely geometry
        Valid polygons; prepared by this.
    x : (W,) float
    y : (H,) float

    Returns
    -------
    (H, W) bool
        As ``shapely.contains_xy`` says of all pairs.
    """
    found = np.zeros((len(y), len(x)), np.bool_)
    cols, rows = _near(area, x, y)
    near_x, near_y = np.asarray(x, np.float64)[cols], np.asarray(y, np.float64)[rows]
    shapely.prepare(area)
    lattice = _Lattice.over(area, near_x, near_y, len(near_x) * len(near_y))
    if lattice is None:
        inside = shapely.contains_xy(area, *np.meshgrid(near_x, near_y))
    else:
        state = lattice.state[np.ix_(lattice.place(near_y, 1), lattice.place(near_x, 0))]
        inside = state == _INSIDE
        at_y, at_x = np.nonzero(state == _CROSSED)
        inside[at_y, at_x] = shapely.contains_xy(area, near_x[at_x], near_y[at_y])
    found[np.ix_(rows, cols)] = inside
    return found


def squares_met(area: Any, shape: tuple[int, int], side: tuple[float, float]) -> NDArray[np.bool_]:  # noqa: ANN401 - shapely
    """Which squares of a lattice from the corner (0, 0) an area has a part in, (rows, columns) bool.

    Parameters
    ----------
    area : shapely geometry
        Valid polygons; prepared by this.
    shape : tuple of int
        (rows, columns).
    side : tuple of float
        (y, x) of a square. Its border belongs to it.
    """
    if area.is_empty or not min(shape):
        return np.zeros(shape, np.bool_)
    shapely.prepare(area)
    edges: list[Floats] = [
        np.asarray(np.arange(count + 1) * each, np.float64) for count, each in zip(shape, side, strict=True)
    ]
    state = _states(area, edges[1][:-1], edges[0][:-1], edges[1][1:], edges[0][1:])
    return np.asarray(state != _OUTSIDE)


def _points(
    predicate: Callable[[Any, Floats, Floats], Any],
    area: Any,  # noqa: ANN401 - shapely
    x: Floats,
    y: Floats,
) -> NDArray[np.bool_]:
    found = np.zeros(len(x), np.bool_)
    if area.is_empty:
        return found
    shapely.prepare(area)
    left, top, right, bottom = area.bounds
    near = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
    x, y = x[near], y[near]
    lattice = _Lattice.over(area, x, y, len(near))
    if lattice is None:
        found[near] = predicate(area, x, y)
        return found
    state = lattice.state[lattice.place(y, 1), lattice.place(x, 0)]
    found[near] = state == _INSIDE
    crossed = np.flatnonzero(state == _CROSSED)
    found[near[crossed]] = predicate(area, x[crossed], y[crossed])
    return found


def _near(
    area: Any,  # noqa: ANN401 - shapely
    x: NDArray[np.floating],
    y: NDArray[np.floating],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Columns and rows of a grid that the box of an area reaches."""
    if area.is_empty:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    left, top, right, bottom = area.bounds
    return np.flatnonzero((x >= left) & (x <= right)), np.flatnonzero((y >= top) & (y <= bottom))


def _states(area: Any, left: Floats, top: Floats, right: Floats, bottom: Floats) -> NDArray[np.uint8]:  # noqa: ANN401 - shapely
    """State of the squares between edges, (rows, columns): `_OUTSIDE`, `_INSIDE` or `_CROSSED`.

    Blocks of squares are asked of first, and only those that the outline crosses are taken apart.
    """
    rows, cols = len(top), len(left)
    block = _APART ** int(np.log(max(rows, cols, 2)) / np.log(_APART))
    state = np.full((-(-rows // block), -(-cols // block)), _CROSSED)
    while True:
        row, col = np.nonzero(state == _CROSSED)
        last_row, last_col = (np.minimum((at + 1) * block, n) - 1 for at, n in ((row, rows), (col, cols)))
        boxes = shapely.box(left[col * block], top[row * block], right[last_col], bottom[last_row])
        met = shapely.intersects(area, boxes)
        # Properly: no point of it lies on the outline, which counts for one predicate and not for the other.
        within = shapely.contains_properly(area, boxes[met])
        state[row[~met], col[~met]] = _OUTSIDE
        state[row[met], col[met]] = np.where(within, _INSIDE, _CROSSED)
        if block == 1:
            return state
        block //= _APART
        finer = state.repeat(_APART, axis=0).repeat(_APART, axis=1)
        state = finer[: -(-rows // block), : -(-cols // block)]


class _Lattice:
    """Squares over the box of some points.

    Parameters
    ----------
    area : shapely geometry
        Prepared.
    low, high : tuple of float
        (x, y) corners of the box.
    side : int
        Squares in each direction.

    Attributes
    ----------
    state : (side, side) uint8
        Of each square, by row and column.
    """

    def __init__(self, area: Any, low: tuple[float, float], high: tuple[float, float], side: int) -> None:  # noqa: ANN401 - shapely
        self._side = side
        self._low = low
        self._pitch = (high[0] - low[0]) / side, (high[1] - low[1]) / side
        lows: list[Floats] = []
        highs: list[Floats] = []
        for origin, pitch in zip(low, self._pitch, strict=True):
            edges = origin + np.arange(side + 1) * pitch
            lows.append(np.asarray(edges[:-1] - _SLACK * pitch, np.float64))
            highs.append(np.asarray(edges[1:] + _SLACK * pitch, np.float64))
        self.state = _states(area, lows[0], lows[1], highs[0], highs[1])

    @classmethod
    def over(cls, area: Any, x: Floats, y: Floats, points: int) -> _Lattice | None:  # noqa: ANN401 - shapely
        """Return a lattice for points in the box of an area; None where it does not pay."""
        if points < _FEW:
            return None
        low, high = (float(x.min()), float(y.min())), (float(x.max()), float(y.max()))
        pitch = min(high[0] - low[0], high[1] - low[1]) / _MOST_SIDE
        # Points on a line, or so far from the corner of the slide that rounding swallows the slack.
        if not pitch > 1e-6 * max(map(abs, low + high)):
            return None
        return cls(area, low, high, int(np.clip(np.sqrt(points / _POINTS_A_SQUARE), 8, _MOST_SIDE)))

    def place(self, values: Floats, axis: int) -> NDArray[np.intp]:
        """Column (axis 0, of x) or row (axis 1, of y) of each value, all of which lie in the box."""
        at = ((values - self._low[axis]) * (1 / self._pitch[axis])).astype(np.intp)
        return np.asarray(np.minimum(at, self._side - 1, out=at))
