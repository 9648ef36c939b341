"""Tiles of a slide to features: read, encoded, kept on disk, with progress at every batch."""

from __future__ import annotations

from collections import deque
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_her2.errors import JobFailed, NotComputed, SlideChanged
from napari_her2.inference.cache import CacheKey, FeatureStore, shrink_cache, stored_tiles
from napari_her2.inference.embeddings import Embeddings
from napari_her2.inference.encode import EncoderRunner
from napari_her2.inference.front import Front, fixed_batches, streamed
from napari_her2.inference.gpu_tiles import square_reader
from napari_her2.inference.prefetch import prefetched
from napari_her2.inference.unchanged import identified, unchanged
from napari_her2.steps import Progress
from napari_her2.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from numpy.typing import NDArray

    from napari_her2.inference.device import Device
    from napari_her2.inference.encode import PendingFeatures
    from napari_her2.inference.gpu_tiles import SquareReader
    from napari_her2.inference.tile_encoder import TileEncoder
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tiles import TileBatch

STAGE = "Embedding tiles"
Arrived: TypeAlias = "Callable[[NDArray[np.integer], NDArray[np.float16]], None]"
_GPU_BATCH_PIXELS = 256 * 256 * 256
# On a CPU reading and computing share the cores, and every change from one to the other costs: large
# batches for small tiles. But a batch is also what a cancel waits for, so it is bounded in pixels.
_CPU_BATCH_PIXELS = 256 * 96 * 96


class _Bag:
    """The features collected so far, in the order of the grid, wherever they came from."""

    def __init__(self, keep: NDArray[np.bool_], dim: int) -> None:
        self.index = np.argwhere(keep)
        self.features = np.zeros((len(self.index), dim), np.float16)
        self.present = np.zeros(len(self.index), np.bool_)
        self.corrupt: list[NDArray[np.int64]] = []
        self._shape = keep.shape
        self._place = np.full(keep.shape, -1, np.int64)
        self._place[keep] = np.arange(len(self.index))

    def fill(self, index: NDArray[np.integer], features: NDArray[np.float16]) -> None:
        """Put in what belongs to the bag; a store may also hold tiles that are not asked for."""
        inside = np.asarray(((index >= 0) & (index < self._shape)).all(axis=1))
        places = np.where(inside, self._place[tuple(np.where(inside[:, None], index, 0).T)], -1)
        wanted = places >= 0
        self.features[places[wanted]] = features[wanted]
        self.present[places[wanted]] = True

    def missing(self) -> NDArray[np.bool_]:
        """(rows, columns) bool of the tiles still to be embedded."""
        keep = np.zeros(self._shape, np.bool_)
        rows, cols = self.index[~self.present].T
        keep[rows, cols] = True
        return keep

    @property
    def done(self) -> int:
        return int(self.present.sum()) + sum(len(part) for part in self.corrupt)

    def all_corrupt(self) -> NDArray[np.int64]:
        found = np.concatenate([np.empty((0, 2), np.int64), *self.corrupt])
        return found[np.lexsort((found[:, 1], found[:, 0]))]  # whatever the order they were met in


def default_batch(device: Device, tile_px: int) -> int:
    """Tiles read and computed together where the user does not say.

    Parameters
    ----------
    device : Device
    tile_px : int
        Side of a tile, pixels.

    Returns
    -------
    int
        256, or fewer of tiles above 256 px on a GPU and above 96 px on a CPU.
    """
    pixels = _CPU_BATCH_PIXELS if device.torch_device.type == "cpu" else _GPU_BATCH_PIXELS
    return max(8, min(256, pixels // tile_px**2))


def embed_steps(
    slide: Slide,
    encoder: TileEncoder,
    grid: TileGrid,
    keep: NDArray[np.bool_],
    device: Device,
    *,
    cache: bool = True,
    batch_size: int | None = None,
    stage: str = STAGE,
    stored_only: bool = False,
    front: Front | None = None,
    arrived: Arrived | None = None,
) -> Generator[Progress, None, Embeddings]:
    """Embed tiles of a slide, those that the cache lacks.

    Parameters
    ----------
    slide : Slide
    encoder : TileEncoder
    grid : TileGrid
    keep : (rows, columns) bool
        Tiles to embed.
    device : Device
    cache : bool
        Whether features are looked up and kept on disk.
    batch_size : int, optional
        Tiles read and computed together; see `default_batch`.
    stage : str
        What the progress calls it.
    stored_only : bool
        Whether nothing is embedded.
    front : Front, optional
        From where the tiles are embedded; it makes no difference to what is found.
    arrived : callable, optional
        Told of tiles as soon as they are embedded: (B, 2) grid (row, column) and (B, D) float16; where some
        are missing in the cache, first of those that it holds, which may be none.

    Yields
    ------
    Progress
        After every batch. Closing the generator stops reading and leaves the cache whole.

    Returns
    -------
    Embeddings

    Raises
    ------
    JobFailed
        If memory does not suffice for a single tile, or the encoder gives no numbers; `NotComputed` if tiles
        are missing that must not be embedded.
    SlideChanged
        If the file was changed meanwhile: what was embedded is not kept.
    SlideError
        If the slide cannot be read.
    """
    yield from identified(slide)
    fingerprint = encoder.fingerprint() if cache else ""
    runner = EncoderRunner(encoder, device)
    reader = square_reader(slide, grid, keep, device.torch_device)
    bag = _Bag(keep, encoder.spec.dim)
    total = len(bag.index)
    key = _cache_key(slide, grid, fingerprint, runner, reader.name)
    with _open_store(key, encoder.spec.dim, used=cache) as store, _one_slide(slide, store):
        if store is not None:
            store.load(bag.fill)
        cached = int(bag.present.sum())
        note = f"{cached:,} of {total:,} tiles from the cache" if cached else _note(runner, reader)
        tell = arrived or _nobody
        if cached < total and not stored_only:
            tell(bag.index[bag.present], bag.features[bag.present])
        yield Progress(stage, cached, total, "tiles", note)
        if cached < total:
            if stored_only:
                raise NotComputed(
                    f"{total - cached:,} of {total:,} tiles are not kept on disk: press Score to compute "
                    f"them."
                )
            size = batch_size or default_batch(device, grid.tile_px)
            # Cut from all that is asked for: so the rest is computed as it would be, whatever was before.
            missing = bag.missing()
            left = [run[missing[tuple(run.T)]] for run in fixed_batches(keep, size)]
            point = partial((front or Front()).point, slide.slide_id)
            runs = [run for run in left if len(run)]
            tiles = streamed(slide, grid, runs, point, reader.squares)
            with closing(_encoded(tiles, runner)) as batches:
                for batch, features in batches:
                    if store is not None:
                        slide.identity.check_unchanged()
                        store.append(batch.index, features)
                    bag.fill(batch.index, features)
                    bag.corrupt.append(batch.corrupt)
                    tell(batch.index, features)
                    yield Progress(stage, bag.done, total, "tiles", _note(runner, reader))
        problem = store.problem if store is not None else ""
    return _collect(bag, cached, runner, reader, problem)


def count_embedded(
    slide: Slide, runner: EncoderRunner, grid: TileGrid, keep: NDArray[np.bool_], *, fingerprint: str
) -> int:
    """Count the tiles of a slide that the cache holds already. Nothing is embedded or written.

    Parameters
    ----------
    slide : Slide
    runner : EncoderRunner
        As `embed_steps` would make it: features depend on its precision.
    grid : TileGrid
    keep : (rows, columns) bool
        Tiles that are asked for.
    fingerprint : str
        Of the encoder; finding it takes as long as reading all its weights, so it is asked for once.

    Returns
    -------
    int
    """
    reader = square_reader(slide, grid, keep, runner.device.torch_device)
    index = stored_tiles(_cache_key(slide, grid, fingerprint, runner, reader.name), runner.encoder.spec.dim)
    held = np.zeros(keep.shape, np.bool_)
    inside = np.asarray(((index >= 0) & (index < keep.shape)).all(axis=1))
    held[tuple(index[inside].T)] = True
    return int((held & keep).sum())


def _note(runner: EncoderRunner, reader: SquareReader) -> str:
    return "; ".join(part for part in (runner.note, reader.note) if part)


def _collect(bag: _Bag, cached: int, runner: EncoderRunner, reader: SquareReader, problem: str) -> Embeddings:
    if bag.done != len(bag.index):
        raise JobFailed(
            f"Only {bag.done:,} of {len(bag.index):,} tiles were read: the slide changed while it was "
            f"read, or reading stopped early. Try again."
        )
    # Only a damaged file pays for a copy.
    kept = slice(None) if bag.present.all() else bag.present
    found = bag.features[kept], bag.index[kept], bag.all_corrupt()
    how = ", ".join(part for part in (runner.graph, reader.name) if part)
    return Embeddings(*found, cached, _note(runner, reader), problem, runner.precision, how)


def _nobody(index: NDArray[np.integer], features: NDArray[np.float16]) -> None:
    """Tell nobody of tiles."""


def _encoded(
    tiles: Iterator[TileBatch], runner: EncoderRunner
) -> Generator[tuple[TileBatch, NDArray[np.float16]], None, None]:
    """Encode batches in their order.

    On a GPU the next batch is read and started while one is computed. On a CPU reading has its own
    threads already; a thread more would only take the cores from the encoder.
    """
    if runner.device.torch_device.type == "cpu":
        try:
            for batch in tiles:
                yield batch, runner.run(batch.images)
        finally:
            _close(tiles)
        return
    with prefetched(tiles) as ahead:
        started: deque[tuple[TileBatch, PendingFeatures]] = deque()
        for batch in ahead:
            started.append((batch, runner.submit(batch.images)))
            if len(started) > 1:
                first, pending = started.popleft()
                yield first, pending.result()
        for batch, pending in started:
            yield batch, pending.result()


def _close(tiles: Iterator[TileBatch]) -> None:
    close = getattr(tiles, "close", None)
    if close is not None:
        close()


@contextmanager
def _one_slide(slide: Slide, store: FeatureStore | None) -> Iterator[None]:
    """Keep nothing of a slide that turns out to have changed since it was identified."""
    try:
        with unchanged(slide):
            yield
    except SlideChanged:
        if store is not None:
            store.take_back()
        raise


@contextmanager
def _open_store(key: CacheKey, dim: int, *, used: bool) -> Iterator[FeatureStore | None]:
    if not used:
        yield None
        return
    with FeatureStore(key, dim) as store:
        yield store
    shrink_cache()


def _cache_key(
    slide: Slide, grid: TileGrid, encoder: str, runner: EncoderRunner, decoded: str = ""
) -> CacheKey:
    return CacheKey(
        slide=slide.fingerprint,
        shape_px0=grid.slide_shape_px0,
        slide_mpp=grid.slide_mpp,
        tile_px=grid.tile_px,
        mpp=grid.mpp,
        encoder=encoder,
        precision=f"{runner.device.torch_device.type} {runner.precision} {runner.graph}".rstrip(),
        reader=", ".join(part for part in (slide.backend, f"napari-her2 {__version__}", decoded) if part),
        shift=grid.shift,
    )
