"""A square of the slide at any µm/px, with what is damaged marked instead of refused.

For whatever shows values over the slide in passing: a damaged tile of the file takes out its own pixels
and not the whole window. Scoring reads through `napari_her2.slide.tiles` instead, which leaves out a tile
that is damaged anywhere. The place of the pixels and their averaging are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.tiles import SAME_SCALE, choose_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.whole_slide import Slide

_SMALLEST_BLOCK_PX = 32
_SHRINK_FIRST = 8
"""From this many pixels of the file a pixel on, strips are shrunk as they are read: the rest is too large."""
_STRIP_PX = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Pixels of a square.

    Parameters
    ----------
    rgb : (n, n, 3) uint8
        White outside the slide and where the file is damaged.
    damaged : (n, n) bool or None
        Pixels that damage reaches; None where there is none.
    """

    rgb: NDArray[np.uint8]
    damaged: NDArray[np.bool_] | None


def read_area(slide: Slide, *, origin_um: tuple[float, float], size_px: int, mpp: float) -> Area:
    """Read a square at a µm/px, averaged over areas from the coarsest level that suffices.

    Parameters
    ----------
    slide : Slide
    origin_um : tuple of float
        (y, x) of the upper left corner, µm from the slide's; may lie outside. The square begins at the
        nearest pixel of the level that is read.
    size_px : int
        Side of what comes back.
    mpp : float
        µm per pixel of it.

    Returns
    -------
    Area

    Raises
    ------
    SlideError
        The slide states no µm/px or was closed.
    """
    if slide.mpp is None:
        raise SlideError(f"{slide.path.name} says no µm/px: give it to look at the slide at a known scale.")
    level = choose_level(slide.mpp, slide.level_downsamples, mpp)
    level_mpp = np.asarray(slide.mpp) * slide.level_downsamples[level]
    exact = mpp / level_mpp
    scale = np.where(np.abs(exact - 1) <= SAME_SCALE, 1.0, exact)
    first = int(scale.min()) if scale.min() >= _SHRINK_FIRST else 1
    scale = scale / first
    y, x = (int(value) for value in np.rint(np.asarray(origin_um) / level_mpp))
    height, width = (_least(size_px, float(value)) for value in scale)
    rgb = np.full((height, width, 3), 255, np.uint8)
    damaged = np.zeros((height, width), np.uint8)
    rows = max(1, _STRIP_PX // first)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = np.full(((bottom - top) * first, width * first, 3), 255, np.uint8)
        marks = np.zeros(strip.shape[:2], np.uint8)
        _fill(slide, level, y + top * first, x, strip, marks)
        rgb[top:bottom] = _averaged(strip, (first, first))[: bottom - top, :width]
        if marks.any():
            damaged[top:bottom] = _averaged(marks, (first, first))[: bottom - top, :width]
    down = float(scale[0]), float(scale[1])
    sized = _averaged(rgb, down)[:size_px, :size_px]
    if not damaged.any():
        return Area(sized, None)
    return Area(sized, _averaged(damaged, down)[:size_px, :size_px] > 0)


def _least(size_px: int, scale: float) -> int:
    """Pixels to read along an axis for so many pixels at a scale."""
    needed = max(1, math.ceil(size_px * scale - 1e-6))
    if scale == 1:
        return needed
    # OpenCV copies where the rounded size of the result is that of what it was given.
    return max(needed, math.ceil(0.75 / abs(1 - 1 / scale)))


def _averaged(pixels: NDArray[np.uint8], scale: tuple[float, float]) -> NDArray[np.uint8]:
    if scale == (1.0, 1.0):
        return pixels
    if not min(scale) >= 1:
        kernel = cv2.INTER_LINEAR
    else:
        kernel = cv2.INTER_AREA
        if pixels.ndim == 2:
            # Any share of damage counts: marks are made strong enough to survive the rounding.
            pixels = cv2.dilate(pixels, np.ones((math.ceil(scale[0]), math.ceil(scale[1])), np.uint8))
    out: NDArray[np.uint8] = cv2.resize(pixels, None, fx=1 / scale[1], fy=1 / scale[0], interpolation=kernel)
    return out


def _fill(
    slide: Slide, level: int, y: int, x: int, out: NDArray[np.uint8], damaged: NDArray[np.uint8]
) -> None:
    """Read a window into ``out``; what cannot be read is halved until little else is lost with it."""
    height, width = out.shape[:2]
    try:
        out[...] = slide.read(level, y, x, height, width)
    except DamagedTile:
        if max(height, width) <= _SMALLEST_BLOCK_PX:
            damaged[...] = 255
            return
        step = max(_SMALLEST_BLOCK_PX, -(-max(height, width) // 2))
        for top in range(0, height, step):
            for left in range(0, width, step):
                part = slice(top, top + step), slice(left, left + step)
                _fill(slide, level, y + top, x + left, out[part], damaged[part])
