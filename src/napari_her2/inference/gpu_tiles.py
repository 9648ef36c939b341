"""Tiles decoded, cut and resampled in the memory of a GPU, for an encoder that computes there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_her2.errors import JobFailed
from napari_her2.inference.gpu_jpeg import NVJPEG, VARIABLE, decode_pictures, gpu_decodes
from napari_her2.models.shortage import is_out_of_memory
from napari_her2.slide.files import DamagedTile
from napari_her2.slide.resample import resampling_weights
from napari_her2.slide.sources import FileTiles, fill_window
from napari_her2.slide.store import TileStore
from napari_her2.slide.tiles import RegionBatch, usable_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.inference.front import Squares
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tiles import WindowPlan

Place = tuple[int, int]
MOST_DIFFERENT = 1.0
"""Levels of 255, mean over a tile, by which nvJPEG may differ from the processor."""
_TRIAL_TILES = 4
_RESAMPLED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class SquareReader:
    """Who reads the squares that an encoder takes.

    Parameters
    ----------
    squares : callable or None
        See `napari_her2.inference.front.streamed`.
    name : str
        What tells their pixels from those that the processor decodes; empty where there is no difference.
    note : str
        What a person should know.
    """

    squares: Squares | None = None
    name: str = ""
    note: str = ""


def square_reader(
    slide: Slide, grid: TileGrid, keep: NDArray[np.bool_], device: torch.device
) -> SquareReader:
    """Decide who decodes the tiles of a slide.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
    keep : (rows, columns) bool
        Tiles that are asked for.
    device : torch.device
        The encoder's.

    Returns
    -------
    SquareReader

    Raises
    ------
    JobFailed
        If the user asked for what is not installed.
    """
    if not gpu_decodes(device) or not keep.any():
        return SquareReader()
    plan = partial(slide.plan, tile_px=grid.tile_px, mpp=grid.mpp)
    if not agrees(plan(np.argwhere(keep)), device):
        return SquareReader(note="the processor decodes this slide: no JPEG that nvJPEG decodes alike")

    def squares(
        places: NDArray[np.integer] | NDArray[np.floating], sizes: Sequence[int]
    ) -> Iterator[RegionBatch]:
        return gpu_windows(plan(places), device, batch_size=sizes)

    return SquareReader(squares, NVJPEG, NVJPEG)


class GpuTiles:
    """The tiles of a level in the memory of a device, as a source for `TileStore`.

    Parameters
    ----------
    source : FileTiles
        A level in JPEG.
    device : torch.device
    """

    def __init__(self, source: FileTiles, device: torch.device) -> None:
        self.shape = source.shape
        self.tile_shape = source.tile_shape
        self._source = source
        self._device = device
        self._ready: dict[Place, torch.Tensor | DamagedTile] = {}

    def decode(self, places: Sequence[Place], pool: ThreadPoolExecutor) -> None:
        """Decode tiles together, so that `tile` has them."""
        self._ready.clear()  # what is left lay in windows that damage elsewhere had ended
        pictures = dict(zip(places, pool.map(self._picture, places), strict=True))
        jpegs = {place: found for place, found in pictures.items() if isinstance(found, bytes)}
        decoded = dict(zip(jpegs, decode_pictures(list(jpegs.values()), self._device), strict=True))
        for place, found in pictures.items():
            tile = decoded.get(place)
            if isinstance(found, DamagedTile):
                self._ready[place] = found
            elif tile is not None and self._source.fits(*place, tuple(tile.shape)):
                self._ready[place] = tile
            else:  # never stored, or refused by nvJPEG
                self._ready[place] = self._by_processor(place)

    def tile(self, row: int, col: int) -> Any:  # noqa: ANN401 - a tensor where others give an array
        """Pixels of a tile, (height, width, 3) uint8 on the device; DamagedTile if it is damaged."""
        found = self._ready.pop((row, col))
        if isinstance(found, DamagedTile):
            raise found
        return found

    def differs(self, places: Sequence[Place]) -> float:
        """Largest difference from what the processor decodes, levels of 255, mean over a tile.

        Parameters
        ----------
        places : sequence of (row, column)

        Returns
        -------
        float
            0 where none of the tiles can be decoded.
        """
        worst = 0.0
        with ThreadPoolExecutor(1) as pool:
            self.decode(places, pool)
        for place in places:
            try:
                ours, theirs = self._source.tile(*place), self.tile(*place).cpu().numpy()
            except DamagedTile:
                continue
            height, width = min(len(ours), len(theirs)), min(ours.shape[1], theirs.shape[1])
            gap = ours[:height, :width].astype(np.int16) - theirs[:height, :width]
            worst = max(worst, float(np.abs(gap).mean()))
        return worst

    def _picture(self, place: Place) -> bytes | DamagedTile | None:
        try:
            return self._source.jpeg(*place)
        except DamagedTile as error:
            return error

    def _by_processor(self, place: Place) -> torch.Tensor | DamagedTile:
        try:
            return torch.from_numpy(self._source.tile(*place)).to(self._device)
        except DamagedTile as error:
            return error


def agrees(plan: WindowPlan, device: torch.device) -> bool:
    """Whether the tiles of a plan can be decoded on a device, with the pixels that the processor gives.

    Parameters
    ----------
    plan : WindowPlan
    device : torch.device

    Returns
    -------
    bool
        False also where the level is no JPEG whose tiles are decoded one by one.
    """
    source = plan.source
    if not isinstance(source, FileTiles) or not source.in_jpeg or not len(plan.origins):
        return False
    some = np.linspace(0, len(plan.origins) - 1, _TRIAL_TILES).round().astype(int)
    middles = plan.origins[some] + np.asarray(plan.size) // 2
    last = -(-np.asarray(source.shape) // source.tile_shape) - 1
    places = {(row, col) for row, col in (middles // source.tile_shape).clip(0, last).tolist()}
    return GpuTiles(source, device).differs(sorted(places)) <= MOST_DIFFERENT


def gpu_windows(
    plan: WindowPlan, device: torch.device, *, batch_size: Sequence[int], threads: int | None = None
) -> Iterator[RegionBatch]:
    """Cut the windows of a plan in the memory of a device, decoding each tile of the level once.

    Parameters
    ----------
    plan : WindowPlan
        Of a level that `agrees`.
    device : torch.device
    batch_size : sequence of int
        Windows of each batch; damaged ones are missing from it.
    threads : int, optional
        In which the processor reads the file; by default the cores that may be used.

    Yields
    ------
    RegionBatch
        Its images are a (B, height, width, 3) uint8 tensor on the device.
    """
    source = GpuTiles(cast("FileTiles", plan.source), device)
    store = TileStore(source, plan.origins, plan.size)
    stop = 0
    with ThreadPoolExecutor(usable_threads(threads), thread_name_prefix="her2-jpeg") as pool:
        for count in batch_size:
            start, stop = stop, stop + count
            try:
                source.decode(store.lacking(start, stop), pool)
                windows, good = _cut(plan, store, range(start, stop), device)
                images = _resampled(windows, plan)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise JobFailed(
                    f"The memory of {device} is too short to decode tiles there: set {VARIABLE} to cpu."
                ) from error
            numbers = np.arange(start, stop)
            yield RegionBatch(cast("Any", images), numbers[good], numbers[~good])


def _cut(
    plan: WindowPlan, store: TileStore, numbers: range, device: torch.device
) -> tuple[torch.Tensor, NDArray[np.bool_]]:
    """Cut windows out of decoded tiles: the good ones, and which of them are good."""
    windows = torch.empty((len(numbers), *plan.size, 3), dtype=torch.uint8, device=device)
    good = np.zeros(len(numbers), np.bool_)
    for at, number in enumerate(numbers):
        y, x = plan.origins[number].tolist()
        try:
            fill_window(cast("Any", windows[at]), y, x, plan.source, store.tile)
            good[at] = True
        except DamagedTile:
            pass  # left out: `good` stays False and the number is reported
        finally:
            store.release(number)
    return windows if good.all() else windows[torch.from_numpy(good).to(device)], good


def _resampled(windows: torch.Tensor, plan: WindowPlan) -> torch.Tensor:
    """Bring windows to size, (B, height, width, 3) uint8; see `napari_her2.slide.resample`."""
    if plan.scale == (1.0, 1.0):
        return windows
    rows, columns = (
        torch.from_numpy(resampling_weights(length, scale, size)).to(windows.device)
        for length, scale, size in zip(plan.size, plan.scale, plan.out_size, strict=True)
    )
    parts = [
        torch.einsum("yh,bhwc,xw->byxc", rows, part.float(), columns).round_().clamp_(0, 255).byte()
        for part in torch.split(windows, _RESAMPLED_AT_ONCE)
    ]
    return torch.cat(parts) if parts else windows.new_empty((0, *plan.out_size, 3))
