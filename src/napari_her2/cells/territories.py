"""How far cells reach: a watershed from their centres, whose borders fall onto the ridges of DAB.

The relief is the negative of the smoothed signal plus a slope away from the centres. It is flooded from all
centres at once, one pixel further a step, for a fixed number of steps: what a pixel belongs to is the centre
that reaches it over the lowest pass, and depends on nothing further away than the steps lead. A watershed by
a queue floods in the order of heights over the whole window and has no such bound.

Flooding is done at about 1 µm/px; borders are read from it along the rays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.cells.table import SECTORS, ray_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH_UM = 9.0
SLOPE = 0.03
"""Rise of the relief per µm away from the nearest centre."""
FLOODED_UM = 12.0
"""Length of the longest way that a centre floods, along rows, columns and diagonals."""
ASIDE_UM = (1 - 0.5**0.5) * REACH_UM
"""The slope on a way may be that of a centre beside it, so much further away than the way leads."""
RAY_STEP_UM = 0.5
_CELLS_AT_ONCE = 2048
_LABEL_BITS = 19
_LABELS = (1 << _LABEL_BITS) - 1
_LOWEST, _HEIGHTS, _HIGHEST = 16, 4000, 4060
"""Heights of the relief as integers in the upper bits of a word, whose lower bits hold the number of a cell.
As bits of a float32 these are ordinary positive numbers of the same order, which OpenCV compares quickly."""
_RELIEF_OD = (-0.7, 1.1)


def territories(signal: NDArray[np.float32], centres: NDArray[np.float32], mpp: float) -> NDArray[np.int32]:
    """Return to which centre each pixel belongs.

    Parameters
    ----------
    signal : (h, w) float32
        Smoothed haematoxylin minus DAB.
    centres : (N, 2) float32
        (y, x), px of the plane.
    mpp : float
        Of the plane, µm.

    Returns
    -------
    (h, w) int32
        Number of the centre; -1 further than the reach from every one.
    """
    # Halves always go down the slide: to the even number they would depend on where the window begins.
    places = np.floor(centres + np.float32(0.5)).astype(np.intp)
    away = np.ones(signal.shape, np.uint8)
    away[places[:, 0], places[:, 1]] = 0
    distance = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * np.float32(mpp)
    outside = distance > REACH_UM
    distance *= np.float32(SLOPE)
    relief = distance - signal
    low, high = _RELIEF_OD
    relief = np.clip((relief - np.float32(low)) * np.float32(_HEIGHTS / (high - low)), _LOWEST, _HEIGHTS)
    height = relief.astype(np.int32)
    height[outside] = _HIGHEST
    height <<= _LABEL_BITS
    flooded = np.full(signal.shape, (_HIGHEST << _LABEL_BITS) | _LABELS, np.int32)
    own = np.arange(len(places), dtype=np.int32)
    sources = height[places[:, 0], places[:, 1]] | own
    flooded[places[:, 0], places[:, 1]] = sources
    square = np.ones((3, 3), np.uint8)
    for _ in range(round(FLOODED_UM / mpp)):
        # The lowest neighbour's water comes over; it stands at least as high as the ground here.
        water = cv2.erode(flooded.view(np.float32), square).view(np.int32)
        np.bitwise_and(water, _LABELS, out=flooded)
        water ^= flooded
        np.maximum(water, height, out=water)
        flooded |= water
    labels = flooded & _LABELS
    labels[outside | (labels == _LABELS)] = -1
    return np.asarray(labels, np.int32)


def borders_um(
    labels: NDArray[np.int32],
    signal: NDArray[np.float32],
    glass: NDArray[np.bool_],
    centres: NDArray[np.float32],
    chosen: NDArray[np.integer],
    mpp: float,
) -> NDArray[np.float32]:
    """How far each of the chosen cells reaches along the rays.

    A ray ends half a step before the first point of another cell. Where it meets none within the reach, it
    ends on the highest ridge of the relief, and never on glass: a cell at the edge of a lumen or beside
    stroma without nuclei has its membrane there.

    Parameters
    ----------
    labels : (h, w) int32
        From `territories`.
    signal : (h, w) float32
        That they were made from.
    glass : (h, w) bool
        Where light met no tissue.
    centres : (N, 2) float32
        (y, x), px of the plane.
    chosen : (n,) int
        Numbers of centres.
    mpp : float
        Of the plane, µm.

    Returns
    -------
    (n, 32) float32
        µm.
    """
    radii = np.arange(1, round(REACH_UM / RAY_STEP_UM) + 1) * RAY_STEP_UM
    offsets = ray_directions()[:, None] * (radii / mpp)[:, None]
    slope = (SLOPE * radii).astype(np.float32)
    reach = np.empty((len(chosen), SECTORS), np.float32)
    height, width = labels.shape
    for start in range(0, len(chosen), _CELLS_AT_ONCE):
        own = chosen[start : start + _CELLS_AT_ONCE]
        at = np.floor(centres[own, None, None] + (offsets + 0.5)).astype(np.int32)
        place = at[..., 0].clip(0, height - 1) * width + at[..., 1].clip(0, width - 1)
        there = labels.take(place)
        outside = there != own[:, None, None]
        outside[..., -1] = True
        end = outside.argmax(axis=2)
        last = np.take_along_axis(there, end[..., None], axis=2)[..., 0]
        steps = end + 0.5
        free = np.nonzero((last < 0) | (last == own[:, None]))
        inside = np.arange(len(radii)) < end[free][:, None]
        inside &= ~glass.take(place[free])
        rise = np.where(inside, slope - signal.take(place[free]), -np.inf)
        steps[free] = np.where(inside.any(axis=1), rise.argmax(axis=1) + 1, 0.5)
        # Rays that graze an edge end far apart: those take the median of five neighbours.
        turns = np.stack([np.roll(steps, turn, axis=1) for turn in (-2, -1, 0, 1, 2)])
        steps[free] = np.median(turns, axis=0)[free]
        reach[start : start + _CELLS_AT_ONCE] = steps * RAY_STEP_UM
    return reach
