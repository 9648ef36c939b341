"""Regions that a person drew on a slide: what of it is read, and which region a point lies in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely

from napari_her2.cells.polygon_lattice import contains_grid, contains_xy, intersects_xy
from napari_her2.errors import JobFailed
from napari_her2.inference.region_files import (
    FARTHEST_PX,
    MAX_CROSSINGS,
    MAX_POINTS,
    REGION_FILES,
    read_named_regions,
    read_regions,
)
from napari_her2.inference.region_frame import RegionFrame
from napari_her2.inference.region_kinds import (
    KINDS,
    Region,
    RegionKind,
    excluded_words,
    kind_of_class,
    region_names,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide

__all__ = [
    "KINDS",
    "MAX_CROSSINGS",
    "MAX_POINTS",
    "REGION_FILES",
    "FileRegions",
    "Region",
    "RegionKind",
    "Regions",
    "as_regions",
    "inside_mask",
    "joined",
    "kind_of_class",
    "labelled",
    "placed",
    "read_named_regions",
    "read_regions",
    "region_names",
    "region_words",
    "tiles_inside",
]

Regions: TypeAlias = "Path | str | Sequence[Any]"
"""A GeoJSON file, or `Region` and shapely polygons (then tumour) in level-0 px (x, y)."""
MOST_REGIONS = int(np.iinfo(np.int16).max)


class FileRegions(tuple[Region, ...]):
    """Regions of a file, in level-0 pixels of the slide that they were placed on.

    Attributes
    ----------
    file_name : str
    """

    file_name: str = ""


def placed(regions: Regions, slide: Slide) -> Regions:
    """Read a file of regions as drawn on a slide; regions that were read already stay as they are.

    Parameters
    ----------
    regions : Regions
    slide : Slide
        Some files count from elsewhere than its corner.

    Raises
    ------
    JobFailed
        If the file cannot be read.
    """
    if not isinstance(regions, str | Path):
        return regions
    found = FileRegions(read_named_regions(regions, RegionFrame.of(slide)))
    found.file_name = Path(regions).name
    return found


def as_regions(regions: Regions) -> tuple[Region, ...]:
    """Return regions with their kinds, whatever they were given as.

    Parameters
    ----------
    regions : Path, str or sequence of Region and shapely polygons
        A plain polygon is tumour.

    Raises
    ------
    JobFailed
        If the file cannot be read.
    """
    if isinstance(regions, FileRegions):
        return regions
    if isinstance(regions, str | Path):
        return tuple(read_named_regions(regions))
    return tuple(region if isinstance(region, Region) else Region(region) for region in regions)


def tiles_inside(
    regions: Regions, grid: TileGrid, among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Tiles whose centre is read: inside a tumour region, and in nothing that is excluded.

    Parameters
    ----------
    regions : Path, str or sequence of Region and shapely polygons
        Level-0 pixels, (x, y).
    grid : TileGrid
    among : (rows, columns) bool, optional
        Tiles that are asked about; the others are not. By default all of them.

    Returns
    -------
    (rows, columns) bool
    """
    if among is None:
        edges = grid.edges_px0(0), grid.edges_px0(1)
        return inside_mask(regions, grid.shape, grid.tile_px0, (float(edges[0][0]), float(edges[1][0])))
    inside = np.zeros(among.shape, np.bool_)
    rows, columns = np.nonzero(among)
    y, x = grid.centres_px0(np.stack([rows, columns], axis=1)).T
    inside[rows, columns] = contains_xy(joined(regions), x, y)
    return inside


def inside_mask(
    regions: Regions,
    shape: tuple[int, ...],
    pitch_px0: tuple[float, float],
    origin_px0: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """Pixels of a coarse image over the slide whose centre is read; see `joined`.

    Parameters
    ----------
    regions : Path, str or sequence of Region and shapely polygons
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
    return contains_grid(area, x, y)


def joined(regions: Regions) -> Any:  # noqa: ANN401 - a shapely geometry
    """Join regions into what is read: the tumour without what is excluded.

    Where nothing but excluded regions was drawn, it is all the rest, far beyond any slide.

    Parameters
    ----------
    regions : Path, str or sequence of Region and shapely polygons

    Returns
    -------
    shapely geometry
        (x, y) in level-0 pixels, prepared to be asked often; empty where the excluded regions cover all
        tumour.
    """
    drawn = as_regions(regions)
    # Regions drawn by hand cross themselves; `Region.area` is valid, else GEOS refuses to join them.
    areas = [region.area for region in drawn if region.included]
    if not areas and drawn:
        areas = [shapely.box(-FARTHEST_PX, -FARTHEST_PX, FARTHEST_PX, FARTHEST_PX)]
    area = shapely.union_all(areas)
    excluded = [region.area for region in drawn if not region.included]
    if excluded:
        area = shapely.difference(area, shapely.union_all(excluded))
    shapely.prepare(area)
    return area


def labelled(points_px0: NDArray[np.floating], regions: Regions) -> NDArray[np.int16]:
    """Tumour region of each point.

    Parameters
    ----------
    points_px0 : (N, 2) float
        (y, x) in level-0 pixels.
    regions : Path, str or sequence of Region and shapely polygons

    Returns
    -------
    (N,) int16
        Number among the tumour regions (`region_names`), from 0; the first of those that overlap there, so
        that a point counts once. -1 outside of all, and in what is excluded. Without any tumour region, 0
        for all that is not excluded.

    Raises
    ------
    JobFailed
        If there are more tumour regions than numbers.
    """
    drawn = as_regions(regions)
    tumour = [region.area for region in drawn if region.included]
    if len(tumour) > MOST_REGIONS:
        raise JobFailed(f"There are {len(tumour):,} tumour regions: draw at most {MOST_REGIONS:,}.")
    points = _ByRow(points_px0)
    found = np.full(len(points), -1 if tumour else 0, np.int16)
    free = np.ones(len(points), np.bool_)  # whose region is not known yet
    for region in drawn:
        if not region.included:
            excluded = points.inside(region.area, free)
            found[excluded], free[excluded] = -1, False
    for number, area in enumerate(tumour):
        inside = points.inside(area, free)
        found[inside], free[inside] = number, False
    return found


def region_words(regions: Regions | None, drawn: Sequence[Region] | None = None) -> str | None:
    """Say what is read: the name of a file or how many regions were drawn, and what was excluded.

    Parameters
    ----------
    regions : Regions or None
        As the user gave them.
    drawn : sequence of Region, optional
        The same as `as_regions` made them, so that a file is not read again.

    Returns
    -------
    str or None
        None for the whole slide.
    """
    if regions is None:
        return None
    known = as_regions(regions) if drawn is None else drawn
    included = sum(region.included for region in known)
    excluded = excluded_words(known)
    name = regions.file_name if isinstance(regions, FileRegions) else ""
    if isinstance(regions, str | Path):
        name = Path(regions).name
    limits = name or f"{included} drawn region{'s' if included != 1 else ''}"
    if not excluded:
        return limits
    if included:
        return f"{limits}, without {excluded}"
    return f"all but {excluded}" + (f" of {limits}" if name else "")


class _ByRow:
    """Points in the order of their rows, so that a region is asked for those near it alone."""

    def __init__(self, points_px0: NDArray[np.floating]) -> None:
        points = np.asarray(points_px0, np.float64).reshape(-1, 2)
        self._order = np.argsort(points[:, 0], kind="stable")
        self._y, self._x = points[self._order].T.copy()

    def __len__(self) -> int:
        return len(self._order)

    def inside(self, area: Any, among: NDArray[np.bool_]) -> NDArray[np.int64]:  # noqa: ANN401 - shapely
        """Numbers of the points inside an area or on its border, among those marked."""
        if area.is_empty:
            return np.zeros(0, np.int64)
        left, top, right, bottom = area.bounds
        first, last = np.searchsorted(self._y, top, "left"), np.searchsorted(self._y, bottom, "right")
        near = first + np.flatnonzero((self._x[first:last] >= left) & (self._x[first:last] <= right))
        near = near[among[self._order[near]]]
        return np.asarray(self._order[near[intersects_xy(area, self._x[near], self._y[near])]], np.int64)
