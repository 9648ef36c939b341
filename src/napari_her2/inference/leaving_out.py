"""Poor tissue left out of a scoring, where the user, or the way in which the model learnt, wants it so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.errors import JobFailed, SlideError
from napari_her2.explain.quality import share_in_words
from napari_her2.inference.result import Progress
from napari_her2.models.card import LEFT_OUT
from napari_her2.slide.quality import outside_marked, quality_steps
from napari_her2.steps import passed_on

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.selection import Chosen
    from napari_her2.models.card import ModelCard
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality
    from napari_her2.slide.quality_limits import QualityLimits
    from napari_her2.slide.reader import Slide
    from napari_her2.slide.tissue import TissueMask


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
    if not job.options.leaves_out_poor(job.card):
        return chosen
    limits = job.options.quality_limits
    found = yield from looking_at_quality(slide, chosen.grid, chosen.tissue, limits, chosen.keep)
    left = _left_out(chosen, replace(found, left_out=True), job.card)
    if left.quality is not None and not left.keep.any():
        raise nothing_left(slide, left.quality)
    return left


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
        raise JobFailed(
            f"No tile in the regions is good enough to be scored ({share_in_words(left.quality)}): draw them "
            f"elsewhere, or score without leaving poor tissue out."
        )
    return left


def _left_out(chosen: Chosen, quality: Quality, card: ModelCard) -> Chosen:
    warnings = (*chosen.warnings, *learnt_otherwise(card))
    return replace(chosen, keep=chosen.keep & ~quality.poor, quality=quality, warnings=warnings)


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
