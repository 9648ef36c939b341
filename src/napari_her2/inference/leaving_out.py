"""Poor tissue left out of a scoring, where the user, or the way in which the model learnt, wants it so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.errors import JobFailed, SlideError
from napari_her2.explain.quality import share_in_words
from napari_her2.inference.kept_scoring import NotComputed
from napari_her2.inference.regions import tiles_inside
from napari_her2.models.card import LEFT_OUT
from napari_her2.slide.quality import outside_marked, quality_steps
from napari_her2.slide.tissue import TissueMask
from napari_her2.steps import Progress, passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_her2.inference.cell_scope import CellScope
    from napari_her2.inference.images import ChosenTissue
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.selection import Chosen
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.quality_limits import QualityLimits
    from napari_her2.slide.reader import Slide

_IMAGE_TILE_PX, _IMAGE_TILE_MPP = 64, 2.0
"""Places of 128 µm of which an image of the whole tissue is judged."""


def looking_at_quality(
    slide: Slide,
    grid: TileGrid,
    tissue: TissueMask,
    limits: QualityLimits,
    counted: NDArray[np.bool_] | None = None,
) -> Generator[Progress, None, Quality]:
    """Look at the quality of tissue; see `napari_her2.slide.quality.quality_steps`.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
    tissue : TissueMask
    limits : QualityLimits
    counted : (rows, columns) bool, optional

    Yields
    ------
    Progress

    Returns
    -------
    Quality
        Nothing is left out by looking.
    """
    return (yield from passed_on(quality_steps(slide, grid, tissue, limits, counted), _progress))


def without_poor(job: ScoringJob, slide: Slide, chosen: Chosen) -> Generator[Progress, None, Chosen]:
    """Leave poor tiles out, where that is wished.

    Parameters
    ----------
    job : ScoringJob
    slide : Slide
        The one that the tiles are of.
    chosen : Chosen

    Yields
    ------
    Progress

    Returns
    -------
    Chosen
        The same one where nothing is to be left out.

    Raises
    ------
    SlideError
        If no tile is left.
    """
    left = yield from good_tiles(job, slide, chosen)
    if left.quality is not None and not left.keep.any():
        raise nothing_left(slide, left.quality)
    return left


def good_tiles(job: ScoringJob, slide: Slide, chosen: Chosen) -> Generator[Progress, None, Chosen]:
    """Leave poor tiles out as `without_poor` does, though no tile is left."""
    if not job.options.leaves_out_poor(job.card):
        return chosen
    limits = job.options.quality_limits
    found = yield from looking_at_quality(slide, chosen.grid, chosen.tissue, limits, chosen.keep)
    return _left_out(chosen, replace(found, left_out=True), job.card)


def without_known(chosen: Chosen, known: Quality | None, card: ModelCard) -> Chosen:
    """Leave out what is known to be poor; nothing is looked at again.

    Parameters
    ----------
    chosen : Chosen
        Some of the tiles that were looked at.
    known : Quality or None
        Of the same grid; None where nothing is to be left out.
    card : ModelCard

    Returns
    -------
    Chosen

    Raises
    ------
    JobFailed
        If no tile is left.
    """
    if known is None:
        return chosen
    left = _left_out(chosen, outside_marked(known, chosen.keep, chosen.share > 0), card)
    if left.quality is not None and not left.keep.any():
        raise _nothing_inside(left.quality)
    return left


def _left_out(chosen: Chosen, quality: Quality, card: ModelCard) -> Chosen:
    warnings = (*chosen.warnings, *learnt_otherwise(card))
    return replace(chosen, keep=chosen.keep & ~quality.poor, quality=quality, warnings=warnings)


def without_poor_cells(job: ScoringJob, scope: CellScope) -> Generator[Progress, None, CellScope]:
    """Let cells in poor tiles not count, where that is wished.

    Parameters
    ----------
    job : ScoringJob
    scope : CellScope

    Yields
    ------
    Progress

    Returns
    -------
    CellScope
        The same one where nothing is to be left out.

    Raises
    ------
    SlideError
        If no tile is left.
    """
    if not job.options.leaves_out_poor(job.card):
        return scope
    counted = _counted(scope)
    limits = job.options.quality_limits
    found = yield from looking_at_quality(job.slide, scope.grid, scope.tissue, limits, counted)
    quality = replace(found, left_out=True)
    if counted.any() and not (counted & ~quality.poor).any():
        raise nothing_left(job.slide, quality)
    return replace(scope, quality=quality)


def without_known_cells(scope: CellScope, known: Quality | None) -> CellScope:
    """Let cells not count in tiles that are known to be poor; nothing is looked at again.

    Parameters
    ----------
    scope : CellScope
    known : Quality or None
        None where nothing is to be left out.

    Returns
    -------
    CellScope

    Raises
    ------
    JobFailed
        If tiles were not looked at, or none is left.
    """
    if known is None:
        return scope
    counted = _counted(scope)
    missing = int((counted & ~known.counted).sum())
    if missing:
        raise NotComputed(
            f"The quality of {missing:,} places in the regions is not known yet: press Score to look at them."
        )
    quality = outside_marked(known, counted, scope.tissue.fraction(scope.grid) > 0)
    if counted.any() and not (counted & ~quality.poor).any():
        raise _nothing_inside(quality)
    return replace(scope, quality=quality)


def _counted(scope: CellScope) -> NDArray[np.bool_]:
    """Tiles whose cells would count if all were good."""
    counted = scope.tissue.keep(scope.grid)
    return tiles_inside(scope.drawn, scope.grid, counted) if scope.drawn else counted


def _nothing_inside(quality: Quality) -> JobFailed:
    return JobFailed(
        f"No tile in the regions is good enough to be scored ({share_in_words(quality)}): draw them "
        f"elsewhere, or score without leaving poor tissue out."
    )


def without_poor_tissue(
    job: ScoringJob, chosen: ChosenTissue, *, whiten: bool
) -> Generator[Progress, None, tuple[ChosenTissue, Quality | None]]:
    """Make poor tissue white in the images of a slide, for models that learnt from images with white in them.

    Parameters
    ----------
    job : ScoringJob
    chosen : ChosenTissue
    whiten : bool
        Whether what is no tissue was white when the model learnt; a model that saw all of a slide is shown
        all of it, and the poor places are only marked.

    Yields
    ------
    Progress

    Returns
    -------
    chosen : ChosenTissue
    quality : Quality or None
        None where nothing is to be left out.

    Raises
    ------
    SlideError
        If no tile is left.
    """
    if not job.options.leaves_out_poor(job.card):
        return chosen, None
    grid = job.slide.tile_grid(_IMAGE_TILE_PX, _IMAGE_TILE_MPP)
    tissue, limits = chosen.tissue, job.options.quality_limits
    quality = yield from looking_at_quality(job.slide, grid, tissue, limits)
    if not whiten:
        words = (
            f"Poor tissue was marked and not left out: {job.card.name} learnt from images of all the tissue, "
            f"so that single places cannot be left out."
        )
        return replace(chosen, warnings=(*chosen.warnings, words)), quality
    quality = replace(quality, left_out=True)
    mask = tissue.mask & ~_pixels_of(quality.poor, grid, tissue)
    if not mask.any():
        raise nothing_left(job.slide, quality)
    left = TissueMask(mask, tissue.downsample, tissue.unreadable)
    warnings = (*chosen.warnings, *learnt_otherwise(job.card))
    return replace(chosen, tissue=left, warnings=warnings), quality


def _pixels_of(tiles: NDArray[np.bool_], grid: TileGrid, tissue: TissueMask) -> NDArray[np.bool_]:
    """Which pixels of a mask have their centre in one of the tiles, (h, w) bool."""
    height, width = tissue.mask.shape
    rows, cols = (
        np.floor((np.arange(length) + 0.5) * tissue.downsample[axis] / grid.tile_px0[axis]).astype(np.int64)
        for axis, length in ((0, height), (1, width))
    )
    padded = np.zeros(
        (max(int(rows.max()) + 1, grid.shape[0]), max(int(cols.max()) + 1, grid.shape[1])), np.bool_
    )
    padded[: grid.shape[0], : grid.shape[1]] = tiles
    return np.asarray(padded[np.ix_(rows, cols)], np.bool_)


def nothing_left(slide: Slide, quality: Quality) -> SlideError:
    """Return the error of a slide of which everything is poor."""
    return SlideError(
        f"No tile of {slide.name} is good enough to be scored ({share_in_words(quality)}): scan the slide "
        f"again, or score it without leaving poor tissue out."
    )


def learnt_otherwise(card: ModelCard) -> tuple[str, ...]:
    """Warn that a model learnt from all tissue, poor or not; nothing where it did not."""
    if card.quality == LEFT_OUT:
        return ()
    return (
        f"Poor tissue was left out, but {card.name} learnt with it: how often its answers are right was not "
        f"measured this way.",
    )


def _progress(step: tuple[str, int, int]) -> Progress:
    stage, done, total = step
    return Progress(stage, done, total, "squares" if "focus" in stage else "blocks")
