"""Points and squares asked of polygons by way of a lattice: the answers of GEOS, point by point."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.cells.polygon_lattice import contains_grid, contains_xy, intersects_xy, squares_met

SIDE = 1000
FAR = 10_000_000


def drawn(rng: np.random.Generator, kind: int):
    """Stars with a hole, several of them, a sliver, and all but a star."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
    far = rng.uniform(0.1, 0.5, 40) * SIDE
    star = shapely.Polygon(np.stack([SIDE / 2 + far * np.cos(angle), SIDE / 2 + far * np.sin(angle)], axis=1))
    star = shapely.make_valid(star)
    box = shapely.box(100, 200, 300, 500)
    if kind == 0:
        return star
    if kind == 1:
        return shapely.union_all([shapely.difference(star, shapely.box(450, 450, 550, 550)), box])
    if kind == 2:
        return shapely.Polygon([(0, 0), (SIDE, SIDE), (SIDE, SIDE - 0.5)])
    return shapely.difference(shapely.box(-FAR, -FAR, FAR, FAR), star)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.integers(0, 3), points=st.sampled_from([100, 5_000, 60_000]))
def test_every_point_is_answered_as_by_geos(seed, kind, points) -> None:
    rng = np.random.default_rng(seed)
    area = drawn(rng, kind)
    x, y = rng.uniform(-50, SIDE + 50, (2, points))
    whole = rng.integers(0, 20, (2, points)) * 50.0  # many on outlines and on the edges of squares
    on = rng.random(points) < 0.3
    x[on], y[on] = whole[0, on], whole[1, on]
    np.testing.assert_array_equal(intersects_xy(area, x, y), shapely.intersects_xy(area, x, y))
    np.testing.assert_array_equal(contains_xy(area, x, y), shapely.contains_xy(area, x, y))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.integers(0, 3), step=st.sampled_from([4.0, 7.3, 50.0]))
def test_every_pixel_of_a_grid_is_answered_as_by_geos(seed, kind, step) -> None:
    area = drawn(np.random.default_rng(seed), kind)
    x, y = np.arange(0, SIDE + 100, step), np.arange(0, SIDE - 100, step)
    wanted = shapely.contains_xy(area, *np.meshgrid(x, y))
    np.testing.assert_array_equal(contains_grid(area, x, y), wanted)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.integers(0, 3), side=st.sampled_from([10.0, 13.7, 50.0, 400.0])
)
def test_every_square_is_met_as_geos_says(seed, kind, side) -> None:
    area = drawn(np.random.default_rng(seed), kind)
    rows, cols = int(1100 // side), int(1300 // side)
    at = np.argwhere(np.ones((rows, cols), bool))
    y0, x0 = (at * side).T
    y1, x1 = ((at + 1) * side).T
    wanted = shapely.intersects(area, shapely.box(x0, y0, x1, y1)).reshape(rows, cols)
    np.testing.assert_array_equal(squares_met(area, (rows, cols), (side, side)), wanted)


@pytest.mark.parametrize("area", [shapely.Polygon(), shapely.box(5000, 5000, 6000, 6000)])
def test_what_lies_nowhere_near_holds_nothing(area) -> None:
    x = np.linspace(0, 100, 5000)
    assert not intersects_xy(area, x, x).any()
    assert not contains_xy(area, x, x).any()
    assert not contains_grid(area, x, x[:70]).any()
    assert not squares_met(area, (30, 40), (10.0, 10.0)).any()


def test_a_square_that_only_touches_the_outline_is_met() -> None:
    area = shapely.box(100, 100, 200, 200)
    met = squares_met(area, (40, 40), (10.0, 10.0))
    assert met.sum() == 12 * 12
    assert met[9, 9]
    assert not met[8, 8]


def test_points_on_a_line_are_answered() -> None:
    x = np.linspace(0, 300, 5000)
    inside = intersects_xy(shapely.box(100, 0, 200, 10), x, np.zeros(5000))
    np.testing.assert_array_equal(inside, (x >= 100) & (x <= 200))
