"""Maps of cells are what counting cell by cell, tile by tile gives."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cells_by_hand import reading_by_hand
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import Rules
from napari_her2.cells.table import Cells
from napari_her2.explain.cells import FEWEST_CELLS, cell_grid, cell_maps, focus_map, tiles_with_cells

if TYPE_CHECKING:
    from napari_her2.slide.grid import TileGrid

MPP = (0.25, 0.25)


@pytest.fixture(scope="module")
def reading() -> CellReading:
    """Cells of which a third lies outside of the regions; the slide ends within the lattice."""
    return reading_by_hand(900, seed=3, outside=0.3, left_out=0.1, columns=30, origin_um=(10.0, 64.0))


def counted_by_hand(reading: CellReading, grid: TileGrid) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for number, (y, x) in enumerate(reading.cells.centre_um.astype(np.float64)):
        place = int(y // grid.tile_um), int(x // grid.tile_um)
        if reading.region[number] >= 0 and not reading.left_out[number]:
            found.setdefault(place, []).append(number)
    return {place: of for place, of in found.items() if place[0] < grid.shape[0] and place[1] < grid.shape[1]}


def test_maps_are_what_counting_by_hand_gives(reading: CellReading) -> None:
    grid = cell_grid((1300, 1100), MPP)
    assert grid.tile_um == 80
    maps = cell_maps(reading, grid)
    cells = counted_by_hand(reading, grid)
    share3, share2, share1, complete, density = (of.values for of in maps)
    assert [of.class_name for of in maps] == ["3+", "2+", "1+", None, None]
    few = 0
    for row, col in product(range(grid.shape[0]), range(grid.shape[1])):
        own = cells.get((row, col), [])
        if own:
            assert density[row, col] == pytest.approx(len(own) / 0.0064)
        else:
            assert np.isnan(density[row, col])
        if len(own) < FEWEST_CELLS:
            few += 1
            assert np.isnan([of[row, col] for of in (share3, share2, share1, complete)]).all()
            continue
        classes = [int(reading.classes[number]) for number in own]
        for of, least in ((share3, 3), (share2, 2), (share1, 1)):
            assert of[row, col] == pytest.approx(100 * sum(c >= least for c in classes) / len(own))
        mean = sum(float(reading.completeness[number]) for number in own) / len(own)
        assert complete[row, col] == pytest.approx(100 * mean, abs=1e-3)
    assert 0 < few < grid.shape[0] * grid.shape[1]
    assert [tuple(of) for of in tiles_with_cells(reading, grid)] == sorted(cells)


def test_other_rules_move_the_maps_of_classes_alone(reading: CellReading) -> None:
    grid = cell_grid((1300, 1100), MPP)
    before = cell_maps(reading, grid)
    after = cell_maps(reading.judged_by(Rules(gain=2.0)), grid)
    assert np.nanmean(after[0].values) < np.nanmean(before[0].values)
    for place in (3, 4):
        np.testing.assert_array_equal(after[place].values, before[place].values)


def test_a_slide_without_cells_has_empty_maps() -> None:
    none = CellReading(Cells.none(), np.zeros(0, np.int16), (), np.zeros(0, bool))
    grid = cell_grid((1300, 1100), MPP)
    assert not any(of.holds_any for of in cell_maps(none, grid))
    assert tiles_with_cells(none, grid).shape == (0, 2)


@pytest.mark.parametrize("square_um", [20.0, 32.0, 80.0, 128.0])
def test_blur_is_averaged_over_a_tile_or_taken_at_its_centre(square_um: float) -> None:
    grid = cell_grid((1300, 1100), MPP)
    rng = np.random.default_rng(0)
    blur = rng.uniform(0.4, 2, (int(280 // square_um), int(260 // square_um)))
    blur[0, 0] = np.nan
    values = focus_map(blur, square_um, grid).values
    for row, col in product(range(grid.shape[0]), range(grid.shape[1])):
        inside = [
            blur[y, x]
            for y, x in product(range(blur.shape[0]), range(blur.shape[1]))
            if (y + 0.5) * square_um // 80 == row and (x + 0.5) * square_um // 80 == col
        ]
        inside = [of for of in inside if np.isfinite(of)]
        y, x = int((row + 0.5) * 80 // square_um), int((col + 0.5) * 80 // square_um)
        at = blur[y, x] if y < blur.shape[0] and x < blur.shape[1] else np.nan
        assert values[row, col] == pytest.approx(np.mean(inside) if inside else at, nan_ok=True)
