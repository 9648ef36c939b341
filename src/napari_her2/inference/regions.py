"""Regions that a person drew: read from GeoJSON, and which tiles lie in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely
from shapely.geometry import shape

from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

Regions: TypeAlias = "Path | str | Sequence[Any]"  # a GeoJSON file, or shapely polygons in level-0 px (x, y)

MAX_FILE_BYTES = 256 * 2**20


def read_regions(path: Path | str) -> list[Any]:
    """Polygons of a GeoJSON file, as QuPath writes it.

    Parameters
    ----------
    path : Path or str
        A FeatureCollection, a Feature, a geometry or a list of these; coordinates are (x, y) in
        level-0 pixels.

    Returns
    -------
    list of shapely geometries
        Polygons and multipolygons; points and lines enclose nothing and are left out.

    Raises
    ------
    JobFailed
        If the file cannot be read, or holds no polygon.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise JobFailed(f"{path.name} is larger than 256 MB: save only the regions to be scored.")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [shape(geometry) for geometry in _geometries(content)]
    except OSError as error:
        raise JobFailed(f"The regions in {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, shapely.GEOSException) as error:
        raise JobFailed(
            f"{path.name} is not GeoJSON with regions: export the annotations from QuPath or napari again."
        ) from error
    polygons = [item for item in found if item.geom_type in ("Polygon", "MultiPolygon") and not item.is_empty]
    if not polygons:
        raise JobFailed(f"{path.name} holds no polygon: draw at least one closed region.")
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
    regions: Regions, shape: tuple[int, ...], pitch_px0: tuple[float, float]
) -> NDArray[np.bool_]:
    """Pixels of a coarse image over the slide whose centre lies inside any of the regions.

    Parameters
    ----------
    regions : Path, str or sequence of shapely polygons
        Level-0 pixels, (x, y).
    shape : tuple of int
        (rows, columns).
    pitch_px0 : tuple of float
        (y, x) level-0 pixels per pixel; the first begins at the corner of the slide.

    Returns
    -------
    (rows, columns) bool
    """
    polygons = read_regions(regions) if isinstance(regions, str | Path) else list(regions)
    # Regions drawn by hand cross themselves; without this GEOS refuses to join them.
    area = shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])
    pitch_y, pitch_x = pitch_px0
    x, y = np.meshgrid((np.arange(shape[1]) + 0.5) * pitch_x, (np.arange(shape[0]) + 0.5) * pitch_y)
    shapely.prepare(area)
    return np.asarray(shapely.contains_xy(area, x, y), np.bool_)


def _geometries(content: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    if isinstance(content, list):
        for item in content:
            yield from _geometries(item)
    elif content["type"] == "FeatureCollection":
        yield from _geometries(content["features"])
    elif content["type"] == "Feature":
        if content["geometry"] is not None:
            yield content["geometry"]
    elif content["type"] == "GeometryCollection":
        yield from _geometries(content["geometries"])
    else:
        yield content
