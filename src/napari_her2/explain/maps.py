"""A map over the slide: one value a tile, on the tile grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.slide.grid import TileGrid

MapKind = Literal[
    "attention",
    "evidence",
    "score",
    "confidence",
    "probability",
    "Grad-CAM",
    "signed Grad-CAM",
    "tissue",
    "corrupt",
]


@dataclass(frozen=True, slots=True, eq=False)
class TileMap:
    """One value a tile, on the tile grid.

    Parameters
    ----------
    kind : str
        One of `MapKind`.
    values : (rows, columns) float32
        NaN where nothing was scored.
    grid : TileGrid
        Places the map on the slide.
    unit : str
        What a value is, for a person: "attention weight", "percentile", "logit".
    class_name : str or None
        The score that an evidence or a probability map speaks of.
    description : str
        One line on what the map shows and does not show.
    """

    kind: MapKind
    values: NDArray[np.float32]
    grid: TileGrid
    unit: str
    class_name: str | None = None
    description: str = ""

    @property
    def name(self) -> str:
        """Short name for a layer or a file: "attention", "evidence 3+"."""
        return self.kind if self.class_name is None else f"{self.kind} {self.class_name}"

    def percentile(self) -> TileMap:
        """Return the same map as percentile ranks in [0, 1] (average ranks over the scored tiles)."""
        values = np.full_like(self.values, np.nan)
        scored = np.isfinite(self.values)
        if scored.any():
            values[scored] = rankdata(self.values[scored]) / scored.sum()
        return replace(self, values=values, unit="percentile")
