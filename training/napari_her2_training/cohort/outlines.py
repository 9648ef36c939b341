"""Outlines of tumour that somebody drew, as the share of each tile inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from napari_her2.inference.regions import joined

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

TUMOUR_FROM, NORMAL_TO = 0.5, 0.05
"""A tile is tumour from this share of it inside the regions, normal up to the other; between, left out."""


def tumour_share(path: Path, grid: TileGrid) -> NDArray[np.float64]:
    """Share of each tile that lies inside the regions of a GeoJSON file.

    Parameters
    ----------
    path : Path
    grid : TileGrid

    Returns
    -------
    (rows, columns) float64
    """
    region = joined(path)
    rows, cols = np.indices(grid.shape)
    side_y, side_x = grid.tile_px0
    tiles = shapely.box(cols * side_x, rows * side_y, (cols + 1) * side_x, (rows + 1) * side_y)
    share = np.zeros(grid.shape)
    touched = shapely.intersects(region, tiles)
    inside = shapely.contains(region, tiles)
    share[inside] = 1.0
    edge = touched & ~inside
    share[edge] = shapely.area(shapely.intersection(region, tiles[edge])) / (side_y * side_x)
    return share
