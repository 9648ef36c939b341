"""A bounded store of decoded tiles: each is decoded once and dropped after its last use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.slide.files import DamagedTile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.sources import TileSource


class _Cell:
    """One tile: whoever comes first decodes it, the others wait for it."""

    __slots__ = ("error", "lock", "pixels")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pixels: NDArray[np.uint8] | None = None
        self.error: DamagedTile | None = None


class TileStore:
    """Decoded tiles shared by the windows that touch them.

    Parameters
    ----------
    source : TileSource
        Decodes a tile.
    origins : (N, 2) int64
        (y, x) corner of every window that will be cut, pixels of the level.
    size : tuple of int
        (height, width) of a window, pixels of the level.

    Notes
    -----
    The number of windows that touch each tile is counted beforehand. In raster order the tiles held
    at a time are those of one boundary between two rows of windows and of the windows in work, so
    memory grows with the width of the slide and not with its area.
    """

    def __init__(self, source: TileSource, origins: NDArray[np.int64], size: tuple[int, int]) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._cells: dict[tuple[int, int], _Cell] = {}
        tile = np.asarray(source.tile_shape)
        limit = -(-np.asarray(source.shape) // tile) - 1
        self._first = np.clip(origins // tile, 0, limit)
        self._last = np.clip((origins + np.asarray(size) - 1) // tile, 0, limit)
        uses = _count_uses(self._first, self._last, (int(limit[0]) + 1, int(limit[1]) + 1))
        self._uses: list[list[int]] = uses.tolist()  # counting down in numpy scalars is ten times slower

    def __len__(self) -> int:
        return len(self._cells)

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of a tile, decoded by the first caller; DamagedTile for every caller if it is damaged."""
        key = (row, col)
        cell = self._cells.get(key)  # without the lock: most tiles are there already
        if cell is None:
            with self._lock:
                cell = self._cells.setdefault(key, _Cell())
        pixels = cell.pixels
        if pixels is not None:
            return pixels
        with cell.lock:
            if cell.pixels is not None:
                return cell.pixels
            if cell.error is None:
                try:
                    cell.pixels = self._source.tile(row, col)
                except DamagedTile as error:
                    cell.error = error
                else:
                    return cell.pixels
        raise cell.error

    def release(self, window: int) -> None:
        """Forget the tiles that only this window still needed.

        Parameters
        ----------
        window : int
            Number of the window in the origins.
        """
        (row0, col0), (row1, col1) = self._first[window].tolist(), self._last[window].tolist()
        with self._lock:
            for row in range(row0, row1 + 1):
                uses = self._uses[row]
                for col in range(col0, col1 + 1):
                    uses[col] -= 1
                    if uses[col] == 0:
                        self._cells.pop((row, col), None)


def _count_uses(
    first: NDArray[np.int64], last: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """(rows, columns) number of windows that touch each tile, by summing corner differences."""
    steps = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    np.add.at(steps, (first[:, 0], first[:, 1]), 1)
    np.add.at(steps, (last[:, 0] + 1, first[:, 1]), -1)
    np.add.at(steps, (first[:, 0], last[:, 1] + 1), -1)
    np.add.at(steps, (last[:, 0] + 1, last[:, 1] + 1), 1)
    return steps.cumsum(0).cumsum(1)[:-1, :-1]
