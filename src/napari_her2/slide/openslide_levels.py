"""Windows of a level that OpenSlide reads, pixel for pixel those of the level as read at once.

OpenSlide is asked in pixels of level 0 and divides by the downsample of the level. Where the quotient falls
between two pixels of the level, it blends them, so a window and its neighbour do not join. Only places whose
quotient is nearly whole give the stored pixels; where downsamples are odd (4.002), they are far apart. So a
window that does not begin at such a place is cut from a block that does.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.store import RecentTiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Reader = Callable[[tuple[int, int], int, int], NDArray[np.uint8]]

# cairo, which paints for OpenSlide, takes a shift below 1/512 px for none.
_NO_SHIFT_PX = 1 / 550
# OpenSlide paints larger windows in parts of this side, each rounded for itself.
_MAX_PX = 4096
_BLOCK_PX = 1024
_CACHED_BYTES = 1 << 28


class LevelWindows:
    """Reads windows of one level.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the level, pixels.
    downsample : float
        As OpenSlide states it.
    read : callable
        ((x, y) in pixels of level 0, height, width in pixels of the level) to (height, width, 3) uint8;
        DamagedTile on damage.
    """

    def __init__(self, shape: tuple[int, int], downsample: float, read: Reader) -> None:
        self.shape = shape
        self._downsample = downsample
        self._read = read
        self._starts = [block_starts(side, downsample) for side in shape]
        rows, columns = (len(starts) for starts in self._starts)
        self.tile_shape = (-(-shape[0] // rows), -(-shape[1] // columns))  # on average: bounds the memory
        self._blocks = RecentTiles(self, _CACHED_BYTES)

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8; DamagedTile on damage."""
        if max(height, width) <= _MAX_PX and max(shifts(np.array([y, x]), self._downsample)) < _NO_SHIFT_PX:
            return self._at(y, x, height, width)
        out = np.empty((height, width, 3), np.uint8)
        try:
            for row in _touched(self._starts[0], y, height):
                for column in _touched(self._starts[1], x, width):
                    block = self._blocks.tile(row, column)
                    top, left = self._starts[0][row], self._starts[1][column]
                    a, b = max(y, top), min(y + height, top + block.shape[0])
                    c, d = max(x, left), min(x + width, left + block.shape[1])
                    out[a - y : b - y, c - x : d - x] = block[a - top : b - top, c - left : d - left]
        except DamagedTile:  # somewhere in the block; perhaps not in the window
            return self._at(y, x, height, width)
        return out

    def tile(self, row: int, column: int) -> NDArray[np.uint8]:
        """Pixels of a block."""
        (y, height), (x, width) = (
            (starts[number], (starts[number + 1] if number + 1 < len(starts) else side) - starts[number])
            for starts, number, side in zip(self._starts, (row, column), self.shape, strict=True)
        )
        return self._at(y, x, height, width)

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """As `window`: what a source of tiles offers."""
        return self.window(y, x, height, width)

    def _at(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        origin = (round(x * self._downsample), round(y * self._downsample))
        return self._read(origin, height, width)


def _touched(starts: list[int], begin: int, size: int) -> range:
    return range(bisect_right(starts, begin) - 1, bisect_right(starts, begin + size - 1))


def shifts(places: NDArray[np.int64], downsample: float) -> NDArray[np.float64]:
    """How far from each pixel of the level OpenSlide begins to read, pixels.

    Parameters
    ----------
    places : (N,) int
        Pixels of the level, on one axis.
    downsample : float
    """
    return np.asarray(np.abs(np.rint(places * downsample) / downsample - places))


def block_starts(side: int, downsample: float) -> list[int]:
    """First pixels of the blocks of one axis: where nothing is shifted, wherever there is such a place.

    Parameters
    ----------
    side : int
        Pixels of the level.
    downsample : float

    Returns
    -------
    list of int
        Increasing, from 0.
    """
    shift = shifts(np.arange(side), downsample)
    starts = [0]
    while True:
        begin = starts[-1]
        reach = _MAX_PX if shift[begin] < _NO_SHIFT_PX else _BLOCK_PX
        unshifted = np.flatnonzero(shift[begin + _BLOCK_PX : begin + reach + 1] < _NO_SHIFT_PX)
        if len(unshifted):
            starts.append(begin + _BLOCK_PX + int(unshifted[0]))
        elif side - begin > reach:
            starts.append(begin + reach)
        else:
            return starts
