"""Results of the method that reads cells, of cells made by hand, for tests of what shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.explain.cells import CELLS, CellBorders, cell_grid, cell_maps, tiles_with_cells
from napari_her2.inference.scored_slide import TileTable
from napari_her2.methods.catalogue import METHODS
from scored import make_result

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading
    from napari_her2.inference.result import SlideResult
    from scored import HandSlide

CELL_METHOD = METHODS["ihc-rules"]


def make_cell_result(slide: HandSlide, reading: CellReading) -> SlideResult:
    """The result of a slide whose cells were read, judged as the method does."""
    result, card = make_result(slide), CELL_METHOD.own_card()
    grid = cell_grid(slide.shape, slide.mpp)
    index = tiles_with_cells(reading, grid)
    own = replace(
        result.slides[0],
        stain="IHC",
        table=TileTable(index, grid.origins_px0(index), None, None),
        maps=cell_maps(reading, grid),
        grid=grid,
        extras=(CellBorders(CELLS, reading),),
        cells=reading,
    )
    read = replace(
        result,
        slides=(own,),
        method=CELL_METHOD.name,
        model=card.name,
        notice=card.notice,
        training_data=card.training_data,
        probabilities={},
        uncertainty=None,
        warnings=(),
    )
    judged = CELL_METHOD.rejudged(read, reading.rules, reading.calibration)
    return replace(judged, slides=read.slides)  # which hold the very reading that was given
