"""The tile stream: every compressed tile of the file is decoded once, patches are cut from it.

A patch begins at the pixel of the level read that is nearest to its exact place; how it is brought to
its µm/px stands in `napari_her2.slide.resample`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.slide.files import DamagedTile
from napari_her2.slide.resample import choose_level, padded_size, resampled, window_size
from napari_her2.slide.sources import fill_window
from napari_her2.slide.store import TileStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.sources import TileSource

_MAX_THREADS = 16
_WINDOWS_A_TASK = 8
_AHEAD_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class TileBatch:
    """Tiles of a grid, in raster order.

    Parameters
    ----------
    images : (B, tile_px, tile_px, 3) uint8
        RGB pixels.
    index : (B, 2) int64
        (row, column) of each tile in the grid.
    origins_px0 : (B, 2) int64
        (y, x) of each tile's corner, level-0 pixels.
    corrupt : (K, 2) int64
        (row, column) of the tiles left out since the previous batch, because the file is damaged there.
    grid : TileGrid
        The grid.

    Notes
    -----
    Only a stream whose every tile is damaged yields a batch without images (B = 0).
    """

    images: NDArray[np.uint8]
    index: NDArray[np.int64]
    origins_px0: NDArray[np.int64]
    corrupt: NDArray[np.int64]
    grid: TileGrid


@dataclass(frozen=True, slots=True, eq=False)
class RegionBatch:
    """Windows of one level, in the order asked for.

    Parameters
    ----------
    images : (B, height, width, 3) uint8
        RGB pixels.
    number : (B,) int64
        Which of the windows asked for each image is.
    corrupt : (K,) int64
        Numbers of the windows among these that are left out, because the file is damaged there.
    """

    images: NDArray[np.uint8]
    number: NDArray[np.int64]
    corrupt: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class WindowPlan:
    """Windows to cut from one level.

    Parameters
    ----------
    source : TileSource
        The level.
    origins : (N, 2) int64
        (y, x) corners, pixels of the level.
    size : tuple of int
        (height, width) of a window, pixels of the level.
    out_size : tuple of int
        (height, width) of what is delivered.
    scale : tuple of float
        (y, x) level pixels per delivered pixel; (1, 1) delivers the level's own pixels.
    """

    source: TileSource
    origins: NDArray[np.int64]
    size: tuple[int, int]
    out_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)


def usable_threads(wanted: int | None) -> int:
    """Decide on decoding threads: what was asked for, else the cores this process may use, 16 at most."""
    if wanted is not None:
        return max(1, wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)


def plan_tiles(
    grid: TileGrid,
    index: NDArray[np.integer] | NDArray[np.floating],
    sources: tuple[TileSource, ...],
    downsamples: tuple[tuple[float, float], ...],
) -> WindowPlan:
    """Say which windows of which level make the tiles of a grid.

    Parameters
    ----------
    grid : TileGrid
        The grid.
    index : (N, 2)
        (row, column) of the tiles wanted; (0.5, 0) begins in the middle of the first.
    sources : tuple of TileSource
        The levels of the file.
    downsamples : tuple of tuple of float
        Exact (y, x) downsample of each level.
    """
    level, scale = choose_level(grid.slide_mpp, downsamples, grid.mpp)
    tile = (grid.tile_px, grid.tile_px)
    size = window_size(tile, scale)
    origins = np.rint(index * np.asarray(grid.tile_px0) / downsamples[level]).astype(np.int64)
    # Rounding may push the last tile of a row over the edge by a pixel.
    origins = np.clip(origins, 0, np.maximum(np.asarray(sources[level].shape) - size, 0))
    return WindowPlan(sources[level], origins, size, tile, scale)


def stream_windows(
    plan: WindowPlan, *, batch_size: int | Sequence[int], threads: int, guard: Callable[[], None]
) -> Iterator[RegionBatch]:
    """Cut the windows of a plan, in order, decoding each tile of the level once.

    Parameters
    ----------
    plan : WindowPlan
        What to cut; raster order keeps the store of decoded tiles small.
    batch_size : int or sequence of int
        Windows a batch, or of each batch; damaged ones are missing from it.
    threads : int
        Decoding threads; 1 works in the thread of the caller.
    guard : callable
        Called before each batch; raises SlideError where reading is not allowed any more.

    Yields
    ------
    RegionBatch

    Notes
    -----
    Closing the generator cancels what is pending and returns once the windows in work are done.
    """
    cutter = _Cutter(plan)
    spans = _spans(len(plan.origins), batch_size)
    if threads == 1:
        for start, stop in spans:
            guard()
            batch = cutter.new_batch(start, stop)
            cutter.cut(batch, start, stop)
            yield batch.finished()
        return
    most = max((stop - start for start, stop in spans), default=1)
    a_task = max(1, min(_WINDOWS_A_TASK, -(-most // threads)))
    batch_bytes = most * plan.out_size[0] * plan.out_size[1] * 3
    ahead = max(2, min(-(-3 * threads * a_task // most) + 1, _AHEAD_BYTES // max(1, batch_bytes)))
    waiting: deque[tuple[_Batch, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="her2-tiles")
    try:
        for start, stop in spans:
            guard()
            batch = cutter.new_batch(start, stop)
            tasks = [
                pool.submit(cutter.cut, batch, a, min(a + a_task, stop)) for a in range(start, stop, a_task)
            ]
            waiting.append((batch, tasks))
            if len(waiting) >= ahead:
                yield _collect(*waiting.popleft())
        while waiting:
            guard()
            yield _collect(*waiting.popleft())
    finally:
        cutter.stopped = True
        pool.shutdown(wait=True, cancel_futures=True)


def _spans(total: int, batch_size: int | Sequence[int]) -> list[tuple[int, int]]:
    """First window of each batch, and the one behind its last."""
    if isinstance(batch_size, int):
        return [(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]
    ends = np.cumsum(batch_size).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


class _Batch:
    """A batch in work: tasks write their images straight into it."""

    def __init__(self, start: int, stop: int, out_size: tuple[int, int]) -> None:
        self.start = start
        self.images = np.empty((stop - start, *out_size, 3), np.uint8)
        self.good = np.zeros(stop - start, np.bool_)

    def finished(self) -> RegionBatch:
        numbers = np.arange(self.start, self.start + len(self.good))
        if self.good.all():
            return RegionBatch(self.images, numbers, numbers[:0])
        return RegionBatch(self.images[self.good], numbers[self.good], numbers[~self.good])


def _collect(batch: _Batch, tasks: list[Future[None]]) -> RegionBatch:
    for task in tasks:
        task.result()
    return batch.finished()


class _Cutter:
    """Cuts windows out of the decoded tiles of a level and brings them to size."""

    def __init__(self, plan: WindowPlan) -> None:
        self.plan = plan
        self.store = TileStore(plan.source, plan.origins, plan.size)
        self.stopped = False
        self._scratch = threading.local()
        self._scratch_size = padded_size(plan.size, plan.scale)

    def new_batch(self, start: int, stop: int) -> _Batch:
        return _Batch(start, stop, self.plan.out_size)

    def cut(self, batch: _Batch, start: int, stop: int) -> None:
        """Cut windows [start, stop) into the batch that holds them."""
        for number in range(start, stop):
            if self.stopped:
                return
            try:
                self._cut_one(batch.images[number - batch.start], number)
                batch.good[number - batch.start] = True
            except DamagedTile:
                pass  # left out: `good` stays False and the number is reported
            finally:
                self.store.release(number)

    def _cut_one(self, out: NDArray[np.uint8], number: int) -> None:
        plan = self.plan
        y, x = plan.origins[number].tolist()
        if plan.scale == (1.0, 1.0):
            fill_window(out, y, x, plan.source, self.store.tile)
            return
        window = getattr(self._scratch, "window", None)
        if window is None:
            window = self._scratch.window = np.full((*self._scratch_size, 3), 255, np.uint8)
        fill_window(window[: plan.size[0], : plan.size[1]], y, x, plan.source, self.store.tile)
        out[...] = resampled(window, plan.scale, plan.out_size)


def pack_tiles(
    regions: Iterable[RegionBatch], grid: TileGrid, index: NDArray[np.int64], batch_size: int
) -> Iterator[TileBatch]:
    """Full batches of tiles from regions of which some may be missing.

    Parameters
    ----------
    regions : iterable of RegionBatch
        The windows of the tiles.
    grid : TileGrid
        The grid.
    index : (N, 2) int64
        (row, column) of each window.
    batch_size : int
        Tiles a batch; the last may be shorter.

    Yields
    ------
    TileBatch

    Notes
    -----
    A batch is held back until the next is complete, so that damage behind the last good tile is
    still reported with a batch that has images.
    """
    images = np.empty((0, grid.tile_px, grid.tile_px, 3), np.uint8)
    numbers = np.empty(0, np.int64)
    lost = np.empty(0, np.int64)
    held: TileBatch | None = None

    def batch_of(count: int) -> TileBatch:
        places = index[numbers[:count]]
        return TileBatch(images[:count], places, grid.origins_px0(places), index[lost], grid)

    for region in regions:
        lost = np.concatenate([lost, region.corrupt])
        images = region.images if not len(images) else np.concatenate([images, region.images])
        numbers = np.concatenate([numbers, region.number])
        while len(numbers) >= batch_size:
            if held is not None:
                yield held
            held = batch_of(batch_size)
            images, numbers, lost = images[batch_size:], numbers[batch_size:], lost[:0]
    if len(numbers) or (held is None and len(lost)):
        if held is not None:
            yield held
        held = batch_of(len(numbers))
    elif held is not None and len(lost):
        held = replace(held, corrupt=np.concatenate([held.corrupt, index[lost]]))
    if held is not None:
        yield held
