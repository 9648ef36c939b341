"""The grid places every tile once and exactly, whatever the slide's µm/px."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_her2.errors import SlideError
from napari_her2.slide.grid import TileGrid

grids = st.builds(
    TileGrid,
    slide_shape_px0=st.tuples(st.integers(1, 120_000), st.integers(1, 120_000)),
    slide_mpp=st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    tile_px=st.integers(16, 1024),
    mpp=st.floats(0.1, 8),
)


@given(grids)
def test_every_tile_of_the_grid_lies_within_the_slide(grid: TileGrid) -> None:
    rows, cols = grid.shape
    height, width = (Fraction(size) for size in grid.slide_shape_px0)
    pitch_y = Fraction(grid.tile_px) * Fraction(grid.mpp) / Fraction(grid.slide_mpp[0])
    pitch_x = Fraction(grid.tile_px) * Fraction(grid.mpp) / Fraction(grid.slide_mpp[1])
    slack = Fraction(1, 100)
    assert rows * pitch_y <= height + slack
    assert cols * pitch_x <= width + slack
    assert (rows + 1) * pitch_y > height - slack
    assert (cols + 1) * pitch_x > width - slack


@given(grids, st.data())
def test_the_corner_of_a_tile_leads_back_to_the_tile(grid: TileGrid, data: st.DataObject) -> None:
    rows, cols = grid.shape
    if rows == 0 or cols == 0 or min(grid.tile_px0) < 2:
        return
    index = np.array([[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))]])
    centre = grid.origins_px0(index) + np.array(grid.tile_px0) / 2
    np.testing.assert_array_equal(grid.index_of_px0(centre), index)
    assert grid.contains(index).all()


def test_the_pitch_does_not_drift_over_a_large_slide() -> None:
    grid = TileGrid((100_000, 100_000), (0.2527, 0.2527), tile_px=96, mpp=0.5)
    last = np.array([[grid.shape[0] - 1, grid.shape[1] - 1]])
    exact = float(Fraction(int(last[0, 0])) * 96 * Fraction("0.5") / Fraction("0.2527"))
    assert abs(grid.origins_px0(last)[0, 0] - exact) <= 0.5


def test_layer_placement_matches_the_edges_of_the_slide_layer() -> None:
    # napari puts the centre of a pixel at translate + index * scale, and both layers must share their edge.
    grid = TileGrid((4000, 4000), (0.25, 0.25), tile_px=96, mpp=0.5)
    slide_edge_um = -0.25 / 2
    map_edge_um = grid.layer_translate[0] - grid.layer_scale[0] / 2
    assert map_edge_um == pytest.approx(slide_edge_um)
    # The same by the formula in level-0 px for tiles of T px: (T - 1) / 2 * µm/px.
    assert grid.layer_translate[0] == pytest.approx((192 - 1) / 2 * 0.25)


def test_paint_puts_values_at_their_tiles_and_nan_elsewhere() -> None:
    grid = TileGrid((400, 600), (0.5, 0.5), tile_px=100, mpp=0.5)
    image = grid.paint(np.array([[0, 1], [3, 5]]), np.array([2.0, -1.0]))
    assert image.shape == (4, 6)
    assert image[0, 1] == 2
    assert image[3, 5] == -1
    assert np.isnan(image).sum() == 22


def test_a_grid_without_a_size_is_refused() -> None:
    with pytest.raises(SlideError, match="positive µm/px"):
        TileGrid((300, 300), (1.0, 1.0), tile_px=0, mpp=1.0)


@given(grids, st.floats(0, 0.99), st.floats(0, 0.99), st.data())
def test_a_shifted_tile_lies_its_shift_away(
    grid: TileGrid, down: float, right: float, data: st.DataObject
) -> None:
    moved = grid.shifted((down, right))
    rows, cols = moved.shape
    assert all(own - 1 <= other <= own for own, other in zip(grid.shape, moved.shape, strict=True))
    if rows == 0 or cols == 0 or min(grid.tile_px0) < 2:
        return
    index = np.array([[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))]])
    exact = (index[0] + np.array([down, right])) * grid.tile_px0
    assert np.abs(moved.origins_px0(index)[0] - exact).max() <= 0.5 + 1e-6
    assert np.all(exact + grid.tile_px0 <= np.array(grid.slide_shape_px0) + 0.01)
    np.testing.assert_allclose(moved.centres_px0(index)[0], exact + np.array(grid.tile_px0) / 2)
    np.testing.assert_allclose(
        moved.centres_um(index)[0], (index[0] + [down + 0.5, right + 0.5]) * grid.tile_um
    )
    np.testing.assert_allclose(moved.edges_px0(0)[index[0, 0]], exact[0])
    np.testing.assert_array_equal(moved.index_of_px0(moved.centres_px0(index)), index)
    edge = np.array(moved.layer_translate) - np.array(moved.layer_scale) / 2
    expected = np.array([down, right]) * grid.tile_um - np.array(grid.slide_mpp) / 2
    np.testing.assert_allclose(edge, expected, rtol=1e-9, atol=1e-9 * grid.tile_um)


@pytest.mark.parametrize("shift", [(1.0, 0.0), (0.0, -0.1), (float("nan"), 0.0)])
def test_a_grid_that_begins_elsewhere_is_refused(shift: tuple[float, float]) -> None:
    with pytest.raises(SlideError, match="within the first tile"):
        TileGrid((100, 100), (0.5, 0.5), 10, 0.5, shift)
