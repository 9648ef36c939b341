"""Which tissue of a slide is poor: out of focus, under a pen, folded, under a bubble, or hardly there.

What is measured (`napari_her2.slide.quality_measures`) is one thing and the limits another, so that other
limits need no second look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.slide.quality_limits import BLANK, BUBBLE, FLAGS, FOCUS, FOLD, OUTSIDE, PEN, REASONS
from napari_her2.slide.quality_measures import VERSION, measure_steps

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality_limits import QualityLimits
    from napari_her2.slide.quality_measures import Measures
    from napari_her2.slide.tissue import TissueMask
    from napari_her2.slide.whole_slide import Slide


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """What is wrong with the tiles of a slide.

    Parameters
    ----------
    grid : TileGrid
    reasons : (rows, columns) uint8
        Flags of `napari_her2.slide.quality_limits.FLAGS`; 0 where nothing is wrong.
    counted : (rows, columns) bool
        The tiles that would be scored if all were good: what shares are shares of.
    limits : QualityLimits
    unjudged : tuple of str
        Reasons that could not be looked for on this slide.
    left_out : bool
        Whether poor tiles were left out of the scoring, or only marked.
    version : int
        Of the measures.
    """

    grid: TileGrid
    reasons: NDArray[np.uint8]
    counted: NDArray[np.bool_]
    limits: QualityLimits
    unjudged: tuple[str, ...] = ()
    left_out: bool = False
    version: int = VERSION

    @property
    def poor(self) -> NDArray[np.bool_]:
        """Counted tiles that have a reason, (rows, columns) bool."""
        return np.asarray(self.counted & (self.reasons != 0), np.bool_)

    @property
    def share(self) -> float:
        """Share of the counted tiles that are poor, 0 to 1."""
        return float(self.poor.sum() / max(1, self.counted.sum()))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the counted tiles by their first reason; those that occur, largest first."""
        first, total = self.first, max(1, int(self.counted.sum()))
        found = {
            name: float((self.counted & (first == number)).sum() / total)
            for number, name in enumerate(REASONS)
        }
        return dict(sorted(((name, share) for name, share in found.items() if share), key=lambda of: -of[1]))

    @property
    def first(self) -> NDArray[np.int8]:
        """Number of the first reason of each tile in `REASONS`, (rows, columns) int8; -1 for none."""
        found = np.full(self.reasons.shape, -1, np.int8)
        for number, flag in reversed(list(enumerate(FLAGS.values()))):
            found[(self.reasons & flag) != 0] = number
        return found

    def within(self, counted: NDArray[np.bool_]) -> Quality:
        """Return the same of fewer tiles, such as those in drawn regions."""
        return replace(self, counted=self.counted & counted)


def outside_marked(quality: Quality, counted: NDArray[np.bool_], tissue: NDArray[np.bool_]) -> Quality:
    """Return the quality as it is judged where fewer tiles count, such as those in drawn regions.

    Parameters
    ----------
    quality : Quality
    counted : (rows, columns) bool
        Among those that counted.
    tissue : (rows, columns) bool
        Tiles with any tissue.
    """
    # Focus and stain are judged of what counts alone; what counts no longer is outside.
    elsewhere = quality.reasons & ~np.uint8(FLAGS[FOCUS] | FLAGS[BLANK])
    outside = np.where(tissue | (elsewhere & FLAGS[PEN] != 0), np.uint8(FLAGS[OUTSIDE]), np.uint8(0))
    reasons = np.where(counted, quality.reasons, elsewhere | outside).astype(np.uint8)
    return replace(quality, reasons=reasons, counted=np.asarray(quality.counted & counted))


def quality_steps(
    slide: Slide,
    grid: TileGrid,
    tissue: TissueMask,
    limits: QualityLimits,
    counted: NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> Generator[tuple[str, int, int], None, Quality]:
    """Look at the quality of the tissue of a slide.

    Parameters
    ----------
    slide : Slide
        That states its µm/px.
    grid : TileGrid
    tissue : TissueMask
    limits : QualityLimits
    counted : (rows, columns) bool, optional
        Tiles that would be scored; by default those of which half is tissue.
    threads : int, optional
        That decode; by default the cores that may be used.

    Yields
    ------
    stage, done, total
        What is done, and how far. Closing the generator cancels.

    Returns
    -------
    Quality

    Raises
    ------
    SlideError
        If the slide states no µm/px, or was closed.
    """
    if counted is None:
        counted = tissue.keep(grid)
    measures = yield from measure_steps(
        slide, grid, tissue, counted, fold_times=limits.fold_times, threads=threads
    )
    return judged(grid, measures, limits, counted)


def judged(grid: TileGrid, measures: Measures, limits: QualityLimits, counted: NDArray[np.bool_]) -> Quality:
    """Compare what was measured with limits.

    Parameters
    ----------
    grid : TileGrid
    measures : Measures
    limits : QualityLimits
    counted : (rows, columns) bool

    Returns
    -------
    Quality
    """
    holds = {
        FOCUS: np.nan_to_num(measures.blur_um, nan=0.0) > limits.most_blur_um,
        PEN: measures.pen > limits.most_pen,
        FOLD: measures.fold > limits.most_fold,
        BUBBLE: measures.bubble > limits.most_bubble,
        BLANK: measures.stained < limits.least_stained,
        OUTSIDE: ~counted,
    }
    reasons = np.zeros(grid.shape, np.uint8)
    for name, where in holds.items():
        # Off the tissue there is nothing to judge but a pen that may hide some.
        within = counted if name in (FOCUS, BLANK) else (measures.tissue > 0) | (measures.pen > 0)
        reasons[where & within] |= FLAGS[name]
    return Quality(grid, reasons, counted, limits, measures.unjudged)
