"""From cells that were read to what is shown of them: which count, what speaks against a score, and maps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.bystanders import bystanders
from napari_her2.cells.quality import QualityFacts, overall_blur, quality_reasons, quality_warnings
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import Rules
from napari_her2.explain.cells import CELLS, CellBorders, cell_maps, focus_map, tiles_with_cells
from napari_her2.inference.assemble import scored_slide
from napari_her2.inference.embeddings import refuse_damage
from napari_her2.inference.regions import labelled
from napari_her2.inference.scored_slide import TileTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.inference.cell_reading import ReadCells
    from napari_her2.inference.cell_scope import CellGround, CellScope
    from napari_her2.inference.options import ScoringOptions
    from napari_her2.inference.scored_slide import ScoredSlide

OFF_TISSUE = "The drawn tumour lies outside the tissue: draw it on tissue of this slide."


def reading_of(
    ground: CellGround, options: ScoringOptions, scope: CellScope, read: ReadCells
) -> tuple[CellReading, tuple[str, ...]]:
    """Say which cells count, what they are judged by, and what speaks against a score.

    Parameters
    ----------
    ground : CellGround
    options : ScoringOptions
    scope : CellScope
    read : ReadCells

    Returns
    -------
    reading : CellReading
    warnings : tuple of str

    Raises
    ------
    SlideError
        If much of what should be read is damaged.
    """
    slide, cells, mpp = ground.slide, read.cells, ground.mpp
    squares = _squares(scope, read, mpp)
    lost = len(read.damaged)
    refuse_damage(slide, lost / max(1, len(squares)))
    if scope.drawn:
        region = labelled(cells.centre_um.astype(np.float64) / mpp, scope.drawn)
    else:
        region = np.zeros(len(cells), np.int16)
    region[_in_poor(scope, cells.centre_um)] = -1
    # Judged by the rules of the specification, so that other rules leave out the same cells. Among "all
    # cells", of which nobody said that they are tumour, nothing is left out.
    left_out = bystanders(cells, Rules()) if scope.names else np.zeros(len(cells), np.bool_)
    judged = squares[~_in_poor(scope, (squares + 0.5) * np.array(read.square_um))]
    blur = read.focus[tuple(judged.T)]
    facts = QualityFacts(
        cells=int(((region >= 0) & ~left_out).sum()),
        mpp=mpp,
        nucleus_h=read.fit.stains.nucleus_h,
        blur_um=blur[None],
        brown=read.fit.brown,
        clipped=read.fit.clipped,
        dark=scope.dark,
        looks_like=scope.looks_like,
    )
    reading = CellReading(
        cells,
        region,
        scope.names,
        left_out,
        options.cell_rules(),
        options.calibration,
        (*((OFF_TISSUE,) if scope.off_tissue else ()), *quality_reasons(facts)),
        overall_blur(blur),
    )
    warnings = quality_warnings(facts)
    if lost:
        warnings += (
            f"{lost:,} places of {read.square_um[0]:.0f} µm, with the cells around them, were left out "
            f"because {slide.name} is damaged there: copy the slide again from its source.",
        )
    if read.problem:
        warnings += (f"{read.problem[0].upper()}{read.problem[1:]}.",)
    return reading, warnings


def scored_cells(ground: CellGround, scope: CellScope, read: ReadCells, reading: CellReading) -> ScoredSlide:
    """Put together what is shown of the cells of a slide.

    Parameters
    ----------
    ground, scope, read, reading

    Returns
    -------
    ScoredSlide
        With maps of the cells, of blur, tissue and damage, and the cells themselves.
    """
    grid = scope.grid
    index = tiles_with_cells(reading, grid)
    middle = (read.damaged + 0.5) * np.array(read.square_um) / grid.tile_um
    corrupt = np.unique(np.floor(middle).astype(np.int64), axis=0)
    return scored_slide(
        ground.slide,
        stain="IHC",
        looks_like=scope.looks_like,
        table=TileTable(index, grid.origins_px0(index), attention=None, evidence=None),
        maps=(*cell_maps(reading, grid), focus_map(read.focus, read.square_um[0], grid)),
        grid=grid,
        tissue=scope.tissue,
        share=ground.share,
        tissue_mm2=scope.tissue_mm2,
        corrupt=corrupt[grid.contains(corrupt)],
        extras=(CellBorders(CELLS, reading),),
        cells=reading,
        quality=scope.quality,
    )


def with_reading(slide: ScoredSlide, reading: CellReading) -> ScoredSlide:
    """Return a slide with what follows from another reading of its cells; all other maps stay.

    Parameters
    ----------
    slide : ScoredSlide
        From `scored_cells`.
    reading : CellReading
    """
    if reading is slide.cells:
        return slide
    made = cell_maps(reading, slide.grid)
    kinds = {each.kind for each in made}
    others = tuple(each for each in slide.maps if each.kind not in kinds)
    extras = tuple(each for each in slide.extras if not isinstance(each, CellBorders))
    return replace(slide, maps=(*made, *others), extras=(CellBorders(CELLS, reading), *extras), cells=reading)


def _in_poor(scope: CellScope, points_um: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points, (N, 2) in µm, lie in tiles that are left out for their quality, (N,) bool."""
    if scope.quality is None:
        return np.zeros(len(points_um), np.bool_)
    grid, poor = scope.quality.grid, scope.quality.poor
    index = grid.index_of_px0(np.asarray(points_um, np.float64) / grid.slide_mpp)
    inside = grid.contains(index)
    inside[inside] = poor[tuple(index[inside].T)]
    return inside


def _squares(scope: CellScope, read: ReadCells, mpp: tuple[float, float]) -> NDArray[np.int64]:
    """(N, 2) squares that the area has a part in."""
    rows, cols = read.focus.shape
    side = read.square_um[0] / mpp[0], read.square_um[1] / mpp[1]
    return np.argwhere(scope.area.squares((rows, cols), side)).astype(np.int64)
