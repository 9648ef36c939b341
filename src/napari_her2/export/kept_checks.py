"""Whether what was read of a kept result goes together: sizes that its classes take for granted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_her2.cells.table import SECTORS
from napari_her2.slide.quality_limits import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.cells.reading import CellReading
    from napari_her2.cells.table import Cells
    from napari_her2.explain.maps import TileMap
    from napari_her2.inference.result import SlideResult
    from napari_her2.inference.scored_slide import ScoredSlide
    from napari_her2.slide.grid import TileGrid
    from napari_her2.slide.quality import Quality

_MOST_TILES = 1 << 28
"""Of a grid: a map of it is kept with each result, and more never went into a file."""


def refuse_mismatch(result: SlideResult) -> None:
    """Refuse a result whose parts do not go together.

    Parameters
    ----------
    result : SlideResult
        Whose fields are of their types.

    Raises
    ------
    ValueError
        Naming what does not.
    """
    wrong = next(_wrong(result), "")
    if wrong:
        raise ValueError(wrong)


def _wrong(result: SlideResult) -> Iterator[str]:
    if not result.slides:
        yield "it holds no slide"
    known = set(result.classes)
    chances = (result.probabilities, *result.heads.values(), *(slide.alone for slide in result.slides))
    if any(of and set(of) != known for of in chances) or (result.probabilities and result.score not in known):
        yield "its probabilities are not those of its classes"
    drawn = result.uncertainty
    if drawn is not None and not drawn.mean.shape == drawn.sd.shape == (len(result.classes),):
        yield "its spread is not that of its classes"
    for slide in result.slides:
        yield from _wrong_slide(slide, len(result.classes))


def _wrong_slide(slide: ScoredSlide, classes: int) -> Iterator[str]:
    table, tiles = slide.table, len(slide.table.index)
    yield from _wrong_grid(slide.grid)
    for of in (*slide.maps, *slide.smooth):
        yield from _wrong_map(of)
    if not _are_tiles(table.index, slide.grid) or not _are_tiles(slide.corrupt, slide.grid):
        yield "a tile lies beside its grid"
    if table.origins_px0.shape != (tiles, 2):
        yield "its tiles have no places"
    one, each = (tiles,), (tiles, classes)
    for values, shape in (
        (table.attention, one),
        (table.confidence, one),
        (table.evidence, each),
        (table.probabilities, each),
    ):
        if values is not None and values.shape != shape:
            yield "its tiles have no values"
    distances = slide.familiarity.distances
    if distances is not None and distances.ndim != 1:
        yield "its distances are no list"
    if slide.tissue is not None and (slide.tissue.mask.ndim != 2 or not _positive(slide.tissue.downsample)):
        yield "its tissue is no picture"
    for seen in slide.thumbnails:
        size = seen.rgb.shape[:1] * 2
        if seen.rgb.shape != (*size, 3) or seen.tissue.shape != size or not _positive(seen.pixel_px0):
            yield "an image that it holds is no square"
    if slide.quality is not None:
        yield from _wrong_quality(slide.quality)
    if slide.cells is not None:
        yield from _wrong_cells(slide.cells)
    for drawing in slide.extras:
        yield from _wrong_drawing(drawing)


def _wrong_drawing(drawing: Any) -> Iterator[str]:  # noqa: ANN401 - of any kind
    reading = getattr(drawing, "reading", None)
    if reading is not None:
        yield from _wrong_cells(reading)
    values = getattr(drawing, "values", None)
    if isinstance(values, np.ndarray) and values.ndim not in (2, 3):
        yield "what is drawn over it is no picture"


def _wrong_map(of: TileMap) -> Iterator[str]:
    yield from _wrong_grid(of.grid)
    if of.values.shape != of.grid.shape:
        yield "a map does not have the shape of its grid"


def _wrong_quality(quality: Quality) -> Iterator[str]:
    yield from _wrong_grid(quality.grid)
    if not quality.reasons.shape == quality.counted.shape == quality.grid.shape:
        yield "its quality does not have the shape of its grid"
    if not set(quality.unjudged) <= set(REASONS):
        yield "its quality has unknown reasons"


def _wrong_grid(grid: TileGrid) -> Iterator[str]:
    sizes = (*grid.slide_shape_px0, *grid.slide_mpp, grid.mpp, *grid.tile_px0)
    if not all(math.isfinite(size) and size >= 0 for size in sizes) or not min(grid.tile_px0) > 0:
        yield "its grid has no size"
    elif math.prod(grid.shape) > _MOST_TILES:
        yield "its grid is too large"


def _are_tiles(index: Any, grid: TileGrid) -> bool:  # noqa: ANN401 - an array
    return index.ndim == 2 and index.shape[1] == 2 and bool(grid.contains(index).all())


def _wrong_cells(reading: CellReading) -> Iterator[str]:
    cells = reading.cells
    count = len(cells.centre_um)
    if reading.region.shape != (count,) or reading.left_out.shape != (count,):
        yield "its cells are not as many as they claim"
    if count and not -1 <= reading.region.min() <= reading.region.max() < max(1, len(reading.region_names)):
        yield "a cell lies in a region that is not there"
    yield from _wrong_table(cells, count)


def _wrong_table(cells: Cells, count: int) -> Iterator[str]:
    rays = (cells.border_um, cells.contrast, cells.dab, cells.mass)
    single = (cells.area_um2, cells.cytoplasm_dab, cells.nucleus_h, cells.nucleus_um2, cells.nucleus_ratio)
    if (
        cells.centre_um.shape != (count, 2)
        or any(of.shape != (count, SECTORS) for of in rays)
        or any(of.shape != (count,) for of in single)
    ):
        yield "its cells are not as many as they claim"
    elif not np.isfinite(cells.centre_um).all():
        yield "a cell has no place"


def _positive(sizes: tuple[float, float]) -> bool:
    return all(math.isfinite(size) and size > 0 for size in sizes)
