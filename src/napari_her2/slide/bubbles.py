"""Air under the cover slip: bubbles, found by their rims.

Light that meets the curved side of a bubble is bent out of the objective, so a bubble has a dark rim which
takes all colours alike, beside whatever the tissue takes. Such a rim is a thin part of a circle: excess
density that is neutral, narrow, and lies on a circle over at least a third of it. What the circle encloses
is the bubble.

It finds bubbles of `LEAST_RADIUS_UM` to `MOST_RADIUS_UM` whose rim is seen. It misses air whose rim is not
round (dried mounting medium, air at the edge of the cover slip), rims that are bright instead of dark, and
a bubble of which only a small arc lies in the tissue's surroundings. A round pen stroke is taken for a pen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTH_UM = 6.0
RIM_UM = 90.0
"""A rim is thinner."""
LEAST_EXCESS = 0.12
"""Optical density, in every channel, that a rim takes beyond what lies on both of its sides."""
NEUTRAL = 0.6
"""Least excess of a rim by its greatest, of the three channels."""
LEAST_RADIUS_UM, MOST_RADIUS_UM = 80.0, 6000.0
LEAST_ARC = 1 / 3
"""Share of the circle on which the rim is seen."""
MOST_OFF = 0.06
"""Root mean square distance of the rim from its circle, by the radius."""
LEAST_OFF_UM = 13.5
"""A rim is no line: less than so much is not asked of small circles."""
_SECTORS = 36


def bubble_mask(density: NDArray[np.float32], um: float) -> NDArray[np.bool_]:
    """Find bubbles.

    Parameters
    ----------
    density : (h, w, 3) float32
        Optical density of each channel against the glass.
    um : float
        Side of a pixel, µm.

    Returns
    -------
    (h, w) bool
        Their discs, with the rims.
    """
    found = np.zeros(density.shape[:2], np.uint8)
    rim = _rims(density, um)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rim, connectivity=8)
    for part in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] * um >= 2 * LEAST_RADIUS_UM):
        if part == 0:
            continue
        x, y, width, height = stats[part, :4].tolist()
        rows, cols = np.nonzero(labels[y : y + height, x : x + width] == part)
        circle = _circle(rows + y, cols + x, LEAST_OFF_UM / um)
        if circle is not None and LEAST_RADIUS_UM <= circle[2] * um <= MOST_RADIUS_UM:
            centre = round(circle[1]), round(circle[0])
            cv2.circle(found, centre, round(circle[2] + 0.25 * RIM_UM / um), 1, cv2.FILLED)
    return np.asarray(found, np.bool_)


def _rims(density: NDArray[np.float32], um: float) -> NDArray[np.uint8]:
    """Narrow ridges of neutral density, (h, w) uint8."""
    soft = cv2.GaussianBlur(density, (0, 0), max(SMOOTH_UM / um, 0.5))
    side = 2 * max(1, round(RIM_UM / um / 2)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    excess = cv2.morphologyEx(soft, cv2.MORPH_TOPHAT, kernel)
    low, high = excess.min(axis=2), excess.max(axis=2)
    ridge = ((low > LEAST_EXCESS) & (low > NEUTRAL * high)).astype(np.uint8)
    small = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return np.asarray(cv2.morphologyEx(ridge, cv2.MORPH_CLOSE, small), np.uint8)


def _circle(
    rows: NDArray[np.integer], cols: NDArray[np.integer], least_off_px: float
) -> tuple[float, float, float] | None:
    """Centre (y, x) and radius of the circle that pixels lie on, by least squares (Kåsa 1976), or None."""
    points = np.column_stack([rows, cols]).astype(np.float64)
    middle = points.mean(axis=0)
    near = points - middle
    design = np.column_stack([2 * near, np.ones(len(near))])
    solved, _, rank, _ = np.linalg.lstsq(design, (near**2).sum(axis=1), rcond=None)
    if rank < 3:
        return None
    centre = solved[:2]
    radius = float(np.sqrt(max(solved[2] + (centre**2).sum(), 0)))
    away = near - centre
    off = float(np.sqrt(np.mean((np.hypot(*away.T) - radius) ** 2)))
    angle = np.arctan2(away[:, 0], away[:, 1])
    seen = len(np.unique(np.floor((angle / (2 * np.pi) + 0.5) * _SECTORS).clip(0, _SECTORS - 1)))
    if radius == 0 or off > max(MOST_OFF * radius, least_off_px) or seen < LEAST_ARC * _SECTORS:
        return None
    return float(centre[0] + middle[0]), float(centre[1] + middle[1]), radius
