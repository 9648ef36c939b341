"""Results of a method that reads cells, made of cells by hand, for tests of what shows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_her2.cells.deciding import changes
from napari_her2.cells.summary import summarised
from napari_her2.explain.cells import CELLS, CellBorders, cell_grid, cell_maps, tiles_with_cells
from napari_her2.inference.result import TileTable
from napari_her2.methods.method import Bars, Method
from scored import make_result

if TYPE_CHECKING:
    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.rules import Rules
    from napari_her2.inference.result import SlideResult
    from scored import HandSlide


class HandCells(Method):
    """Judges cells that nobody measured, as a method that reads cells does."""

    name = "hand-cells"
    title = "Cells by hand"
    paper = "none"
    takes = "cells"
    stains = ("IHC",)
    needs_weights = False
    explanations = frozenset({"cells"})

    def score(self, job: object) -> None:
        raise NotImplementedError

    def bars(self, result: SlideResult) -> Bars:
        found = summarised(result.slides[0].cells)
        return Bars("Cells", {name: value / 100 for name, value in found.percentages.items()}, "Of all cells")

    def rejudged(self, result: SlideResult, rules: Rules, calibration: str) -> SlideResult:
        return _with(result, result.slides[0].cells.judged_by(rules, calibration))


def make_cell_result(slide: HandSlide, reading: CellReading) -> SlideResult:
    """A result of `HandCells`, which has to be put among the methods first."""
    result = replace(
        make_result(slide), method=HandCells.name, probabilities={}, uncertainty=None, task="HER2 IHC score"
    )
    return _with(result, reading)


def _with(result: SlideResult, reading: CellReading) -> SlideResult:
    slide = result.slides[0]
    grid = cell_grid(slide.grid.slide_shape_px0, slide.grid.slide_mpp)
    index = tiles_with_cells(reading, grid)
    own = replace(
        slide,
        stain="IHC",
        table=TileTable(index, grid.origins_px0(index), None, None),
        maps=cell_maps(reading, grid),
        grid=grid,
        extras=(CellBorders(CELLS, reading),),
        cells=reading,
    )
    found = summarised(reading)
    return replace(
        result,
        slides=(own,),
        score=found.score,
        label=found.score,
        reason=" ".join(found.reasons),
        warnings=changes(reading.rules),
    )
