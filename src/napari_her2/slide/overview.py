"""A thumbnail for finding tissue, read so that damage in one level of the file does not stop it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WANTED_DOWNSAMPLE = 64.0
SHORTEST_PX = 1024
"""Small slides are shrunk less than 64 times, to keep at least this many pixels on the longer side."""
LONGEST_PX = 4096
BLOCK_PX = 1024
SMALLEST_BLOCK_PX = 128


class OverviewSource(Protocol):
    """What of a slide is needed to look at it from afar."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of level 0."""
        ...

    @property
    def level_shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level."""
        ...

    @property
    def level_downsamples(self) -> tuple[tuple[float, float], ...]:
        """(y, x) level-0 pixels per pixel of each level."""
        ...

    def read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 of a level; SlideError where the file is damaged."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A whole slide, small.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    downsample : tuple of float
        (y, x) level-0 pixels per pixel.
    unreadable : (h, w) bool or None
        Where no level of the file could be read; white in `rgb`.
    """

    rgb: NDArray[np.uint8]
    downsample: tuple[float, float]
    unreadable: NDArray[np.bool_] | None


def read_overview(slide: OverviewSource) -> Overview:
    """Whole slide at about 64 times less, 1,024 to 4,096 pixels on its longer side where it has them.

    The level nearest to that is read and shrunk by a whole number, by area. Where a block of it is
    damaged the same place is read from the other levels, then in ever smaller blocks.

    Parameters
    ----------
    slide : Slide

    Returns
    -------
    Overview
    """
    longest = max(slide.shape)
    wanted = max(1.0, min(WANTED_DOWNSAMPLE, longest / SHORTEST_PX), longest / LONGEST_PX)
    level = _nearest_level(slide, wanted)
    down_y, down_x = slide.level_downsamples[level]
    # Rounded down: rather a few more pixels than tissue lost in shrinking.
    factor = max(1, int(wanted / max(down_y, down_x) + 1e-6))
    height, width = slide.level_shapes[level]
    shape = ceil(height / factor), ceil(width / factor)
    rgb = np.full((*shape, 3), 255, np.uint8)
    unreadable = np.zeros(shape, np.bool_)
    step = max(factor, BLOCK_PX // factor * factor)
    for y, x, h, w in _blocks(0, 0, height, width, step):
        _fill(slide, level, (y, x, h, w), factor, rgb, unreadable)
    return Overview(rgb, (down_y * factor, down_x * factor), unreadable if unreadable.any() else None)


def _nearest_level(slide: OverviewSource, wanted: float) -> int:
    # Never a level much coarser than wanted: there is no way back to the pixels it lacks.
    fine_enough = [i for i, down in enumerate(slide.level_downsamples) if max(down) <= 1.5 * wanted] or [0]
    return min(fine_enough, key=lambda i: abs(log(max(slide.level_downsamples[i]) / wanted)))


def _blocks(y0: int, x0: int, height: int, width: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    for y in range(y0, y0 + height, step):
        for x in range(x0, x0 + width, step):
            yield y, x, min(step, y0 + height - y), min(step, x0 + width - x)


def _fill(
    slide: OverviewSource,
    level: int,
    block: tuple[int, int, int, int],
    factor: int,
    rgb: NDArray[np.uint8],
    unreadable: NDArray[np.bool_],
) -> None:
    y, x, height, width = block
    rows = slice(y // factor, ceil((y + height) / factor))
    cols = slice(x // factor, ceil((x + width) / factor))
    size = rows.stop - rows.start, cols.stop - cols.start
    try:
        rgb[rows, cols] = _shrunk(slide.read(level, y, x, height, width), factor)
        return
    except SlideError:
        elsewhere = _from_another_level(slide, level, block, size)
    if elsewhere is not None:
        rgb[rows, cols] = elsewhere
    elif max(height, width) > max(SMALLEST_BLOCK_PX, factor):
        step = max(factor, max(height, width) // 2 // factor * factor)
        for part in _blocks(y, x, height, width, step):
            _fill(slide, level, part, factor, rgb, unreadable)
    else:
        unreadable[rows, cols] = True


def _shrunk(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return image
    height, width = image.shape[:2]
    size = ceil(height / factor), ceil(width / factor)
    padding = size[0] * factor - height, size[1] * factor - width
    if any(padding):
        image = cv2.copyMakeBorder(image, 0, padding[0], 0, padding[1], cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _from_another_level(
    slide: OverviewSource, level: int, block: tuple[int, int, int, int], size: tuple[int, int]
) -> NDArray[np.uint8] | None:
    here = slide.level_downsamples[level]
    others = [i for i in range(len(slide.level_shapes)) if i != level]
    for other in sorted(others, key=lambda i: abs(i - level)):
        there = slide.level_downsamples[other]
        ratio = here[0] / there[0], here[1] / there[1]
        y, x = round(block[0] * ratio[0]), round(block[1] * ratio[1])
        height, width = max(1, round(block[2] * ratio[0])), max(1, round(block[3] * ratio[1]))
        if height * width > 64_000_000:
            continue  # one damaged block is not worth a gigabyte of level 0
        try:
            image = slide.read(other, y, x, height, width)
        except SlideError:
            continue
        return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.uint8)
    return None
