"""Levels whose tiles are not those of the file: planes of colour stored apart, strips, huge pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.slide.sources import fill_window, unstored_tile
from napari_her2.slide.store import RecentTiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_her2.slide.sources import FileTiles, TileSource

_HELD_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class PlaneTiles:
    """A level whose samples are stored apart, a plane each.

    Parameters
    ----------
    planes : tuple of FileTiles
        One sample each, all cut alike.
    colour : callable or None
        Joined samples to RGB; None where they are RGB.
    finer : TileSource or None
        The next finer level: tiles that are not stored are made from it.
    """

    planes: tuple[FileTiles, ...]
    colour: Callable[[NDArray[Any]], NDArray[np.uint8]] | None
    finer: TileSource | None

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the level, pixels."""
        return self.planes[0].shape

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of a tile, pixels."""
        return self.planes[0].tile_shape

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of a tile, at least the part inside the level, (height, width, 3) uint8."""
        number = row * self.planes[0].columns + col
        if not any(plane.counts[number] for plane in self.planes):
            return unstored_tile(self, row, col, self.finer)
        parts = [plane.tile(row, col) for plane in self.planes]
        height, width = min(part.shape[0] for part in parts), min(part.shape[1] for part in parts)
        joined = np.concatenate([part[:height, :width] for part in parts], axis=2)
        return joined if self.colour is None else self.colour(joined)

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        out = np.empty((height, width, 3), np.uint8)
        fill_window(out, y, x, self, self.tile)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class RecutTiles:
    """A level cut into tiles of another size than the file's.

    Parameters
    ----------
    source : TileSource
        The file's tiles.
    tile_shape : tuple of int
        (height, width) of a tile, pixels.
    hold : bool
        The file's tiles are huge: those decoded last are held, so that each is decoded once.
    """

    source: TileSource
    tile_shape: tuple[int, int]
    hold: bool = False
    _stored: Callable[[int, int], NDArray[np.uint8]] = field(init=False)

    def __post_init__(self) -> None:
        held = RecentTiles(self.source, _HELD_BYTES).tile if self.hold else self.source.tile
        object.__setattr__(self, "_stored", held)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the level, pixels."""
        return self.source.shape

    def tile(self, row: int, col: int) -> NDArray[np.uint8]:
        """Pixels of a tile, cut at the edge of the level, (height, width, 3) uint8."""
        y, x = row * self.tile_shape[0], col * self.tile_shape[1]
        return self.read(
            y, x, min(self.tile_shape[0], self.shape[0] - y), min(self.tile_shape[1], self.shape[1] - x)
        )

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window inside the level, (height, width, 3) uint8."""
        out = np.empty((height, width, 3), np.uint8)
        fill_window(out, y, x, self.source, self._stored)
        return out
