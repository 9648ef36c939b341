"""Polygons with holes as single rings: what napari draws, and back.

A shape of napari is one ring. It shows holes where the ring runs along a bridge into each hole, around it the
other way, and back along the same bridge: lines that are run along twice enclose nothing and are not filled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_AREA = 1e-6
"""Of a part, in square pixels: less is what rounding leaves of a bridge."""

Point = tuple[float, float]


@dataclass(eq=False)
class _Ring:
    """A ring without its last point, and the bridges that leave it, by the point that they leave from."""

    points: list[Point]
    bridges: dict[Point, list[tuple[_Ring, Point]]] = field(default_factory=dict)

    def meet(self, point: Point, at: float) -> None:
        """Make a point on the line a corner; ``at`` is its distance from the first corner along the ring."""
        if point in self.points:
            return
        corners = np.array([*self.points, self.points[0]])
        ends = np.cumsum(np.hypot(*np.diff(corners, axis=0).T))
        self.points.insert(int(np.searchsorted(ends, at)) + 1, point)

    def walk(self, start: Point) -> list[Point]:
        """Corners from one on around to it again, with what lies beyond the bridges."""
        first = self.points.index(start)
        walked: list[Point] = []
        for corner in self.points[first:] + self.points[:first]:
            walked.append(corner)
            for other, landing in self.bridges.get(corner, ()):
                walked += [*other.walk(landing), corner]
        return [*walked, start]


def ring_of(polygon: Any) -> NDArray[np.float64]:  # noqa: ANN401 - a shapely polygon
    """Return a polygon as one ring.

    The bridges are those of a minimum spanning tree (Prim 1957) of outline and holes, which cross nothing.

    Parameters
    ----------
    polygon : shapely polygon
        May have holes.

    Returns
    -------
    (N, 2) float64
        The last point is not the first one again.
    """
    oriented = shapely.geometry.polygon.orient(polygon)
    joined = [(_ring(oriented.exterior), oriented.exterior)]
    waiting = [(_ring(hole), hole) for hole in oriented.interiors]
    while waiting:
        _, here, there = min(
            (
                (float(shapely.distance(line, hole)), at, number)
                for at, (_, line) in enumerate(joined)
                for number, (_, hole) in enumerate(waiting)
            ),
        )
        (ring, line), (inner, hole) = joined[here], waiting.pop(there)
        ends = shapely.get_coordinates(shapely.shortest_line(line, hole))
        leave, land = _point(ends[0]), _point(ends[1])
        ring.meet(leave, float(shapely.line_locate_point(line, shapely.Point(leave))))
        inner.meet(land, float(shapely.line_locate_point(hole, shapely.Point(land))))
        ring.bridges.setdefault(leave, []).append((inner, land))
        joined.append((inner, hole))
    outline = joined[0][0]
    return np.array(outline.walk(outline.points[0])[:-1], np.float64)


def polygon_of(ring: NDArray[np.floating]) -> Any:  # noqa: ANN401 - a shapely geometry
    """Return what a ring encloses, holes taken out.

    Parameters
    ----------
    ring : (N, 2) float
        One that crosses itself encloses what it goes around an odd number of times.

    Returns
    -------
    shapely polygon or multipolygon
        Valid; empty where the ring encloses nothing.
    """
    drawn = shapely.Polygon(ring)
    if drawn.is_valid:
        return drawn
    held = [part for of in shapely.get_parts(shapely.make_valid(drawn)) for part in shapely.get_parts(of)]
    return shapely.union_all([part for part in held if part.area > _LEAST_AREA])


def _ring(line: Any) -> _Ring:  # noqa: ANN401 - a shapely ring
    return _Ring([_point(xy) for xy in shapely.get_coordinates(line)[:-1]])


def _point(xy: NDArray[np.float64]) -> Point:
    return float(xy[0]), float(xy[1])
