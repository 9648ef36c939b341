"""From membranes to classes: thresholds of completeness and mass, and the gain of a laboratory.

The constants are a start, found on few images, not validated: who changes them finds it in every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.table import SECTORS, of_each
from napari_her2.errors import JobFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.table import Cells

CLASSES = ("0", "1+", "2+", "3+")
LATERAL_SECTORS = SECTORS // 3 + 1
"""Sectors of the third of a membrane that the gastric rule looks at."""
_CELLS_AT_ONCE = 65536


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds of classes of cells; the defaults are those of the specification.

    Parameters
    ----------
    completeness : tuple of 3 float
        Least share of stained sectors of a 1+, 2+ and 3+ cell.
    mass : tuple of 3 float
        Least mean membrane mass, divided by the gain, of a 1+, 2+ and 3+ cell, OD·µm.
    gain : float
        Of laboratory, antibody and scanner, from a calibration; 1 where there is none.
    contrast, dab : float
        OD from which a sector counts as stained.
    gastric : bool
        The gastric rule instead of that of the breast: basolateral or lateral staining counts too.
    biopsy : bool
        With the gastric rule: a cluster of 5 cells decides, not 10 % of them.
    """

    completeness: tuple[float, float, float] = (0.33, 0.60, 0.65)
    mass: tuple[float, float, float] = (0.18, 0.385, 0.715)
    gain: float = 1.0
    contrast: float = 0.10
    dab: float = 0.10
    gastric: bool = False
    biopsy: bool = False

    def __post_init__(self) -> None:
        for name in ("completeness", "mass"):
            held = getattr(self, name)
            if len(held) != 3 or not all(np.isfinite(held)) or sorted(held) != list(held) or held[0] < 0:
                raise JobFailed(f"The thresholds of {name} are three numbers from 0 up, for 1+, 2+ and 3+.")
        if max(self.completeness) > 1:
            raise JobFailed("The thresholds of completeness are shares, at most 1.")
        if not (np.isfinite(self.gain) and 0.05 <= self.gain <= 20):
            raise JobFailed("A gain is a number from 0.05 to 20.")


def stained(cells: Cells, rules: Rules) -> NDArray[np.bool_]:
    """Which sectors of each cell are stained, (N, 32) bool."""
    return at_least(cells.contrast, rules.contrast) & at_least(cells.dab, rules.dab)


def at_least(values: NDArray[np.float16], least: float) -> NDArray[np.bool_]:
    """Compare as ``values >= least`` does, by their bits: positive numbers have the order of their bits.

    NumPy compares float16 thirty times more slowly, which a threshold that follows the mouse cannot wait for.
    """
    if values.dtype != np.float16 or not np.float16(least) > 0:
        return np.asarray(values >= least)
    # Negative numbers are negative here, too, and what is not a number lies above infinity.
    bits = values.view(np.int16)
    infinity = np.float16(np.inf).view(np.int16)
    return np.asarray((bits >= np.float16(least).view(np.int16)) & (bits <= infinity))


def completeness(cells: Cells, rules: Rules) -> NDArray[np.float32]:
    """Share of stained sectors of each cell, (N,) float32."""

    def share(cells: Cells) -> NDArray[np.float32]:
        return np.asarray(stained(cells, rules).mean(axis=1), np.float32)

    found: NDArray[np.float32] = of_each(cells, ("completeness", rules.contrast, rules.dab), share)
    return found


def membrane_mass(cells: Cells) -> NDArray[np.float32]:
    """Mean membrane mass over all sectors of each cell, without a gain, (N,) float32, OD·µm.

    All sectors, not the stained ones alone: it depends on no threshold, and comes closest to the 0.42 OD·µm
    that the thresholds of mass go with (3+ core: 0.39 over its cells, 0.47 over its complete ones; the
    stained sectors alone have 0.50 and 0.54).
    """

    def mean(cells: Cells) -> NDArray[np.float32]:
        return np.asarray(cells.mass.mean(axis=1, dtype=np.float32), np.float32)

    found: NDArray[np.float32] = of_each(cells, "mass", mean)
    return found


def lateral_mass(cells: Cells, rules: Rules) -> NDArray[np.float32]:
    """Mean mass of the strongest third of the membrane of each cell, without a gain, (N,) float32, OD·µm.

    Of stained sectors alone, wherever they lie: what basolateral or lateral staining of the stomach shows,
    where the rest of the membrane is bare.
    """
    key = "lateral mass", rules.contrast, rules.dab
    found: NDArray[np.float32] = of_each(cells, key, lambda cells: _lateral_mass(cells, rules))
    return found


def _lateral_mass(cells: Cells, rules: Rules) -> NDArray[np.float32]:
    strongest, is_stained = np.empty(len(cells), np.float32), stained(cells, rules)
    for start in range(0, len(cells), _CELLS_AT_ONCE):
        rows = slice(start, start + _CELLS_AT_ONCE)
        mass = np.where(is_stained[rows], cells.mass[rows], 0).astype(np.float32)
        strongest[rows] = np.partition(mass, -LATERAL_SECTORS, axis=1)[:, -LATERAL_SECTORS:].mean(axis=1)
    return strongest


def lateral_thresholds(rules: Rules) -> tuple[float, float, float]:
    """Mass, divided by the gain, that the gastric rule asks of the strongest third of a 2+ and a 3+ membrane.

    That of a stained sector of a cell that is just complete enough: the threshold of mass over that of
    completeness. Of a 1+ there is none: infinite.
    """
    wanted = [
        least / max(share, 1 / SECTORS) for share, least in zip(rules.completeness, rules.mass, strict=True)
    ]
    return float("inf"), wanted[1], max(wanted[1:])


def classes(
    complete: NDArray[np.float32],
    raw_mass: NDArray[np.float32],
    rules: Rules,
    lateral: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Class of each cell, (N,) uint8: a place in `CLASSES`.

    Parameters
    ----------
    complete : (N,) float32
        Share of stained sectors.
    raw_mass : (N,) float32
        Mean membrane mass without a gain, OD·µm.
    rules : Rules
    lateral : (N,) float32, optional
        From `lateral_mass`, for the gastric rule: a cell complete enough for 1+ is 2+ or 3+ too where the
        strongest third of its membrane has the mass that `lateral_thresholds` ask.
    """
    gain, thick = np.float32(rules.gain), lateral_thresholds(rules)
    found = np.zeros(len(complete), np.uint8)
    # The thresholds rise with the class, so that every class reached holds those below it: they are counted.
    for place, (share, least) in enumerate(zip(rules.completeness, rules.mass, strict=True)):
        reached = (complete >= np.float32(share)) & (raw_mass / gain >= np.float32(least))
        if rules.gastric and lateral is not None and place:
            some = complete >= np.float32(rules.completeness[0])
            reached |= some & (lateral / gain >= np.float32(thick[place]))
        found += reached
    return found
