"""Tumour regions proposed from a map: where an H&E model found what it used, carried to the IHC slide.

A proposal is no finding. A model that was trained to score slides attends to what helped it, which may lie
beside the tumour, or be a part of it only. So nothing here is a region to score in before a person took it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from napari_her2.errors import JobFailed
from napari_her2.explain.overlays import RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_her2.explain.maps import TileMap

WORDS = "proposed from regions the H&E model used; check them by eye"
SMOOTHED_TILES = 0.7
"""Sigma of what rounds the corners of tiles; straight borders stay where they are."""
LEAST_TILES = 4.0
"""Smaller parts are dropped, smaller holes closed: no tumour is outlined by three tiles."""
SIMPLIFIED_TILES = 0.08
"""How far a simplified outline may lie from the smoothed one."""
_SUM_OF_WEIGHTS = 0.05  # how far from one the weights of a slide may sum up to, which lost a tile or two
_MARGIN = 4  # of tiles around the map, so that the smoothing knows that nothing lies outside


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Regions above a threshold of a map.

    Parameters
    ----------
    polygons : tuple of shapely polygons
        (x, y) in level-0 pixels of a slide, the largest first; with holes.
    threshold : float
        Tiles with more than this make the regions, in the unit of the map.
    tiles : float
        Share of the scored tiles that they are, 0 to 1.
    held : float
        What these tiles hold of everything above 0 in the map, 0 to 1.
    """

    polygons: tuple[Any, ...]
    threshold: float
    tiles: float
    held: float


def proposing_maps(maps: Iterable[TileMap]) -> list[TileMap]:
    """Return the maps whose high values mark what a model used: measured, listed, and as they are."""
    return [
        of
        for of in maps
        if of.info.listed
        and of.info.scale == RAW
        and of.info.colours in ("sequential", "diverging")
        and of.holds_any
    ]


def threshold_of(values: NDArray[np.floating], share: float | None = None) -> float:
    """Value that splits a map into what is proposed and what is not.

    Parameters
    ----------
    values : float
        NaN is left out; what is below 0 is evidence against, and never proposed.
    share : float or None
        The highest values of this share of the tiles lie above the threshold. None finds it by Otsu's method
        (Otsu 1979, doi:10.1109/TSMC.1979.4310076).

    Returns
    -------
    float

    Raises
    ------
    JobFailed
        If the map has nothing above 0, or one value everywhere.

    Notes
    -----
    A share is one of tiles, not of attention: of a softmax a handful of tiles hold half, and outline nothing.
    For the same reason weights that sum to one are split by their logarithm, the scores before the softmax.
    """
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if not found.size or found.max() <= 0 or found.min() == found.max():
        raise JobFailed(
            "This map has no place that stands out, so no region can be proposed from it: choose another map."
        )
    if share is None:
        return max(_otsu(found), 0.0)
    if not 0 < share <= 1:
        raise JobFailed("The share of the tiles is a number above 0 and at most 1.")
    ordered = np.sort(found)[::-1]
    last = ordered[max(round(share * len(ordered)), 1) - 1]
    below = found[found < last]
    # Between two values: those that are equal fall on one side together.
    return max(float((last + below.max()) / 2), 0.0) if below.size else 0.0


def _otsu(values: NDArray[np.float64]) -> float:
    from skimage.filters import threshold_otsu  # a tenth of a second, which a reader need not wait

    weights = values.min() >= 0 and abs(values.sum() - 1) < _SUM_OF_WEIGHTS
    if not weights:
        return float(threshold_otsu(values))
    scores = np.log(np.maximum(values, values[values > 0].min()))
    return float(np.exp(threshold_otsu(scores)))


def proposed_regions(tile_map: TileMap, share: float | None = None) -> Proposal:
    """Outline where a map is high.

    Parameters
    ----------
    tile_map : TileMap
        One of `proposing_maps`.
    share : float or None
        See `threshold_of`.

    Returns
    -------
    Proposal
        On the slide of the map.

    Raises
    ------
    JobFailed
        If nothing stands out, or only single tiles do.
    """
    threshold = threshold_of(tile_map.values, share)
    values = np.nan_to_num(tile_map.values.astype(np.float64), nan=-np.inf)
    high = values > threshold
    outlines = outlined(high)
    if not outlines:
        raise JobFailed(
            "Only single tiles stand out in this map, which outline no region: take more of it, or another."
        )
    above = np.where(np.isfinite(values), np.maximum(values, 0), 0)
    pitch = np.array(tile_map.grid.tile_px0)[::-1]
    placed = [shapely.transform(polygon, lambda xy: xy * pitch) for polygon in outlines]
    tiles = float(high.sum() / np.isfinite(values).sum())
    return Proposal(tuple(placed), threshold, tiles, float(above[high].sum() / above.sum()))


def outlined(high: NDArray[np.bool_]) -> list[Any]:
    """Smoothed outlines of what is true, as polygons with holes, the largest first.

    Parameters
    ----------
    high : (rows, columns) bool

    Returns
    -------
    list of shapely polygons
        (x, y) in tiles from the upper left corner of the first one.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.measure import find_contours

    if not high.any():
        return []
    wide = np.pad(high.astype(np.float64), _MARGIN)
    rings = find_contours(gaussian_filter(wide, SMOOTHED_TILES, mode="constant"), 0.5)
    if not rings:
        return []
    # Contours count from the centre of the first tile; (row, column) is (y, x).
    lines = [shapely.LineString(ring[:, ::-1] - (_MARGIN - 0.5)) for ring in rings if len(ring) > 3]
    area = shapely.build_area(shapely.GeometryCollection(lines))  # what lies in an odd number of rings
    columns, rows = high.shape[::-1]
    area = shapely.intersection(area, shapely.box(0, 0, columns, rows))
    return _tidied(area)


def carried(polygons: Sequence[Any], matrix: NDArray[np.float64]) -> list[Any]:
    """Polygons where an affine puts them.

    Parameters
    ----------
    polygons : sequence of shapely polygons
        (x, y).
    matrix : (3, 3) float64
        Homogeneous, for (y, x, 1).

    Returns
    -------
    list of shapely polygons
        Valid ones, (x, y).
    """
    linear, shift = matrix[:2, :2], matrix[:2, 2]

    def moved(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((xy[:, ::-1] @ linear.T + shift)[:, ::-1], np.float64)

    return [shapely.make_valid(shapely.transform(polygon, moved)) for polygon in polygons]


def within_slide(polygons: Sequence[Any], shape_px0: tuple[int, int]) -> tuple[list[Any], float]:
    """Cut polygons off at the edge of a slide.

    Parameters
    ----------
    polygons : sequence of shapely polygons
        (x, y) in level-0 pixels.
    shape_px0 : tuple of int
        (height, width) of the slide.

    Returns
    -------
    list of shapely polygons
        What lies on the slide.
    float
        Share of their area that lies beside it, 0 to 1.

    Raises
    ------
    JobFailed
        If nothing lies on the slide.
    """
    slide = shapely.box(0, 0, shape_px0[1], shape_px0[0])
    kept = [part for polygon in polygons for part in _polygons(shapely.intersection(polygon, slide))]
    area = sum(polygon.area for polygon in polygons)
    if not kept or area <= 0:
        raise JobFailed(
            "The proposed regions lie beside this slide: align the two slides first, under Both slides."
        )
    return kept, max(1 - sum(polygon.area for polygon in kept) / area, 0.0)


def _tidied(area: Any) -> list[Any]:  # noqa: ANN401 - a shapely geometry
    """Polygons without specks, pinholes and needless corners."""
    found = []
    for polygon in _polygons(area):
        holes = [ring for ring in polygon.interiors if shapely.Polygon(ring).area >= LEAST_TILES]
        whole = shapely.Polygon(polygon.exterior, holes)
        if whole.area >= LEAST_TILES:
            found += _polygons(shapely.simplify(whole, SIMPLIFIED_TILES, preserve_topology=True))
    return sorted(found, key=lambda polygon: -float(polygon.area))


def _polygons(geometry: Any) -> list[Any]:  # noqa: ANN401 - a shapely geometry
    valid = geometry if geometry.is_valid else shapely.make_valid(geometry)
    return [
        part
        for held in shapely.get_parts(valid)
        for part in shapely.get_parts(held)
        if part.geom_type == "Polygon" and part.area > 0
    ]
