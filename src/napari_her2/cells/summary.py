"""What the cells of a slide come to: percentages, the score by the criteria, and what makes it uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from napari_her2.cells.criteria import finding, too_few
from napari_her2.cells.doubts import doubts
from napari_her2.cells.rules import CLASSES
from napari_her2.cells.tallies import Tallies, tallied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_her2.cells.reading import CellReading

NO_REGION = (
    "No tumour region is drawn, so the percentages are of all cells: draw the invasive tumour for a score."
)


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
        Share of cells below 2+ that have the mass of a 2+ and the completeness of a 1+: moderate to intense
        but incomplete, per cent. With the cells of 2+ and above they decide whether the score is 2+.
    membrane_staining, no_staining : float
        Share of cells above 0, and the rest, per cent: a 0 "with membrane staining" and one of "no staining"
        are told apart by it, as measured, and never as an eligibility.
    score : str
        Empty where there is none.
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
        Cells in the regions that are taken for lymphocytes and stroma.
    left_out_percent : float
        Their share of the cells in the regions.
    score_with_left_out : str
        Score if they counted too; empty without a score.
    reasons : tuple of str
        Why there is no score, in sentences.
    regions : tuple of Summary
        Of each tumour region, in the order of `CellReading.region_names`.
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


_KNOWN: WeakKeyDictionary[CellReading, Summary] = WeakKeyDictionary()


def summarised(reading: CellReading) -> Summary:
    """Percentages, score and doubts of the counted cells of a reading, and of each of its regions.

    Parameters
    ----------
    reading : CellReading

    Returns
    -------
    Summary
        Of all regions together; without regions of all cells, and with no score. Made once a reading: the
        result and what shows it ask for the same one.
    """
    known = _KNOWN.get(reading)
    if known is None:
        _KNOWN[reading] = known = _summarised(reading)
    return known


def _summarised(reading: CellReading) -> Summary:
    together, *each = tallied(reading)
    ck90 = _ck90(reading)
    regions = tuple(map(partial(_summary, reading), each, reading.region_names, ck90[1:]))
    return _summary(reading, together, "", ck90[0], regions)


def _summary(
    reading: CellReading, found: Tallies, name: str, ck90: float, regions: tuple[Summary, ...] = ()
) -> Summary:
    tally = found.as_read
    shares, counts = tally.shares(), tally.classes
    cells, left_out = int(counts.sum()), tally.left_out
    percent = (counts * (100 / max(cells, 1))).tolist()
    at_least = (100.0 if cells else 0.0, shares.stained, shares.moderate, shares.intense)
    reasons = _reasons(reading, cells)
    answer = finding(shares, reading.rules)
    doubtful = [] if reasons else [each for each in doubts(reading, found) if each[0] != answer.score]
    return Summary(
        name=name,
        cells=cells,
        percentages=MappingProxyType(dict(zip(CLASSES, percent, strict=True))),
        at_least=MappingProxyType(dict(zip(CLASSES, at_least, strict=True))),
        incomplete=shares.incomplete,
        membrane_staining=shares.stained,
        no_staining=percent[0],
        score="" if reasons else answer.score,
        why="" if reasons else answer.why,
        alternatives=tuple(score for score in CLASSES if score in dict(doubtful)),
        borderline=" ".join(dict.fromkeys(reason for _, reason in doubtful)),
        h_score=sum(place * each for place, each in enumerate(percent)) if cells else float("nan"),
        ck90=ck90,
        left_out=left_out,
        left_out_percent=100 * left_out / max(cells + left_out, 1),
        score_with_left_out="" if reasons else finding(tally.shares(with_left_out=True), reading.rules).score,
        reasons=reasons,
        regions=regions,
    )


def _reasons(reading: CellReading, cells: int) -> tuple[str, ...]:
    own = ("" if reading.region_names else NO_REGION, too_few(cells))
    return tuple(dict.fromkeys(reason for reason in (*reading.reasons, *own) if reason))


def _ck90(reading: CellReading) -> list[float]:
    """Completeness x mass at the 90th percentile: of all counted cells, then of each region."""
    product = (reading.completeness * reading.raw_mass)[reading.counted] / np.float32(reading.rules.gain)
    regions = len(reading.region_names)
    if not regions:
        return [_percentile(product)]
    region = reading.region[reading.counted]
    ends = np.cumsum(np.bincount(region, minlength=regions))[:-1]
    parts = np.split(product[np.argsort(region, kind="stable")], ends)
    return [_percentile(product), *map(_percentile, parts)]


def _percentile(values: NDArray[np.float32]) -> float:
    return float(np.percentile(values, 90)) if len(values) else float("nan")
