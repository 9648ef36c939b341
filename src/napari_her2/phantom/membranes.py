"""Membranes of tumour cells as pieces of the walls between them: what is drawn, and what is true.

Two cells share each wall. A piece of it is as dense as the denser of the two membranes that form it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.phantom.cells import FAINT, INTENSE, MODERATE, Points
from napari_her2.phantom.counter import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.phantom.case import Case
    from napari_her2.phantom.shapes import Floats, Ints, Mosaic

PIECES = 3


@dataclass(frozen=True, slots=True, eq=False)
class MembranePieces:
    """Walls that a membrane may stain, each in three pieces.

    Attributes
    ----------
    pairs : (R, 2) int64
        The two cells on either side of each wall.
    ends : (R, 3, 2, 2) float64
        Both ends (x, y) of each piece, µm, before the tissue is bent.
    density : (R, 3) float64
        Density of DAB x 100 (natural logarithm); 0 where nothing is stained.
    half_um : (R, 3) float64
        Half the width of each piece, µm.
    """

    pairs: Ints
    ends: Floats
    density: Floats
    half_um: Floats


def _own_density(case: Case, kind: Ints, points: Points) -> Floats:
    """Density x 100 of each cell's own membrane."""
    spread = points.uniform(case.seed, "membrane-density")
    density = np.zeros(kind.size)
    for which, (least, more) in zip((FAINT, MODERATE, INTENSE), case.levels.density, strict=True):
        density = np.where(kind == which, least + more * spread, density)
    return density


def membrane_pieces(
    case: Case, points: Points, kind: NDArray[np.int64], cells: Mosaic, *, stained_only: bool = True
) -> MembranePieces:
    """Find the pieces of walls and their stain; of a faint membrane some pieces are left out.

    Parameters
    ----------
    points, cells
        The cells and their Voronoi mosaic.
    kind : (N,) int64
        Membrane state of each cell.
    stained_only : bool
        Whether walls between two cells without any staining are left out.
    """
    density = _own_density(case, kind, points)
    width = np.choose(kind, case.levels.half_um)
    least, more = case.levels.faint_complete
    complete = np.where(kind == FAINT, least + more * points.uniform(case.seed, "complete"), 1.0)
    wanted = (kind[cells.pairs] > 0).any(axis=1) | (not stained_only)
    pairs, ends = cells.pairs[wanted], cells.ends[wanted]
    t = np.arange(PIECES + 1) / PIECES
    knots = ends[:, :1] + t[None, :, None] * (ends[:, 1:] - ends[:, :1])
    best = np.zeros((len(pairs), PIECES))
    half = np.zeros_like(best)
    piece = np.arange(PIECES)[None, :]
    for side in (0, 1):
        me, other = pairs[:, side], pairs[:, 1 - side]
        # The neighbour's place and the side make the key: the same from every block.
        row = points.row[me] * 3 + points.row[other] - points.row[me]
        column = points.column[me] * 5 + points.column[other] - points.column[me]
        chance = uniform(case.seed, "piece", row[:, None] * PIECES + piece, column[:, None] + 0 * piece)
        mine = np.where(chance < complete[me][:, None], density[me][:, None], 0.0)
        half = np.where(mine > best, width[me][:, None], half)
        best = np.maximum(best, mine)
    segments = np.stack((knots[:, :-1], knots[:, 1:]), axis=2)
    return MembranePieces(pairs, segments, best, half)
