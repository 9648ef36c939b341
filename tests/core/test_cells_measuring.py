"""From pixels to cells: what is found and measured of drawn cells, against what was drawn."""

from __future__ import annotations

import numpy as np

from napari_her2.cells.measuring import HALO_UM, measured
from napari_her2.cells.stains import fit_stains


def test_glass_holds_no_cells():
    white = np.full((300, 300, 3), 240, np.uint8)
    stains = fit_stains([white])
    assert len(measured(white, stains, (0.0, 0.0), (0.0, 0.0, 150.0, 150.0))) == 0
    assert HALO_UM >= 20
