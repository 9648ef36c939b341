"""Where cells are: blue nuclei, and the pale holes in a brown mesh that strongly stained cells are.

Both are bright in haematoxylin minus DAB. A centre is a maximum of a difference of Gaussians over a disc
around it, a condition on its surroundings alone: no cell depends on a chain of others, nor on the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTHED_UM = 0.75
RADII_UM = (3.0, 4.0, 5.0)
RATIO = 1.26
APART_UM = 5.0
SHARE_OF_NUCLEUS_H, LEAST, MOST = 0.05, 0.004, 0.02
"""Least difference of Gaussians of a centre: a share of the nuclei's haematoxylin, held within two bounds."""
GLASS_OD = 0.03
AROUND_UM, MOST_GLASS = 4.0, 0.7
"""No centre lies where more than this share of the square of twice the size is bare glass."""
_TAIL = 2.5
"""Kernels end after so many standard deviations, so that what lies further away has no part at all."""
_PLACES = 16
"""Centres lie on whole parts of a pixel: numbers that float32 holds exactly wherever the window begins."""


def reach_um(mpp: float) -> float:
    """How far around a centre pixels decide whether it is one, µm, on a plane of this µm/px."""
    widest = RADII_UM[-1] / np.sqrt(2) * RATIO
    kernels = sum(len(gaussian(sigma / mpp)) // 2 for sigma in (widest, SMOOTHED_UM))
    return float((kernels + 2) * mpp + APART_UM)


def gaussian(sigma: float) -> NDArray[np.float32]:
    """Return a Gaussian kernel of sum 1, sigma in px."""
    half = int(np.ceil(_TAIL * sigma))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum(), np.float32)


def cell_signal(h: NDArray[np.float32], dab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Haematoxylin minus DAB, both limited: high in nuclei, low on stained membranes.

    Parameters
    ----------
    h, dab : (h, w) float32
        Optical densities.

    Returns
    -------
    (h, w) float32
    """
    signal = np.minimum(h, np.float32(0.6))
    brown = np.minimum(dab, np.float32(0.8))
    brown *= np.float32(0.7)
    signal -= brown
    return signal


def smoothed(signal: NDArray[np.float32], mpp: float, pixel_um: float) -> NDArray[np.float32]:
    """Smooth the coarse signal by 0.75 µm, less what averaging its pixels from finer ones has smoothed."""
    averaged = (mpp**2 - pixel_um**2) / 12
    kernel = gaussian(np.sqrt(SMOOTHED_UM**2 - averaged) / mpp)
    return np.asarray(cv2.sepFilter2D(signal, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE))


def blobs(signal: NDArray[np.float32], mpp: float) -> NDArray[np.float32]:
    """Return the largest of the differences of Gaussians at the three radii, (h, w) float32."""
    largest: NDArray[np.float32] | None = None
    for radius in RADII_UM:
        sigma = radius / np.sqrt(2) / mpp
        narrow, wide = gaussian(sigma / RATIO), gaussian(sigma * RATIO)
        found = cv2.sepFilter2D(signal, -1, narrow, narrow, borderType=cv2.BORDER_REPLICATE)
        found -= cv2.sepFilter2D(signal, -1, wide, wide, borderType=cv2.BORDER_REPLICATE)
        largest = found if largest is None else np.maximum(largest, found, out=largest)
    assert largest is not None
    return largest


def bare_glass(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where light met no tissue, from the smoothed sum of both stains, (h, w) bool."""
    return np.asarray(density < np.float32(GLASS_OD))


def find_centres(
    blob: NDArray[np.float32], glass: NDArray[np.bool_], mpp: float, nucleus_h: float
) -> NDArray[np.float32]:
    """Find the maxima of the difference of Gaussians over discs.

    Parameters
    ----------
    blob : (h, w) float32
        From `blobs`.
    glass : (h, w) bool
        From `bare_glass`. A lumen beside a strong membrane is as pale a hole as a cell, but holds nothing.
    mpp : float
        Of the plane, µm.
    nucleus_h : float
        Haematoxylin of nuclei, fixed for the slide, OD.

    Returns
    -------
    (N, 2) float32
        (y, x), px, 0 in the middle of the first pixel; in raster order of the highest pixels.
    """
    least = min(max(SHARE_OF_NUCLEUS_H * nucleus_h, LEAST), MOST)
    peaks = blob >= cv2.dilate(blob, np.ones((3, 3), np.uint8))
    peaks &= blob >= np.float32(least)
    side = 2 * round(AROUND_UM / mpp) + 1
    bare = cv2.blur(glass.view(np.uint8) * np.uint8(200), (side, side), borderType=cv2.BORDER_REPLICATE)
    peaks &= bare <= np.uint8(200 * MOST_GLASS)
    places = np.argwhere(peaks)
    half = int(APART_UM / mpp)
    places = places[((places >= half) & (places < np.array(blob.shape) - half)).all(axis=1)]
    steps = np.mgrid[-half : half + 1, -half : half + 1].reshape(2, -1).T
    steps = steps[((steps**2).sum(axis=1) <= (APART_UM / mpp) ** 2) & steps.any(axis=1)]
    before = (steps[:, 0] < 0) | ((steps[:, 0] == 0) & (steps[:, 1] < 0))
    here = blob[places[:, 0], places[:, 1]]
    kept = np.ones(len(places), bool)
    for (dy, dx), first in zip(steps.tolist(), before.tolist(), strict=True):
        there = blob[places[:, 0] + dy, places[:, 1] + dx]
        # Of two equal ones the first in raster order is taken.
        kept &= here > there if first else here >= there
    return _refined(blob, places[kept])


def _refined(blob: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Top of the parabola through each maximum and its neighbours, along both axes."""
    found = places.astype(np.float64)
    here = blob[places[:, 0], places[:, 1]].astype(np.float64)
    for axis, (dy, dx) in enumerate(((1, 0), (0, 1))):
        low = blob[places[:, 0] - dy, places[:, 1] - dx]
        high = blob[places[:, 0] + dy, places[:, 1] + dx]
        bend = 2 * here - low - high
        shift = np.where(bend > 0, 0.5 * (high - low) / np.where(bend > 0, bend, 1), 0)
        found[:, axis] += np.round(np.clip(shift, -0.5, 0.5) * _PLACES) / _PLACES
    return found.astype(np.float32)
