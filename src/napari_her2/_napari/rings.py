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
    from collections.abc import Iterator

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

    def steps(self, start: Point) -> Iterator[Point | tuple[_Ring, Point]]:
        """Go around once, from a corner to it again: corners, and bridges to go over and come back."""
        first = self.points.index(start)
        for corner in self.points[first:] + self.points[:first]:
            yield corner
            for bridge in self.bridges.get(corner, ()):
                yield bridge
                yield corner
        yield start


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
    lines = [oriented.exterior, *oriented.interiors]
    rings = [_Ring(_corners(line)) for line in lines]
    geometries = np.array(lines, object)
    waiting: NDArray[np.int64] = np.arange(1, len(lines), dtype=np.int64)
    # How far each waiting hole is from what is joined already, and from which ring of it.
    distance = np.asarray(shapely.distance(lines[0], geometries[1:]), np.float64)
    nearest = np.zeros(len(lines) - 1, np.int64)
    while len(waiting):
        at = int(np.argmin(distance))
        here, there = int(nearest[at]), int(waiting[at])
        _bridge(rings[here], lines[here], rings[there], lines[there])
        waiting, nearest = np.delete(waiting, at), np.delete(nearest, at)
        distance = np.delete(distance, at)
        further = np.asarray(shapely.distance(lines[there], geometries[waiting]), np.float64)
        nearest = np.where(further < distance, there, nearest)
        distance = np.minimum(further, distance)
    return np.array(_walked(rings[0])[:-1], np.float64)


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


def _walked(outline: _Ring) -> list[Point]:
    """Corners of an outline, and of all holes that its bridges lead to, one after another."""
    walked: list[Point] = []
    under_way = [outline.steps(outline.points[0])]  # of holes behind holes: no depth of calls is enough
    while under_way:
        step = next(under_way[-1], None)
        if step is None:
            under_way.pop()
        elif isinstance(step[0], _Ring):
            under_way.append(step[0].steps(step[1]))
        else:
            walked.append(step)
    return walked


def _bridge(ring: _Ring, line: Any, hole: _Ring, hole_line: Any) -> None:  # noqa: ANN401 - shapely rings
    """Join a hole to a ring where they are nearest to each other."""
    ends = shapely.get_coordinates(shapely.shortest_line(line, hole_line))
    leave, land = (float(ends[0, 0]), float(ends[0, 1])), (float(ends[1, 0]), float(ends[1, 1]))
    ring.meet(leave, float(shapely.line_locate_point(line, shapely.Point(leave))))
    hole.meet(land, float(shapely.line_locate_point(hole_line, shapely.Point(land))))
    ring.bridges.setdefault(leave, []).append((hole, land))


def _corners(line: Any) -> list[Point]:  # noqa: ANN401 - a shapely ring
    return [(float(x), float(y)) for x, y in shapely.get_coordinates(line)[:-1]]
