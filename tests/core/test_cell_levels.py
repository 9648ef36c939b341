"""Cells are drawn where they are, in the colour of their class, whatever window is asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, label
from skimage.draw import polygon_perimeter

from cells_by_hand import reading_by_hand
from napari_her2.cells.reading import CellReading
from napari_her2.cells.rules import Rules, stained
from napari_her2.cells.table import Cells, ray_directions
from napari_her2.explain.cell_levels import CLEAR_UM, CellLevels
from napari_her2.explain.class_colours import score_colours

COLOURS = np.round(255 * score_colours(4)).astype(int)
SIZES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


@pytest.fixture(scope="module")
def reading() -> CellReading:
    return reading_by_hand(400, seed=5, columns=20, outside=0.1)


@pytest.fixture(scope="module")
def levels(reading: CellReading) -> CellLevels:
    return CellLevels(reading)


def alone(reading: CellReading, number: int) -> CellReading:
    """One of the cells, and no other."""
    one = slice(number, number + 1)
    fields = {
        name: getattr(reading.cells, name)[one] for name in (of.name for of in dataclasses.fields(Cells))
    }
    return replace(
        reading, cells=Cells(**fields), region=reading.region[one] * 0, left_out=reading.left_out[one] & False
    )


def pixels(levels: CellLevels, level: int, place_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that hold places; levels cover one box, and stretch their pixels by what was rounded."""
    whole_um = 0.25 * np.array(levels.levels[0].shape[:2])
    pixel = whole_um / levels.levels[level].shape[:2]
    y, x = np.floor((place_um - levels.origin_um) / pixel).astype(int).T
    return y, x


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("number", [7, 133, 250])
def test_a_border_lies_where_another_library_draws_it(reading: CellReading, level: int, number: int) -> None:
    one = alone(reading, number)
    levels = CellLevels(one)
    drawn = levels.levels[level][:, :, 3] > 0
    inset = 0.7 if SIZES[level] <= 0.5 else 0.3
    reach = one.cells.border_um[0].astype(float) - inset
    outline = one.cells.centre_um[0] + reach[:, None] * ray_directions()
    rows, cols = polygon_perimeter(*pixels(levels, level, outline), shape=drawn.shape)
    expected = np.zeros(drawn.shape, bool)
    expected[rows, cols] = True
    reached = distance_transform_edt(~drawn)[expected]
    assert reached.max() <= 1.5  # the line has no gap
    centre = np.zeros(drawn.shape, bool)
    if SIZES[level] <= 0.5:
        centre[pixels(levels, level, one.cells.centre_um)] = True
    near = distance_transform_edt(~(expected | centre))[drawn]
    assert near.max() <= (2.3 if level < 4 else 2.9)  # nor is anything drawn elsewhere; of 8 corners at 1 µm
    if SIZES[level] > 0.5:
        assert label(~drawn)[1] >= 2  # closed: inside and outside


def test_stained_sectors_have_the_colour_of_the_class_and_others_are_grey(reading: CellReading) -> None:
    checked = set()
    for number in range(0, 400, 9):
        one = alone(reading, number)
        levels = CellLevels(one)
        picture = levels.levels[0][:, :].astype(int)
        reach = one.cells.border_um[0].astype(float) - 0.7
        tips = pixels(levels, 0, one.cells.centre_um[0] + reach[:, None] * ray_directions())
        sectors = stained(one.cells, one.rules)[0]
        own = COLOURS[one.classes[0]]
        found = picture[tips]
        # Next to where it begins and ends, the thick line reaches over.
        inner = sectors & np.roll(sectors, 1) & np.roll(sectors, -1)
        outer = ~(sectors | np.roll(sectors, 1) | np.roll(sectors, -1))
        assert (found[inner] == own).all()
        assert (found[outer, :3] == found[outer, :1]).all()
        centre = picture[pixels(levels, 0, one.cells.centre_um)]
        assert (centre == own).all()
        checked |= {(int(one.classes[0]), bool(of)) for of in (inner.any(), outer.any())}
    assert {(3, True), (2, True), (1, True)} <= checked


@pytest.mark.parametrize("level", [3, 4, 5])
def test_borders_have_the_colour_of_the_class(reading: CellReading, level: int) -> None:
    for number in range(0, 400, 23):
        one = alone(reading, number)
        picture = CellLevels(one).levels[level][:, :]
        np.testing.assert_array_equal(
            np.unique(picture[picture[..., 3] > 0], axis=0), COLOURS[one.classes[0]][None]
        )


@pytest.mark.parametrize("level", [6, 7, 8])
def test_a_dot_a_cell(levels: CellLevels, reading: CellReading, level: int) -> None:
    picture = levels.levels[level][:, :].astype(int)
    found = picture[pixels(levels, level, reading.cells.centre_um.astype(float))]
    counted = reading.counted
    own = COLOURS[reading.classes]
    same = (found == own).all(axis=1)[counted]
    assert same.mean() > (0.999 if level == 6 else 0.9)  # neighbours may share a pixel where it is large
    assert (found[..., 3] > 0).all()
    if level == 6:
        faint = found[~counted]
        assert (faint[:, 3] < 130).all()
        assert (faint[:, :3] == faint[:, :1]).all()


def test_coarse_levels_are_clear_and_the_coarsest_is_small(levels: CellLevels) -> None:
    many = CellLevels(reading_by_hand(9, columns=3, origin_um=(5.0, 60_000.0)))
    assert many.levels[0].shape[1] < 1000  # the box is that of the cells
    for of in (levels, many):
        whole_um = max(of.levels[0].shape[:2]) * 0.25
        for level in of.levels[len(SIZES) :]:
            assert not level[:, :].any()
            assert whole_um / max(level.shape[:2]) > 0.8 * CLEAR_UM
        assert max(of.levels[-1].shape[:2]) <= 256
        sizes = [level.shape[0] for level in of.levels]
        assert sizes == sorted(set(sizes), reverse=True)


@given(level=st.integers(0, 8), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_window_is_a_part_of_the_whole(levels: CellLevels, level: int, data: st.DataObject) -> None:
    of = levels.levels[level]
    height, width = of.shape[:2]
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    whole, part = of[:, :], of[y0:y1, x0:x1]
    assert part.shape == (y1 - y0, x1 - x0, 4)
    differs = (whole[y0:y1, x0:x1] != part).any(axis=-1)
    # A point on the edge of a pixel may fall to either side, by the rounding of float32.
    assert differs.sum() <= max(3, 2e-3 * differs.size)


def test_clear_pixels_beside_a_line_have_its_colour(reading: CellReading) -> None:
    """Or interpolation would put a dark seam around every line."""
    one = alone(reading, 0)
    picture = CellLevels(one).levels[3][:, :].astype(int)
    drawn = picture[..., 3] > 0
    beside = (distance_transform_edt(~drawn) <= 1) & ~drawn
    assert beside.any()
    assert (picture[beside][:, :3] == COLOURS[one.classes[0]][:3]).all()


def test_the_same_arrays_draw_another_reading(reading: CellReading) -> None:
    levels = CellLevels(reading)
    arrays, before = list(levels.levels), levels.levels[6][:, :]
    stricter = reading.judged_by(Rules(mass=(0.3, 0.6, 1.0)))
    levels.set_reading(stricter)
    assert levels.levels == arrays
    after = levels.levels[6][:, :]
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, CellLevels(stricter).levels[6][:, :])
    with pytest.raises(AssertionError, match="around their cells"):
        levels.set_reading(reading_by_hand(400, seed=6))


@pytest.mark.parametrize("level", [0, 4, 7])
def test_a_marked_cell_has_a_ring_around_it(reading: CellReading, level: int) -> None:
    levels = CellLevels(reading)
    before = levels.levels[level][:, :]
    levels.mark(210)
    after = levels.levels[level][:, :]
    y, x = np.nonzero((before != after).any(axis=-1) & (after[..., 3] > 0))
    at = pixels(levels, level, reading.cells.centre_um[210:211].astype(float))
    away_px = np.hypot(y - at[0], x - at[1])
    border_px = float(reading.cells.border_um[210].max()) / SIZES[level]
    assert away_px.min() > border_px  # the cell itself stays as it is
    assert away_px.max() - away_px.min() < 7
    assert {(0, 0, 0, 255), (255, 255, 255, 255)} == set(map(tuple, after[y, x].tolist()))
    levels.mark(-1)
    np.testing.assert_array_equal(levels.levels[level][:, :], before)


def test_without_cells_there_is_nothing_to_draw() -> None:
    none = CellReading(Cells.none(), np.zeros(0, np.int16), (), np.zeros(0, bool))
    levels = CellLevels(none)
    levels.mark(3)
    assert not any(level[:, :].any() for level in levels.levels)
