"""The phantom's random fields and lattices are functions of position alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_her2.phantom.case import SCORES, draw_case, draw_membranes
from napari_her2.phantom.cells import lattice, take_census, tumour_points
from napari_her2.phantom.counter import uniform
from napari_her2.phantom.layers import Frame
from napari_her2.phantom.layout import make_layout
from napari_her2.phantom.noise import field, interpolate
from napari_her2.phantom.shapes import mosaic, rounded, walls


def polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def test_uniform_numbers_fill_the_unit_interval_evenly():
    rows, columns = np.meshgrid(np.arange(-150, 150), np.arange(-150, 150), indexing="ij")
    values = uniform(3, "test", rows, columns)
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert counts.sum() == 90_000
    assert np.abs(counts / 4500 - 1).max() < 0.08
    assert abs(np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(values.ravel(), uniform(4, "test", rows, columns).ravel())[0, 1]) < 0.02


@settings(max_examples=25, deadline=None)
@given(
    start=st.floats(-5000, 50_000),
    scale=st.floats(1.0, 400.0),
    cut=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_a_field_does_not_depend_on_the_block_it_is_asked_for(start, scale, cut, seed):
    y = start + np.arange(48) * 0.5
    x = start / 2 + np.arange(56) * 0.5
    whole = field(seed, "f", y, x, scale)
    np.testing.assert_allclose(field(seed, "f", y[cut:], x[cut:], scale), whole[cut:, cut:], atol=2e-5)


def test_a_field_has_zero_mean_and_unit_variance():
    at = np.arange(0, 4000.0, 5.0)
    values = field(1, "f", at, at, 10.0)
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 1) < 0.05


def test_linear_interpolation_reproduces_a_plane_and_clamps_at_the_ends():
    j, i = np.meshgrid(np.arange(7.0), np.arange(9.0), indexing="ij")
    plane = (2 * j - 3 * i).astype(np.float32)
    rows, columns = np.array([0.25, 3.5, 5.75]), np.array([-4.0, 0.5, 7.5, 30.0])
    expected = 2 * rows[:, None] - 3 * np.clip(columns, 0, 8)[None, :]
    np.testing.assert_allclose(interpolate(plane, rows, columns), expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), y=st.floats(-500, 5000), x=st.floats(-500, 5000))
def test_neighbouring_windows_agree_on_their_cells(seed, y, x):
    def places(window):
        points = lattice(seed, "tumour", window, 12.0, 0.3)
        overlap = (points.y_um >= y) & (points.y_um < y + 60) & (points.x_um >= x) & (points.x_um < x + 60)
        chosen = points.pick(overlap)
        return set(zip(chosen.y_um.tolist(), chosen.x_um.tolist(), strict=True))

    assert places((y - 80, x - 80, y + 60, x + 60)) == places((y, x, y + 140, x + 140)) != set()


def test_voronoi_cells_fill_the_plane_once():
    points = lattice(5, "tumour", (0.0, 0.0, 300.0, 300.0), 12.0, 0.3)
    cells = mosaic(points.y_um, points.x_um)
    inside = (points.y_um > 40) & (points.y_um < 260) & (points.x_um > 40) & (points.x_um < 260)
    areas = [polygon_area(cells.polygons[k]) for k in np.flatnonzero(inside)]
    # A hexagonal lattice has one point per spacing² · √3/2.
    assert abs(np.mean(areas) / (144 * 3**0.5 / 2) - 1) < 0.03
    for k in np.flatnonzero(inside)[:50]:
        assert polygon_area(rounded(cells.polygons[k], 1.0)) < polygon_area(cells.polygons[k])


def test_a_wall_has_its_length_and_width():
    outline = walls(np.array([[[0.0, 0.0], [10.0, 0.0]]]), np.array([0.5]))[0]
    assert abs(polygon_area(outline) - 10.6) < 1e-9
    assert np.ptp(outline[:, 1]) == 1.0


def test_a_frame_places_a_position_at_the_same_pixel_centre_as_its_axes():
    frame = Frame(100.0, 200.0, 0.5, (64, 64))
    fixed = frame.fixed(np.array([[frame.columns_um()[7], frame.rows_um()[3]]]))
    assert fixed.tolist() == [[7 * 16, 3 * 16]]


def criteria(none: float, faint: float, moderate: float, intense: float) -> str:
    """ASCO/CAP 2018 in the order in which a pathologist reads it, in percent."""
    assert abs(none + faint + moderate + intense - 100) < 1e-3
    if intense > 10:
        return "3+"
    if moderate > 10 or (0 < intense <= 10 and moderate + intense > 10):
        return "2+"
    return "1+" if faint > 10 else "0"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), score=st.sampled_from(SCORES))
def test_drawn_percentages_follow_the_rule_of_their_score(seed, score):
    mix = draw_membranes(seed, score)
    shares = (mix.none, mix.faint_incomplete, mix.weak_moderate_complete, mix.intense_complete)
    assert min(shares) >= -1e-12
    assert criteria(*(100 * share for share in shares)) == score


def test_the_census_counts_every_tumour_cell_once():
    case = draw_case(9, "2+")
    layout = make_layout(9, (2300.0, 1400.0))
    census = take_census(case, layout, (2300.0, 1400.0))
    points, taken = tumour_points(case, layout, (0.0, 0.0, 2300.0, 1400.0))
    assert census.cells == int(taken.sum()) > 1000
    mix, wanted = census.mix, case.membranes
    assert abs(mix.intense_complete - wanted.intense_complete) < 1e-3
    assert abs(mix.weak_moderate_complete - wanted.weak_moderate_complete) < 1e-3
    assert points.row.size > census.cells
