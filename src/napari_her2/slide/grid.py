"""The tile grid: the only code that converts level-0 pixels, tile indices and µm.

Everything that places a tile on a slide (the tile stream, the maps, the layers, the exports)
asks the grid, so that a tile has one place. Positions are always (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import SlideError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A regular grid of square tiles of exact physical size over a slide; those of one grid do not overlap.

    Parameters
    ----------
    slide_shape_px0 : tuple of int
        (height, width) of level 0, pixels.
    slide_mpp : tuple of float
        (y, x) µm per level-0 pixel.
    tile_px : int
        Side of a tile after resampling, pixels.
    mpp : float
        µm per pixel of a tile after resampling.
    shift : tuple of float
        (y, x) where the first tile begins, in sides of a tile, 0 to below 1: tiles of grids that are shifted
        against each other overlap.

    Notes
    -----
    Only whole tiles are part of the grid: the strip of less than one tile at the lower and the
    right edge is left out. The pitch in level-0 pixels is a float and is never rounded, so tile
    (row, col) does not drift; only the corner handed to a reader is rounded to a pixel.

    Examples
    --------
    >>> grid = TileGrid((2000, 3000), (0.25, 0.25), tile_px=96, mpp=0.5)
    >>> grid.shape, grid.tile_px0
    ((10, 15), (192.0, 192.0))
    >>> grid.origins_px0(np.array([[1, 2]])).tolist()
    [[192, 384]]
    """

    slide_shape_px0: tuple[int, int]
    slide_mpp: tuple[float, float]
    tile_px: int
    mpp: float
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.tile_px < 1 or not self.mpp > 0 or not min(self.slide_mpp) > 0:
            raise SlideError(
                f"A tile grid needs a tile of at least one pixel and positive µm/px, "
                f"not {self.tile_px} px at {self.mpp} µm/px on a slide of {self.slide_mpp} µm/px."
            )
        if not all(0 <= part < 1 for part in self.shift):
            raise SlideError(f"A tile grid begins within the first tile, not {self.shift} sides of it away.")

    @property
    def tile_px0(self) -> tuple[float, float]:
        """(y, x) side of a tile, level-0 pixels (not rounded)."""
        size_um = self.tile_px * self.mpp
        return size_um / self.slide_mpp[0], size_um / self.slide_mpp[1]

    @property
    def tile_um(self) -> float:
        """Side of a tile, µm."""
        return self.tile_px * self.mpp

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of whole tiles."""
        # The tiny slack keeps a slide of exactly n tiles from losing one to float division.
        rows, cols = (
            max(0, floor(side / tile - part + 1e-9))
            for side, tile, part in zip(self.slide_shape_px0, self.tile_px0, self.shift, strict=True)
        )
        return rows, cols

    def shifted(self, shift: tuple[float, float]) -> TileGrid:
        """Return the grid of the same tiles that begins so many sides of a tile, (y, x), from the corner."""
        return replace(self, shift=shift)

    def finer(self, parts: int) -> TileGrid:
        """Return the grid whose squares are the ``parts``-th part of a tile long, for maps.

        Tiles that are shifted by such parts begin and end where squares of it do.
        """
        return replace(self, mpp=self.mpp / parts, shift=(0.0, 0.0))

    def origins_px0(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """Upper left corners of tiles.

        Parameters
        ----------
        index : (N, 2) int
            (row, column) of each tile.

        Returns
        -------
        (N, 2) int64
            (y, x), level-0 pixels, rounded to the nearest pixel.
        """
        return np.rint((np.asarray(index, np.float64) + self.shift) * self.tile_px0).astype(np.int64)

    def index_of_px0(self, points_px0: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Tile (row, column) that holds each level-0 point; may lie outside the grid.

        Parameters
        ----------
        points_px0 : (N, 2)
            (y, x), level-0 pixels.

        Returns
        -------
        (N, 2) int64
        """
        places = np.asarray(points_px0, np.float64) / self.tile_px0 - self.shift
        return np.floor(places + 1e-9).astype(np.int64)

    def places_of_um(self, corners_um: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where squares begin, in sides of a tile.

        Parameters
        ----------
        corners_um : (N, 2) float
            (y, x), µm from the slide's upper left corner.

        Returns
        -------
        (N, 2) float64
            (row, column); exactly whole where a tile begins, so that its pixels are read and not the next.
        """
        places = np.asarray(corners_um, np.float64) / self.tile_um - self.shift
        return np.round(places, 9).astype(np.float64)

    def contains(self, index: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether each (row, column) is part of the grid.

        Parameters
        ----------
        index : (N, 2) int

        Returns
        -------
        (N,) bool
        """
        index = np.asarray(index)
        return np.asarray(((index >= 0) & (index < self.shape)).all(axis=-1))

    def bounds_um(self, row: int, col: int) -> tuple[float, float, float, float]:
        """(y0, x0, y1, x1) of a tile, µm from the slide's upper left corner."""
        y, x = row + self.shift[0], col + self.shift[1]
        return y * self.tile_um, x * self.tile_um, (y + 1) * self.tile_um, (x + 1) * self.tile_um

    def edges_px0(self, axis: int) -> NDArray[np.float64]:
        """Where rows (axis 0) or columns (axis 1) begin and end, level-0 pixels, not rounded, (n + 1,)."""
        return np.asarray(
            (np.arange(self.shape[axis] + 1) + self.shift[axis]) * self.tile_px0[axis], np.float64
        )

    def centres_px0(self, index: NDArray[np.integer]) -> NDArray[np.float64]:
        """Centres of tiles, (N, 2) float64 (y, x), level-0 pixels, not rounded."""
        return np.asarray((np.asarray(index) + 0.5 + np.asarray(self.shift)) * self.tile_px0, np.float64)

    def centres_um(self, index: NDArray[np.integer]) -> NDArray[np.float64]:
        """Centres of tiles, (N, 2) float64 (y, x), µm from the slide's upper left corner."""
        return np.asarray((np.asarray(index) + 0.5 + np.asarray(self.shift)) * self.tile_um, np.float64)

    @property
    def layer_scale(self) -> tuple[float, float]:
        """(y, x) µm per map pixel: one map pixel is one tile."""
        return self.tile_um, self.tile_um

    @property
    def layer_translate(self) -> tuple[float, float]:
        """(y, x) µm of the centre of map pixel (0, 0).

        A slide layer has the centre of level-0 pixel (0, 0) at 0 µm, so its edge lies half a
        slide pixel before; the centre of the first tile lies half a tile behind that edge.
        """
        y, x = ((0.5 + part) * self.tile_um for part in self.shift)
        return y - self.slide_mpp[0] / 2, x - self.slide_mpp[1] / 2

    def paint(self, index: NDArray[np.integer], values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Tile values as a map.

        Parameters
        ----------
        index : (N, 2) int
            (row, column) of each tile.
        values : (N,) float

        Returns
        -------
        (rows, columns) float32
            NaN where there is no tile.
        """
        image = np.full(self.shape, np.nan, np.float32)
        index = np.asarray(index)
        if len(index):
            image[index[:, 0], index[:, 1]] = values
        return image
