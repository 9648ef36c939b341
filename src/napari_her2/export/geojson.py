"""Regions as GeoJSON that QuPath reads: coordinates are (x, y) in level-0 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from shapely.geometry import box, mapping

if TYPE_CHECKING:
    from napari_her2.inference.result import SlideResult
    from napari_her2.slide.grid import TileGrid

MOST_TILES = 50
"""Tiles outlined in each group."""
Json: TypeAlias = dict[str, Any]

_USED = (255, 140, 0)
_EVIDENCE = (200, 30, 120)
_TISSUE = (40, 120, 200)
_DAMAGED = (220, 20, 20)


def regions_geojson(result: SlideResult, *, most: int = MOST_TILES) -> Json:
    """Tissue, the tiles that the model used most, those that spoke most for its answer, and damage.

    A method without attention and evidence ranks no tiles: then there are none.

    Parameters
    ----------
    result : SlideResult
    most : int
        Tiles in each group at most.

    Returns
    -------
    dict
        A FeatureCollection. The names say "used by the model": attention does not find HER2.
    """
    features: list[Json] = []
    for number, polygon in enumerate(result.tissue.polygons() if result.tissue is not None else ()):
        features.append(_feature(mapping(polygon), "Tissue", f"tissue {number + 1}", _TISSUE, {}))
    features += _top_tiles(result, most)
    for row, col in result.corrupt.tolist():
        features.append(
            _feature(_tile(result.grid, row, col), "Damaged, left out", f"damaged {row},{col}", _DAMAGED, {})
        )
    return {"type": "FeatureCollection", "features": features}


def _top_tiles(result: SlideResult, most: int) -> list[Json]:
    table, top = result.table, result.classes.index(result.score)
    groups, measures = [], {}
    if table.attention is not None:
        every = np.ones(len(table), np.bool_)
        groups.append(("Used by the model (attention)", table.attention, _USED, every))
        measures["attention weight"] = table.attention
    if table.evidence is not None:
        evidence = table.evidence[:, top]
        name = result.named(result.score)
        groups.append((f"Evidence for {name}", evidence, _EVIDENCE, evidence > 0))
        measures[f"evidence {name} (logit)"] = evidence
    features = []
    for name, values, colour, allowed in groups:
        order = np.argsort(-values, kind="stable")
        for rank, at in enumerate(order[allowed[order]][:most].tolist(), start=1):
            row, col = table.index[at].tolist()
            measured = {"rank": rank} | {name: float(column[at]) for name, column in measures.items()}
            features.append(_feature(_tile(result.grid, row, col), name, f"{name} {rank}", colour, measured))
    return features


def _tile(grid: TileGrid, row: int, col: int) -> Json:
    """Outline of a tile at its exact place, not rounded to pixels: neighbours share their edges."""
    height, width = grid.tile_px0
    outline: Json = mapping(box(col * width, row * height, (col + 1) * width, (row + 1) * height))
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
