"""The answer inside the regions beside that of the rest of the tissue, each by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_her2.errors import Her2Error
from napari_her2.inference.presentation import trust_line
from napari_her2.inference.regions import as_regions
from napari_her2.inference.withheld import without_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_her2.inference.region_kinds import Region
    from napari_her2.inference.regions import Regions
    from napari_her2.inference.result import SlideResult


@dataclass(frozen=True, slots=True)
class Side:
    """What is shown of one side.

    Parameters
    ----------
    answer : str
        As the card words it; that of one that is withheld says so and nothing else. Why there is none, where
        there is no result.
    trust : str
        Its set, and how familiar the tissue of this side is.
    counted : int
        Tiles that were scored, or cells.
    unit : str
        What is counted.
    tissue_mm2 : float
    """

    answer: str
    trust: str = ""
    counted: int = 0
    unit: str = "tiles"
    tissue_mm2: float = 0.0


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of the regions.

    Parameters
    ----------
    inside, outside : Side
    """

    inside: Side
    outside: Side


def outside_of(regions: Regions) -> tuple[Region, ...]:
    """Return regions that leave the rest of the tissue: what was drawn as tumour is left out of it.

    Parameters
    ----------
    regions : Regions

    Returns
    -------
    tuple of Region
        What is excluded by its kind, such as control tissue and folds, is left out on both sides. Empty where
        no tumour was drawn: then all that is not excluded is inside.
    """
    drawn = as_regions(regions)
    if not any(region.included for region in drawn):
        return ()
    return tuple(replace(of, kind="other") if of.included else of for of in drawn)


def side_of(result: SlideResult) -> Side:
    """Say what is shown of a result as one side."""
    seen, scored = without_answer(result), result.slides[0]
    cells = scored.cells
    return Side(
        answer=seen.label,
        trust=trust_line(seen),
        counted=len(scored.table) if cells is None else len(cells.cells),
        unit="tiles" if cells is None else "cells",
        tissue_mm2=scored.tissue_mm2,
    )


def outer_side(answer: Callable[[Regions], SlideResult], regions: Regions) -> Side:
    """Answer for the rest of the tissue.

    Parameters
    ----------
    answer : callable
        Answers for regions.
    regions : Regions

    Returns
    -------
    Side
        In words where there is nothing to answer for.
    """
    rest = outside_of(regions)
    if not rest:
        return Side("no tumour region is drawn: there is nothing outside")
    try:
        return side_of(answer(rest))
    except Her2Error as problem:
        return Side(str(problem))
