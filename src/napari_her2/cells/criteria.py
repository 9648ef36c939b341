"""From percentages of cells to a score: the criteria of ASCO/CAP for the breast, and those for the stomach.

Breast: ASCO/CAP 2018, affirmed by the update of 2023 (Wolff et al., doi:10.1200/JCO.22.02864). Stomach:
ASCO/CAP/ASCP 2016 (Bartley et al., doi:10.1200/JCO.2016.69.4836). Every test below is one of "more than a
share", so that more or stronger membranes never give a lower score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_her2.cells.rules import CLASSES

if TYPE_CHECKING:
    from napari_her2.cells.rules import Rules

DECIDING_PERCENT = 10.0
"""Share of the tumour cells that decides: more than this in the breast, at least this in the stomach."""
LEAST_INTENSE_PERCENT = 1.0
"""Intense complete membranes in 10 % or fewer are 2+ from this share on: among thousands of cells that were
measured by rules a few are always misread (folds, specks, two cells taken for one)."""
CLUSTER_CELLS = 5
"""Cells of a cluster that decides in a biopsy of the stomach."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What the criteria look at, in per cent of the counted cells.

    Parameters
    ----------
    stained, moderate, intense : float
        Cells of 1+, 2+ and 3+, each with all above it.
    incomplete : float
        Cells below 2+ whose membrane has the mass of a 2+ without its completeness: moderate to intense but
        incomplete, as of basolateral or lateral staining.
    clusters : tuple of 3 int
        Cells of the largest cluster of 1+, 2+ and 3+ cells, each with all above it; 0 where not looked for.
    """

    stained: float
    moderate: float
    intense: float
    incomplete: float = 0.0
    clusters: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """A score with the criterion that gives it.

    Parameters
    ----------
    score : str
        "0", "1+", "2+" or "3+".
    why : str
        The criterion with its percentages, as words after the score.
    """

    score: str
    why: str


def finding(shares: Shares, rules: Rules) -> Finding:
    """Score of percentages by the criteria that the rules choose.

    Parameters
    ----------
    shares : Shares
    rules : Rules

    Returns
    -------
    Finding
    """
    if rules.gastric:
        return _gastric(shares, biopsy=rules.biopsy)
    return _breast(shares)


def _breast(shares: Shares) -> Finding:
    if shares.intense > DECIDING_PERCENT:
        return Finding("3+", f"{shares.intense:.1f} % of the cells are 3+, more than 10 %")
    if shares.moderate > DECIDING_PERCENT:
        return Finding("2+", f"{shares.moderate:.1f} % of the cells are 2+ or above, more than 10 %")
    if shares.moderate + shares.incomplete > DECIDING_PERCENT:
        return Finding(
            "2+",
            f"{shares.moderate + shares.incomplete:.1f} % of the cells are stained at least moderately, more "
            f"than 10 %, most of them incompletely",
        )
    if shares.intense >= LEAST_INTENSE_PERCENT:
        return Finding("2+", f"{shares.intense:.1f} % of the cells are 3+, which is not more than 10 %")
    if shares.stained > DECIDING_PERCENT:
        return Finding("1+", f"{shares.stained:.1f} % of the cells are 1+ or above, more than 10 %")
    return Finding("0", f"{shares.stained:.1f} % of the cells are 1+ or above, not more than 10 %")


def _gastric(shares: Shares, *, biopsy: bool) -> Finding:
    held = (shares.stained, shares.moderate, shares.intense)
    for place in (3, 2, 1):
        name, share, cluster = CLASSES[place], held[place - 1], shares.clusters[place - 1]
        above = name if place == 3 else f"{name} or above"
        if biopsy and cluster >= CLUSTER_CELLS:
            return Finding(name, f"a cluster of {cluster:,} cells is {above}, at least 5 decide in a biopsy")
        if not biopsy and share >= DECIDING_PERCENT:
            return Finding(name, f"{share:.1f} % of the cells are {above}, at least 10 %")
    if biopsy:
        return Finding("0", "no cluster of 5 cells is 1+ or above")
    return Finding("0", f"{shares.stained:.1f} % of the cells are 1+ or above, fewer than 10 %")
