"""A slide as windows of one pixel grid at 0.5 µm/px: what is read of it, and the cells of each piece.

Pixels are counted from the corner of the slide and are the same in every window that holds them
(`napari_her2.slide.resample.anchored`); a window is four pieces with a halo around them. Pieces are what is
measured, and kept on disk: what lies in one does not depend on what else was read.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from napari_her2.cells.measuring import HALO_UM, MPP, measured
from napari_her2.cells.table import Cells
from napari_her2.slide.area import Area as SlideArea
from napari_her2.slide.area import read_marked
from napari_her2.slide.focus import focus_of
from napari_her2.slide.resample import anchored, anchored_window, choose_level

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from numpy.typing import NDArray

    from napari_her2.cells.areas import Area
    from napari_her2.cells.stains import Stains
    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.whole_slide import Slide

PIECE_PX = 960
SIDE = 2
"""Pieces along the side of a window."""
HALO_PX = 2 * ceil(HALO_UM / MPP / 2)
FOCUS_PX = 160
"""Side of the squares in which focus and damage are told."""
_FOCUS_SIDE = PIECE_PX // FOCUS_PX


@dataclass(frozen=True, slots=True)
class PixelGrid:
    """The pixels of a slide at about 0.5 µm/px, counted from its upper left corner.

    Parameters
    ----------
    level : int
        That they are made of.
    scale : tuple of float
        (y, x) pixels of that level per pixel.
    mpp : tuple of float
        (y, x) µm per pixel: 0.5, or what the level has where that differs by less than 0.1 %.
    shape : tuple of int
        (height, width), pixels.
    mpp0 : tuple of float
        (y, x) µm per level-0 pixel.
    """

    level: int
    scale: tuple[float, float]
    mpp: tuple[float, float]
    shape: tuple[int, int]
    mpp0: tuple[float, float]

    @classmethod
    def of(cls, slide: Slide) -> PixelGrid:
        """Return the grid of a slide; SlideError where it states no µm/px."""
        mpp0 = slide.known_mpp
        level, scale = choose_level(mpp0, slide.level_downsamples, MPP)
        down, shape = slide.level_downsamples[level], slide.level_shapes[level]
        exact = mpp0[0] * down[0] * scale[0], mpp0[1] * down[1] * scale[1]
        size = ceil(shape[0] / scale[0] - 1e-6), ceil(shape[1] / scale[1] - 1e-6)
        return cls(level, scale, exact, size, mpp0)

    @property
    def pixel_px0(self) -> tuple[float, float]:
        """(y, x) level-0 pixels per pixel."""
        return self.mpp[0] / self.mpp0[0], self.mpp[1] / self.mpp0[1]

    @property
    def focus_shape(self) -> tuple[int, int]:
        """(rows, columns) of squares of `FOCUS_PX` over the slide, those at its end cut off by it."""
        return ceil(self.shape[0] / FOCUS_PX), ceil(self.shape[1] / FOCUS_PX)

    def pieces_in(self, area: Area) -> NDArray[np.int64]:
        """(N, 2) rows and columns of the pieces that an area meets, in raster order."""
        rows, cols = (ceil(side / PIECE_PX) for side in self.shape)
        side = PIECE_PX * self.pixel_px0[0], PIECE_PX * self.pixel_px0[1]
        return np.argwhere(area.squares((rows, cols), side)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Pixels of a window.

    Parameters
    ----------
    place : tuple of int
        (row, column) of the window.
    pieces : (K, 2) int64
        Rows and columns of the pieces in it that are wanted.
    rgb : (h, w, 3) uint8
        With a halo of `HALO_PX` on every side; white outside the slide and where the file is damaged.
    damaged : (h, w) bool or None
        Where the file is damaged; None where it is not.
    """

    place: tuple[int, int]
    pieces: NDArray[np.int64]
    rgb: NDArray[np.uint8]
    damaged: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What was measured in a piece.

    Parameters
    ----------
    place : tuple of int
        (row, column) of the piece.
    cells : Cells
        Those whose centre lies in it and whose surroundings are not damaged.
    focus : (6, 6) float32
        Blur of each square, µm; NaN where nothing has an edge.
    damaged : (6, 6) bool
        Whether damage reaches into a square.
    """

    place: tuple[int, int]
    cells: Cells
    focus: NDArray[np.float32]
    damaged: NDArray[np.bool_]


def windows_of(pieces: Iterable[tuple[int, int]]) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Return the windows that hold pieces, in raster order, each with those of its pieces."""

    def window(piece: tuple[int, int]) -> tuple[int, int]:
        return piece[0] // SIDE, piece[1] // SIDE

    ordered = sorted(pieces, key=lambda piece: (window(piece), piece))
    return [(place, np.array(list(group), np.int64)) for place, group in groupby(ordered, key=window)]


def read_windows(
    slide: Slide,
    grid: PixelGrid,
    windows: Sequence[tuple[tuple[int, int], NDArray[np.int64]]],
    *,
    threads: int | None = None,
) -> Generator[Window, None, None]:
    """Read windows, decoding each compressed tile about once.

    Parameters
    ----------
    slide : Slide
    grid : PixelGrid
    windows : sequence
        From `windows_of`.
    threads : int, optional
        That decode; by default the cores that may be used.

    Yields
    ------
    Window
        In their order. Closing the generator stops the reading.
    """
    side = SIDE * PIECE_PX + 2 * HALO_PX
    first = [tuple(SIDE * PIECE_PX * at - HALO_PX for at in place) for place, _ in windows]
    spans = [[anchored_window(at[axis], side, grid.scale[axis]) for at in first] for axis in (0, 1)]
    origins = np.array([[y[0], x[0]] for y, x in zip(*spans, strict=True)], np.int64).reshape(-1, 2)
    size = anchored_window(0, side, grid.scale[0])[1], anchored_window(0, side, grid.scale[1])[1]
    batches = slide.regions(grid.level, origins, size, batch_size=1, threads=threads)
    with closing(cast("Generator[RegionBatch]", batches)):
        for (place, pieces), at, origin, batch in zip(windows, first, origins.tolist(), batches, strict=True):
            if len(batch.images):
                read = SlideArea(batch.images[0], None)
            else:
                read = read_marked(slide, grid.level, (origin[0], origin[1]), size)
            rgb = anchored(read.rgb, (at[0], at[1]), grid.scale, (side, side))
            yield Window(place, pieces, rgb, _marked(read.damaged, (at[0], at[1]), grid.scale, side))


def _marked(
    marks: NDArray[np.bool_] | None, first: tuple[int, int], scale: tuple[float, float], side: int
) -> NDArray[np.bool_] | None:
    """Pixels that damage has any part in."""
    if marks is None:
        return None
    grey = np.repeat(marks[..., None].astype(np.uint8) * 255, 3, axis=2)
    return np.asarray(anchored(grey, first, scale, (side, side))[..., 0] > 0)


def measure_piece(
    window: Window, place: tuple[int, int], stains: Stains, grid: PixelGrid, clock: dict[str, float] | None
) -> Piece:
    """Find and measure the cells of a piece.

    Parameters
    ----------
    window : Window
        That holds it.
    place : tuple of int
        (row, column) of the piece.
    stains : Stains
    grid : PixelGrid
    clock : dict or None
        Seconds are added to it, by step.

    Returns
    -------
    Piece
    """
    y, x = ((at - SIDE * of) * PIECE_PX for at, of in zip(place, window.place, strict=True))
    part = slice(y, y + PIECE_PX + 2 * HALO_PX), slice(x, x + PIECE_PX + 2 * HALO_PX)
    core = place[0] * PIECE_PX * MPP, place[1] * PIECE_PX * MPP
    origin = core[0] - HALO_PX * MPP, core[1] - HALO_PX * MPP
    side_um = PIECE_PX * MPP
    rgb = window.rgb[part]
    cells = measured(rgb, stains, origin, (*core, core[0] + side_um, core[1] + side_um), MPP, clock)
    inner = slice(HALO_PX, HALO_PX + PIECE_PX), slice(HALO_PX, HALO_PX + PIECE_PX)
    h, dab = stains.unmixed(rgb[inner])
    damaged = np.zeros((_FOCUS_SIDE, _FOCUS_SIDE), np.bool_)
    if window.damaged is not None and window.damaged[part].any():
        marks = window.damaged[part]
        cells = cells.pick(_away_from(marks, cells.centre_um - np.array(origin, np.float32)))
        squares = marks[inner].reshape(_FOCUS_SIDE, FOCUS_PX, _FOCUS_SIDE, FOCUS_PX)
        damaged = np.asarray(squares.any(axis=(1, 3)))
    return Piece(place, _placed(cells, grid), focus_of(h + dab, FOCUS_PX, MPP), damaged)


def _away_from(marks: NDArray[np.bool_], at_um: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which places are further from damage than what a cell depends on."""
    distance = cv2.distanceTransform((~marks).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.clip(np.floor(at_um / MPP), 0, np.array(marks.shape) - 1).astype(np.intp).T
    return np.asarray(distance[y, x] * MPP > HALO_UM)


def _placed(cells: Cells, grid: PixelGrid) -> Cells:
    """Cells at their place on the slide, where its pixels are not exactly of 0.5 µm."""
    if grid.mpp == (MPP, MPP):
        return cells
    exact = cells.centre_um.astype(np.float64) * (np.array(grid.mpp) / MPP)
    return replace(cells, centre_um=exact.astype(np.float32))


def joined_cells(parts: list[Cells]) -> Cells:
    """Join cells in raster order, field by field, so that at no time all are held twice.

    Parameters
    ----------
    parts : list of Cells
        Emptied.
    """
    columns = {
        of.name: [getattr(part, of.name) for part in (parts or [Cells.none()])] for of in fields(Cells)
    }
    parts.clear()
    centre = np.concatenate(columns.pop("centre_um"))
    order = np.lexsort((centre[:, 1], centre[:, 0]))
    done = {"centre_um": centre[order]}
    for name in list(columns):
        done[name] = np.concatenate(columns.pop(name))[order]
    return Cells(**done)
