"""A click takes a piece of tissue: against SciPy's own labels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from napari_her2.inference.region_wand import piece_at
from napari_her2.slide.tissue import TissueMask


@settings(max_examples=60, deadline=None)
@given(
    mask=arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    at=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_piece_is_what_hangs_together(mask, at) -> None:
    tissue = TissueMask(mask, (8.0, 4.0))
    row, col = int(at[0] * mask.shape[0]), int(at[1] * mask.shape[1])
    piece = piece_at(tissue, at[0] * mask.shape[0] * 8, at[1] * mask.shape[1] * 4)
    if not mask[row, col]:
        assert piece is None
        return
    labels, _ = ndimage.label(mask)
    wanted = labels == labels[row, col]
    assert piece.area == wanted.sum() * 32
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    assert np.array_equal(shapely.contains_xy(piece, (x + 0.5) * 4, (y + 0.5) * 8), wanted)


def test_holes_stay_and_steps_go() -> None:
    y, x = np.mgrid[:100, :100]
    far = np.hypot(y - 50, x - 50)
    tissue = TissueMask((far < 40) & (far > 15), (10.0, 10.0))
    exact, smooth = piece_at(tissue, 500, 750), piece_at(tissue, 500, 750, 10.0)
    assert len(exact.interiors) == len(smooth.interiors) == 1
    assert smooth.is_valid
    assert len(smooth.exterior.coords) < len(exact.exterior.coords) / 3
    assert abs(smooth.area / exact.area - 1) < 0.05
    assert smooth.hausdorff_distance(exact) <= 15
    assert piece_at(tissue, 500, 500) is None
    assert piece_at(tissue, -1, 500) is None
    assert piece_at(tissue, 500, 1001) is None
