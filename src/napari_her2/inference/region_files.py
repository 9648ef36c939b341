"""Regions read from GeoJSON of any origin, as QuPath and others write it: hostile until it was looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.region_frame import NO_FRAME
from napari_her2.inference.region_kinds import LONGEST_NAME, Region, kind_of_class, name_by_class, valid_area
from napari_her2.inference.region_xml import read_xml_regions
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_her2.inference.region_frame import RegionFrame

XML_ENDINGS = (".xml", ".ndpa")
MAX_POINTS, MAX_CROSSINGS = 2_000_000, 500_000
"""Of all regions of a file together."""
FARTHEST_PX = 1e9
_LINES_AT_ONCE, _MOST_NAMES = 64, 8
REGION_FILES = Reading(
    limit=256 * MiB,
    advice="export the regions to be scored from QuPath or napari again, as GeoJSON in pixels",
)
_HOLDERS = {"FeatureCollection": "features", "Feature": "geometry", "GeometryCollection": "geometries"}
_GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")


def read_named_regions(path: Path | str, frame: RegionFrame = NO_FRAME) -> list[Region]:
    """Regions of a file with their names and kinds.

    Parameters
    ----------
    path : Path or str
        GeoJSON, or by its ending .xml of ImageScope or .ndpa of NDP.view (`read_xml_regions`). GeoJSON is a
        FeatureCollection, a Feature, a geometry or a list of these, as QuPath writes them; coordinates are
        (x, y) in level-0 pixels, from where QuPath counts. It may be compressed (.geojson.gz).
    frame : RegionFrame
        Of the slide that they were drawn on.

    Returns
    -------
    list of Region
        Their polygons are valid. The class of an annotation decides its kind; without a class, or with one
        that is not known, it is tumour. Points and lines, and rings of less than three points, enclose
        nothing and are left out. Outlines that cross themselves enclose what they go around.

    Raises
    ------
    JobFailed
        If the file cannot be read, holds no polygon, or something that is none.
    """
    if Path(path).suffix.lower() in XML_ENDINGS:
        return read_xml_regions(path, frame)
    content = REGION_FILES.parsed_json(REGION_FILES.text_of(REGION_FILES.raw(path), path, gzipped=True), path)
    try:
        shapes = [
            _Shape(rings, properties)
            for geometry, properties in _geometries(content, {})
            for rings in _polygons(geometry)
        ]
    except _NoRegion as error:
        raise REGION_FILES.refusal(path, str(error)) from error
    rings = [ring for item in shapes for ring in item.rings]
    count = sum(len(ring) for ring in rings)
    if count > MAX_POINTS:
        raise REGION_FILES.refusal(path, f"holds {count:,} points, more than {MAX_POINTS:,}")
    if rings and _crossings(rings) > MAX_CROSSINGS:
        raise REGION_FILES.refusal(path, f"has lines that cross each other in over {MAX_CROSSINGS:,} places")
    regions = [replace(of, polygon=frame.from_qupath(of.polygon)) for of in _regions(shapes)]
    if not regions:
        raise JobFailed(f"{shown(Path(path).name)} holds no polygon: draw at least one closed region.")
    return regions


def read_regions(path: Path | str) -> list[Any]:
    """Polygons of a GeoJSON file, whatever their kind; see `read_named_regions`.

    Parameters
    ----------
    path : Path or str

    Returns
    -------
    list of shapely geometries
        Valid polygons and multipolygons.

    Raises
    ------
    JobFailed
        If the file cannot be read, holds no polygon, or something that is none.
    """
    return [region.polygon for region in read_named_regions(path)]


class _NoRegion(Exception):
    """What a file holds is no region; the text goes on from the name of the file."""


class _Shape:
    """A polygon of a file: its outline and its holes, and what the file says of it."""

    def __init__(self, rings: list[NDArray[np.float64]], properties: Mapping[str, Any]) -> None:
        # Less than three points enclose nothing; without an outline there are no holes.
        self.rings = [ring for ring in rings if len(ring) >= 3] if rings and len(rings[0]) >= 3 else []
        self.properties = properties

    def polygon(self) -> Any:  # noqa: ANN401 - a shapely geometry
        """Return it as a valid geometry; None where it encloses nothing."""
        if not self.rings:
            return None
        area = valid_area(shapely.Polygon(self.rings[0], self.rings[1:]))
        return None if area.is_empty else area


def _regions(shapes: Sequence[_Shape]) -> list[Region]:
    """Regions of the shapes; the polygons of one annotation are one region."""
    found: list[tuple[Mapping[str, Any], list[Any]]] = []
    for shape in shapes:
        polygon = shape.polygon()
        if polygon is None:
            continue
        if shape.properties and found and found[-1][0] is shape.properties:
            found[-1][1].append(polygon)
        else:
            found.append((shape.properties, [polygon]))
    return [_region(properties, polygons) for properties, polygons in found]


def _region(properties: Mapping[str, Any], polygons: list[Any]) -> Region:
    class_name = _class_of(properties)
    name = _text(properties.get("name")) or name_by_class(class_name)
    area = polygons[0] if len(polygons) == 1 else _one(polygons)
    return Region(
        area,
        name,
        kind_of_class(class_name),
        class_name=class_name,
        colour=_colour_of(properties),
        locked=properties.get("isLocked") is True,
    )


def _colour_of(properties: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Colour of the class, or of the annotation itself, as QuPath writes it: three numbers, or one."""
    held = properties.get("classification")
    for of in (properties, held if isinstance(held, dict) else {}):
        value = of.get("color", of.get("colorRGB"))
        if type(value) is int and abs(value) < 2**32:
            return (value >> 16 & 255, value >> 8 & 255, value & 255)
        if isinstance(value, list) and len(value) == 3 and all(type(part) is int for part in value):
            red, green, blue = (min(max(part, 0), 255) for part in value)
            return red, green, blue
    return None


def _one(polygons: list[Any]) -> Any:  # noqa: ANN401 - shapely geometries
    parts = [part for polygon in polygons for part in shapely.get_parts(polygon)]
    together = shapely.multipolygons(parts)
    return together if together.is_valid else shapely.union_all(parts)


def _class_of(properties: Mapping[str, Any]) -> str:
    """Class of an annotation as "Tumor: Positive": QuPath writes its names, or once nested what it is of."""
    held = properties.get("classification")
    if isinstance(held, str):
        return _text(held)
    names: list[Any] = []
    while isinstance(held, dict) and len(names) < _MOST_NAMES:
        own = held.get("names")
        names[:0] = own[:_MOST_NAMES] if isinstance(own, list) else [held.get("name")]
        held = held.get("parentClass")
    return ": ".join(filter(None, map(_text, names)))


def _text(value: object) -> str:
    return shown(value, LONGEST_NAME).strip() if isinstance(value, str) else ""


def _geometries(
    content: Any,  # noqa: ANN401 - JSON
    properties: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Geometries of points, lines and polygons, wherever they are held, with the properties they have."""
    if isinstance(content, list):
        for item in content:
            yield from _geometries(item, properties)
        return
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise _NoRegion("is not GeoJSON")
    kind = content["type"]
    if kind in _HOLDERS:
        if _HOLDERS[kind] not in content:
            raise _NoRegion(f"is not GeoJSON, its {kind} has no {_HOLDERS[kind]}")
        own = content.get("properties")
        held = content[_HOLDERS[kind]]
        if held is not None:
            yield from _geometries(held, own if isinstance(own, dict) else properties)
    elif kind not in _GEOMETRIES:
        raise _NoRegion(f"holds {shown(kind, 40)!r}, which is no geometry of GeoJSON")
    else:
        yield content, properties


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
