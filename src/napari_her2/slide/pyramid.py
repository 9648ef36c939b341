"""The image pyramid for display: lazy arrays over our own tile decoding.

The viewer never fails on a damaged file: what cannot be decoded is drawn as magenta hatch, which no
stain produces, and is remembered. Where a file stops early, coarser levels are appended, so that the
overview is always small.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.indexing import window_of
from napari_her2.slide.sources import BackendTiles, fill_window
from napari_her2.slide.store import RecentBlocks, RecentTiles

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    from numpy.typing import NDArray

    from napari_her2.slide.sources import Pixels, TileSource

CHUNK_PX = 1024
OVERVIEW_PX = 1000
_MOST_APART = 3.0
_BETWEEN_PX = 256
_CACHED_LEVEL_BYTES = 1 << 27
_SHARED_TILE_BYTES = 3 << 24
_SHOWN_BYTES = 1 << 27  # of blocks kept for a slide: several screens full
_DAMAGE = (255, 0, 255)
_DAMAGE_STRIPE = (90, 0, 90)
_STRIPE_PX = 16


@dataclass(frozen=True, slots=True)
class CorruptRegion:
    """A part of a slide that cannot be decoded.

    Parameters
    ----------
    level : int
        Level of the file.
    y, x, height, width : int
        Place, pixels of that level.
    reason : str
        What is wrong with it.
    """

    level: int
    y: int
    x: int
    height: int
    width: int
    reason: str


class PixelLevel(Protocol):
    """A level that can be read at any window inside it, or tile by tile."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of a tile, pixels."""

    def tile(self, row: int, col: int) -> Pixels:
        """Pixels of a tile, at least the part inside the level; decoded at every call."""

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels, (height, width, 3) uint8."""


def damage_pattern(height: int, width: int, y: int = 0, x: int = 0) -> NDArray[np.uint8]:
    """Magenta diagonal hatch: the picture of pixels that are not there.

    Parameters
    ----------
    height, width : int
        Pixels.
    y, x : int
        Where in a larger hatch it begins.

    Returns
    -------
    (height, width, 3) uint8
    """
    diagonal = np.arange(y + x, y + x + height + width) // _STRIPE_PX % 4 == 0
    line = np.where(diagonal[:, None], np.array(_DAMAGE_STRIPE, np.uint8), np.array(_DAMAGE, np.uint8))
    # Every row is the line, one pixel further on.
    rows = np.lib.stride_tricks.as_strided(line, (height, width, 3), (line.strides[0], *line.strides))
    return np.ascontiguousarray(rows)


class _Hatch:
    """The picture of a damaged tile, drawn only where it is seen: a tile may be as wide as the slide."""

    def __getitem__(self, place: tuple[slice, slice]) -> NDArray[np.uint8]:
        rows, columns = place
        return damage_pattern(rows.stop - rows.start, columns.stop - columns.start, rows.start, columns.start)


class FileLevel:
    """A level of the file, with damage drawn instead of raised.

    Parameters
    ----------
    source : TileSource
        The tiles of the level.
    level : int
        Its number in the file.
    note : callable
        Told of each CorruptRegion that is met.
    """

    def __init__(self, source: TileSource, level: int, note: Callable[[CorruptRegion], None]) -> None:
        self._source = source
        self._level = level
        self._note = note
        self._shared = RecentTiles(source, _SHARED_TILE_BYTES)
        self.shape = (*source.shape, 3)
        self.tile_shape = source.tile_shape

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        if isinstance(self._source, BackendTiles):  # it reads windows of any size as fast
            try:
                return self._source.read(y, x, height, width)
            except DamagedTile:
                pass  # tile by tile, to draw only what is damaged
        tile_h, tile_w = self._source.tile_shape

        def tile_of(row: int, col: int) -> Pixels:
            top, left = row * tile_h, col * tile_w
            # A tile across the border of this window is needed by the neighbour, too.
            whole = y <= top and x <= left and top + tile_h <= y + height and left + tile_w <= x + width
            return self._drawn(self._source if whole else self._shared, row, col)

        out = np.empty((height, width, 3), np.uint8)
        fill_window(out, y, x, self._source, tile_of)
        return out

    def tile(self, row: int, col: int) -> Pixels:
        """Pixels of one tile of the file; a hatch where it is damaged."""
        return self._drawn(self._source, row, col)

    def _drawn(self, tiles: TileSource | RecentTiles, row: int, col: int) -> Pixels:
        try:
            return tiles.tile(row, col)
        except DamagedTile as error:
            tile_h, tile_w = self.tile_shape
            place = row * tile_h, col * tile_w, tile_h, tile_w
            self._note(CorruptRegion(self._level, *place, str(error)))
            return _Hatch()


class HalvedLevel:
    """A level at half the size of a finer one, averaged over areas of 2 x 2 pixels when first needed.

    Parameters
    ----------
    finer : PixelLevel
        The level to average. An odd last row or column is left out, as scanners do.
    block_px : int, optional
        Side of what is averaged at once, pixels of this level.
    keep : bool, optional
        Whether to keep what was averaged.
    """

    def __init__(self, finer: PixelLevel, block_px: int = CHUNK_PX, *, keep: bool = True) -> None:
        self._finer = finer
        self._side = block_px
        self.shape = (max(1, finer.shape[0] // 2), max(1, finer.shape[1] // 2), 3)
        self.tile_shape = (block_px, block_px)
        # A huge level is not kept: its blocks are asked for once each, to build the next one.
        self._keep = keep and self.shape[0] * self.shape[1] * 3 <= _CACHED_LEVEL_BYTES
        self._blocks: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        side = self._side
        out = np.empty((height, width, 3), np.uint8)
        for top in range(y // side * side, y + height, side):
            for left in range(x // side * side, x + width, side):
                block = self._block(top, left)
                a, b = max(y, top), min(y + height, top + block.shape[0])
                c, d = max(x, left), min(x + width, left + block.shape[1])
                out[a - y : b - y, c - x : d - x] = block[a - top : b - top, c - left : d - left]
        return out

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one block, cut at the edge of the level."""
        return self._block(row * self._side, col * self._side)

    def _block(self, top: int, left: int) -> NDArray[np.uint8]:
        with self._lock:
            found = self._blocks.get((top, left))
        if found is not None:
            return found
        height = min(self._side, self.shape[0] - top)
        width = min(self._side, self.shape[1] - left)
        finer_h, finer_w = min(2 * height, self._finer.shape[0]), min(2 * width, self._finer.shape[1])
        pixels = self._finer.window(2 * top, 2 * left, finer_h, finer_w)
        block: NDArray[np.uint8] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        if self._keep:
            with self._lock:
                block = self._blocks.setdefault((top, left), block)
        return block


def build_levels(
    sources: tuple[TileSource, ...], note: Callable[[CorruptRegion], None]
) -> tuple[PixelLevel, ...]:
    """Levels for display, the last at most `OVERVIEW_PX` on its longer side.

    Parameters
    ----------
    sources : tuple of TileSource
        The levels of the file, level 0 first.
    note : callable
        Told of each CorruptRegion that is met.
    """
    levels: list[PixelLevel] = [FileLevel(source, number, note) for number, source in enumerate(sources)]
    while max(levels[-1].shape[:2]) > OVERVIEW_PX:
        levels.append(HalvedLevel(levels[-1]))
    return tuple(levels)


def with_levels_between(levels: tuple[PixelLevel, ...]) -> tuple[PixelLevel, ...]:
    """Put levels of half the size where the next one of a file lies much further than that.

    Between two levels four apart a viewer has to take up to sixteen pixels for each that it draws.

    Parameters
    ----------
    levels : tuple of PixelLevel
        Largest first.

    Returns
    -------
    tuple of PixelLevel
        The same levels, and the averaged ones between them, of which nothing is kept.
    """
    found = [levels[0]]
    for level in levels[1:]:
        while found[-1].shape[0] > _MOST_APART * level.shape[0]:
            found.append(HalvedLevel(found[-1], _BETWEEN_PX, keep=False))
        found.append(level)
    return tuple(found)


class LevelArray:
    """One display level as an array that decodes only what is indexed.

    Parameters
    ----------
    level : PixelLevel
        Where the pixels come from.
    guard : callable
        Called before every read; raises SlideError where reading is not allowed.
    recent : RecentBlocks, optional
        Keeps the blocks that were read last; those of one slide share it.
    number : int
        Of the level among those that share it.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(
        self,
        level: PixelLevel,
        guard: Callable[[], None],
        recent: RecentBlocks | None = None,
        number: int = 0,
    ) -> None:
        self._level = level
        self._guard = guard
        self._recent, self._number = recent, number
        self.shape = level.shape
        self.chunks = (CHUNK_PX, CHUNK_PX, 3)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - any basic index
        self._guard()
        (top, bottom), (left, right), picked = window_of(key, self.shape)
        if top == bottom or left == right:
            pixels = np.empty((bottom - top, right - left, 3), np.uint8)
        else:
            pixels = self._window(top, left, bottom - top, right - left)
        out: NDArray[np.uint8] = pixels[picked]
        return out

    def _window(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a window; a block of the viewer's is kept, since the next view shows most of them again."""
        if self._recent is None or y % CHUNK_PX or x % CHUNK_PX or max(height, width) > CHUNK_PX:
            return self._level.window(y, x, height, width)
        key = (self._number, y, x, height, width)
        pixels = self._recent.get(key)
        if pixels is None:
            pixels = self._level.window(y, x, height, width)
            self._recent.put(key, pixels)
        return pixels


def dask_pyramid(levels: tuple[PixelLevel, ...], guard: Callable[[], None], name: str) -> list[da.Array]:
    """Wrap display levels as dask arrays in chunks of 1024 px.

    Parameters
    ----------
    levels : tuple of PixelLevel
        Largest first.
    guard : callable
        See `LevelArray`.
    name : str
        Stable name of the slide: the same levels have the same names whenever it is opened.
    """
    import dask.array

    recent = RecentBlocks(_SHOWN_BYTES)

    return [
        dask.array.from_array(  # type: ignore[no-untyped-call]  # dask ships few types
            LevelArray(level, guard, recent, number),
            chunks=(CHUNK_PX, CHUNK_PX, 3),
            name=f"{name}-{number}-{level.shape[0]}x{level.shape[1]}",
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0, 0), np.uint8),
        )
        for number, level in enumerate(levels)
    ]


def small_image(levels: tuple[PixelLevel, ...], max_px: int) -> NDArray[np.uint8]:
    """Whole slide, its longer side `max_px` at most, from the coarsest sufficient level: (h, w, 3) uint8."""
    shape = levels[0].shape[:2]
    shrink = min(1.0, max_px / max(shape))
    height, width = (max(1, round(side * shrink)) for side in shape)
    fitting = [level for level in levels if level.shape[0] >= height and level.shape[1] >= width]
    level = min(fitting, key=lambda level: level.shape[0])
    pixels = level.window(0, 0, level.shape[0], level.shape[1])
    if pixels.shape[:2] == (height, width):
        return pixels
    small: NDArray[np.uint8] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return small
