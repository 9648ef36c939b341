"""A rectangle of the slide at any µm/px, with what is damaged marked instead of refused.

For whatever shows values over the slide in passing, and for images of the whole slide: a damaged tile of the
file takes out its own pixels and not the whole window. What scores tiles reads through
`napari_her2.slide.tiles` instead, which leaves out a tile that is damaged anywhere. The place of the pixels
and their averaging are the same (`napari_her2.slide.resample`).
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.resample import area_means, choose_level, padded_size, resampled, window_size
from napari_her2.steps import finished

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.whole_slide import Slide

_SMALLEST_BLOCK_PX = 32
_JOIN_BELOW = 4
"""Up to this many pixels of the level a pixel, the window is held whole."""
_NOTHING = 1e-6
"""A mean of marks (0 or 255) above this holds some: the rest is rounding."""
_BLOCK_PX = 1024
_MARKED_PX = 256
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
    own_mpp = slide.known_mpp
    level, scale = choose_level(own_mpp, slide.level_downsamples, mpp)
    level_mpp = np.asarray(own_mpp) * slide.level_downsamples[level]
    y, x = (int(value) for value in np.rint(np.asarray(origin_um) / level_mpp))
    return finished(area_steps(slide, level, (y, x), (size_px, size_px), scale, threads=1))


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
    parts = (_joined if min(scale) < _JOIN_BELOW else _block_by_block)(
        slide, level, corner, shape, scale, threads
    )
    area: Area = yield from parts
    return area


def read_marked(slide: Slide, level: int, corner: tuple[int, int], shape: tuple[int, int]) -> Area:
    """Read a window of a level of which a part is damaged: what can be read of it, and where it cannot.

    Damage is looked for in squares that lie on one grid of the level, so that it is the same in all windows.

    Parameters
    ----------
    slide : Slide
    level : int
    corner : tuple of int
        (y, x) of the upper left corner, pixels of the level; may lie outside.
    shape : tuple of int
        (height, width), pixels of the level.

    Returns
    -------
    Area
    """
    rgb, damaged = np.full((*shape, 3), 255, np.uint8), np.zeros(shape, np.bool_)
    (top, bottom), (left, right) = (
        (max(corner[axis], 0), min(corner[axis] + shape[axis], slide.level_shapes[level][axis]))
        for axis in (0, 1)
    )
    for y in range(top // _MARKED_PX * _MARKED_PX, bottom, _MARKED_PX):
        for x in range(left // _MARKED_PX * _MARKED_PX, right, _MARKED_PX):
            y0, x0, y1, x1 = (
                max(y, top),
                max(x, left),
                min(y + _MARKED_PX, bottom),
                min(x + _MARKED_PX, right),
            )
            part = slice(y0 - corner[0], y1 - corner[0]), slice(x0 - corner[1], x1 - corner[1])
            try:
                rgb[part] = slide.read(level, y0, x0, y1 - y0, x1 - x0)
            except DamagedTile:
                damaged[part] = True
    return Area(rgb, damaged if damaged.any() else None)


def _joined(
    slide: Slide,
    level: int,
    corner: tuple[int, int],
    shape: tuple[int, int],
    scale: tuple[float, float],
    threads: int | None,
) -> Generator[tuple[int, int], None, Area]:
    """Read the window whole, and resample it as the tile stream does."""
    window = window_size(shape, scale)
    rgb = np.full((*padded_size(window, scale), 3), 255, np.uint8)
    damaged = np.zeros(window, np.uint8)
    block = min(_BLOCK_PX, window[0]), min(_BLOCK_PX, window[1])
    places = _corners(window, block)
    with closing(_blocks(slide, level, places + corner, block, threads)) as blocks:
        for done, (number, image, marks) in enumerate(blocks, 1):
            top, left = places[number].tolist()
            height, width = min(block[0], window[0] - top), min(block[1], window[1] - left)
            rgb[top : top + height, left : left + width] = image[:height, :width]
            if marks is not None:
                damaged[top : top + height, left : left + width] = marks[:height, :width]
            yield done, len(places)
    lost = area_means(damaged, (0, 0), scale, shape) > _NOTHING if damaged.any() else None
    return Area(resampled(rgb, scale, shape), lost)


def _block_by_block(
    slide: Slide,
    level: int,
    corner: tuple[int, int],
    shape: tuple[int, int],
    scale: tuple[float, float],
    threads: int | None,
) -> Generator[tuple[int, int], None, Area]:
    """Average each block as it comes: the window would be too large to hold."""
    rgb = np.full((*shape, 3), 255, np.uint8)
    damaged = np.zeros(shape, np.bool_)
    block = (
        max(1, min(shape[0], int(_BLOCK_PX // scale[0]))),
        max(1, min(shape[1], int(_BLOCK_PX // scale[1]))),
    )
    places = _corners(shape, block)
    exact = places * scale
    first = np.floor(exact).astype(np.int64)
    # A pixel more than the areas of a block take, which may begin and end within pixels.
    size = math.ceil(block[0] * scale[0]) + 1, math.ceil(block[1] * scale[1]) + 1
    with closing(_blocks(slide, level, first + corner, size, threads)) as blocks:
        for done, (number, image, marks) in enumerate(blocks, 1):
            (top, left), (y, x) = places[number].tolist(), (exact[number] - first[number]).tolist()
            own = min(block[0], shape[0] - top), min(block[1], shape[1] - left)
            part = slice(top, top + own[0]), slice(left, left + own[1])
            rgb[part] = np.rint(area_means(image, (y, x), scale, own))
            if marks is not None:
                damaged[part] = area_means(marks, (y, x), scale, own) > _NOTHING
            yield done, len(places)
    return Area(rgb, damaged if damaged.any() else None)


def _corners(shape: tuple[int, int], block: tuple[int, int]) -> NDArray[np.int64]:
    """(N, 2) corners of the blocks that cover a rectangle, in raster order."""
    rows, cols = np.arange(0, shape[0], block[0]), np.arange(0, shape[1], block[1])
    return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)


def _blocks(
    slide: Slide, level: int, origins: NDArray[np.int64], size: tuple[int, int], threads: int | None
) -> Generator[tuple[int, NDArray[np.uint8], NDArray[np.uint8] | None], None, None]:
    """Yield number, pixels and, where the file is damaged, the marks of each block."""
    batches = slide.regions(level, origins, size, batch_size=_BLOCKS_A_BATCH, threads=threads)
    with closing(cast("Generator[RegionBatch]", batches)):
        for batch in batches:
            for number, image in zip(batch.number.tolist(), batch.images, strict=True):
                yield number, image, None
            for number in batch.corrupt.tolist():
                image, marks = np.full((*size, 3), 255, np.uint8), np.zeros(size, np.uint8)
                y, x = origins[number].tolist()
                _fill(slide, level, y, x, image, marks)
                yield number, image, marks


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
