"""Bounded stores of decoded tiles, shared by threads: no tile is decoded twice that can be kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.slide.files import DamagedTile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_her2.slide.sources import Pixels, TileMaker, TileSource


class _Cell:
    """One tile: whoever comes first decodes it, the others wait for it."""

    __slots__ = ("error", "lock", "pixels")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pixels: NDArray[np.uint8] | None = None
        self.error: DamagedTile | None = None

    def get(self, source: TileMaker, row: int, col: int) -> NDArray[np.uint8]:
        pixels = self.pixels  # without the lock: most tiles are there already
        if pixels is not None:
            return pixels
        with self.lock:
            if self.pixels is not None:
                return self.pixels
            if self.error is None:
                try:
                    self.pixels = source.tile(row, col)
                except DamagedTile as error:
                    self.error = error
                else:
                    return self.pixels
        raise self.error


class RecentTiles:
    """The tiles of a level that were asked for last.

    Parameters
    ----------
    source : TileSource
        Decodes a tile.
    max_bytes : int
        Decoded tiles that are kept at most.
    """

    def __init__(self, source: TileSource, max_bytes: int) -> None:
        self._source = source
        self._room = max(1, max_bytes // (source.tile_shape[0] * source.tile_shape[1] * 3))
        self._lock = threading.Lock()
        self._cells: OrderedDict[tuple[int, int], _Cell] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cells)

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of a tile; DamagedTile if it is damaged."""
        key = (row, col)
        with self._lock:
            cell = self._cells.setdefault(key, _Cell())
            self._cells.move_to_end(key)
            if len(self._cells) > self._room:
                self._cells.popitem(last=False)
        return cell.get(self._source, row, col)


class _Shown:
    """One tile that is shown: whoever comes first decodes it, the others wait for it."""

    __slots__ = ("lock", "pixels")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pixels: Pixels | None = None


class ShownTiles:
    """Decoded tiles of all levels of a slide that were shown last, or soon will be, within a bound of memory.

    Parameters
    ----------
    decode : callable
        Of (level, row, column) to the pixels of the tile.
    max_bytes : int
        Of all tiles together; the one that came last is kept whatever its size.
    """

    def __init__(self, decode: Callable[[int, int, int], Pixels], max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._decode = decode
        self._lock = threading.Lock()
        self._cells: OrderedDict[tuple[int, int, int], _Shown] = OrderedDict()

    def holds(self, level: int, row: int, col: int) -> bool:
        """Whether a tile is there already."""
        cell = self._cells.get((level, row, col))
        return cell is not None and cell.pixels is not None

    def tile(self, level: int, row: int, col: int) -> Pixels:
        """Pixels of a tile, decoded where it is not kept."""
        key = (level, row, col)
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = _Shown()
            else:
                self._cells.move_to_end(key)
        pixels = cell.pixels  # without the lock of the tile: most are there already
        if pixels is not None:
            return pixels
        with cell.lock:
            if cell.pixels is None:
                cell.pixels = self._decode(level, row, col)
                self._weigh(key, cell)
            return cell.pixels

    def _weigh(self, key: tuple[int, int, int], cell: _Shown) -> None:
        with self._lock:
            if self._cells.get(key) is cell:  # it may have had to go while it was decoded
                self.nbytes += _nbytes(cell)
            while self.nbytes > self.max_bytes and len(self._cells) > 1:
                _, oldest = self._cells.popitem(last=False)
                self.nbytes -= _nbytes(oldest)


def _nbytes(cell: _Shown) -> int:
    return int(getattr(cell.pixels, "nbytes", 0))


class RecentBlocks:
    """Blocks of pixels that were shown last, of all levels of one slide, within a bound of memory.

    It goes with its slide: nothing of a closed slide stays behind in a cache that all slides share.

    Parameters
    ----------
    max_bytes : int
        Of all blocks together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, ...], NDArray[np.uint8]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return a block, None where it is not kept."""
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
            return found

    def put(self, key: tuple[int, ...], pixels: NDArray[np.uint8]) -> None:
        """Keep a block, which nobody may write to from now on; the ones not seen for longest make way."""
        if pixels.nbytes > self._max_bytes:
            return
        pixels.flags.writeable = False
        with self._lock:
            before = self._blocks.pop(key, None)
            self.nbytes += pixels.nbytes - (0 if before is None else before.nbytes)
            self._blocks[key] = pixels
            while self.nbytes > self._max_bytes:
                self.nbytes -= self._blocks.popitem(last=False)[1].nbytes


class TileStore:
    """Decoded tiles shared by the windows that touch them.

    Parameters
    ----------
    source : TileMaker
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

    def __init__(self, source: TileMaker, origins: NDArray[np.int64], size: tuple[int, int]) -> None:
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
        cell = self._cells.get(key)  # without the lock, as most tiles are there already
        if cell is None:
            with self._lock:
                cell = self._cells.setdefault(key, _Cell())
        return cell.get(self._source, row, col)

    def lacking(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Tell which tiles the windows [start, stop) touch that nobody asked for yet.

        Parameters
        ----------
        start, stop : int
            Numbers of windows.

        Returns
        -------
        list of (row, column)
            Row by row.
        """
        touched = {
            (row, col)
            for (row0, col0), (row1, col1) in zip(
                self._first[start:stop].tolist(), self._last[start:stop].tolist(), strict=True
            )
            for row in range(row0, row1 + 1)
            for col in range(col0, col1 + 1)
        }
        return sorted(touched - self._cells.keys())

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
