"""How much of each tile of a grid a mask covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid


def tile_shares(
    mask: NDArray[np.bool_],
    origin_px0: tuple[float, float],
    pixel_px0: tuple[float, float],
    grid: TileGrid,
) -> NDArray[np.float32]:
    """Share of each tile that a mask covers which lies anywhere on the slide.

    Parameters
    ----------
    mask : (h, w) bool
    origin_px0 : tuple of float
        (y, x) of its upper left corner, level-0 pixels.
    pixel_px0 : tuple of float
        (y, x) level-0 pixels per pixel.
    grid : TileGrid

    Returns
    -------
    (rows, columns) float32
        0 to 1; what lies beside the mask counts as not covered.
    """
    edges_y, edges_x = ((grid.edges_px0(axis) - origin_px0[axis]) / pixel_px0[axis] for axis in (0, 1))
    return cell_means(mask, edges_y, edges_x)


def tile_means(
    mask: NDArray[np.bool_], downsample: tuple[float, float], grid: TileGrid
) -> NDArray[np.float32]:
    """Share of each tile that a mask of the whole slide covers, (rows, columns) float32."""
    pitches = grid.tile_px0[0] / downsample[0], grid.tile_px0[1] / downsample[1]
    edges_y, edges_x = (
        (np.arange(count + 1) + part) * pitch
        for count, part, pitch in zip(grid.shape, grid.shift, pitches, strict=True)
    )
    return cell_means(mask, edges_y, edges_x)


def cell_means(
    mask: NDArray[np.bool_], edges_y: NDArray[np.floating], edges_x: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Share of the mask in each cell between equally spaced edges, in pixels of the mask."""
    rows, cols = len(edges_y) - 1, len(edges_x) - 1
    if rows == 0 or cols == 0:
        return np.zeros((rows, cols), np.float32)
    # The integral image, read between its corners by linear interpolation, is the exact area.
    total = cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_64F)
    corners = _between(_between(total, edges_y).T, edges_x).T
    area = np.diff(np.diff(corners, axis=0), axis=1)
    cell = float((edges_y[1] - edges_y[0]) * (edges_x[1] - edges_x[0]))
    share: NDArray[np.float32] = np.clip(area / cell, 0, 1).astype(np.float32)
    return share


def _between(table: NDArray[np.floating], at: NDArray[np.floating]) -> NDArray[np.float64]:
    at = np.clip(at, 0, len(table) - 1)
    low = np.minimum(at.astype(np.int64), len(table) - 2)
    part = (at - low)[:, None]
    return np.asarray(table[low] * (1 - part) + table[low + 1] * part)
