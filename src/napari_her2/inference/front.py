"""In which order the tiles of a slide are computed: outwards from where somebody looks.

What an encoder makes of a tile may hang, in its last bits, on how many others it computes beside it. So the
batches are always the same ones, whoever looks where: runs of tiles along a curve that keeps neighbours
together. The front chooses among whole batches.
"""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from napari_her2.slide.tiles import TileBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tiles import RegionBatch

Point = tuple[float, float]
"""(y, x), level-0 pixels."""
Squares: TypeAlias = (
    "Callable[[NDArray[np.integer] | NDArray[np.floating], Sequence[int]], Iterator[RegionBatch]]"
)
"""Reads squares of a grid: their (row, column), and how many of them make each batch."""


class Front:
    """From where tiles of slides are computed; moved by whoever looks, read by the thread that computes."""

    def __init__(self) -> None:
        self._points: dict[str, Point] = {}
        self._lock = threading.Lock()

    def move(self, slide_id: str, point_px0: Point) -> None:
        """Go on from another place of a slide.

        Parameters
        ----------
        slide_id : str
        point_px0 : tuple of float
            (y, x), level-0 pixels; may lie beside the slide.
        """
        with self._lock:
            self._points[slide_id] = point_px0

    def point(self, slide_id: str) -> Point | None:
        """Return the place of a slide from which to go on; None where nobody looks at it."""
        with self._lock:
            return self._points.get(slide_id)


def fixed_batches(keep: NDArray[np.bool_], size: int) -> list[NDArray[np.int64]]:
    """Cut the tiles of a grid into batches of neighbours, always the same ones.

    Parameters
    ----------
    keep : (rows, columns) bool
        Tiles to compute.
    size : int
        Tiles a batch; the last may be shorter.

    Returns
    -------
    list of (n, 2) int64
        (row, column), row by row within a batch: runs along the curve of Morton, 1966 (Z-order).
    """
    index = np.argwhere(keep).astype(np.int64)
    along = index[np.argsort(_morton(index), kind="stable")]
    runs = [along[start : start + size] for start in range(0, len(along), size)]
    return [run[np.lexsort((run[:, 1], run[:, 0]))] for run in runs]


def nearest_first(
    batches: Sequence[NDArray[np.int64]], grid: TileGrid, point_px0: Point | None
) -> NDArray[np.int64]:
    """Order batches by how far their nearest tile lies from a place; as they are where there is none.

    Parameters
    ----------
    batches : sequence of (n, 2) int
        (row, column) of their tiles.
    grid : TileGrid
    point_px0 : tuple of float or None

    Returns
    -------
    (N,) int64
        Numbers of the batches, the nearest first; of equally near ones the order stays.
    """
    if point_px0 is None or not batches:
        return np.arange(len(batches))
    # The centre of a tile is what lies nearest: inside one the distance to it would be zero for all points.
    centres = np.concatenate(batches) + 0.5 + np.asarray(grid.shift)
    away = ((centres * np.asarray(grid.tile_px0) - np.asarray(point_px0)) ** 2).sum(axis=1)
    starts = np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    return np.argsort(np.minimum.reduceat(away, starts), kind="stable")


def streamed(
    slide: Slide,
    grid: TileGrid,
    batches: Sequence[NDArray[np.int64]],
    point: Callable[[], Point | None],
    squares: Squares | None = None,
) -> Generator[TileBatch, None, None]:
    """Read batches of tiles, the nearest to a point first; the point may move meanwhile.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
        Of its tiles.
    batches : sequence of (n, 2) int64
        (row, column) of their tiles.
    point : callable
        Gives the place to go on from, level-0 pixels, or None; asked before each batch.
    squares : callable, optional
        Reads them: (N, 2) places on the grid, and how many of them make each batch; by default
        `Slide.squares`.

    Yields
    ------
    TileBatch
        Damaged tiles are missing from it, and named by it; it may hold no images.
    """
    read = squares or partial(_squares, slide, grid)
    left = list(batches)
    while left:
        at = point()
        left = [left[number] for number in nearest_first(left, grid, at).tolist()]
        index = np.concatenate(left)
        places = index + np.asarray(grid.shift) if any(grid.shift) else index
        regions = read(places, [len(batch) for batch in left])
        with closing(cast("Generator[RegionBatch]", regions)):
            for region in regions:
                found = index[region.number]
                yield TileBatch(region.images, found, grid.origins_px0(found), index[region.corrupt], grid)
                del left[0]
                now = point()
                if now != at and left and nearest_first(left, grid, now)[0] != 0:
                    break  # what was read ahead is read again in its turn
                at = now


def _squares(
    slide: Slide, grid: TileGrid, places: NDArray[np.integer] | NDArray[np.floating], sizes: Sequence[int]
) -> Iterator[RegionBatch]:
    return slide.squares(places, tile_px=grid.tile_px, mpp=grid.mpp, batch_size=sizes)


def _morton(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places along the curve: the bits of row and column by turns, (N,) int64."""
    code = np.zeros(len(index), np.int64)
    for bit in range(int(index.max(initial=0)).bit_length()):
        code |= ((index[:, 1] >> bit) & 1) << (2 * bit)
        code |= ((index[:, 0] >> bit) & 1) << (2 * bit + 1)
    return code
