"""Cells counted by region and class, as read and as the uncertainties would have them: all in few passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.clusters import largest_clusters, neighbours
from napari_her2.cells.criteria import Shares
from napari_her2.cells.quality import SOFT_UM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

Clusters = tuple[int, int, int]
NO_CLUSTERS: Clusters = (0, 0, 0)

CALIBRATED, UNCALIBRATED = 0.10, 0.25
"""Relative uncertainty of the strength of stain.

Runs of one laboratory on one scanner differ by about a tenth, which is also the error of mass that the
measurement aims at. Between two laboratories the mass of cells of neighbouring scores differed by a quarter
(0.42 and 0.52 OD·µm) where it should have differed the other way: without a calibration a score may be off by
more than is tried here."""
SHARP_UM = 0.25
"""Blur that sharp slides show by `napari_her2.cells.quality.overall_blur`, µm."""
HALVING_UM = 0.75
"""Further blur, as standard deviation, that halves the mass of a membrane: on the real cores 0.5 µm left 0.71
of it, 0.75 µm 0.53 and 1 µm 0.37. Completeness falls too, which no strength of stain brings back."""


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Cells of a region, counted.

    Parameters
    ----------
    counts : (2, 2, 4) int64
        By whether they are left out, by whether they are moderate to intense but incomplete, and by class.
    clusters : tuple of two tuples of 3 int
        Largest clusters, see `napari_her2.cells.criteria.Shares`: of the counted cells, and of all.
    """

    counts: NDArray[np.int64]
    clusters: tuple[Clusters, Clusters] = (NO_CLUSTERS, NO_CLUSTERS)

    @property
    def classes(self) -> NDArray[np.int64]:
        """Counted cells of each class, (4,)."""
        return np.asarray(self.counts[0].sum(axis=0))

    @property
    def left_out(self) -> int:
        """Cells that are left out."""
        return int(self.counts[1].sum())

    def shares(self, *, with_left_out: bool = False, fewer: int = 0) -> Shares:
        """Return what the criteria look at.

        Parameters
        ----------
        with_left_out : bool
            Count those too that are left out.
        fewer : int
            Leave out so many cells of class 0 more; all of them, where there are fewer.
        """
        both = self.counts.sum(axis=0) if with_left_out else self.counts[0]
        one, two, three = (int(both[:, place:].sum()) for place in (1, 2, 3))
        cells = int(both.sum())
        cells -= min(fewer, cells - one)
        to_percent = 100 / max(cells, 1)
        return Shares(
            stained=one * to_percent,
            moderate=two * to_percent,
            intense=three * to_percent,
            incomplete=int(both[1, :2].sum()) * to_percent,
            clusters=self.clusters[with_left_out],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tallies:
    """Cells of a region as read, and as they would be if the stain were stronger, weaker or in focus.

    Parameters
    ----------
    as_read, stronger, weaker : Tally
    sharp : Tally or None
        None where the image is sharp.
    """

    as_read: Tally
    stronger: Tally
    weaker: Tally
    sharp: Tally | None = None


def uncertainty(reading: CellReading) -> float:
    """Relative uncertainty of the strength of stain of a reading."""
    return CALIBRATED if reading.calibration else UNCALIBRATED


def lost_by_blur(blur_um: float) -> float:
    """How many times stronger membranes may be than an image of this blur shows them; 1 where it is sharp.

    Gaussian blur adds in squares, and mass falls with them.

    Parameters
    ----------
    blur_um : float
        From `napari_her2.cells.quality.overall_blur`; nan where not known.
    """
    if not blur_um > SOFT_UM:
        return 1.0
    return float(2 ** ((blur_um**2 - SHARP_UM**2) / HALVING_UM**2))


def tallied(reading: CellReading) -> tuple[Tallies, ...]:
    """Count the cells of all regions together, and then of each region.

    Parameters
    ----------
    reading : CellReading

    Returns
    -------
    tuple of Tallies
        One more than `CellReading.region_names`.
    """
    times, lost = 1 + uncertainty(reading), lost_by_blur(reading.blur_um)
    strengths = [1.0, times, 1 / times, *([lost] if lost > 1 else [])]
    regions = len(reading.region_names)
    # One number a cell holds all it is counted by: region, left out, incomplete, class.
    place = (reading.region.astype(np.int64) + 1) * 16 + reading.left_out * np.int64(8)
    pairs = neighbours(reading.cells.centre_um) if _by_clusters(reading) else None
    found: list[tuple[Tally, ...]] = []
    for strength in strengths:
        classes = reading.classes if strength == 1 else reading.classes_at(strength)
        mass = reading.raw_mass * np.float32(strength / reading.rules.gain)
        thick = (mass >= np.float32(reading.rules.mass[1])) & (
            reading.completeness >= np.float32(reading.rules.completeness[0])
        )
        incomplete = thick & (classes < 2)
        key = place + (incomplete.view(np.uint8) * np.uint8(4) + classes)
        counts = np.bincount(key, minlength=16 * (regions + 2)).reshape(-1, 2, 2, 4)[1:]
        each = (counts.sum(axis=0), *counts[:regions])
        clusters = _clusters(reading, classes, pairs, regions)
        found.append(tuple(Tally(one, two) for one, two in zip(each, clusters, strict=True)))
    return tuple(Tallies(*each) for each in zip(*found, strict=True))


def _by_clusters(reading: CellReading) -> bool:
    return reading.rules.gastric and reading.rules.biopsy


def _clusters(
    reading: CellReading, classes: NDArray[np.uint8], pairs: NDArray[np.intp] | None, regions: int
) -> list[tuple[Clusters, Clusters]]:
    """Largest clusters of all regions together, and of each region: of the counted cells, and of all."""
    if pairs is None:
        return [(NO_CLUSTERS, NO_CLUSTERS)] * (regions + 1)
    found = np.zeros((regions + 1, 2, 3), np.int64)
    for at, cells in enumerate((reading.counted, reading.region >= 0)):
        for place in (1, 2, 3):
            chosen = cells & (classes >= place)
            found[0, at, place - 1] = largest_clusters(chosen, np.zeros_like(reading.region), pairs, 1)[0]
            if not regions:
                continue
            found[1:, at, place - 1] = largest_clusters(chosen, reading.region, pairs, regions)
    return [(_three(counted), _three(every)) for counted, every in found]


def _three(cells: NDArray[np.int64]) -> Clusters:
    one, two, three = cells.tolist()
    return one, two, three
