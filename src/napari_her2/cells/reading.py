"""What was read of a slide: its cells, which of them count, and the rules they are judged by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.lookup import CellIndex
from napari_her2.cells.rules import Rules, classes, completeness, lateral_mass, membrane_mass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.table import Cells


@dataclass(frozen=True, eq=False)
class CellReading:
    """Cells of a slide with what they are judged by; other rules make another reading of the same cells.

    Parameters
    ----------
    cells : Cells
        All that were measured.
    region : (N,) int16
        Number of the tumour region that each cell lies in, from 0; -1 outside of all, and in what was
        excluded. All 0 where no region was drawn.
    region_names : tuple of str
        Of the tumour regions; empty where none was drawn, then the cells are "all cells" and give no score.
    left_out : (N,) bool
        Lymphocytes and stromal cells, as far as they can be told.
    rules : Rules
    calibration : str
        Name of the calibration that the gain is from; empty where there is none.
    reasons : tuple of str
        Why there is no score, in sentences; empty where there is one.
    blur_um : float
        Blur of what was read, from `napari_her2.cells.quality.overall_blur`; nan where not known.
    """

    cells: Cells
    region: NDArray[np.int16]
    region_names: tuple[str, ...]
    left_out: NDArray[np.bool_]
    rules: Rules = field(default_factory=Rules)
    calibration: str = ""
    reasons: tuple[str, ...] = ()
    blur_um: float = float("nan")

    @cached_property
    def completeness(self) -> NDArray[np.float32]:
        """Share of stained sectors of each cell, (N,)."""
        return completeness(self.cells, self.rules)

    @cached_property
    def raw_mass(self) -> NDArray[np.float32]:
        """Mean membrane mass of each cell without a gain, (N,), OD·µm."""
        return membrane_mass(self.cells)

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """Class of each cell, (N,): a place in `napari_her2.cells.rules.CLASSES`."""
        return self.classes_at(1.0)

    @cached_property
    def lateral_mass(self) -> NDArray[np.float32] | None:
        """Mean mass of the strongest third of each membrane, (N,), OD·µm; for the gastric rule alone."""
        return lateral_mass(self.cells, self.rules) if self.rules.gastric else None

    def classes_at(self, strength: float) -> NDArray[np.uint8]:
        """Class of each cell, (N,), if the stain were so many times as strong as read."""
        if strength == 1:
            return classes(self.completeness, self.raw_mass, self.rules, self.lateral_mass)
        times = np.float32(strength)
        lateral = None if self.lateral_mass is None else self.lateral_mass * times
        return classes(self.completeness, self.raw_mass * times, self.rules, lateral)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Which cells the percentages are of, (N,): inside the tumour regions, and not left out."""
        return np.asarray((self.region >= 0) & ~self.left_out)

    @cached_property
    def index(self) -> CellIndex:
        """Which cells lie where; made at first use, and kept by readings of the same cells."""
        return CellIndex(self.cells)

    def judged_by(self, rules: Rules, calibration: str | None = None) -> CellReading:
        """Return the same cells judged by other rules; completeness and mass are not measured again."""
        same = (rules.contrast, rules.dab) == (self.rules.contrast, self.rules.dab)
        new = replace(self, rules=rules, calibration=self.calibration if calibration is None else calibration)
        kept = ["counted", "index", "raw_mass", *(["completeness"] if same else [])]
        kept += ["lateral_mass"] if same and rules.gastric == self.rules.gastric else []
        for name in kept:
            if name in self.__dict__:
                new.__dict__[name] = self.__dict__[name]
        return new
