"""Overlapping tiles for smoother maps: the same tiles, shifted by parts of their side, read beside the score.

A shifted tile counts by the rules of all tiles: its share of tissue, regions, quality, damage. They go
through the same cache as other tiles, each shift as a store of its own, and are computed once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_her2.explain.smooth import TileSet, smooth_maps
from napari_her2.inference.leaving_out import good_tiles
from napari_her2.inference.options import parts_of
from napari_her2.inference.selection import shifted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.explain.findings import Findings
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.job import ScoringJob
    from napari_her2.inference.kept_scoring import ReadSlide
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.selection import Chosen
    from napari_her2.slide.reader import Slide
    from napari_her2.steps import Progress


def shifts_of(overlap: float) -> tuple[tuple[float, float], ...]:
    """Return where shifted grids begin, (y, x) in sides of a tile; the plain one is not among them.

    Examples
    --------
    >>> shifts_of(0.5)
    ((0.0, 0.5), (0.5, 0.0), (0.5, 0.5))
    """
    parts = parts_of(overlap)
    each = [part / parts for part in range(parts)]
    return tuple((y, x) for y in each for x in each if y or x)


def smooth_steps(
    job: ScoringJob,
    slide: Slide,
    whole: Chosen,
    regions: Regions | None,
    read: ReadSlide,
    reading: Callable[[Chosen, str], Generator[Progress, None, ReadSlide]],
    finding: Callable[[ReadSlide], Findings],
) -> Generator[Progress, None, tuple[TileMap, ...]]:
    """Read overlapping tiles of a slide, and make its smoother maps.

    Parameters
    ----------
    job : ScoringJob
    slide : Slide
    whole : Chosen
        All its tiles with tissue.
    regions : Regions or None
        That limit the slide.
    read : ReadSlide
        Its tiles that make the score.
    reading : callable
        Reads chosen tiles, under a name for the progress, with the numbers of the model.
    finding : callable
        What the model finds in tiles that were read, beside those that make the score.

    Yields
    ------
    Progress

    Returns
    -------
    tuple of TileMap
    """
    overlap = job.options.overlap
    shifts = shifts_of(overlap)
    sets = [TileSet(read.chosen.grid, read.embeddings.index, finding(read))]
    for number, shift in enumerate(shifts, start=1):
        chosen = shifted(whole, shift, regions, job.options.least_tissue(job.card))
        if chosen.keep.any():
            chosen = yield from good_tiles(job, slide, chosen)
        if not chosen.keep.any():
            continue
        other = yield from reading(chosen, f"for smoother maps ({number} of {len(shifts)})")
        if len(other.embeddings.index):
            sets.append(TileSet(chosen.grid, other.embeddings.index, finding(other)))
    return smooth_maps(sets, parts_of(overlap), job.card.classes)
