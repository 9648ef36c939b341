"""Regions as GeoJSON that QuPath reads: (x, y) in level-0 pixels, from where QuPath counts them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from shapely.geometry import box, mapping

from napari_her2.inference.region_frame import NO_FRAME, RegionFrame
from napari_her2.inference.region_kinds import KINDS
from napari_her2.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_her2.inference.regions import Region
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.grid import TileGrid

MOST_TILES = 50
"""Tiles outlined in each group."""
Json: TypeAlias = dict[str, Any]

_TISSUE = (40, 120, 200)
_DAMAGED = (220, 20, 20)


def regions_geojson(result: SlideResult, *, most: int = MOST_TILES) -> Json:
    """Tissue, the first tiles by each map that asks for it, and damage.

    Parameters
    ----------
    result : SlideResult
    most : int
        Tiles in each group at most.

    Returns
    -------
    dict
        A FeatureCollection, counted from where QuPath counts: of MRXS and some others what was scanned begins
        off the corner of the slide. The names say "used by the model": attention does not find HER2.
    """
    frame = RegionFrame(bounds_px0=result.slides[0].bounds_px0)
    features: list[Json] = []
    for number, polygon in enumerate(result.tissue.polygons() if result.tissue is not None else ()):
        outline = mapping(frame.to_qupath(polygon))
        features.append(_feature(outline, "Tissue", f"tissue {number + 1}", _TISSUE, {}))
    features += _top_tiles(result, most, frame)
    for row, col in result.corrupt.tolist():
        damaged = _tile(result.grid, row, col, frame)
        features.append(_feature(damaged, "Damaged, left out", f"damaged {row},{col}", _DAMAGED, {}))
    return {"type": "FeatureCollection", "features": features}


def drawn_geojson(regions: Iterable[Region], frame: RegionFrame = NO_FRAME) -> Json:
    """Drawn regions as annotations with their class and colour, by default those of their kind.

    Parameters
    ----------
    regions : iterable of Region
    frame : RegionFrame
        Of the slide that they were drawn on: QuPath may count from elsewhere than its corner.

    Returns
    -------
    dict
        A FeatureCollection. `napari_her2.inference.regions.read_named_regions` gives the same regions back;
        those that enclose nothing are left out.
    """
    features = []
    for region in regions:
        kind, area = KINDS[region.kind], region.area  # valid, also where it was drawn across itself
        if area.is_empty:
            continue
        outline = mapping(frame.to_qupath(area))
        class_name, colour = region.class_name or kind.qupath_class, region.colour or kind.colour
        feature = _feature(outline, class_name, region.name, colour, {})
        if region.locked:
            feature["properties"]["isLocked"] = True
        if not region.name:
            del feature["properties"]["name"]
        features.append(feature)
    return {"type": "FeatureCollection", "features": features}


def write_drawn_regions(path: Path, regions: Iterable[Region], frame: RegionFrame = NO_FRAME) -> None:
    """Write drawn regions as a GeoJSON file, whole or not at all; see `drawn_geojson`.

    Parameters
    ----------
    path : Path
    regions : iterable of Region
    frame : RegionFrame

    Raises
    ------
    JobFailed
        If it cannot be written.
    """
    text = json.dumps(drawn_geojson(regions, frame), ensure_ascii=False, allow_nan=False)
    with whole_file(path) as file:
        file.write_text(text + "\n", encoding="utf-8")


def _top_tiles(result: SlideResult, most: int, frame: RegionFrame) -> list[Json]:
    index = result.table.index
    groups = [
        (outlined, tile_map.at(index), result.named(tile_map.class_name or ""))
        for tile_map in result.maps
        if (outlined := tile_map.info.outlined) is not None and tile_map.class_name in (None, result.score)
    ]
    measures = {outlined.measure.format(class_name=named): values for outlined, values, named in groups}
    features = []
    for outlined, values, named in groups:
        name = outlined.group.format(class_name=named)
        order = np.argsort(-values, kind="stable")
        for rank, at in enumerate(order[values[order] > outlined.above][:most].tolist(), start=1):
            row, col = index[at].tolist()
            measured = {"rank": rank} | {name: float(column[at]) for name, column in measures.items()}
            outline = _tile(result.grid, row, col, frame)
            features.append(_feature(outline, name, f"{name} {rank}", outlined.colour, measured))
    return features


def _tile(grid: TileGrid, row: int, col: int, frame: RegionFrame) -> Json:
    """Outline of a tile at its exact place, not rounded to pixels: neighbours share their edges."""
    height, width = grid.tile_px0
    square = box(col * width, row * height, (col + 1) * width, (row + 1) * height)
    outline: Json = mapping(frame.to_qupath(square))
    return outline


def _feature(geometry: Json, kind: str, name: str, colour: tuple[int, int, int], measured: Json) -> Json:
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": "annotation",
            "name": name,
            "classification": {"name": kind, "color": list(colour)},
            "measurements": measured,
        },
    }
