"""Outlines of tumours as cohorts distribute them, as regions."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import shapely

from napari_her2.errors import JobFailed
from napari_her2.inference.region_files import MAX_POINTS, read_named_regions
from napari_her2.inference.region_kinds import Region, valid_area
from napari_her2.outside import MiB, Reading, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_her2_training.cohort_sources.found import Outlines

_FILES = Reading(limit=64 * MiB, advice="get the outlines again from their source, or leave them out")
_FARTHEST_PX = 1e9


def read_outlines(outlines: Outlines) -> list[Region]:
    """Read the outlines of a case.

    Returns
    -------
    list of Region
        Tumour, (x, y) in level-0 pixels, valid.

    Raises
    ------
    JobFailed
        If the file cannot be read, or encloses nothing.
    """
    if outlines.kind == "bcnb":
        return _bcnb(outlines.path)
    regions = read_named_regions(outlines.path)
    if not any(region.included for region in regions):
        raise JobFailed(f"{shown(outlines.path.name)} outlines no tumour: draw it, or leave the file out.")
    return regions


def _bcnb(path: Path) -> list[Region]:
    """``{"positive": [{"name": ..., "vertices": [[x, y], ...]}, ...]}``; what is "negative" is cut out."""
    content = _FILES.json_object(path, "positive")
    areas = [area for area in _areas(content["positive"], path) if not area.is_empty]
    if not areas:
        raise JobFailed(f"{shown(path.name)} outlines nothing: draw the tumour, or leave the file out.")
    holes = shapely.union_all(list(_areas(content.get("negative", []), path)))
    regions = []
    for number, area in enumerate(areas, 1):
        left = valid_area(shapely.difference(area, holes))
        if not left.is_empty:
            regions.append(Region(left, f"tumour {number}", "tumour"))
    return regions


def _areas(drawn: Any, path: Path) -> Iterator[Any]:  # noqa: ANN401 - JSON
    if not isinstance(drawn, list):
        raise _FILES.refusal(path, "holds no list of outlines")
    count = 0
    for one in drawn:
        points = one.get("vertices") if isinstance(one, dict) else None
        corners = [_corner(point, path) for point in points] if isinstance(points, list) else None
        if corners is None:
            raise _FILES.refusal(path, "holds an outline without vertices")
        count += len(corners)
        if count > MAX_POINTS:
            raise _FILES.refusal(path, f"holds more than {MAX_POINTS:,} points")
        if len(corners) >= 3:
            yield valid_area(shapely.Polygon(corners))


def _corner(point: Sequence[Any], path: Path) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError) as problem:
        raise _FILES.refusal(path, "has a position that is no two numbers") from problem
    if not all(isfinite(value) and abs(value) <= _FARTHEST_PX for value in (x, y)):
        raise _FILES.refusal(path, "has a position that no slide has")
    return x, y
