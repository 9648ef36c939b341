"""Which sectors are stained is decided as plain comparison does, only faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_her2.cells.rules import Rules, completeness, stained
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
