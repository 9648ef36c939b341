"""Lymphocytes and stromal cells among the cells of a tumour region, as far as they can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.rules import completeness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.rules import Rules
    from napari_her2.cells.table import Cells

SMALL_UM2 = (8.0, 42.0)
"""Area of the nucleus of a lymphocyte, 3.2 to 7.3 µm across."""
ROUND = 1.4
LONG = 2.2
"""Longest over shortest axis of a round nucleus, at most, and of a stromal one, at least."""
DARKER = 1.15
"""So many times darker than the median nucleus of the slide."""


def bystanders(cells: Cells, rules: Rules) -> NDArray[np.bool_]:
    """Which cells are taken for lymphocytes and stromal cells.

    Parameters
    ----------
    cells : Cells
        All of the slide.
    rules : Rules

    Returns
    -------
    (N,) bool
    """
    seen = cells.nucleus_um2 > 0
    if not seen.any():
        return np.zeros(len(cells), bool)
    usual = float(np.median(cells.nucleus_h[seen]))
    bare = seen & (completeness(cells, rules) < rules.completeness[0])
    least, most = SMALL_UM2
    small = (cells.nucleus_um2 >= least) & (cells.nucleus_um2 <= most) & (cells.nucleus_ratio <= ROUND)
    lymphocyte = small & (cells.nucleus_h >= DARKER * usual)
    return np.asarray(bare & (lymphocyte | (cells.nucleus_ratio >= LONG)), bool)
