"""Tile sources: one level of a slide as a grid of tiles, each decoded by itself.

`FileTiles` decodes the file's own tiles straight from their compressed bytes (`joined_tiles` puts them
together where a tile of the file is no handy tile of the slide); `BackendTiles` cuts a level that only the
backend can decode into tiles of its own. Everything that reads pixels goes through one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import cv2
import numpy as np

from napari_her2.slide.decode import JpegDecoder
from napari_her2.slide.files import DamagedTile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_her2.slide.decode import Decoder
    from napari_her2.slide.files import ByteFile

WHITE = 255
_ROWS_AT_ONCE = 64


class Pixels(Protocol):
    """Pixels of which a part can be cut: an array, or what draws the part."""

    def __getitem__(self, place: tuple[slice, slice], /) -> NDArray[np.uint8]:
        """Cut a part, (height, width, 3) uint8."""


class Tiling(Protocol):
    """How a level is cut into tiles."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width) of the level, pixels."""

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of a tile, pixels."""


class TileMaker(Tiling, Protocol):
    """What makes the tiles of a level."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the level, pixels."""

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of a tile, at least the part inside the level; DamagedTile where there are none."""


class TileSource(TileMaker, Protocol):
    """One level as tiles."""

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level; DamagedTile where a part is damaged."""


def fill_window(
    out: NDArray[np.uint8],
    y: int,
    x: int,
    source: Tiling,
    tile_of: Callable[[int, int], Pixels],
) -> None:
    """Fill an image with the window of a level whose corner is (y, x); white outside the level.

    Parameters
    ----------
    out : (height, width, 3) uint8
        Written to.
    y, x : int
        Upper left corner of the window, pixels of the level.
    source : Tiling
        Its ``shape`` may have a third part, which counts channels.
    tile_of : callable
        Gives the pixels of tile (row, column).
    """
    height, width = out.shape[:2]
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + height, source.shape[0]), min(x + width, source.shape[1])
    if (y0, x0, y1, x1) != (y, x, y + height, x + width):
        out[...] = WHITE
        if y0 >= y1 or x0 >= x1:
            return
    tile_h, tile_w = source.tile_shape
    for row in range(y0 // tile_h, (y1 - 1) // tile_h + 1):
        top = row * tile_h
        a, b = max(y0, top), min(y1, top + tile_h)
        for col in range(x0 // tile_w, (x1 - 1) // tile_w + 1):
            left = col * tile_w
            c, d = max(x0, left), min(x1, left + tile_w)
            out[a - y : b - y, c - x : d - x] = tile_of(row, col)[a - top : b - top, c - left : d - left]


def unstored_tile(
    source: TileSource, row: int, col: int, finer: TileSource | None, channels: int = 3
) -> NDArray[np.uint8]:
    """Tile that the file does not hold: made from a finer level by averaging, white where there is none.

    Parameters
    ----------
    source : TileSource
        The level.
    row, col : int
        Place of the tile.
    finer : TileSource or None
    channels : int

    Returns
    -------
    (height, width, channels) uint8
    """
    tile_h, tile_w = source.tile_shape
    out = np.full((tile_h, tile_w, channels), WHITE, np.uint8)
    if finer is None:
        return out
    top, left = row * tile_h, col * tile_w
    width = min(tile_w, source.shape[1] - left)
    bottom = min(top + tile_h, source.shape[0])
    for y in range(top, bottom, _ROWS_AT_ONCE):  # far from the finer level a whole tile is a lot of it
        height = min(_ROWS_AT_ONCE, bottom - y)
        window = _finer_window(finer.shape, source.shape, (y, left, height, width))
        if isinstance(finer, FileTiles) and finer.blank(*window):
            continue
        small = cv2.resize(finer.read(*window), (width, height), interpolation=cv2.INTER_AREA)
        out[y - top : y - top + height, :width] = small
    return out


def _finer_window(
    finer: tuple[int, int], coarse: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Return the window of a finer level that a window (y, x, height, width) of a coarser one covers."""
    starts, sizes = [], []
    for axis in (0, 1):
        scale = finer[axis] / coarse[axis]
        start = min(round(window[axis] * scale), finer[axis] - 1)
        stop = min(max(round((window[axis] + window[axis + 2]) * scale), start + 1), finer[axis])
        starts.append(start)
        sizes.append(stop - start)
    return starts[0], starts[1], sizes[0], sizes[1]


@dataclass(frozen=True, slots=True, eq=False)
class FileTiles:
    """The tiles of one TIFF directory, decoded from their compressed bytes.

    Parameters
    ----------
    file : ByteFile
        The slide file.
    shape, tile_shape : tuple of int
        (height, width) of the level and of a tile, pixels.
    offsets, counts : (rows * columns,) int64
        Where the bytes of each tile lie, row by row.
    decoder : callable
        Compressed bytes of a tile, and its number, to pixels.
    finer : TileSource, optional
        The next finer level.
    channels : int
        Samples a pixel: 3, or 1 where a plane of a colour is stored alone.

    Notes
    -----
    A tile of 0 bytes was never stored (a sparse TIFF: background that the scanner skipped). It is made from
    the finer level, and white where there is none. A tile with bytes beyond the end of the file is damaged.
    """

    file: ByteFile
    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decoder: Decoder
    finer: TileSource | None = None
    channels: int = 3

    @property
    def columns(self) -> int:
        """Number of tiles in a row."""
        return -(-self.shape[1] // self.tile_shape[1])

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.shape[0] // self.tile_shape[0])

    @property
    def sparse(self) -> NDArray[np.bool_]:
        """(rows * columns,) tiles that were never stored."""
        return np.asarray(self.counts == 0)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(rows * columns,) tiles whose bytes are not in the file."""
        inside = (self.offsets > 0) & (self.counts > 0) & (self.offsets + self.counts <= self.file.size)
        return np.asarray(~inside & ~self.sparse)

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile, at least the part inside the level.

        Parameters
        ----------
        row, col : int
            Place of the tile in the level.

        Returns
        -------
        (height, width, 3) uint8

        Raises
        ------
        DamagedTile
            The bytes are missing or cannot be decoded.
        """
        number = row * self.columns + col
        data = self._stored(row, col)
        if data is None:
            return unstored_tile(self, row, col, self.finer, self.channels)
        try:
            pixels = self.decoder(data, number)
        except DamagedTile as error:
            raise DamagedTile(self._place(row, col, str(error))) from error
        if not self.fits(row, col, pixels.shape):
            raise DamagedTile(self._place(row, col, f"it decodes to the wrong shape {pixels.shape}"))
        return pixels

    def jpeg(self, row: int, col: int) -> bytes | None:
        """Give a tile as a JPEG of its own, none of which is missing.

        Parameters
        ----------
        row, col : int
            Place of the tile in the level.

        Returns
        -------
        bytes or None
            None where the tile was never stored, or the level is no JPEG in colour.

        Raises
        ------
        DamagedTile
            Wherever decoding it would.
        """
        data = self._stored(row, col) if self.in_jpeg else None
        try:
            return None if data is None else cast("JpegDecoder", self.decoder).picture(data)
        except DamagedTile as error:
            raise DamagedTile(self._place(row, col, str(error))) from error

    @property
    def in_jpeg(self) -> bool:
        """Whether tiles are stored as JPEG in colour."""
        return isinstance(self.decoder, JpegDecoder) and self.decoder.space == "RGB"

    def fits(self, row: int, col: int, shape: tuple[int, ...]) -> bool:
        """Whether decoded pixels of such a shape cover what of a tile lies inside the level."""
        need_h = min(self.tile_shape[0], self.shape[0] - row * self.tile_shape[0])
        need_w = min(self.tile_shape[1], self.shape[1] - col * self.tile_shape[1])
        return len(shape) == 3 and shape[0] >= need_h and shape[1] >= need_w and shape[2] == self.channels

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        out = np.empty((height, width, self.channels), np.uint8)
        fill_window(out, y, x, self, self.tile)
        return out

    def blank(self, y: int, x: int, height: int, width: int) -> bool:
        """Whether nothing of a window is stored, here and in all finer levels: it is white."""
        rows = slice(y // self.tile_shape[0], (y + height - 1) // self.tile_shape[0] + 1)
        cols = slice(x // self.tile_shape[1], (x + width - 1) // self.tile_shape[1] + 1)
        if self.counts.reshape(self.rows, self.columns)[rows, cols].any():
            return False
        if self.finer is None:
            return True
        window = _finer_window(self.finer.shape, self.shape, (y, x, height, width))
        return isinstance(self.finer, FileTiles) and self.finer.blank(*window)

    def _stored(self, row: int, col: int) -> bytes | None:
        """Return the bytes of a tile; None where it was never stored."""
        number = row * self.columns + col
        offset, count = int(self.offsets[number]), int(self.counts[number])
        if count == 0:
            return None
        if offset <= 0 or count < 0 or offset + count > self.file.size:
            raise DamagedTile(self._place(row, col, "its bytes are not in the file, which may be cut off"))
        data = self.file.read_at(offset, count)
        if len(data) < count:
            raise DamagedTile(self._place(row, col, "the file ends before its data do"))
        return data

    def _place(self, row: int, col: int, reason: str) -> str:
        y, x = row * self.tile_shape[0], col * self.tile_shape[1]
        return (
            f"{self.file.path.name} is damaged at y {y}, x {x} of its level of "
            f"{self.shape[1]} x {self.shape[0]} px: {reason}. Copy the slide again from its source."
        )


@dataclass(frozen=True, slots=True, eq=False)
class BackendTiles:
    """A level that only the backend can decode, cut into tiles of our own.

    Parameters
    ----------
    shape, tile_shape : tuple of int
        (height, width) of the level and of a tile, pixels.
    reader : callable
        (y, x, height, width) inside the level to (height, width, 3) uint8; DamagedTile on damage.
    """

    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    reader: Callable[[int, int, int, int], NDArray[np.uint8]]

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of one tile, cut at the edge of the level, (height, width, 3) uint8."""
        y, x = row * self.tile_shape[0], col * self.tile_shape[1]
        return self.reader(
            y, x, min(self.tile_shape[0], self.shape[0] - y), min(self.tile_shape[1], self.shape[1] - x)
        )

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        return self.reader(y, x, height, width)
