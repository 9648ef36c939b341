"""From cells to a score: percentages, criteria, and when the answer stands on the edge."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from napari_her2.cells.criteria import Shares, finding
from napari_her2.cells.rules import CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

LEAST_CELLS = 100
"""With fewer counted cells there is no score."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the counted cells come to, of one region or of all together.

    Parameters
    ----------
    name : str
        Of the region; empty for all together.
    cells : int
        Counted: in the tumour regions, and not left out.
    percentages : mapping of str to float
        Each of "0", "1+", "2+" and "3+" to its share of the counted cells, 0 to 100; together 100. All 0
        without cells.
    at_least : mapping of str to float
        Each class to its share with all above it.
    incomplete : float
        Share of cells below 2+ whose membrane is moderate to intense but incomplete, per cent.
    membrane_staining, no_staining : float
        Share of cells above 0, and the rest, per cent: a 0 "with membrane staining" and one of "no staining"
        are told apart by it, as measured, and never as an eligibility.
    score : str
        "" where there is none.
    why : str
        The criterion that gives the score, in words; empty without one.
    alternatives : tuple of str
        Other scores that the uncertainties reach, from low to high.
    borderline : str
        Why there are alternatives, in sentences; empty where there are none.
    h_score : float
        3 x % 3+ plus 2 x % 2+ plus % 1+, 0 to 300; nan without cells.
    ck90 : float
        Completeness x mass at the 90th percentile of the counted cells, OD·µm; nan without cells.
    left_out : int
        Lymphocytes and stromal cells in the regions.
    left_out_percent : float
        Their share of the cells in the regions.
    score_with_left_out : str
        Score if they counted too.
    reasons : tuple of str
        Why there is no score, in sentences.
    regions : tuple of Summary
        Of each tumour region, where regions were drawn.
    """

    name: str
    cells: int
    percentages: Mapping[str, float]
    at_least: Mapping[str, float]
    incomplete: float
    membrane_staining: float
    no_staining: float
    score: str
    why: str
    alternatives: tuple[str, ...]
    borderline: str
    h_score: float
    ck90: float
    left_out: int
    left_out_percent: float
    score_with_left_out: str
    reasons: tuple[str, ...]
    regions: tuple[Summary, ...] = ()


def summarised(reading: CellReading) -> Summary:
    """Percentages, score and doubts of the counted cells of a reading, and of each of its regions.

    Parameters
    ----------
    reading : CellReading

    Returns
    -------
    Summary
    """
    mass = reading.raw_mass / np.float32(reading.rules.gain)
    product = reading.completeness * mass
    moderate = (reading.completeness >= reading.rules.completeness[0]) & (mass >= reading.rules.mass[1])
    inside = reading.region >= 0

    def of(name: str, chosen: NDArray[np.bool_], regions: tuple[Summary, ...] = ()) -> Summary:
        counted = chosen & ~reading.left_out
        count = int(counted.sum())
        shares, percent = _shares(reading, counted, moderate)
        reasons = reading.reasons + _own_reasons(reading, count)
        found = finding(shares, reading.rules)
        everyone, _ = _shares(reading, chosen, moderate)
        total = int(chosen.sum())
        return Summary(
            name=name,
            cells=count,
            percentages=MappingProxyType(dict(zip(CLASSES, percent, strict=True))),
            at_least=MappingProxyType(
                {
                    "0": 100.0 if count else 0.0,
                    "1+": shares.stained,
                    "2+": shares.moderate,
                    "3+": shares.intense,
                }
            ),
            incomplete=shares.incomplete,
            membrane_staining=shares.stained,
            no_staining=percent[0],
            score="" if reasons else found.score,
            why="" if reasons else found.why,
            alternatives=(),
            borderline="",
            h_score=percent[1] + 2 * percent[2] + 3 * percent[3] if count else float("nan"),
            ck90=float(np.percentile(product[counted], 90)) if count else float("nan"),
            left_out=total - count,
            left_out_percent=100 * (total - count) / total if total else 0.0,
            score_with_left_out="" if reasons else finding(everyone, reading.rules).score,
            reasons=reasons,
            regions=regions,
        )

    parts = tuple(of(name, reading.region == k) for k, name in enumerate(reading.region_names))
    return of("", inside, parts)


def _own_reasons(reading: CellReading, count: int) -> tuple[str, ...]:
    reasons = []
    if not reading.region_names:
        reasons.append(
            "No tumour region is drawn, so the percentages are of all cells: draw the tumour for a score."
        )
    if count < LEAST_CELLS:
        reasons.append(
            f"Only {count:,} cells are counted, at least {LEAST_CELLS} are needed: draw a larger region."
        )
    return tuple(reasons)


def _shares(
    reading: CellReading, counted: NDArray[np.bool_], moderate: NDArray[np.bool_]
) -> tuple[Shares, tuple[float, ...]]:
    found = np.bincount(reading.classes[counted], minlength=4).astype(float)
    scale = 100 / max(found.sum(), 1.0)
    incomplete = float((counted & moderate & (reading.classes < 2)).sum()) * scale
    percent = tuple((found * scale).tolist())
    return Shares(sum(percent[1:]), sum(percent[2:]), percent[3], incomplete), percent
