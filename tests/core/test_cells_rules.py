"""Which sectors are stained is decided as plain comparison does, only faster."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cells_by_hand import cells_by_hand
from napari_her2.cells.rules import Rules, completeness, lateral_mass, membrane_mass, stained
from napari_her2.cells.table import Cells

halves = st.one_of(st.floats(width=16), st.sampled_from([0.1, 0.0, -0.0, np.inf, -np.inf, np.nan]))
planes = hnp.arrays(np.float16, (3, 32), elements=halves.map(np.float16))


@given(contrast=planes, dab=planes, least=st.sampled_from([0.1, 0.0, 1e-9, 0.25, 3.0]))
@settings(max_examples=200, deadline=None)
def test_sectors_are_stained_from_both_thresholds_on(
    contrast: np.ndarray, dab: np.ndarray, least: float
) -> None:
    cells = replace(Cells.none(), contrast=contrast, dab=dab)
    rules = Rules(contrast=least, dab=0.1)
    # float16, as the cells are: a threshold of 0.1 is the nearest number that they can hold.
    expected = (contrast >= np.float16(least)) & (dab >= np.float16(0.1))
    np.testing.assert_array_equal(stained(cells, rules), expected)
    np.testing.assert_allclose(completeness(cells, rules), expected.sum(axis=1) / 32)


def test_what_is_known_of_a_table_is_picked_for_its_parts() -> None:
    """Also where nothing is known of it yet, and whatever thresholds were tried in between."""
    cells, _ = cells_by_hand(500, 3)
    rows = np.random.default_rng(0).permutation(500)[:170]
    part, copied = cells.part(rows), cells.pick(rows)
    for rules in (Rules(), Rules(contrast=0.2), *(Rules(dab=0.1 + 0.01 * k) for k in range(8)), Rules()):
        before = completeness(part, rules), lateral_mass(part, rules)
        completeness(cells, rules), lateral_mass(cells, rules), membrane_mass(cells)
        for found in (before, (completeness(part, rules), lateral_mass(part, rules))):
            np.testing.assert_array_equal(found[0], completeness(copied, rules))
            np.testing.assert_array_equal(found[1], lateral_mass(copied, rules))
        np.testing.assert_array_equal(membrane_mass(part), membrane_mass(copied))


def test_a_part_of_a_table_is_a_table_of_its_cells() -> None:
    cells, _ = cells_by_hand(300, 4)
    inside = cells.centre_um[:, 0] > np.median(cells.centre_um[:, 0])
    part, copied = cells.part(inside), cells.pick(inside)
    few = np.array([3, 1, 7])
    assert len(part) == len(copied)
    for of in fields(Cells):
        wanted = getattr(copied, of.name)
        np.testing.assert_array_equal(getattr(part.part(few), of.name), wanted[few])
        np.testing.assert_array_equal(getattr(part.pick(few), of.name), wanted[few])
        np.testing.assert_array_equal(getattr(part, of.name), wanted)
    np.testing.assert_array_equal(part.outlines_um(few), copied.outlines_um(few))
    travelled = pickle.loads(pickle.dumps(part))
    assert type(travelled) is Cells
    np.testing.assert_array_equal(travelled.mass, copied.mass)
