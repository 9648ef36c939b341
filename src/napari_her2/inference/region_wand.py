"""A piece of tissue taken from the mask at a place, as a polygon with its holes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import shapely

from napari_her2.slide.tissue import TissueMask

if TYPE_CHECKING:
    from napari_her2.slide.tissue import TissueMask as Mask


def piece_at(tissue: Mask, y_px0: float, x_px0: float, tolerance_px0: float = 0.0) -> Any:  # noqa: ANN401
    """Return the connected piece of tissue at a place.

    Parameters
    ----------
    tissue : TissueMask
    y_px0, x_px0 : float
        Level-0 pixels.
    tolerance_px0 : float
        How far its outline may lie from the edges of the pixels of the mask (Douglas and Peucker 1973).

    Returns
    -------
    shapely Polygon or None
        (x, y) in level-0 pixels, valid, with its holes. None where there is no tissue at the place. Pixels
        that touch at corners alone are two pieces.
    """
    at = np.floor(np.array([y_px0, x_px0]) / tissue.downsample).astype(np.int64)
    if (at < 0).any() or (at >= tissue.mask.shape).any() or not tissue.mask[tuple(at)]:
        return None
    _, labels = cv2.connectedComponents(tissue.mask.astype(np.uint8), connectivity=4)
    piece = TissueMask(labels == labels[tuple(at)], tissue.downsample)
    outline = shapely.union_all(piece.polygons())
    if tolerance_px0 > 0:
        simple = shapely.simplify(outline, tolerance_px0, preserve_topology=True)
        outline = simple if simple.is_valid and not simple.is_empty else outline
    parts = [part for part in shapely.get_parts(outline) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area)
