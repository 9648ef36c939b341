"""Cells are found where they lie, as a search through all of them finds them."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shapely import Point, Polygon

from cells_by_hand import cells_by_hand, reading_by_hand
from napari_her2.cells.lookup import BUCKET_UM, CellIndex
from napari_her2.cells.rules import Rules
from napari_her2.cells.table import Cells

places = st.floats(-150, 150, width=32)


@st.composite
def tables(draw: st.DrawFn) -> Cells:
    """Cells anywhere, some on the edges of the squares that they are sorted into, of any size."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    cells, _ = cells_by_hand(count, seed=count)
    centre = rng.uniform(-100, 100, (count, 2))
    on_edge = rng.random((count, 2)) < 0.3
    centre = np.where(on_edge, centre.min(axis=0) + BUCKET_UM * np.round(centre / BUCKET_UM), centre)
    border = rng.uniform(0.5, 12, (count, 32)) * rng.uniform(0.2, 1, (count, 1))
    fields = {name: getattr(cells, name) for name in (of.name for of in dataclasses.fields(Cells))}
    fields |= {"centre_um": centre.astype(np.float32), "border_um": border.astype(np.float16)}
    return Cells(**fields)


@given(cells=tables(), box=st.tuples(places, places, places, places))
@settings(max_examples=150, deadline=None)
def test_a_view_holds_the_cells_that_a_search_through_all_finds(cells: Cells, box: tuple[float, ...]) -> None:
    y0, x0, y1, x1 = box
    y, x = cells.centre_um.T
    expected = np.flatnonzero((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
    numbers, centres = CellIndex(cells).found(y0, x0, y1, x1)
    np.testing.assert_array_equal(np.sort(numbers), expected)
    np.testing.assert_array_equal(centres, cells.centre_um[numbers])


@given(cells=tables(), at=st.tuples(st.floats(-110, 110), st.floats(-110, 110)))
@settings(max_examples=150, deadline=None)
def test_the_cell_at_a_point_is_the_nearest_of_those_around_it(cells: Cells, at: tuple[float, float]) -> None:
    point = Point(at)
    outlines = [Polygon(of) for of in cells.outlines_um(slice(None)).astype(np.float64)]
    # On a border both answers are right, and the table holds it to a thousandth of a µm.
    assume(min(of.exterior.distance(point) for of in outlines) > 1e-2)
    around = [number for number, of in enumerate(outlines) if of.contains(point)]
    away = np.hypot(*(cells.centre_um.astype(np.float64) - at).T)
    expected = min(around, key=lambda number: away[number], default=-1)
    assert CellIndex(cells).at(*at) == expected


def test_every_cell_is_found_at_its_centre_among_many() -> None:
    cells, _ = cells_by_hand(3000, seed=2)
    index = CellIndex(cells)
    assert [index.at(*centre) for centre in cells.centre_um[::37]] == list(range(0, 3000, 37))
    assert index.reach_um == cells.border_um.max()


def test_a_table_without_cells_is_searched_in_vain() -> None:
    index = CellIndex(Cells.none())
    assert index.at(1.0, 2.0) == -1
    assert not len(index.in_view(-1e6, -1e6, 1e6, 1e6))


def test_other_rules_keep_the_index() -> None:
    reading = reading_by_hand(50)
    index = reading.index
    assert reading.judged_by(Rules(contrast=0.2, gain=0.5)).index is index
