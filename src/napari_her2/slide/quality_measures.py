"""What is measured on the tiles of a slide to judge their quality.

Two looks, neither of which reads the whole slide as a model would. An overview of the tissue at
`OVERVIEW_MPP` shows pens, folds, bubbles and what is blank. Squares at `FOCUS_MPP`, spread evenly over the
tissue, show how blurred it is (`napari_her2.slide.focus`): focus is lost over fields of a scan, so a
tile takes the median of the squares around it, and what lies between two squares is not seen. That
thumbnails suffice for all but focus is the experience of HistoQC (Janowczyk et al. 2019,
doi:10.1200/CCI.18.00157).
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from napari_her2.slide.area import area_steps
from napari_her2.slide.bubbles import bubble_mask
from napari_her2.slide.focus import wide_focus_of
from napari_her2.slide.folds import fold_mask
from napari_her2.slide.ink import local_sd, optical_density, pen_marks, white_point
from napari_her2.slide.quality_limits import BLANK, BUBBLE, FOCUS, FOLD, PEN
from napari_her2.slide.resample import choose_level
from napari_her2.slide.tile_shares import tile_shares
from napari_her2.steps import passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.tiles import RegionBatch
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide

VERSION = 1
"""Rises with every change of what is measured."""
OVERVIEW_MPP = 4.0
MOST_OVERVIEW_PX = 12_000_000
"""Tissue of more is looked at coarser: so many pixels of 4 µm are 192 mm², and take 1 GB while looked at."""
MARGIN_UM = 400.0
PEN_MPP = 16.0
"""Pens are looked for as coarsely as the tissue mask does it, and so are the same marks."""
STAINED, ROUGH = 0.03, 2.2
"""Mean optical density, or standard deviation of grey in 7 x 7 pixels, from which a pixel holds something."""
FOCUS_MPP = 0.5
COARSEST_FOCUS_MPP = 0.6
"""Of slides coarser than that, the blur of sharp tissue cannot be told from their pixels."""
FOCUS_PX = 128
"""Side of a square: 64 µm."""
MOST_SQUARES = 4000
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """What was measured on the tiles of a slide; each is (rows, columns) float32.

    Parameters
    ----------
    tissue, pen, fold, bubble : array
        Share of the tile.
    stained : array
        Share of the tile that holds stain or texture.
    blur_um : array
        Standard deviation of the blur; NaN where it was not measured.
    unjudged : tuple of str
        Reasons that nothing was measured for.
    """

    tissue: NDArray[np.float32]
    pen: NDArray[np.float32]
    fold: NDArray[np.float32]
    bubble: NDArray[np.float32]
    stained: NDArray[np.float32]
    blur_um: NDArray[np.float32]
    unjudged: tuple[str, ...] = ()


def measure_steps(
    slide: Slide,
    grid: TileGrid,
    tissue: TissueMask,
    counted: NDArray[np.bool_],
    *,
    fold_times: float,
    threads: int | None = None,
) -> Generator[tuple[str, int, int], None, Measures]:
    """Measure the tiles of a slide; parameters and progress as of `quality_steps`."""
    share = tissue.fraction(grid)
    view = yield from _overview(slide, tissue, threads)
    found = {name: np.zeros(grid.shape, np.float32) for name in (PEN, FOLD, BUBBLE)}
    stained = np.ones(grid.shape, np.float32)
    if view is not None:
        masks = overview_masks(view.rgb, view.um, fold_times, view.held(tissue))
        if view.damaged is not None:
            masks = {name: mask & ~view.damaged for name, mask in masks.items()}
        for name in found:
            found[name] = tile_shares(masks[name], view.origin_px0, view.pixel_px0, grid)
        stained = tile_shares(masks[BLANK], view.origin_px0, view.pixel_px0, grid)
    blur = yield from _blur_steps(slide, grid, counted, threads)
    unjudged = () if blur is not None else (FOCUS,)
    if blur is None:
        blur = np.full(grid.shape, np.nan, np.float32)
    return Measures(share, found[PEN], found[FOLD], found[BUBBLE], stained, blur, unjudged)


def overview_masks(
    rgb: NDArray[np.uint8], um: float, fold_times: float, tissue: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Find what an overview of tissue shows.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    um : float
        Side of a pixel, µm.
    fold_times : float
    tissue : (h, w) bool

    Returns
    -------
    mapping of str to (h, w) bool
        Pen, fold and bubble by their names, and under `BLANK` what is *not* blank.
    """
    step = max(1, round(PEN_MPP / um))
    size = max(1, rgb.shape[1] // step), max(1, rgb.shape[0] // step)
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    white = white_point(small)
    # The marks are at least so many level-0 pixels broad on a slide of a 40x objective: 0.25 µm each.
    marks = pen_marks(small, white, um * step / 0.25).astype(np.uint8)
    pen = cv2.resize(marks, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    density = optical_density(rgb, white)
    inkless = tissue & ~pen
    return {
        PEN: pen,
        FOLD: fold_mask(density, inkless, um, fold_times) & ~pen,
        BUBBLE: bubble_mask(density, um) & ~pen,
        BLANK: (density.mean(axis=2) > STAINED) | (local_sd(rgb) > ROUGH),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    rgb: NDArray[np.uint8]
    damaged: NDArray[np.bool_] | None
    origin_px0: tuple[float, float]
    pixel_px0: tuple[float, float]
    um: float

    def held(self, tissue: TissueMask) -> NDArray[np.bool_]:
        height, width = self.rgb.shape[:2]
        return tissue.shares(self.origin_px0, self.pixel_px0, (height, width)) >= 0.5


def _overview(
    slide: Slide, tissue: TissueMask, threads: int | None
) -> Generator[tuple[str, int, int], None, _View | None]:
    """Read the tissue from afar, with what lies around it."""
    box = tissue.box_px0()
    if box is None:
        return None
    mpp = np.asarray(slide.known_mpp)
    low = np.maximum(np.asarray(box[:2]) - MARGIN_UM / mpp, 0)
    high = np.minimum(np.asarray(box[2:]) + MARGIN_UM / mpp, slide.shape)
    area_um2 = float(np.prod((high - low) * mpp))
    um = max(OVERVIEW_MPP, math.sqrt(area_um2 / MOST_OVERVIEW_PX), *slide.known_mpp)
    level, scale = choose_level(slide.known_mpp, slide.level_downsamples, um)
    down = np.asarray(slide.level_downsamples[level])
    pixel = np.asarray(scale) * down
    corner = np.floor(low / down).astype(int)
    shape = np.maximum(np.ceil((high - corner * down) / pixel - 1e-6), 1).astype(int)
    steps = area_steps(
        slide, level, (int(corner[0]), int(corner[1])), (int(shape[0]), int(shape[1])), scale, threads=threads
    )
    area = yield from passed_on(steps, lambda step: ("Looking for pens, folds and bubbles", *step))
    origin = corner * down
    return _View(
        area.rgb, area.damaged, (float(origin[0]), float(origin[1])), (float(pixel[0]), float(pixel[1])), um
    )


def _blur_steps(
    slide: Slide, grid: TileGrid, counted: NDArray[np.bool_], threads: int | None
) -> Generator[tuple[str, int, int], None, NDArray[np.float32] | None]:
    """Blur of each tile, µm, from squares spread over the tissue; None where the slide is too coarse."""
    mpp = slide.known_mpp
    if max(mpp) > COARSEST_FOCUS_MPP or not counted.any():
        return None if max(mpp) > COARSEST_FOCUS_MPP else np.full(grid.shape, np.nan, np.float32)
    side_um = FOCUS_PX * FOCUS_MPP
    squares = slide.tile_grid(FOCUS_PX, FOCUS_MPP)
    lattice = _lattice(grid, counted, side_um)
    room = np.maximum(np.asarray(squares.slide_shape_px0) / squares.tile_px0 - 1, 0)
    places = np.clip(lattice.centres_um / side_um - 0.5, 0, room)
    blur = np.full(len(places), np.nan, np.float32)
    made = slide.squares(places, tile_px=FOCUS_PX, mpp=FOCUS_MPP, batch_size=_BATCH, threads=threads)
    done = 0
    stream = cast("Generator[RegionBatch]", made)
    with closing(stream) as batches:
        for batch in batches:
            blur[batch.number] = [blur_of(image) for image in batch.images]
            done += len(batch.number) + len(batch.corrupt)
            yield "Measuring focus", done, len(places)
    return lattice.spread(blur, grid, counted)


def blur_of(rgb: NDArray[np.uint8]) -> float:
    """How blurred a square at `FOCUS_MPP` is, µm; NaN where nothing in it has an edge."""
    density = cv2.LUT(rgb, _DENSITY).mean(axis=2)
    return float(wide_focus_of(np.asarray(density, np.float32), min(rgb.shape[:2]), FOCUS_MPP)[0, 0])


_DENSITY = np.repeat(-np.log10(np.maximum(np.arange(256.0), 1) / 255).astype(np.float32)[None, :, None], 3, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Lattice:
    """Squares where focus is measured: one in each cell of a lattice that holds a counted tile."""

    cell_um: float
    shape: tuple[int, int]
    cells: NDArray[np.int64]
    centres_um: NDArray[np.float64]

    def spread(
        self, blur: NDArray[np.float32], grid: TileGrid, counted: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Give each counted tile the median of the squares in the 3 x 3 cells around it."""
        padded = np.full((self.shape[0] + 2, self.shape[1] + 2), np.nan, np.float32)
        padded[self.cells[:, 0] + 1, self.cells[:, 1] + 1] = blur
        near = np.stack(
            [padded[y : y + self.shape[0], x : x + self.shape[1]] for y in range(3) for x in range(3)]
        )
        known = np.isfinite(near).any(axis=0)
        median = np.full(self.shape, np.nan, np.float32)
        median[known] = np.nanmedian(near[:, known], axis=0)
        found = np.full(grid.shape, np.nan, np.float32)
        centres = grid.centres_um(np.argwhere(counted))
        at = np.minimum((centres / self.cell_um).astype(np.int64), np.array(self.shape) - 1)
        found[counted] = median[at[:, 0], at[:, 1]]
        return found


def _lattice(grid: TileGrid, counted: NDArray[np.bool_], side_um: float) -> _Lattice:
    """Cells of a lattice as fine as `MOST_SQUARES` allow, each with the middle of its tiles."""
    index = np.argwhere(counted)
    area_um2 = len(index) * grid.tile_um**2
    cell_um = max(1.5 * side_um, math.sqrt(area_um2 / MOST_SQUARES))
    where = grid.centres_um(index)
    cells, owner, count = np.unique(
        (where / cell_um).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    owner = owner.reshape(-1)
    centres = np.stack([np.bincount(owner, where[:, axis]) / count for axis in (0, 1)], axis=1)
    shape = cells.max(axis=0) + 1
    return _Lattice(cell_um, (int(shape[0]), int(shape[1])), cells, centres)
