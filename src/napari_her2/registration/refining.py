"""A rough placing made exact: the rotation first, then the affine, from coarse to fine.

The map is found whose correlation of the two pictures is highest, by the enhanced correlation coefficient
(Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113), which neither the brightness nor the contrast
of a stain changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.registration.rotations import Placing

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

SIGMAS_PX = (12.0, 6.0, 3.0)
"""Blur of the pictures of `napari_her2.registration.views`, from coarse to fine."""
CANDIDATES = 8
"""Best rotations of the search that are followed up."""
FINALISTS = 3
"""Those of them that are made exact."""
STRETCH_LIMITS = (0.8, 1.25)
"""Sections of one block shrink and are pulled by so much at most; beyond it the rotation is kept."""
_PIXELS_A_SIGMA = 1.5
"""A picture is shrunk so far that its blur is this many pixels of the smaller one."""
_LEAST_SIDE = 48
_ITERATIONS, _ENOUGH = 200, 1e-6
_MARGIN = 0.25
_FLAT = 1e-3
_COVERED = 0.99
_APART = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    fixed: NDArray[np.float32]
    moving: NDArray[np.float32]
    to_fixed: NDArray[np.float64]
    """From pixels of the whole picture to those of this level, (3, 3) for (x, y, 1)."""
    to_moving: NDArray[np.float64]


def refining_steps(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], candidates: Sequence[Placing]
) -> Generator[tuple[int, int], None, list[Placing]]:
    """Make the best of some rough placings exact.

    Parameters
    ----------
    fixed, moving : (h, w) float32
        Of one µm/px.
    candidates : sequence of Placing
        The best one first.

    Yields
    ------
    tuple of int
        Steps done, and their number. Closing the generator cancels.

    Returns
    -------
    list of Placing
        Up to `FINALISTS` that differ; which of them is right shows only in what no blur is over. None of them
        where the pictures have nothing in common.
    """
    levels = [_level(fixed, moving, sigma) for sigma in SIGMAS_PX]
    tried = candidates[:CANDIDATES]
    total = len(tried) + FINALISTS
    rough = []
    for done, candidate in enumerate(tried, 1):
        exact = _exact(levels[0], candidate, cv2.MOTION_EUCLIDEAN)
        rough += [] if exact is None else [exact]
        yield done, total
    final = []
    for done, placing in enumerate(_differing(rough, fixed.shape), 1):
        final.append(_refined(levels, placing))
        yield len(tried) + done, total
    return final


def _differing(placings: Sequence[Placing], shape: tuple[int, ...]) -> list[Placing]:
    """Best of the placings that lay the corners of the picture on different places."""
    height, width = shape
    corners = np.array([(0, 0, 1), (0, width, 1), (height, 0, 1), (height, width, 1)], np.float64).T
    found: list[Placing] = []
    for placing in sorted(placings, key=lambda of: -of.correlation):
        apart = [np.abs((placing.matrix - other.matrix) @ corners).max() for other in found]
        if len(found) < FINALISTS and min(apart, default=np.inf) > _APART * max(shape):
            found.append(placing)
    return found


def _refined(levels: Sequence[_Level], placing: Placing) -> Placing:
    """Rotation, then affine; a step that leads nowhere is left out, and the one before it holds."""
    best = placing
    for motion in (cv2.MOTION_EUCLIDEAN, cv2.MOTION_AFFINE):
        reached: Placing | None = best
        for level in levels:
            reached = None if reached is None else _exact(level, reached, motion)
        if reached is not None and _plausible(reached):
            best = reached
    return best


def _level(fixed: NDArray[np.float32], moving: NDArray[np.float32], sigma: float) -> _Level:
    wanted = _PIXELS_A_SIGMA / sigma
    least = _LEAST_SIDE / min(*fixed.shape, *moving.shape)
    scale = min(1.0, max(wanted, least))
    small = [_small(picture, sigma, scale) for picture in (fixed, moving)]
    maps = [_shrinking(of.shape, own.shape) for of, own in zip((fixed, moving), small, strict=True)]
    return _Level(small[0], small[1], maps[0], maps[1])


def _small(picture: NDArray[np.float32], sigma: float, scale: float) -> NDArray[np.float32]:
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    blurred = cv2.GaussianBlur(picture, (0, 0), sigma)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _shrinking(shape: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float64]:
    matrix = np.diag([small[1] / shape[1], small[0] / shape[0], 1.0])
    matrix[:2, 2] = 0.5 * np.diag(matrix)[:2] - 0.5
    return matrix


def _exact(level: _Level, placing: Placing, motion: int) -> Placing | None:
    """Follow the correlation up from a placing; None where that leads nowhere."""
    swapped = placing.matrix[[1, 0, 2]][:, [1, 0, 2]]  # OpenCV counts (x, y)
    start = level.to_fixed @ swapped @ np.linalg.inv(level.to_moving)
    # Laid there first, with a margin to move in: OpenCV loses rotations beyond a right angle, and never
    # mirrors.
    margin = np.ceil(_MARGIN * max(level.fixed.shape))
    inner = np.eye(3)
    inner[:2, 2] = margin
    size = [int(side + 2 * margin) for side in level.fixed.shape[::-1]]
    laid, cover = (
        np.asarray(cv2.warpAffine(of, (inner @ start)[:2], size), np.float32)
        for of in (level.moving, np.ones_like(level.moving))
    )
    known = (cover > _COVERED).astype(np.uint8)  # beside the picture there is no glass, but nothing
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ITERATIONS, _ENOUGH)
    guess = inner[:2].astype(np.float32)
    try:
        correlation, found = cv2.findTransformECC(level.fixed, laid, guess, motion, stop, known, 1)
    except cv2.error:  # it runs away from pictures that have nothing in common
        return None
    whole = np.vstack([np.asarray(found, np.float64), (0.0, 0.0, 1.0)])
    if not np.isfinite(whole).all() or abs(np.linalg.det(whole[:2, :2])) < _FLAT:
        return None
    on_fixed = np.linalg.inv(level.to_fixed) @ np.linalg.inv(whole) @ inner @ start @ level.to_moving
    return Placing(float(correlation), on_fixed[[1, 0, 2]][:, [1, 0, 2]])


def _plausible(placing: Placing) -> bool:
    most, least = np.linalg.svd(placing.matrix[:2, :2], compute_uv=False)
    return bool(STRETCH_LIMITS[0] <= least and most <= STRETCH_LIMITS[1])
