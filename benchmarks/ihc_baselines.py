"""What a membrane adds: mean DAB of a contour and DAB area, the simple readings, on the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

from napari_her2.cells.table import SECTORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.table import Cells

RING_OD = (0.2, 0.4, 0.6)
"""Mean optical density of DAB from which a contour counts as 1+, 2+ and 3+; chosen by us, as usual ones."""
AREA_OD = 0.2
"""Optical density from which a pixel counts as brown."""


def ring_dab(
    dab: NDArray[np.float32], cells: Cells, origin_um: tuple[float, float], mpp: float
) -> NDArray[np.float32]:
    """Mean DAB on the contour of each cell, one pixel wide: 64 points, bilinear.

    Parameters
    ----------
    dab : (h, w) float32
        Optical density of DAB.
    cells : Cells
        Whose contours lie in the plane.
    origin_um : tuple of 2 float
        (y, x) of the corner of the first pixel on the slide, µm.
    mpp : float
        µm per pixel of the plane.

    Returns
    -------
    (N,) float32
    """
    corners = cells.outlines_um(slice(None))
    between = (corners + np.roll(corners, -1, axis=1)) / 2
    points = np.stack([corners, between], axis=2).reshape(len(cells), 2 * SECTORS, 2)
    places = (points - np.asarray(origin_um, np.float32)) / mpp - 0.5
    values = map_coordinates(dab, places.reshape(-1, 2).T, order=1, mode="nearest")
    return np.asarray(values.reshape(len(cells), 2 * SECTORS).mean(axis=1), np.float32)


def ring_h_score(mean_dab: NDArray[np.float32], thresholds: tuple[float, float, float] = RING_OD) -> float:
    """H-score of contours by their mean DAB, 0 to 300; nan without cells.

    Parameters
    ----------
    mean_dab : (N,) float32
        From `ring_dab`.
    thresholds : tuple of 3 float
    """
    if not len(mean_dab):
        return float("nan")
    return float(sum(100 * np.mean(mean_dab >= least) for least in thresholds))


def dab_area(dab: NDArray[np.float32], mask: NDArray[np.bool_], threshold: float = AREA_OD) -> float:
    """Share of an area that is brown, per cent; nan where the area is empty.

    Parameters
    ----------
    dab : (h, w) float32
        Optical density of DAB.
    mask : (h, w) bool
        The area: the tumour regions.
    threshold : float
    """
    return float(100 * np.mean(dab[mask] >= threshold)) if mask.any() else float("nan")
