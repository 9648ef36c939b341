"""Lymphocytes and stromal cells among the cells of a tumour region, as far as they can be told.

Conservative: a cell is left out only where its nucleus says so and no membrane of it is stained, since a
tumour cell left out by mistake is lost, and a lymphocyte that is counted only dilutes the percentages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.rules import completeness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.rules import Rules
    from napari_her2.cells.table import Cells

LYMPHOCYTE_UM2 = (12.0, 50.0)
"""Area of the nucleus of a lymphocyte: 4 to 8 µm across."""
ROUND = 1.6
"""Longest over shortest axis of a round nucleus, at most; two that touch have more."""
DARKER = 1.4
"""A lymphocyte's nucleus is so many times darker than the median nucleus of the slide."""
SPINDLE_UM2 = (8.0, 45.0)
LONG = 2.1
"""Area and longest over shortest axis of the nucleus of a stromal cell: long and thin."""


def bystanders(cells: Cells, rules: Rules) -> NDArray[np.bool_]:
    """Which cells are taken for lymphocytes and stromal cells.

    Lymphocytes have small, round, dark nuclei, stromal cells long and thin ones, and neither has a membrane
    with as much staining as a 1+ asks for. How dark a nucleus is depends on laboratory and scanner, so it is
    compared with the nuclei of the slide: give all its cells at once, never a window's.

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
        return np.zeros(len(cells), np.bool_)
    usual = float(np.median(cells.nucleus_h[seen]))
    bare = completeness(cells, rules) < rules.completeness[0]
    lymphocyte = _within(cells.nucleus_um2, LYMPHOCYTE_UM2) & (cells.nucleus_ratio <= ROUND)
    lymphocyte &= cells.nucleus_h >= DARKER * usual
    stromal = _within(cells.nucleus_um2, SPINDLE_UM2) & (cells.nucleus_ratio >= LONG)
    return np.asarray(bare & (lymphocyte | stromal))


def _within(values: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= limits[0]) & (values <= limits[1])
