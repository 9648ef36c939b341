"""Tiles, squares and windows of an open slide, streamed in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import SlideError
from napari_her2.slide.grid import TileGrid
from napari_her2.slide.tiles import (
    RegionBatch,
    TileBatch,
    WindowPlan,
    pack_tiles,
    plan_tiles,
    stream_windows,
    usable_threads,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_her2.slide.backends import Backend
    from napari_her2.slide.sources import TileSource
    from napari_her2.slide.tissue import Preset, TissueMask


class TileReading(ABC):
    """What `Slide` reads batch by batch."""

    shape: tuple[int, int]
    level_downsamples: tuple[tuple[float, float], ...]
    _backend: Backend

    @property
    @abstractmethod
    def known_mpp(self) -> tuple[float, float]:
        """(y, x) µm/px; raises SlideError where they are not known."""

    @abstractmethod
    def tissue(self, preset: Preset = "auto") -> TissueMask:
        """Return the tissue mask."""

    @abstractmethod
    def _source(self, level: int) -> TileSource:
        """Return the tiles of a level; raises SlideError where it may not be read."""

    @abstractmethod
    def _guard(self) -> None:
        """Raise SlideError where the slide may not be read any more."""

    def tile_grid(self, tile_px: int, mpp: float, shift: tuple[float, float] = (0.0, 0.0)) -> TileGrid:
        """Grid of tiles over this slide.

        Parameters
        ----------
        tile_px : int
            Side of a tile, pixels.
        mpp : float
            µm per pixel of a tile.
        shift : tuple of float
            (y, x) where its first tile begins, in sides of a tile, 0 to below 1.
        """
        return TileGrid(self.shape, self.known_mpp, tile_px, mpp, shift)

    def tiles(
        self,
        *,
        tile_px: int,
        mpp: float,
        batch_size: int = 64,
        tissue_only: bool = True,
        keep: NDArray[np.bool_] | None = None,
        min_tissue: float = 0.5,
        threads: int | None = None,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Iterator[TileBatch]:
        """Stream tiles of exact physical size, in raster order.

        Parameters
        ----------
        tile_px : int
            Side of a tile, pixels.
        mpp : float
            µm per pixel of a tile; resampled by area averaging (see `napari_her2.slide.tiles`).
        batch_size : int
            Tiles a batch; the last batch may be shorter.
        tissue_only : bool
            Leave out tiles without tissue.
        keep : (rows, cols) bool, optional
            The tiles of the grid to read; overrides `tissue_only`.
        min_tissue : float
            Share of a tile that must be tissue.
        threads : int, optional
            Decoding threads; by default the cores that may be used.
        shift : tuple of float
            Of the grid; see `tile_grid`.

        Yields
        ------
        TileBatch

        Raises
        ------
        SlideError
            The slide states no µm/px, or `keep` does not fit the grid.
        """
        self._guard()
        grid = self.tile_grid(tile_px, mpp, shift)
        if keep is None:
            keep = self.tissue().keep(grid, min_tissue) if tissue_only else np.ones(grid.shape, np.bool_)
        if keep.shape != grid.shape:
            raise SlideError(
                f"The selection of tiles is {keep.shape}, the grid of the slide {grid.shape}: make it anew."
            )
        if batch_size < 1:
            raise SlideError(f"A batch of {batch_size} tiles is not possible: ask for at least one.")
        index = np.argwhere(keep).astype(np.int64)
        places = index + np.asarray(shift) if any(shift) else index
        regions = self.squares(places, tile_px=tile_px, mpp=mpp, batch_size=batch_size, threads=threads)
        return pack_tiles(regions, grid, index, batch_size)

    def squares(
        self,
        places: NDArray[np.integer] | NDArray[np.floating],
        *,
        tile_px: int,
        mpp: float,
        batch_size: int | Sequence[int] = 64,
        threads: int | None = None,
    ) -> Iterator[RegionBatch]:
        """Stream squares that begin anywhere; those that begin where a tile does are that tile, bit for bit.

        Parameters
        ----------
        places : (N, 2)
            (row, column) on the grid, best in raster order: (1.5, 0) begins amid the tile (1, 0).
        tile_px, mpp, threads
            As for `tiles`.
        batch_size : int or sequence of int
            Squares a batch, or of each batch.

        Yields
        ------
        RegionBatch
        """
        plan = self.plan(places, tile_px=tile_px, mpp=mpp)
        return stream_windows(plan, batch_size=batch_size, threads=usable_threads(threads), guard=self._guard)

    def plan(
        self, places: NDArray[np.integer] | NDArray[np.floating], *, tile_px: int, mpp: float
    ) -> WindowPlan:
        """Say which windows of which level make squares; parameters as for `squares`."""
        self._guard()
        grid = self.tile_grid(tile_px, mpp)
        return plan_tiles(grid, places, self._backend.levels, self.level_downsamples)

    def regions(
        self,
        level: int,
        origins: NDArray[np.int64],
        size: tuple[int, int],
        *,
        batch_size: int = 64,
        threads: int | None = None,
    ) -> Iterator[RegionBatch]:
        """Stream many windows of one level, decoding each tile of the file once.

        Parameters
        ----------
        level : int
            Level of the file.
        origins : (N, 2) int64
            (y, x) corners, pixels of that level, best in raster order; white outside the slide.
        size : tuple of int
            (height, width) of every window, pixels of that level.
        batch_size, threads
            As for `tiles`.

        Yields
        ------
        RegionBatch
        """
        source = self._source(level)
        plan = WindowPlan(source, np.asarray(origins, np.int64).reshape(-1, 2), size, size)
        return stream_windows(plan, batch_size=batch_size, threads=usable_threads(threads), guard=self._guard)
