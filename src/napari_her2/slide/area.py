"""A rectangle of the slide at any µm/px, with what is damaged marked instead of refused.

For whatever shows values over the slide in passing, and for images of the whole slide: a damaged tile of the
file takes out its own pixels and not the whole window. What scores tiles reads through
`napari_her2.slide.tiles` instead, which leaves out a tile that is damaged anywhere. The place of the pixels
and their averaging are the same.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.tiles import SAME_SCALE, choose_level

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.whole_slide import Slide

_SMALLEST_BLOCK_PX = 32
_JOIN_BELOW = 4
"""Up to this many pixels of the file a pixel, blocks are joined before they are averaged."""
_BLOCK_PX = 1024
_BLOCKS_A_BATCH = 4


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Pixels of a rectangle.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
        White outside the slide and where the file is damaged.
    damaged : (h, w) bool or None
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
    level, scale = level_for(slide, mpp)
    level_mpp = mpp / np.asarray(scale)
    y, x = (int(value) for value in np.rint(np.asarray(origin_um) / level_mpp))
    steps = area_steps(slide, level, (y, x), (size_px, size_px), scale, threads=1)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            area: Area = end.value
            return area


def level_for(slide: Slide, mpp: float) -> tuple[int, tuple[float, float]]:
    """Coarsest level that suffices for a µm/px.

    Parameters
    ----------
    slide : Slide
    mpp : float
        µm per pixel wanted.

    Returns
    -------
    level : int
    scale : tuple of float
        (y, x) pixels of that level per pixel wanted; exactly 1 where they are the same.

    Raises
    ------
    SlideError
        The slide states no µm/px.
    """
    if slide.mpp is None:
        raise SlideError(f"{slide.path.name} says no µm/px: give it to look at the slide at a known scale.")
    level = choose_level(slide.mpp, slide.level_downsamples, mpp)
    exact = mpp / (np.asarray(slide.mpp) * slide.level_downsamples[level])
    scale = np.where(np.abs(exact - 1) <= SAME_SCALE, 1.0, exact)
    return level, (float(scale[0]), float(scale[1]))


def area_steps(
    slide: Slide,
    level: int,
    corner: tuple[int, int],
    shape: tuple[int, int],
    scale: tuple[float, float],
    *,
    threads: int | None = None,
) -> Generator[tuple[int, int], None, Area]:
    """Read a rectangle of one level, averaged over areas, block by block, in bounded memory.

    Parameters
    ----------
    slide : Slide
    level : int
    corner : tuple of int
        (y, x) of the upper left corner, pixels of the level; may lie outside.
    shape : tuple of int
        (height, width) of what comes back.
    scale : tuple of float
        (y, x) pixels of the level per pixel of it.
    threads : int, optional
        That decode; by default the cores that may be used.

    Yields
    ------
    tuple of int
        Blocks read, and their number. Closing the generator cancels.

    Returns
    -------
    Area
    """
    # Far from the level's own scale each block is averaged as it comes, from the pixel nearest to its exact
    # place: all of them together would be too large. Near it half a pixel counts, and they are joined first.
    joined = min(scale) < _JOIN_BELOW
    height, width = (
        (_least(side, value) for side, value in zip(shape, scale, strict=True)) if joined else shape
    )
    block_scale = (1.0, 1.0) if joined else scale
    rows, cols = (
        max(1, min(side, int(_BLOCK_PX // value)))
        for side, value in zip((height, width), block_scale, strict=True)
    )
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, cols)]
    offsets = np.rint(np.asarray(places, np.float64).reshape(-1, 2) * block_scale).astype(np.int64)
    origins = np.asarray(corner, np.int64) + offsets
    size = _least(rows, block_scale[0]), _least(cols, block_scale[1])
    rgb = np.full((height, width, 3), 255, np.uint8)
    damaged = np.zeros((height, width), np.uint8)

    def put(number: int, image: NDArray[np.uint8], marks: NDArray[np.uint8] | None) -> None:
        top, left = places[number]
        part = slice(top, min(top + rows, height)), slice(left, min(left + cols, width))
        fitting = slice(part[0].stop - top), slice(part[1].stop - left)
        rgb[part] = _averaged(image, block_scale)[fitting]
        if marks is not None:
            damaged[part] = _averaged(marks, block_scale)[fitting]

    batches = slide.regions(level, origins, size, batch_size=_BLOCKS_A_BATCH, threads=threads)
    done = 0
    with closing(cast("Generator[RegionBatch]", batches)):
        for batch in batches:
            for number, image in zip(batch.number.tolist(), batch.images, strict=True):
                put(number, image, None)
            for number in batch.corrupt.tolist():
                image, marks = np.full((*size, 3), 255, np.uint8), np.zeros(size, np.uint8)
                y, x = origins[number].tolist()
                _fill(slide, level, y, x, image, marks)
                put(number, image, marks)
            done += len(batch.number) + len(batch.corrupt)
            yield done, len(places)
    if joined:
        rgb = _averaged(rgb, scale)[: shape[0], : shape[1]]
        damaged = _averaged(damaged, scale)[: shape[0], : shape[1]] if damaged.any() else damaged
    return Area(rgb, damaged > 0 if damaged.any() else None)


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
