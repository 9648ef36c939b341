"""Levels of a slide as arrays for a viewer: tiles stay decoded, and those in the way are decoded ahead.

dask computes with these levels (`napari_her2.slide.pyramid`); what is shown does not go through its graph.
An array always gives the pixels of its level, never something coarser meanwhile: whoever computes with the
data of a layer reads the same array as the viewer does.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.indexing import window_of
from napari_her2.slide.sources import fill_window
from napari_her2.slide.store import ShownTiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    from napari_her2.slide.pyramid import PixelLevel
    from napari_her2.slide.sources import Pixels

VIEW_CHUNK_PX = 512
"""The viewer widens what it reads to multiples of it, and reads anew only beyond."""
_SHOWN_BYTES = 3 << 26  # of tiles kept for a slide: several screens full
_AHEAD_BYTES = _SHOWN_BYTES // 4
_MOST_WHOLE_PIXELS = 1 << 30
# More than there are cores: on a network drive they wait for the file and not for the processor.
_THREADS = 16
_THREADS_AHEAD = 2

Window = tuple[int, int, int, int]
"""y, x, height, width, pixels of a level."""
Key = tuple[int, int, int]
"""Level, and row and column of a tile in it."""


class DisplayLevel:
    """One level as an array, (height, width, 3) uint8, indexed as a NumPy array is.

    Parameters
    ----------
    tiles : DisplayTiles
        Of all levels of the slide.
    number : int
        Of the level.
    token : str
        Tells it from the levels of other slides, for dask.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, tiles: DisplayTiles, number: int, token: str) -> None:
        self._tiles, self._number, self._token = tiles, number, token
        self.shape = tiles.levels[number].shape
        self.chunks = (VIEW_CHUNK_PX, VIEW_CHUNK_PX, 3)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole level, were it decoded."""
        return self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<level of a slide: {self.shape[1]} x {self.shape[0]} px, uint8>"

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - any index of NumPy's
        (top, bottom), (left, right), picked = window_of(key, self.shape)
        window = (top, left, bottom - top, right - left)
        out: NDArray[np.uint8] = self._tiles.window(self._number, window)[picked]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401 - NumPy's
        if copy is False:
            raise ValueError("a level of a slide is decoded where it is asked for: it is always a copy")
        height, width = self.shape[:2]
        if height * width > _MOST_WHOLE_PIXELS:
            raise ValueError(
                f"a level of {width:,} x {height:,} px is too large to take whole: ask for a part of it, or "
                f"for a coarser level"
            )
        return self._tiles.window(self._number, (0, 0, height, width)).astype(dtype or self.dtype, copy=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it cannot be written to; a duplicated layer shows the same open file

    def __dask_tokenize__(self) -> tuple[str, int]:
        return self._token, self._number


class DisplayTiles:
    """Tiles of all levels of one slide: cuts windows from them, and decodes ahead of the movement.

    Parameters
    ----------
    levels : tuple of PixelLevel
        Largest first.
    guard : callable
        Called before every read; raises SlideError where reading is not allowed.
    """

    def __init__(self, levels: tuple[PixelLevel, ...], guard: Callable[[], None]) -> None:
        self.levels = levels
        self._guard = guard
        self.kept = ShownTiles(self._decode, _SHOWN_BYTES)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._last: tuple[int, Window] | None = None
        self._wishes: list[Key] = []  # the first to be decoded last
        self._workers = 0

    def window(self, number: int, window: Window) -> NDArray[np.uint8]:
        """Cut a window inside a level.

        Parameters
        ----------
        number : int
            Of the level.
        window : tuple of int
            (y, x, height, width), pixels of that level.

        Returns
        -------
        (height, width, 3) uint8
        """
        self._guard()
        y, x, height, width = window
        out = np.empty((height, width, 3), np.uint8)
        if not height or not width:
            return out
        self._wishes = []  # a tile in view comes first
        level = self.levels[number]
        for top, bottom in self._bands(level, window):
            self._decode_missing(number, (top, x, bottom - top, width))
            part = out[top - y : bottom - y]
            fill_window(part, top, x, level, lambda row, col: self.kept.tile(number, row, col))
        self._look_ahead(number, window)
        return out

    @property
    def pending(self) -> int:
        """Tiles that wait to be decoded ahead."""
        return len(self._wishes)

    @property
    def working(self) -> int:
        """Threads that decode ahead."""
        return self._workers

    def _decode(self, number: int, row: int, col: int) -> Pixels:
        return self.levels[number].tile(row, col)

    def _bands(self, level: PixelLevel, window: Window) -> list[tuple[int, int]]:
        """Cut a window into rows of tiles of which as many are taken together as can be kept."""
        (y, x, height, width), (tile_h, tile_w) = window, level.tile_shape
        columns = (x + width - 1) // tile_w - x // tile_w + 1
        rows = max(1, self.kept.max_bytes // (columns * tile_h * tile_w * 3) // 2)
        first, last = y // tile_h, (y + height - 1) // tile_h + 1
        edges = [y, *(row * tile_h for row in range(first + rows, last, rows)), y + height]
        return list(pairwise(edges))

    def _decode_missing(self, number: int, window: Window) -> None:
        """Decode what is not kept of a window, many tiles at once.

        Column by column: what is read at once from a slow drive are tiles of one row.
        """
        level = self.levels[number]
        keys = [key for key in tiles_of(level, number, window) if not self.kept.holds(*key)]
        if len(keys) > 1:
            keys.sort(key=lambda key: key[::-1])
            list(self._threads().map(lambda key: self.kept.tile(*key), keys))

    def _look_ahead(self, number: int, window: Window) -> None:
        """Wish for the tiles where the view is going, instead of all that was wished for before."""
        before, self._last = self._last, (number, window)
        wished: list[Key] = []
        room = _AHEAD_BYTES
        for at, ahead in next_windows(tuple(level.shape for level in self.levels), before, (number, window)):
            level = self.levels[at]
            for key in tiles_of(level, at, ahead):
                if not self.kept.holds(*key) and room > 0:
                    room -= prod(level.tile_shape) * 3
                    wished.append(key)
        with self._lock:
            self._wishes = wished[::-1]
            start = min(_THREADS_AHEAD - self._workers, len(wished))
            self._workers += start
        for _ in range(start):
            self._threads().submit(self._work_ahead)

    def _work_ahead(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._wishes:
                        self._workers -= 1
                        return
                    key = self._wishes.pop()
                self._guard()
                self.kept.tile(*key)
        except SlideError:  # it was closed meanwhile, or cannot be read: who looks there is told
            with self._lock:
                self._wishes = []
                self._workers -= 1

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="her2-view")
            return self._pool


def tiles_of(level: PixelLevel, number: int, window: Window) -> list[Key]:
    """Return the tiles that a window inside a level touches, row by row."""
    (y, x, height, width), (tile_h, tile_w) = window, level.tile_shape
    rows = range(y // tile_h, (y + height - 1) // tile_h + 1)
    cols = range(x // tile_w, (x + width - 1) // tile_w + 1)
    return [(number, row, col) for row in rows for col in cols]


def next_windows(
    shapes: tuple[tuple[int, int, int], ...], before: tuple[int, Window] | None, now: tuple[int, Window]
) -> list[tuple[int, Window]]:
    """Guess what will be seen next.

    Parameters
    ----------
    shapes : tuple of tuple of int
        Of the levels.
    before, now : tuple of (int, Window)
        Levels and windows that were seen one after the other; None where nothing was seen before.

    Returns
    -------
    list of (int, Window)
        Windows inside their levels, the next first. After a move that keeps some of the view: the same move
        once more. After a change of level: as much of the level behind it. Nothing after a jump.
    """
    number, window = now
    if before is None:
        return []
    level, old = before
    if level == number:
        move = window[0] - old[0], window[1] - old[1]
        # Of another size it is no move, and beyond its own width it is a jump.
        if not any(move) or any(abs(part) >= side for part, side in zip(move, window[2:], strict=True)):
            return []
        moved = (window[0] + move[0], window[1] + move[1], *window[2:])
        return _inside(number, moved, shapes[number])
    further = 2 * number - level
    if abs(number - level) > 1 or not 0 <= further < len(shapes):
        return []
    scale = [shapes[further][axis] / shapes[number][axis] for axis in (0, 1)]
    corner = [
        round((window[axis] + window[axis + 2] / 2) * scale[axis] - window[axis + 2] / 2) for axis in (0, 1)
    ]
    return _inside(further, (corner[0], corner[1], *window[2:]), shapes[further])


def _inside(number: int, window: Window, shape: tuple[int, int, int]) -> list[tuple[int, Window]]:
    """Cut a window to its level; nothing where none of it lies inside."""
    y, x, height, width = window
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + height, shape[0]), min(x + width, shape[1])
    return [(number, (top, left, bottom - top, right - left))] if top < bottom and left < right else []


def display_levels(
    levels: tuple[PixelLevel, ...], guard: Callable[[], None], token: str
) -> list[DisplayLevel]:
    """Wrap levels as arrays for a viewer.

    Parameters
    ----------
    levels : tuple of PixelLevel
        Largest first.
    guard : callable
        See `DisplayTiles`.
    token : str
        Of the slide.
    """
    tiles = DisplayTiles(levels, guard)
    return [DisplayLevel(tiles, number, token) for number in range(len(levels))]
