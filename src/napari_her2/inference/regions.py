"""Regions that a person drew: read from GeoJSON, and which tiles lie in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

Regions: TypeAlias = "Path | str | Sequence[Any]"  # a GeoJSON file, or shapely polygons in level-0 px (x, y)

MAX_POINTS, MAX_CROSSINGS = 2_000_000, 500_000
"""Of all regions of a file together."""
FARTHEST_PX = 1e9
_LINES_AT_ONCE = 64
REGION_FILES = Reading(
    limit=256 * MiB,
    advice="export the regions to be scored from QuPath or napari again, as GeoJSON in pixels",
)
_HOLDERS = {"FeatureCollection": "features", "Feature": "geometry", "GeometryCollection": "geometries"}
_KINDS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")


def read_regions(path: Path | str) -> list[Any]:
    """Polygons of a GeoJSON file, as QuPath writes it.

    Parameters
    ----------
    path : Path or str
        A FeatureCollection, a Feature, a geometry or a list of these; coordinates are (x, y) in
        level-0 pixels. It may be compressed (.geojson.gz).

    Returns
    -------
    list of shapely geometries
        Valid polygons and multipolygons; points and lines, and rings of less than three points, enclose
        nothing and are left out. Those that cross themselves enclose what they go around.

    Raises
    ------
    JobFailed
        If the file cannot be read, holds no polygon, or something that is none.
    """
    content = REGION_FILES.parsed_json(REGION_FILES.text_of(REGION_FILES.raw(path), path, gzipped=True), path)
    try:
        shapes = [_Shape(rings) for geometry in _geometries(content) for rings in _polygons(geometry)]
    except _NoRegion as error:
        raise REGION_FILES.refusal(path, str(error)) from error
    rings = [ring for item in shapes for ring in item.rings]
    count = sum(len(ring) for ring in rings)
    if count > MAX_POINTS:
        raise REGION_FILES.refusal(path, f"holds {count:,} points, more than {MAX_POINTS:,}")
    if rings and _crossings(rings) > MAX_CROSSINGS:
        raise REGION_FILES.refusal(path, f"has lines that cross each other in over {MAX_CROSSINGS:,} places")
    polygons = [polygon for item in shapes if (polygon := item.polygon()) is not None]
    if not polygons:
        raise JobFailed(f"{shown(Path(path).name)} holds no polygon: draw at least one closed region.")
    return polygons


def tiles_inside(regions: Regions, grid: TileGrid) -> NDArray[np.bool_]:
    """Tiles whose centre lies inside any of the regions.

    Parameters
    ----------
    regions : Path, str or sequence of shapely polygons
        Level-0 pixels, (x, y).
    grid : TileGrid

    Returns
    -------
    (rows, columns) bool
    """
    return inside_mask(regions, grid.shape, grid.tile_px0)


def inside_mask(
    regions: Regions,
    shape: tuple[int, ...],
    pitch_px0: tuple[float, float],
    origin_px0: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """Pixels of a coarse image over the slide whose centre lies inside any of the regions.

    Parameters
    ----------
    regions : Path, str or sequence of shapely polygons
        Level-0 pixels, (x, y).
    shape : tuple of int
        (rows, columns).
    pitch_px0 : tuple of float
        (y, x) level-0 pixels per pixel.
    origin_px0 : tuple of float, optional
        (y, x) corner of the first pixel; by default that of the slide.

    Returns
    -------
    (rows, columns) bool
    """
    area = joined(regions)
    y, x = (
        origin + (np.arange(count) + 0.5) * pitch
        for origin, count, pitch in zip(origin_px0, shape, pitch_px0, strict=True)
    )
    return np.asarray(shapely.contains_xy(area, *np.meshgrid(x, y)), np.bool_)


def joined(regions: Regions) -> Any:  # noqa: ANN401 - a shapely geometry
    """Regions as one geometry, prepared to be asked often."""
    polygons = read_regions(regions) if isinstance(regions, str | Path) else list(regions)
    # Regions drawn by hand cross themselves; without this GEOS refuses to join them.
    area = shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])
    shapely.prepare(area)
    return area


class _NoRegion(Exception):
    """What a file holds is no region; the text goes on from the name of the file."""


class _Shape:
    """A polygon of a file: its outline and its holes."""

    def __init__(self, rings: list[NDArray[np.float64]]) -> None:
        # Less than three points enclose nothing; without an outline there are no holes.
        self.rings = [ring for ring in rings if len(ring) >= 3] if rings and len(rings[0]) >= 3 else []

    def polygon(self) -> Any:  # noqa: ANN401 - a shapely geometry
        """Return it as a valid geometry; None where it encloses nothing."""
        if not self.rings:
            return None
        drawn = shapely.Polygon(self.rings[0], self.rings[1:])
        valid = drawn if drawn.is_valid else shapely.make_valid(drawn)
        parts = [part for part in shapely.get_parts(valid) if part.geom_type in ("Polygon", "MultiPolygon")]
        return (parts[0] if len(parts) == 1 else shapely.union_all(parts)) if parts else None


def _geometries(content: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    """Geometries of points, lines and polygons, wherever they are held."""
    if isinstance(content, list):
        for item in content:
            yield from _geometries(item)
        return
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise _NoRegion("is not GeoJSON")
    kind = content["type"]
    if kind in _HOLDERS:
        if _HOLDERS[kind] not in content:
            raise _NoRegion(f"is not GeoJSON, its {kind} has no {_HOLDERS[kind]}")
        held = content[_HOLDERS[kind]]
        if held is not None:
            yield from _geometries(held)
    elif kind not in _KINDS:
        raise _NoRegion(f"holds {shown(kind, 40)!r}, which is no geometry of GeoJSON")
    else:
        yield content


def _polygons(geometry: Mapping[str, Any]) -> Iterator[list[NDArray[np.float64]]]:
    kind, held = geometry["type"], geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        return
    for rings in [held] if kind == "Polygon" else _listed(held):
        yield [_ring(ring) for ring in _listed(rings)]


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    if not isinstance(value, list):
        raise _NoRegion("is not GeoJSON, coordinates of a polygon are missing")
    return value


def _ring(points: Any) -> NDArray[np.float64]:  # noqa: ANN401 - JSON
    """(N, 2) positions of an outline, without the height that some programs give."""
    try:
        pairs = [(x, y) for x, y, *_ in _listed(points)]
    except (TypeError, ValueError) as error:
        raise _NoRegion("is not GeoJSON, a position has no two numbers") from error
    for x, y in pairs:
        if type(x) not in (int, float) or type(y) not in (int, float):
            raise _NoRegion("is not GeoJSON, a position is no two numbers")
        if abs(x) > FARTHEST_PX or abs(y) > FARTHEST_PX:
            raise _NoRegion(f"has a position of {max(abs(x), abs(y)):.3g} px, which no slide has")
    return np.array(pairs, np.float64).reshape(-1, 2)


def _crossings(rings: Sequence[NDArray[np.float64]]) -> int:
    """Places where lines cross or touch, beyond the two ends of each; counted no further than asked.

    GEOS takes time and memory in their number, which can be the square of the points.
    """
    closed = [np.vstack([ring, ring[:1]]) for ring in rings]
    lines = shapely.linestrings(np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in closed]))
    tree = shapely.STRtree(lines)
    found = 0
    for first in range(0, len(lines), _LINES_AT_ONCE):
        some = lines[first : first + _LINES_AT_ONCE]
        found += max(0, len(tree.query(some, predicate="intersects")[0]) - 3 * len(some))
        if found > 2 * MAX_CROSSINGS:  # each is found from both of its lines
            break
    return found // 2
