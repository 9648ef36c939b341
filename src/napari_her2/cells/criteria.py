"""From percentages of cells to a score: the criteria of ASCO/CAP for the breast, and those for the stomach.

Breast: ASCO/CAP 2018, affirmed by the update of 2023 (Wolff et al., doi:10.1200/JCO.22.02864). Stomach:
CAP/ASCP/ASCO 2016 (Bartley et al., doi:10.1200/JCO.2016.69.4836). Every criterion asks for more than a share,
or for at least a number, so that more or stronger membranes never give a lower score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.cells.rules import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_her2.cells.rules import Rules

DECIDING_PERCENT = 10.0
"""Share of the tumour cells that decides: more than this in the breast, at least this in the stomach."""
NEAR_PERCENT = (5.0, 15.0)
"""A deciding share within these is too near to 10 % to be relied on."""
LEAST_INTENSE_PERCENT = 1.0
"""Intense and complete membranes in 10 % or fewer are 2+ from this share on: among thousands of cells that
were measured by rules a few are always misread (folds, specks, two cells taken for one)."""
CLUSTER_CELLS = 5
"""Cells of a cluster that decides in a biopsy of the stomach."""
LEAST_CELLS = 100
"""With fewer counted cells there is no score."""
_JUST = 1e-6


@dataclass(frozen=True, slots=True)
class Shares:
    """What the criteria look at: the counted cells in per cent, and clusters of them.

    Parameters
    ----------
    stained, moderate, intense : float
        Cells of 1+, 2+ and 3+, each with all above it.
    incomplete : float
        Cells below 2+ whose membrane has the mass of a 2+ without its completeness: moderate to intense but
        incomplete, as basolateral and lateral staining is.
    clusters : tuple of 3 int
        Cells of the largest cluster of 1+, 2+ and 3+ cells, each with all above it; 0 where not looked for.
    """

    stained: float
    moderate: float
    intense: float
    incomplete: float = 0.0
    clusters: tuple[int, int, int] = (0, 0, 0)

    @property
    def thick(self) -> float:
        """Cells stained at least moderately, completely or not, per cent."""
        return self.moderate + self.incomplete


@dataclass(frozen=True, slots=True)
class Finding:
    """A score with the criterion that gives it.

    Parameters
    ----------
    score : str
        "0", "1+", "2+" or "3+".
    why : str
        The criterion with its percentages, in words.
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
        return _gastric_biopsy(shares) if rules.biopsy else _gastric(shares)
    return _breast(shares)


def near_findings(shares: Shares, rules: Rules) -> Iterator[tuple[str, str]]:
    """Scores that percentages close to the deciding one could as well be, each with the reason in a sentence.

    A share within `NEAR_PERCENT` is put on the other side of 10 %. That changes nothing where another share
    decides, so it is asked of all; scores may come more than once, and the score itself as well.

    Parameters
    ----------
    shares : Shares
    rules : Rules

    Yields
    ------
    score, reason : str
    """
    if rules.gastric and rules.biopsy:
        yield from _near_clusters(shares, rules)
        return
    thick = shares.moderate if rules.gastric else shares.thick
    for place, percent in ((3, shares.intense), (2, thick), (1, shares.stained)):
        if NEAR_PERCENT[0] <= percent <= NEAR_PERCENT[1]:
            other = finding(_across(shares, place, percent, rules), rules).score
            near = f"{percent:.1f} % of the cells are {_or_above(place)}, near the 10 % that decide"
            yield other, f"{near}: it may be {other}."
    if not rules.gastric and 0 < shares.intense <= DECIDING_PERCENT:
        other = finding(replace(shares, intense=0.0), rules).score
        yield other, f"Without the {shares.intense:.1f} % of 3+ cells it is {other}."


def too_few(cells: int) -> str:
    """Say that so few counted cells give no score; empty where they do."""
    if cells >= LEAST_CELLS:
        return ""
    found = "No cell is" if not cells else f"Only {cells} {'cell is' if cells == 1 else 'cells are'}"
    return f"{found} counted, at least {LEAST_CELLS} are needed: draw a larger tumour region."


def _breast(shares: Shares) -> Finding:
    if shares.intense > DECIDING_PERCENT:
        return Finding("3+", f"{shares.intense:.1f} % of the cells are 3+, more than 10 %")
    if shares.moderate > DECIDING_PERCENT:
        return Finding("2+", f"{shares.moderate:.1f} % of the cells are 2+ or above, more than 10 %")
    if shares.thick > DECIDING_PERCENT:
        return Finding(
            "2+",
            f"{shares.thick:.1f} % of the cells are stained moderately or more, more than 10 %, "
            f"{shares.incomplete:.1f} % of them incompletely",
        )
    if shares.intense >= LEAST_INTENSE_PERCENT:
        return Finding("2+", f"{shares.intense:.1f} % of the cells are 3+, but not more than 10 %")
    if shares.stained > DECIDING_PERCENT:
        return Finding("1+", f"{shares.stained:.1f} % of the cells are 1+ or above, more than 10 %")
    return Finding("0", f"{shares.stained:.1f} % of the cells are 1+ or above, not more than 10 %")


def _gastric(shares: Shares) -> Finding:
    for place, share in ((3, shares.intense), (2, shares.moderate), (1, shares.stained)):
        if share >= DECIDING_PERCENT:
            return Finding(
                CLASSES[place], f"{share:.1f} % of the cells are {_or_above(place)}, at least 10 %"
            )
    return Finding("0", f"{shares.stained:.1f} % of the cells are 1+ or above, fewer than 10 %")


def _gastric_biopsy(shares: Shares) -> Finding:
    for place in (3, 2, 1):
        cells = shares.clusters[place - 1]
        if cells >= CLUSTER_CELLS:
            return Finding(CLASSES[place], f"a cluster of {cells:,} cells is {_or_above(place)}")
    return Finding("0", f"no cluster of {CLUSTER_CELLS} cells is 1+ or above")


def _near_clusters(shares: Shares, rules: Rules) -> Iterator[tuple[str, str]]:
    for at, cells in enumerate(shares.clusters):
        if cells not in (CLUSTER_CELLS - 1, CLUSTER_CELLS):
            continue
        # A cluster holds those of the higher classes: they change with it, so that they stay in order.
        if cells < CLUSTER_CELLS:
            turned = [max(held, CLUSTER_CELLS) if k <= at else held for k, held in enumerate(shares.clusters)]
        else:
            turned = [min(held, cells - 1) if k >= at else held for k, held in enumerate(shares.clusters)]
        other = finding(replace(shares, clusters=(turned[0], turned[1], turned[2])), rules).score
        where = f"The largest cluster of {_or_above(at + 1)} has {cells} cells"
        yield other, f"{where}, and {CLUSTER_CELLS} decide: it may be {other}."


def _across(shares: Shares, place: int, held: float, rules: Rules) -> Shares:
    """Return shares with that of one class on the other side of 10 %, and the rest in order with it."""
    every = ((1, shares.stained), (2, shares.moderate), (3, shares.intense))
    if held > DECIDING_PERCENT or (held == DECIDING_PERCENT and rules.gastric):
        just = DECIDING_PERCENT - _JUST
        stained, moderate, intense = (min(share, just) if k >= place else share for k, share in every)
        return Shares(stained, moderate, intense, shares.incomplete if place == 3 else 0.0)
    just = DECIDING_PERCENT + _JUST
    stained, moderate, intense = (max(share, just) if k <= place else share for k, share in every)
    return Shares(stained, moderate, intense, shares.incomplete)


def _or_above(place: int) -> str:
    return CLASSES[place] if place == len(CLASSES) - 1 else f"{CLASSES[place]} or above"
