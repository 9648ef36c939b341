"""Folds of tissue: where it lies twice over itself.

Two layers take twice the light, in the same colours: by Beer and Lambert the optical densities add up. So a
fold is a narrow, long strip which is about twice as dense as the tissue beside it, and whose density points
in the same direction. Saturation less luminance, which Bautista and Yagi (2009,
doi:10.1109/IEMBS.2009.5333448) compare with a fixed limit and Kothari et al. (2013,
doi:10.1109/JBHI.2013.2278023) with one for each slide, rises there too, but also in brown tumour and in
clusters of nuclei; these have other colours than what surrounds them, and so are told apart by the
direction.

It misses folds broader than `MOST_WIDTH_UM`, tissue that is folded more than twice so that it is black, and
folds in tissue so pale that two layers are still pale. A bundle of fibres twice as dense as the same fibres
beside it is taken for a fold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMOOTH_UM = 10.0
AROUND_UM = 350.0
"""Half the side of the square that counts as the tissue beside a pixel."""
BEYOND = 2.0
"""A fold is denser than the median of the tissue by so many times what nine tenths of it stay within: a limit
for each slide, so that tissue which is dense all over is no fold."""
LEAST_DENSITY = 0.12
"""Mean optical density of the channels below which nothing is a fold."""
SAME_COLOUR = 0.99
"""Least cosine between the densities of a fold and of the tissue beside it: about 8 degrees."""
FOOT = 0.6
"""Share of the limit that what touches a fold has to reach to be part of it."""
LEAST_WIDTH_UM, MOST_WIDTH_UM = 12.0, 260.0
LEAST_LENGTH_UM = 300.0
LEAST_SLENDER = 3.0
"""Length by width."""


def fold_mask(
    density: NDArray[np.float32], tissue: NDArray[np.bool_], um: float, times: float
) -> NDArray[np.bool_]:
    """Find folds.

    Parameters
    ----------
    density : (h, w, 3) float32
        Optical density of each channel against the glass.
    tissue : (h, w) bool
        What counts as tissue beside a fold.
    um : float
        Side of a pixel, µm.
    times : float
        How many times as dense as the tissue beside it a fold is.

    Returns
    -------
    (h, w) bool
    """
    soft = cv2.GaussianBlur(density, (0, 0), max(SMOOTH_UM / um, 0.5))
    total = soft.mean(axis=2)
    beside = _beside(soft, total, tissue, um)
    level = beside.mean(axis=2)
    ratio = total / np.maximum(level, 1e-3)
    size = np.linalg.norm(soft, axis=2) * np.linalg.norm(beside, axis=2)
    same = (soft * beside).sum(axis=2) >= SAME_COLOUR * np.maximum(size, 1e-6)
    dense = same & (total > LEAST_DENSITY)
    middle, high = np.quantile(total[tissue], (0.5, 0.9)) if tissue.any() else (1.0, 1.0)
    outlying = total > middle + BEYOND * (high - middle)
    strong = dense & outlying & (ratio > times)
    if not strong.any():
        return np.zeros(strong.shape, np.bool_)
    return _strips(strong, dense & (ratio > 1 + FOOT * (times - 1)), um)


def _beside(
    soft: NDArray[np.float32], total: NDArray[np.float32], tissue: NDArray[np.bool_], um: float
) -> NDArray[np.float32]:
    """Mean density of the tissue around each pixel; of what is not much denser than that, the second time."""
    # A quarter of the pixels: what is beside changes slowly.
    step = max(1, round(4 * SMOOTH_UM / um / 4))
    small, rough = soft[::step, ::step], total[::step, ::step]
    side = 2 * max(1, round(AROUND_UM / um / step)) + 1
    least = 0.3 * float(np.median(total[tissue])) if tissue.any() else 0.0
    counted = tissue[::step, ::step] & (rough > least)
    mean = _mean(small, counted, side)
    mean = _mean(small, counted & (rough < 1.3 * mean.mean(axis=2)), side)
    return np.asarray(cv2.resize(mean, soft.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _mean(values: NDArray[np.float32], counted: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    weight = counted.astype(np.float32)
    held = cv2.blur(weight, (side, side), borderType=cv2.BORDER_CONSTANT)
    summed = cv2.blur(values * weight[..., None], (side, side), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed / np.maximum(held, 1e-3)[..., None], np.float32)


def _strips(strong: NDArray[np.bool_], weak: NDArray[np.bool_], um: float) -> NDArray[np.bool_]:
    """Leave the connected parts of the weak mask that hold a strong pixel and are long and narrow."""
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    joined = cv2.morphologyEx((strong | weak).astype(np.uint8), cv2.MORPH_CLOSE, closing)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    found = np.zeros(count, np.uint8)
    depth = cv2.distanceTransform(joined, cv2.DIST_L2, 3)
    seeds = np.bincount(labels[strong], minlength=count)
    for part in range(1, count):
        area = float(stats[part, cv2.CC_STAT_AREA])
        if seeds[part] < max(4.0, 0.15 * area) or area * um < LEAST_LENGTH_UM:
            continue
        x, y, width, height = stats[part, :4].tolist()
        window = slice(y, y + height), slice(x, x + width)
        own = labels[window] == part
        # Twice the mean depth of a strip is half its width.
        broad_um = 4 * float(depth[window][own].mean()) * um
        long_um = area * um * um / max(broad_um, um)
        reach_um = float(np.hypot(width, height)) * um
        fits = LEAST_WIDTH_UM <= broad_um <= MOST_WIDTH_UM and long_um >= LEAST_LENGTH_UM
        found[part] = fits and reach_um >= LEAST_LENGTH_UM and reach_um >= LEAST_SLENDER * broad_um
    return np.asarray(found[labels], np.bool_)
