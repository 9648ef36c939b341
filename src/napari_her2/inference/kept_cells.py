"""What the reading of the cells of a slide keeps; see `napari_her2.inference.kept_scoring`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.inference.kept_scoring import KeptScoring

if TYPE_CHECKING:
    from napari_her2.inference.cell_reading import MeasuredPieces
    from napari_her2.inference.cell_scope import CellGround
    from napari_her2.slide.quality import Quality


@dataclass(frozen=True, slots=True, eq=False)
class KeptCells(KeptScoring):
    """What the reading of cells keeps.

    Parameters
    ----------
    ground : CellGround
    measured : MeasuredPieces
    quality : Quality or None
        Where cells in poor tiles do not count.
    """

    ground: CellGround
    measured: MeasuredPieces
    quality: Quality | None = None
